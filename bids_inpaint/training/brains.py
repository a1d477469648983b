"""The brains that samples are cut from: memory-mapped files on a CPU, or all in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.training.data import Subject
from bids_inpaint.training.filters import joined, to_device
from bids_inpaint.training.painters import RealLesions
from bids_inpaint.training.patches import Place, pooled


class Brains:
    """Volumes on the working grid, of which patches are cut.

    Parameters
    ----------
    subjects : sequence of Subject
        Patients have their lesion-free targets.
    priors : sequence of array
        Probability of white and of grey matter in the template, if they are wanted: they are pooled, see
        :func:`bids_inpaint.training.patches.pooled`.
    real : RealLesions
        Of those subjects that are patients, in their order.
    device : str
        Of a GPU, all volumes are put into its memory.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        priors: Sequence[np.ndarray],
        real: RealLesions,
        device: str = "cpu",
    ):
        self.device = torch.device(device)
        self.levels = np.array([s.grey_level for s in subjects])
        self.means = np.array([s.mean_level for s in subjects], np.float32)
        self.patients = np.array([s.patient for s in subjects])
        those = [s for s in subjects if s.patient]
        self.images = self._kept([s.image for s in subjects])
        self.targets = self._kept([s.target for s in those])
        self.lesions = self._kept([s.lesions for s in those])
        self.priors = self._kept([pooled(p) for p in priors])
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
        which: Sequence[int] | np.ndarray,
        places: Sequence[Place],
        shifts: Sequence[tuple[int, ...]] | None = None,
        step: int = 1,
    ) -> Tensor:
        """Patches of volumes, (N, D, H, W): see :meth:`bids_inpaint.training.patches.Place.cut`.

        Parameters
        ----------
        volumes
            One of the attributes of this object.
        which : sequence of int
            The volume of each patch.
        places : sequence of Place, all of one size
        shifts : sequence of tuple of int, optional
            Voxels that each volume is moved by first.
        step : int
            Each cube of so many voxels is one voxel of the patch.
        """
        shifts = shifts or [(0, 0, 0)] * len(places)
        if not isinstance(volumes, Tensor):
            crops = [p.cut(volumes[i], s, step) for i, p, s in zip(which, places, shifts, strict=True)]
            return joined(crops).to(self.device)
        *shape, last = volumes.shape[1:]
        firsts, steps = np.array([p.lines(s, step) for p, s in zip(places, shifts, strict=True)]).swapaxes(
            0, 1
        )
        # the volume and the voxels along each axis, one after the other, in one copy
        indices = [np.asarray(which)[:, None]]
        for axis, edge in enumerate(places[0].size):
            along = firsts[:, axis, None] + steps[:, axis, None] * np.arange(edge // step)
            indices.append(along.clip(0, volumes.shape[axis + 1] - 1))
        sizes = [i.shape[1] for i in indices]
        number, x, y, z = to_device(np.concatenate(indices, 1), self.device).split(sizes, 1)
        plane = ((number * shape[0] + x)[:, :, None] * shape[1] + y[:, None])[..., None] * last
        return volumes.view(-1)[plane + z[:, None, None]]
