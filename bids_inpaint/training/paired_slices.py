"""Slices of T1w, FLAIR and lesions as training samples, cut from stored pairs on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.pairs import by_kind
from bids_inpaint.training.parameters import draw_centre
from bids_inpaint.training.stored_pairs import Stored, make_pairs, order
from bids_inpaint.training.task import Drawn, Samples

#: Slices that are taken from one patch, and the distance of one from the next.
SLICES, GAP = 4, 3


@dataclass(frozen=True)
class Slab:
    """Where a sample is cut from.

    Attributes
    ----------
    pair : int
        Index of the stored pair.
    corner : tuple of int, length 3
        First voxel on the working grid.
    shift : tuple of int, length 3
        Voxels that the template is moved by: it fits some brains worse than those of the training.
    mirrored : bool
        Left to right.
    """

    pair: int
    corner: tuple[int, ...]
    shift: tuple[int, ...]
    mirrored: bool


class Pairs(Samples):
    """Endless samples of `SLICES` slices of a brain; sample *i* depends on the seed and on *i* alone.

    They are taken from whole pairs, some of each subject, that are made and stored in the cache first
    (:mod:`bids_inpaint.training.stored_pairs`). On a GPU all pairs are put into its memory.

    Parameters
    ----------
    config : Config
    cache : Path
    shapes : Lesions
    first : int
        Index of the first sample.
    device : str
        Where samples are made.

    Yields
    ------
    t1w : Tensor, (SLICES, 2·context + 1, size, size)
        White matter 1; followed by the template's white- and grey-matter probability, by the inpainted
        slice and by its lesion probability, if the network looks at them.
    flair, lesion : Tensor, (SLICES, 1, size, size)
        White matter 1, and 0 outside the brain; 0, 1, or :data:`bids_inpaint.training.pairs.UNKNOWN`.
    real : Tensor, (SLICES, 1, 1, 1)
        1 if the FLAIR was measured, and 0 if it was made.

    Raises
    ------
    ValueError
        If a subject is not in the cache, a patient has no FLAIR, or the blind network whose lesion
        probability is seen learned from a patient.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.context = int(config.network.get("context", 0))
        subjects = find_subjects(cache, config.data.train)
        kinds = by_kind(subjects)
        for patient in kinds.get("patients", []):
            patient.check_flair()
        priors = template_priors(cache)
        orders = order(subjects, shapes, config, cache)
        make_pairs((one for of_subject in orders.values() for one in of_subject), priors, cache)
        self.template = template_volumes(priors, device) if config.network.get("priors") else None
        self.stored: list[Stored] = []
        self.real: list[bool] = []
        #: Indices of the stored pairs by kind and by subject.
        self.kinds: list[list[list[int]]] = []
        for kind, group in kinds.items():
            self.kinds.append([])
            for subject in group:
                first_of = len(self.stored)
                self.stored += [Stored.load(one.folder, device) for one in orders[subject.name]]
                self.kinds[-1].append(list(range(first_of, len(self.stored))))
                self.real += [kind in ("patients", "unmarked")] * len(orders[subject.name])

    @property
    def size(self) -> tuple[int, int, int]:
        """Edges of a slab along X, Y and Z."""
        edge = self.config.schedule.patch
        return edge, edge, 2 * self.context + (SLICES - 1) * GAP + 1

    def draw(self, index: int) -> Slab:
        """Draw the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subjects = self.kinds[rng.integers(len(self.kinds))]
        drawn = subjects[rng.integers(len(subjects))]
        pair = drawn[rng.integers(len(drawn))]
        size = np.array(self.size)
        corner = np.round(draw_centre(rng, self.shapes) - size / 2)
        corner = corner.clip(0, np.array(WORKING_GRID.shape) - size).astype(int)
        shift = np.round(rng.normal(0, 1.5, 3)).astype(int)
        return Slab(pair, tuple(corner.tolist()), tuple(shift.tolist()), bool(rng.random() < 0.5))

    def make(self, slabs: Sequence[Slab]) -> list[Tensor]:
        """What this yields of a batch, each with one more axis at its beginning."""
        x, y, z = self.size
        stored = self.stored[slabs[0].pair].volumes.shape[0]
        priors = 2 if self.template else 0
        out = torch.zeros(len(slabs), stored + priors, z, x, y, device=self.device)
        for slab, into in zip(slabs, out, strict=True):
            self.stored[slab.pair].put(into[:stored], slab.corner)
            if self.template:
                moved = [c - s for c, s in zip(slab.corner, slab.shift, strict=True)]
                self.template.put(into[stored:], moved)
        middles = self.context + GAP * torch.arange(SLICES, device=self.device)
        around = middles[:, None] + torch.arange(-self.context, self.context + 1, device=self.device)
        t1w, others = out[:, 0][:, around], out[:, 1:][:, :, middles].transpose(1, 2)
        flair, lesion, seen, template = others.split([1, 1, stored - 3, priors], 2)
        made = [torch.cat([t1w, template, seen], 2), flair.contiguous(), lesion.contiguous()]
        for row in (i for i, slab in enumerate(slabs) if slab.mirrored):
            for part in made:
                part[row] = part[row].flip(-2)
        real = torch.tensor([self.real[slab.pair] for slab in slabs], dtype=torch.float32)
        made.append(real.view(-1, 1, 1, 1, 1).expand(-1, SLICES, -1, -1, -1).to(self.device))
        return made

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        return tuple(t[0] for t in self.make([self.draw(index)]))

    def batches(self, size: int, workers: int) -> Iterator[list[Tensor]]:
        """Endless batches that are drawn by processes and made on the device of the samples."""
        drawn = Drawn(self.draw, self.first, size)
        queue = DataLoader(
            drawn, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        for slabs in queue:
            yield self.make(slabs)


def template_volumes(priors: Sequence[np.ndarray], device: str) -> Stored:
    """White- and grey-matter probability of the template, as slices of the working grid."""
    volumes = torch.from_numpy(np.stack(priors).astype(np.float32)).permute(0, 3, 1, 2)
    return Stored(volumes.contiguous().to(device), (0, 0, 0))
