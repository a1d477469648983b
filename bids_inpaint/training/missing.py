"""What is missing of the slices that a network learns to fill: lesions, blobs, tumours and squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from bids_inpaint.training.data import Lesions
from bids_inpaint.training.parameters import moved
from bids_inpaint.training.tumours import draw_compartment, draw_size

#: Share of holes that are the lesions of a patient where they are; the others are drawn blobs.
PATIENT = 0.5
#: Edge in voxels of the square holes of Armanious et al. 2019.
SQUARE = 64
#: Slices that a square goes on for.
DEPTH = 24
#: Voxels of a brain on the working grid, whose share a tumour is.
BRAIN = 1_900_000

#: Of a hole: lesions are kept to white matter, what is missing of tissue to the brain, and the rest may reach
#: beyond it, as tumours of the BraTS challenge do.
Kind = Literal["lesions", "tissue", "beyond"]


def draw_missing(
    rng: np.random.Generator,
    shapes: Lesions,
    corner: Sequence[int],
    size: int,
    depths: tuple[int, int] = (0, 0),
    squares: float = 0.0,
    tumours: float = 0.0,
) -> tuple[np.ndarray, Kind]:
    """Draw what is missing in a square of a slice and its neighbours: lesions, blobs, a tumour or a square.

    Parameters
    ----------
    rng : Generator
    shapes : Lesions
    corner : sequence of int
        First voxel of the square, with its slice.
    size : int
    depths : tuple of int
        Of the lowest and of the highest slice, relative to that one.
    squares : float
        Share of the holes that are the squares of Armanious et al. 2019.
    tumours : float
        Share of the others that are as large as those of the BraTS challenge. The rest are as often the
        lesions of patients, where they are, as blobs.

    Returns
    -------
    hole : array of bool, shape (depths[1] - depths[0] + 1, size, size)
    kind : {'lesions', 'tissue', 'beyond'}
        How far it may reach.
    """
    low, high = depths
    hole = np.zeros((high - low + 1, size, size), bool)
    if rng.random() < squares:
        x, y = (rng.normal(size / 2, size / 8, 2) - SQUARE / 2).round().clip(0, size - SQUARE).astype(int)
        first = -rng.integers(DEPTH)
        hole[max(first - low, 0) : first + DEPTH - low, x : x + SQUARE, y : y + SQUARE] = True
        return hole, "tissue"
    # nothing is drawn of what is not wanted, so that samples without it stay what they were
    if tumours and rng.random() < tumours:
        _place_tumour(rng, hole, -low)
        return hole, "beyond"
    if rng.random() < PATIENT:
        # of several patients: large loads are rare
        chosen = rng.integers(len(shapes.patients), size=rng.integers(1, 5))
        lesions = [voxels for i in chosen for voxels in moved(rng, shapes.patients[i])]
        voxels = np.round(np.concatenate(lesions) - np.asarray(corner)).astype(int)
        voxels = voxels[:, [2, 0, 1]] - [low, 0, 0]
        voxels = voxels[((voxels >= 0) & (voxels < hole.shape)).all(1)]
        hole[tuple(voxels.T)] = True
        if hole[-low].any():
            return hole, "lesions"
    for _ in range(rng.integers(1, 4)):
        inwards = ndimage.distance_transform_edt(draw_blob(rng, size))
        # an ellipsoid along the slices, cut somewhere
        half = 3 * np.exp(rng.uniform(0, np.log(6)))
        depth = rng.uniform(-0.9, 0.9) + np.arange(low, high + 1) / half
        hole |= inwards > (depth**2)[:, None, None] * inwards.max()
    return hole, "tissue"


def _place_tumour(rng: np.random.Generator, hole: np.ndarray, middle: int) -> None:
    """Put a tumour near the middle of a slab; any of its slices is in that of this index."""
    shape = draw_compartment(rng, draw_size(rng.random(), BRAIN)).transpose(2, 0, 1)
    here = rng.choice(np.flatnonzero(shape.any((1, 2))))
    size = hole.shape[1]
    centre = rng.normal(size / 2, size / 8, 2).clip(0, size - 1)
    first = [middle - int(here), *np.round(centre - np.array(shape.shape[1:]) / 2).astype(int).tolist()]
    inside = [(max(f, 0), min(f + n, m)) for f, n, m in zip(first, shape.shape, hole.shape, strict=True)]
    to = tuple(slice(low, high) for low, high in inside)
    source = tuple(slice(low - f, high - f) for (low, high), f in zip(inside, first, strict=True))
    hole[to] = shape[source]


def draw_blob(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a blob of a radius of some 3 to 25 voxels near the middle of a square, (size, size) bool."""
    x, y = np.mgrid[:size, :size] - (size / 2 + rng.normal(0, min(size, 128) / 6, 2))[:, None, None]
    angle, radius = np.arctan2(y, x), 3 * np.exp(rng.uniform(0, np.log(8)))
    waves = [rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
    return np.hypot(x, y) < radius * (1 + np.sum(waves, 0))
