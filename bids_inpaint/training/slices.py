"""Axial slices with holes as training samples, for all engines that fill slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from bids_inpaint.networks.slices import offsets, upper_limit
from bids_inpaint.space import MIRROR
from bids_inpaint.training.brains import Brains
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects
from bids_inpaint.training.filters import to_device
from bids_inpaint.training.inpainting import fill_mask
from bids_inpaint.training.missing import Kind, draw_missing
from bids_inpaint.training.painters import RealLesions
from bids_inpaint.training.parameters import ImageParameters, draw_centre, draw_image
from bids_inpaint.training.patches import Place
from bids_inpaint.training.synthesis import change_contrast
from bids_inpaint.training.task import Drawn, Samples


def slice_card(config: Config, network: Any) -> dict[str, Any]:
    """What the card of a network that fills slices says of them: how large they are, and what it sees.

    Parameters
    ----------
    config : Config
    network : Architecture
        Has ``mirror``, ``neighbours`` and ``together``.
    """
    return {
        "edge": config.schedule.patch,
        **({"mirror": True} if network.mirror else {}),
        **({"neighbours": network.neighbours} if network.neighbours else {}),
        **({"together": True} if network.together else {}),
    }


@dataclass(frozen=True)
class Recipe:
    """All that a slice and its neighbours are made of.

    Attributes
    ----------
    index, subject : int
        Of the sample, and of the brain.
    place : Place
        Of the slab from the lowest neighbour to the highest.
    shift : int
        Voxels that the mirrored slice is moved by.
    appearance : ImageParameters
    shape : array of float32, (56,), optional
        Six numbers of an affine, then two displacements of each of 25 knots: see :func:`warped`.
    kind : {'lesions', 'tissue', 'beyond'}
        Whether the hole is kept to white matter and grown by a voxel, as lesions are filled; kept to the
        brain; or as it is.
    hole : array of uint8
        The hole in the slab, (slices, size, size), as bits.
    chance : float
        0-1, for what else is drawn of the sample.
    """

    index: int
    subject: int
    place: Place
    shift: int
    appearance: ImageParameters
    shape: np.ndarray | None
    kind: Kind
    hole: np.ndarray
    chance: float


@dataclass(frozen=True)
class Made:
    """Slices of a batch, as they are made.

    Attributes
    ----------
    slices, holes : Tensor, (N, K, size, size)
        The slice that is to be filled, and then its neighbours, 0 (background) to 1
        (:func:`bids_inpaint.networks.slices.upper_limit`), whole; and what is missing of them, 0 or 1.
    other : Tensor, (N, 2, size, size) or (N, 0, size, size)
        The mirrored slice with 0 where it is missing, and where it is, if the network looks at it.
    """

    slices: Tensor
    holes: Tensor
    other: Tensor

    @property
    def image(self) -> Tensor:
        """The slice that is to be filled, whole, (N, 1, size, size)."""
        return self.slices[:, :1]

    def visible(self, noisy: Tensor | None = None) -> Tensor:
        """What the network sees, (N, :func:`bids_inpaint.networks.card.slice_channels`, size, size).

        Parameters
        ----------
        noisy : Tensor, (N, K - 1, size, size), optional
            What it sees in the holes of the neighbours, in place of 0.
        """
        known = self.slices * (1 - self.holes)
        if noisy is not None:
            known = torch.cat([known[:, :1], known[:, 1:] + noisy * self.holes[:, 1:]], 1)
        return torch.cat([torch.stack([known, self.holes], 2).flatten(1, 2), self.other], 1)


class Slices(Samples):
    """Endless slices of healthy brains; slice *i* depends on the seed and on *i* alone.

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
    image : Tensor, (1, size, size)
    visible : Tensor, (:func:`bids_inpaint.networks.card.slice_channels`, size, size)
        Of :class:`Made`.

    Raises
    ------
    ValueError
        If a subject is not in the cache.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.mirror = bool(config.network.get("mirror"))
        self.offsets = offsets(config.network.get("neighbours", []))
        self.subjects = find_subjects(cache, config.data.train)
        self.brains = Brains(self.subjects, [], RealLesions([]), device)
        self.limits = np.array([self._limit(s) for s in self.subjects], np.float32)

    @staticmethod
    def _limit(subject: Subject) -> float:
        """The intensity of a subject's image that becomes 1."""
        return upper_limit(np.asarray(subject.image, np.float32))

    def draw(self, index: int) -> Recipe:
        """Draw the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        number = int(rng.integers(len(self.subjects)))
        size, synthesis = self.config.schedule.patch, self.config.synthesis
        centre = draw_centre(rng, self.shapes)
        corner = (*np.round(centre[:2] - size / 2).astype(int).tolist(), int(centre[2]))
        low, high = min(self.offsets), max(self.offsets)
        place = Place((*corner[:2], corner[2] + low), (size, size, high - low + 1), bool(rng.random() < 0.5))
        appearance = draw_image(rng, self.subjects[number].grey_level, synthesis.vary)
        # brains are not quite symmetric, nor quite in the middle
        shift = int(np.round(rng.normal(0, 1.5)))
        shape = draw_shape(rng, size) if synthesis.vary else None
        shares = synthesis.squares, synthesis.tumours
        hole, kind = draw_missing(rng, self.shapes, corner, size, (low, high), *shares)
        packed = np.packbits(hole)
        return Recipe(index, number, place, shift, appearance, shape, kind, packed, float(rng.random()))

    def make(self, recipes: Sequence[Recipe]) -> Made:
        """Make the slices of a batch."""
        which = np.array([r.subject for r in recipes])
        places, brains = [r.place for r in recipes], self.brains
        slab = brains.crop(brains.images, which, places).permute(0, 3, 1, 2).float()
        depth, low = slab.shape[1], min(self.offsets)
        if self.mirror:
            slab = torch.cat([slab, self._other(which, recipes, -low)], 1)
        shapes = [r.shape for r in recipes if r.shape is not None]
        if shapes:
            slab = warped(slab, to_device(np.stack(shapes), slab.device))
        levels = to_device(brains.levels[which].astype(np.float32), slab.device).view(-1, 1, 1, 1)
        holes = self._holes(recipes, slab[:, :depth] > (1 + levels) / 2)
        rows = [*(offset - low for offset in self.offsets), *([depth] if self.mirror else [])]
        limits = to_device(self.limits[which], slab.device)[:, None]
        chosen = torch.cat([slab[:, rows].flatten(1), limits], 1)[:, None, None]
        chosen = change_contrast(chosen, brains.levels[which], [r.appearance for r in recipes])
        slices = (chosen[..., :-1] / chosen[..., -1:]).clamp(0, 1).view(-1, len(rows), *slab.shape[2:])
        straight, drawn = slices[:, : len(self.offsets)], holes[:, rows[: len(self.offsets)]]
        other = slices[:, len(self.offsets) :]
        if self.mirror:
            starts, shifts = np.array([(r.place.corner[0], r.shift) for r in recipes]).T
            missing = mirrored(drawn[:, 0], starts, shifts)[:, None]
            other = torch.cat([other * (1 - missing), missing], 1)
        # what is missing beyond the brain is empty
        beyond = to_device(np.array([r.kind == "beyond" for r in recipes]), slab.device).view(-1, 1, 1, 1)
        return Made(straight, drawn * ((straight > 0) | beyond), other)

    def _other(self, which: np.ndarray, recipes: Sequence[Recipe], middle: int) -> Tensor:
        """The mirrored slice, (N, 1, size, size)."""
        places = []
        for place in (r.place for r in recipes):
            (x, y, z), size = place.corner, (*place.size[:2], 1)
            places.append(Place((x, y, z + middle), size, not place.flip))
        shifts = [(r.shift, 0, 0) for r in recipes]
        return self.brains.crop(self.brains.images, which, places, shifts).permute(0, 3, 1, 2).float()

    def _holes(self, recipes: Sequence[Recipe], white: Tensor) -> Tensor:
        """What is missing of the slabs, 0 or 1, shape of `white`."""
        bits = to_device(np.stack([r.hole for r in recipes]), white.device)
        places = torch.arange(7, -1, -1, device=white.device, dtype=torch.uint8)
        holes = ((bits[..., None] >> places) & 1).flatten(1)[:, : white[0].numel()].view_as(white).float()
        rows = np.flatnonzero([r.kind == "lesions" for r in recipes])
        if len(rows):
            those = to_device(rows, white.device)
            kept = (holes[those] * white[those])[:, None]
            holes.index_copy_(0, those, fill_mask(kept, torch.ones_like(kept))[:, 0])
        return holes

    def tensors(self, recipes: Sequence[Recipe]) -> list[Tensor]:
        """What this yields of a batch, each with one more axis at its beginning."""
        made = self.make(recipes)
        return [made.image, made.visible()]

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        return tuple(t[0] for t in self.tensors([self.draw(index)]))

    def batches(self, size: int, workers: int) -> Iterator[list[Tensor]]:
        """Endless batches that are drawn by processes and made on the device of the samples."""
        drawn = Drawn(self.draw, self.first, size)
        queue = DataLoader(
            drawn, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        for recipes in queue:
            yield self.tensors(recipes)


def draw_shape(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a small change of shape of a square: turned, stretched, sheared and bent."""
    angle, shear = rng.normal(0, 0.08), rng.normal(0, 0.05)
    (cos, sin), scales = (np.cos(angle), np.sin(angle)), np.exp(rng.normal(0, 0.06, 2))
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(scales)
    # of some 2 voxels, over some 20
    bend = rng.normal(0, 4 / size, 50)
    return np.concatenate([np.column_stack([matrix, [0, 0]]).ravel(), bend]).astype(np.float32)


