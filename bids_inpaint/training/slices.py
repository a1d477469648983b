"""Axial slices with holes as training samples, for all engines that fill slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.inpainting import to_fill
from bids_inpaint.networks.slices import offsets, upper_limit
from bids_inpaint.space import MIRROR
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects
from bids_inpaint.training.parameters import draw_centre, draw_image, moved
from bids_inpaint.training.patches import Place
from bids_inpaint.training.synthesis import change_contrast
from bids_inpaint.training.task import Samples

#: Share of holes that are the lesions of a patient where they are; the others are drawn blobs.
PATIENT = 0.5
#: Edge in voxels of the square holes of Armanious et al. 2019.
SQUARE = 64
#: Slices that a square goes on for.
DEPTH = 24


def slice_card(config: Config, network: Any) -> dict[str, Any]:
    """What the card of a network that fills slices says of them: how large they are, and what it sees.

    Parameters
    ----------
    config : Config
    network : Architecture
        Has ``mirror`` and ``neighbours``.
    """
    return {
        "edge": config.schedule.patch,
        **({"mirror": True} if network.mirror else {}),
        **({"neighbours": network.neighbours} if network.neighbours else {}),
    }


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
        Where samples go.

    Yields
    ------
    image : Tensor, (1, size, size)
        0 (background) to 1 (:func:`bids_inpaint.networks.slices.upper_limit`).
    visible : Tensor, (:func:`bids_inpaint.networks.card.slice_channels`, size, size)
        The image with 0 in a hole; the hole, 0 or 1; and both of the neighbouring slices and of the mirrored
        one, if the network looks at them.

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
        self.limits: dict[str, float] = {}

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        size = self.config.schedule.patch
        centre = draw_centre(rng, self.shapes)
        corner = (*np.round(centre[:2] - size / 2).astype(int).tolist(), int(centre[2]))
        low, high = min(self.offsets), max(self.offsets)
        place = Place((*corner[:2], corner[2] + low), (size, size, high - low + 1), bool(rng.random() < 0.5))
        appearance = draw_image(rng, subject.grey_level, self.config.synthesis.vary)
        slab = place.crop(subject.image).permute(2, 0, 1)
        # brains are not quite symmetric, nor quite in the middle
        shift = int(np.round(rng.normal(0, 1.5)))
        if self.mirror:
            other = replace(place, corner=corner, size=(size, size, 1), flip=not place.flip)
            slab = torch.cat([slab, other.crop(subject.image, (shift, 0, 0)).permute(2, 0, 1)])
        if self.config.synthesis.vary:
            slab = warped(rng, slab)
        white = slab[: high - low + 1] > (1 + subject.grey_level) / 2
        holes = torch.from_numpy(self.holes(rng, corner, white.numpy()))
        chosen = slab[[*(offset - low for offset in self.offsets), *([-1] if self.mirror else [])]]
        limit = torch.tensor([self.limit(subject)])
        both = change_contrast(torch.cat([chosen.flatten(), limit]), subject.grey_level, appearance)
        slices = (both[:-1] / both[-1]).clamp(0, 1).reshape(-1, size, size)
        straight = slices[: len(self.offsets)]
        drawn, holes = holes, holes * (straight > 0)
        visible = torch.stack([straight * (1 - holes), holes], 1).flatten(0, 1)
        if self.mirror:
            missing = mirrored(drawn[0], corner[0], shift)
            visible = torch.cat([visible, slices[-1:] * (1 - missing), missing[None]])
        return slices[:1].to(self.device), visible.to(self.device)

    def holes(self, rng: np.random.Generator, corner: Sequence[int], white: np.ndarray) -> np.ndarray:
        """Draw what is missing in a square of a slice and of its neighbours: see :func:`draw_holes`."""
        return draw_holes(rng, self.shapes, corner, white, self.offsets)

    def limit(self, subject: Subject) -> float:
        """The intensity of a subject's image that becomes 1."""
        if subject.name not in self.limits:
            self.limits[subject.name] = upper_limit(np.asarray(subject.image, np.float32))
        return self.limits[subject.name]


