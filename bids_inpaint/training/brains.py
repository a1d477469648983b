"""The brains that samples are cut from: memory-mapped files on a CPU, or all of them in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.training.data import Subject
from bids_inpaint.training.painters import RealLesions
from bids_inpaint.training.filters import joined
from bids_inpaint.training.patches import Place


class Brains:
    """Volumes on the working grid, of which patches are cut.

    Parameters
    ----------
    subjects : sequence of Subject
        Patients have their lesion-free targets.
    priors : sequence of array
        Probability of white and of grey matter in the template, if they are wanted.
    real : RealLesions
        Of those subjects that are patients, in their order.
    device : str
        Of a GPU, all volumes are put into its memory.
    """

    def __init__(
        self, subjects: Sequence[Subject], priors: Sequence[np.ndarray], real: RealLesions, device: str = "cpu"
    ):
        self.device = torch.device(device)
        self.levels = np.array([s.grey_level for s in subjects])
        self.means = np.array([s.mean_level for s in subjects], np.float32)
        self.patients = np.array([s.patient for s in subjects])
        those = [s for s in subjects if s.patient]
        self.images = self._kept([s.image for s in subjects])
        self.targets = self._kept([s.target for s in those])
        self.lesions = self._kept([s.lesions for s in those])
        self.priors = self._kept(priors)
        self.real = real
        self._changes: Tensor | None = None

    @property
    def changes(self) -> Tensor | None:
        """What the lesions of the patients take away, (patients, ...), if there is any patient."""
        if self._changes is None and self.real.patients:
            self._changes = torch.from_numpy(np.stack(self.real.changes)).to(self.device)
        return self._changes

    def _kept(self, volumes: Sequence[np.ndarray]) -> Sequence[np.ndarray] | Tensor:
        if self.device.type == "cpu" or not len(volumes):
            return volumes
        kept = torch.empty((len(volumes), *volumes[0].shape), dtype=torch.float16, device=self.device)
        for place, volume in zip(kept, volumes, strict=True):
            place.copy_(torch.from_numpy(np.array(volume, np.float16)))
        return kept

    def crop(
        self,
        volumes: Sequence[np.ndarray] | Tensor,
        which: Sequence[int],
        places: Sequence[Place],
        shifts: Sequence[tuple[int, ...]] | None = None,
    ) -> Tensor:
        """Patches of volumes, (N, D, H, W): see :meth:`bids_inpaint.training.patches.Place.crop`.

        Parameters
        ----------
        volumes
            One of the attributes of this object.
        which : sequence of int
            The volume of each patch.
        places : sequence of Place, all of one size
        shifts : sequence of tuple of int, optional
            Voxels that each volume is moved by first.
        """
        shifts = shifts or [(0, 0, 0)] * len(places)
        if not isinstance(volumes, Tensor):
            crops = [p.crop(volumes[i], s) for i, p, s in zip(which, places, shifts, strict=True)]
            return joined(crops).to(self.device)
        shape = volumes.shape[1:]
        indices = [p.indices(shape, s) for p, s in zip(places, shifts, strict=True)]
        x, y, z = (torch.from_numpy(np.stack(i)).to(self.device) for i in zip(*indices, strict=True))
        number = torch.as_tensor(np.asarray(which), device=self.device)[:, None, None, None]
        return volumes[number, x[:, :, None, None], y[:, None, :, None], z[:, None, None]].float()