def warped(slices: Tensor, shapes: Tensor) -> Tensor:
    """Change the shape of all slices of each sample alike.

    Parameters
    ----------
    slices : Tensor, (N, C, H, W)
    shapes : Tensor, (N, 56)
        Of :func:`draw_shape`.
    """
    size = [len(slices), 1, *slices.shape[2:]]
    grid = functional.affine_grid(shapes[:, :6].view(-1, 2, 3), size, align_corners=False)
    knots = shapes[:, 6:].view(-1, 2, 5, 5)
    bend = functional.interpolate(knots, size[2:], mode="bicubic", align_corners=False)
    look = partial(
        functional.grid_sample,
        grid=grid + bend.permute(0, 2, 3, 1),
        padding_mode="reflection",
        align_corners=False,
    )
    inside = look((slices > 0).float()) > 0.5
    return look(slices, mode="bicubic").clamp(min=1e-3) * inside


def mirrored(holes: Tensor, starts: np.ndarray, shifts: np.ndarray) -> Tensor:
    """The holes of squares in their mirrored slices.

    Parameters
    ----------
    holes : Tensor, (N, size, size)
    starts : array of int, (N,)
        First voxel of each square, left to right.
    shifts : array of int, (N,)
        Voxels that each mirrored slice is moved by.
    """
    size = holes.shape[1]
    source = to_device(MIRROR - 2 * starts[:, None] - np.arange(size) + shifts[:, None], holes.device)
    inside = (source >= 0) & (source < size)
    rows = source.clamp(0, size - 1)[..., None].expand_as(holes)
    return holes.gather(1, rows) * inside[..., None]