def warped(rng: np.random.Generator, slices: Tensor) -> Tensor:
    """The same small change of shape of slices (N, H, W): turned, stretched, sheared and bent."""
    angle, shear = rng.normal(0, 0.08), rng.normal(0, 0.05)
    (cos, sin), scales = (np.cos(angle), np.sin(angle)), np.exp(rng.normal(0, 0.06, 2))
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(scales)
    affine = torch.tensor(np.column_stack([matrix, [0, 0]])[None], dtype=torch.float32)
    grid = functional.affine_grid(affine, [1, 1, *slices.shape[1:]], align_corners=False)
    # of some 2 voxels, over some 20
    knots = torch.from_numpy(rng.normal(0, 4 / slices.shape[1], (1, 2, 5, 5)).astype(np.float32))
    bend = functional.interpolate(knots, slices.shape[1:], mode="bicubic", align_corners=False)
    grid = grid + bend.permute(0, 2, 3, 1)
    look = partial(functional.grid_sample, grid=grid, padding_mode="reflection", align_corners=False)
    inside = look((slices[None] > 0).float())[0] > 0.5
    return look(slices[None], mode="bicubic")[0].clamp(min=1e-3) * inside


def mirrored(hole: Tensor, start: int, shift: int) -> Tensor:
    """The hole of a square in the mirrored slice.

    Parameters
    ----------
    hole : Tensor, (size, size)
    start : int
        First voxel of the square, left to right.
    shift : int
        Voxels that the mirrored slice is moved by.
    """
    size = len(hole)
    source = MIRROR - (start + torch.arange(size) - shift) - start
    inside = (source >= 0) & (source < size)
    return hole[source.clamp(0, size - 1)] * inside[:, None]


def draw_holes(
    rng: np.random.Generator,
    shapes: Lesions,
    corner: Sequence[int],
    white: np.ndarray,
    offsets: Sequence[int] = (0,),
) -> np.ndarray:
    """Draw what is missing in a square of a slice and of others: lesions as they are filled, or blobs.

    Parameters
    ----------
    rng : Generator
    shapes : Lesions
    corner : sequence of int
        First voxel of the square, with its slice.
    white : array of bool, shape (max(offsets) - min(offsets) + 1, size, size)
        White matter, where lesions are, of all slices from the lowest to the highest.
    offsets : sequence of int
        Of the slices to that one.

    Returns
    -------
    array of float32, shape (len(offsets), size, size)
    """
    low, high = min(offsets), max(offsets)
    hole, size = np.zeros(white.shape, bool), white.shape[1]
    if rng.random() < PATIENT:
        # of several patients: large loads are rare
        chosen = rng.integers(len(shapes.patients), size=rng.integers(1, 5))
        lesions = [voxels for i in chosen for voxels in moved(rng, shapes.patients[i])]
        voxels = np.round(np.concatenate(lesions) - np.asarray(corner)).astype(int)
        voxels = voxels[:, [2, 0, 1]] - [low, 0, 0]
        voxels = voxels[((voxels >= 0) & (voxels < hole.shape)).all(1)]
        hole[tuple(voxels.T)] = True
        hole = to_fill(hole & white)
    if not hole[-low].any():
        for _ in range(rng.integers(1, 4)):
            inwards = ndimage.distance_transform_edt(draw_blob(rng, size))
            # an ellipsoid along the slices, cut somewhere
            half = 3 * np.exp(rng.uniform(0, np.log(6)))
            depths = rng.uniform(-0.9, 0.9) + np.arange(low, high + 1) / half
            hole |= inwards > (depths**2)[:, None, None] * inwards.max()
    return hole[np.asarray(offsets) - low].astype(np.float32)


def draw_blob(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a blob of a radius of some 3 to 25 voxels near the middle of a square, (size, size) bool."""
    x, y = np.mgrid[:size, :size] - (size / 2 + rng.normal(0, min(size, 128) / 6, 2))[:, None, None]
    angle, radius = np.arctan2(y, x), 3 * np.exp(rng.uniform(0, np.log(8)))
    waves = [rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
    return np.hypot(x, y) < radius * (1 + np.sum(waves, 0))
