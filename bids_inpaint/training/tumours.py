"""Tumour-like regions, and healthy masks as the BraTS challenge on inpainting draws them (pure arrays)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint.space import bounding_box

#: Share of the challenge's 1,429 tumour compartments that are no larger than this per cent of the brain: read
#: from the histogram in the notebook that makes its data.
SHARES = (0.0, 0.13, 0.5, 0.75, 0.9, 0.97, 1.0)
SIZES = (0.055, 0.75, 5.3, 8.7, 11.2, 14.0, 22.5)
#: The challenge's parameters: voxels that a tumour is dilated by and that the healthy mask keeps from it,
#: points of which the one farther from the tumour is taken, width of the window of sizes, and share of the
#: mask that lies in the brain.
DILATED, APART, POINTS, TOLERANCE, INSIDE = 5, 5.0, 2, 0.1, 0.75
#: Half the edge of the box that a compartment is drawn in, in radii of the sphere of its volume, and its
#: cells.
REACH, CELLS = 1.8, 49j
#: Wave lengths, in these radii, and heights of the bumps of a compartment.
ROUGHNESS = ((0.5, 0.22), (0.15, 0.08))
#: Sizes and places that are tried for one tumour, before it is drawn anew.
TRIES = 100


def draw_size(rank: float, brain: int) -> int:
    """Voxels of the compartment with this rank among those of the challenge, 0-1, in a brain of so many.

    Examples
    --------
    >>> draw_size(0.5, 1_400_000)
    74200
    """
    return round(float(np.interp(rank, SHARES, SIZES)) / 100 * brain)


def draw_compartment(rng: np.random.Generator, voxels: int) -> np.ndarray:
    """Draw a tumour-like shape: a turned ellipsoid with a border that is rough like that of an oedema.

    Parameters
    ----------
    rng : Generator
    voxels : int
        About its volume.

    Returns
    -------
    array of bool
        Its bounding box.
    """
    # distances in units of the radius of the sphere, on a lattice that is finer or coarser than the voxels
    where = np.mgrid[-REACH:REACH:CELLS, -REACH:REACH:CELLS, -REACH:REACH:CELLS]
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ where.reshape(3, -1)
    axes = np.exp(rng.normal(0, 0.2, 3))
    far = np.sqrt(((turned / axes[:, None]) ** 2).sum(0)).reshape(where.shape[1:])
    for scale, height in ROUGHNESS:
        noise = ndimage.gaussian_filter(rng.normal(size=far.shape), scale * len(far) / (2 * REACH))
        far = far + height * noise / noise.std()
    edge = 2 * REACH * (3 * voxels / (4 * np.pi)) ** (1 / 3)
    far = ndimage.zoom(far, np.ceil(edge) / len(far), order=1)
    shape = far <= np.partition(far.ravel(), voxels - 1)[voxels - 1]
    labels, _ = ndimage.label(shape, np.ones((3, 3, 3)))
    largest = ndimage.binary_fill_holes(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    return largest[bounding_box(largest)]


def draw_masks(
    rng: np.random.Generator, brain: np.ndarray, tumour: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a healthy mask as the challenge does, for a tumour that is there or that is drawn, too.

    Parameters
    ----------
    rng : Generator
    brain : array of bool
    tumour : array of bool, optional
        What is not healthy. If there is none, a compartment of the challenge's sizes, somewhere in the brain.

    Returns
    -------
    healthy, unhealthy : array of bool
        The healthy mask, and the dilated tumour. The healthy one may reach beyond the brain.

    Raises
    ------
    ValueError
        If there is no room for a healthy mask beside the tumour.

    Notes
    -----
    The larger the tumour, the smaller the mask: their ranks among the challenge's compartments add up to 1,
    within a window. The mask lies at least 5 voxels from the dilated tumour and with three quarters in the
    brain; of two places, the one farther from the tumour is taken (Kofler et al. 2023, arXiv:2305.08992,
    section 2.2).
    """
    size = int(brain.sum())
    for _ in range(10):
        if tumour is not None:
            unhealthy = tumour & brain
            rank = float(np.interp(100 * unhealthy.sum() / size, SIZES, SHARES))
        else:
            rank = rng.random()
            compartment = draw_compartment(rng, draw_size(rank, size))
            box = _place(compartment, int(rng.choice(np.flatnonzero(brain))), brain)
            if box is None:
                continue
            unhealthy = np.zeros_like(brain)
            unhealthy[box] = compartment & brain[box]
        apart = ndimage.distance_transform_edt(~unhealthy) - DILATED
        healthy = _draw_healthy(rng, brain, apart, rank)
        if healthy is not None:
            return healthy, unhealthy | (apart < 0)
    raise ValueError("there is no room for a healthy mask beside what is not healthy")


def _draw_healthy(
    rng: np.random.Generator, brain: np.ndarray, apart: np.ndarray, rank: float
) -> np.ndarray | None:
    """A healthy mask at these distances from the dilated tumour of a rank; None if none was found."""
    places = np.flatnonzero(brain & (apart > APART))
    if not places.size:
        return None
    size = int(brain.sum())
    for _ in range(TRIES):
        points = rng.choice(places, POINTS)
        point = int(points[apart.ravel()[points].argmax()])
        other = np.clip(1 - rank + TOLERANCE * (rng.random() - 0.5), 0, 1)
        compartment = draw_compartment(rng, draw_size(float(other), size))
        box = _place(compartment, point, brain)
        if box is not None and apart[box][compartment].min() >= APART:
            healthy = np.zeros_like(brain)
            healthy[box] = compartment
            return healthy
    return None


def _place(compartment: np.ndarray, point: int, brain: np.ndarray) -> tuple[slice, ...] | None:
    """Where a compartment lies with its middle at a voxel; None if that is outside of volume or brain."""
    middle = np.unravel_index(point, brain.shape)
    first = [int(p) - n // 2 for p, n in zip(middle, compartment.shape, strict=True)]
    last = [f + n for f, n in zip(first, compartment.shape, strict=True)]
    if min(first) < 0 or any(a > b for a, b in zip(last, brain.shape, strict=True)):
        return None
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return box if (compartment & brain[box]).sum() >= INSIDE * compartment.sum() else None
