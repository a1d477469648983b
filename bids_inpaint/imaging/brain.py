"""Where the brain is: recognise stripped images, clean masks, extract brains of full heads."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.conform import commonest_at_faces
from bids_inpaint.imaging.feathering import neighbourhood
from bids_inpaint.space import Grid, bounding_box, resample

#: Brains, with or without surrounding CSF, lie in this range (mm³); heads are larger.
BRAIN_VOLUME = (0.5e6, 2.3e6)


def foreground(data: np.ndarray) -> np.ndarray:
    """Voxels that differ from the background, ringing of a resampled edge left out.

    The background is the commonest value on the faces of the volume.
    """
    background = np.float32(commonest_at_faces(data)[0])
    signal = data > background
    if not signal.any():
        return signal
    return data > background + 0.1 * (np.median(data[signal]) - background)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected part of a mask (an empty mask stays empty)."""
    labels, n = ndimage.label(mask)
    if n < 2:
        return np.asarray(mask, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def largest_part(data: np.ndarray) -> tuple[np.ndarray, float]:
    """The largest component of the foreground, and its share of it (0 if there is none)."""
    fore = foreground(data)
    part = largest_component(fore)
    return part, float(part.sum() / max(fore.sum(), 1))


def stripped_mask(
    data: np.ndarray, grid: Grid, largest: tuple[np.ndarray, float] | None = None
) -> np.ndarray | None:
    """Brain mask of an image that is already skull-stripped, else None.

    A stripped image is constant outside the brain, so its foreground is one blob of a brain's volume
    that holds nearly everything that differs from the background. A head has air noise, is too large, or has
    a skull.

    Parameters
    ----------
    data : array, three-dimensional
        Intensities in any unit.
    grid : Grid
        Its voxel lattice; gives volumes in mm³.
    largest : tuple, optional
        Of :func:`largest_part`, if it is known.
    """
    blob, share = largest or largest_part(data)
    low, high = BRAIN_VOLUME
    # it grows by its holes
    if share < 0.95 or blob.sum() * grid.voxel_volume >= high:
        return None
    radius = max(1, round(3 / float(grid.voxel_sizes.max())))
    padded = np.pad(blob, radius + 1)
    cross = ndimage.generate_binary_structure(3, 1)
    closed = ndimage.binary_closing(padded, cross, iterations=radius)[(slice(radius + 1, -radius - 1),) * 3]
    mask = ndimage.binary_fill_holes(closed)
    if not low < mask.sum() * grid.voxel_volume < high or has_skull(data, mask, grid):
        return None
    return mask


def has_skull(data: np.ndarray, mask: np.ndarray, grid: Grid) -> bool:
    """Whether a dark layer lies under the surface of a mask, as the skull does under the scalp.

    The median 6-9 or 9-12 mm deep is compared with that at 3-6 mm: it is 0.56-0.78 of it in 40 heads without
    air, whole, cropped or made smaller, and never below 1.0 in 24 brains of six scanners.

    Parameters
    ----------
    data : array, three-dimensional
        Intensities in any unit, 0 without signal.
    mask : array of bool
        What may be a brain.
    grid : Grid
    """
    steps = np.maximum(np.round(2 / grid.voxel_sizes).astype(int), 1)
    thin = tuple(slice(None, None, step) for step in steps)
    inside = np.pad(mask[thin], 1)
    depth = ndimage.distance_transform_edt(inside, sampling=grid.voxel_sizes * steps)[1:-1, 1:-1, 1:-1]
    values = data[thin]
    shells = [values[(depth > depth_mm) & (depth <= depth_mm + 3)] for depth_mm in (3, 6, 9)]
    if any(not shell.size for shell in shells):
        return False
    outer, *inner = (float(np.median(shell)) for shell in shells)
    return min(inner) < 0.88 * outer


def trim(
    mask: np.ndarray,
    grid: Grid,
    template: np.ndarray,
    template_grid: Grid,
    to_template: np.ndarray,
    margin: float = 4.0,
) -> np.ndarray:
    """Cut what lies outside the registered template's brain off an extracted mask, as neck and orbits.

    Parameters
    ----------
    mask : array of bool
        On `grid`.
    template : array of bool
        Brain of the template, on `template_grid`.
    to_template : array, shape (4, 4)
        Maps world points of the image onto the template (mm).
    margin : float
        How far outside the template's brain the mask may reach, in mm.
    """
    near = neighbourhood(template, template_grid, margin)
    box = bounding_box(mask)
    share = resample(near, template_grid, grid, to_template, 1, mask=mask[box], part=box)
    out = np.zeros_like(mask)
    out[box] = ndimage.binary_fill_holes(largest_component(share > 0.5))
    return out
