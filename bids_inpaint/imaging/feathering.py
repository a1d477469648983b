"""Changes that fade out around lesions (pure arrays)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint.space import Grid, bounding_box

Array = np.ndarray

#: Filling is complete up to this distance from the lesion map, and fades out up to the second (mm).
FEATHER_MM = (1.0, 3.0)


def confine(image: Array, inpainted: Array, mask: Array, grid: Grid) -> Array:
    """Undo what a blind network changed away from lesions.

    All else is the image itself, so that its tissues are segmented as if there had been no network.

    Parameters
    ----------
    image, inpainted : array
        In one unit.
    mask : array of bool
        Of :func:`find_unsegmented`.
    grid : Grid
    """
    return image + feather(mask, grid) * (inpainted - image)


def feather(mask: Array, grid: Grid, distances: tuple[float, float] = FEATHER_MM) -> Array:
    """Weight of the filling: 1 up to the first distance (mm) from the mask, 0 from the second.

    Returns
    -------
    array of float32, 0-1
        Exactly 0 far from the mask, and everywhere for an empty mask.
    """
    inner, outer = distances
    ramp = np.clip((outer - distance(mask, grid, outer)) / (outer - inner), 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def neighbourhood(mask: Array, grid: Grid, reach: float) -> Array:
    """Voxels within a distance (mm) of a mask; none for an empty mask."""
    return distance(mask, grid, reach) <= reach


def distance(mask: Array, grid: Grid, reach: float) -> Array:
    """Distance of every voxel from a mask in mm, infinite where it is larger than `reach`."""
    out = np.full(np.shape(mask), np.inf, np.float32)
    if not np.any(mask):
        return out
    # only what surrounds the mask is computed
    box = bounding_box(mask, int(np.ceil(reach / grid.voxel_sizes.min())) + 1)
    distances = ndimage.distance_transform_edt(~np.asarray(mask[box], bool), sampling=grid.voxel_sizes)
    out[box] = np.where(distances <= reach, distances, np.inf)
    return out


def compose(original: Array, difference: Array, weight: Array, slope: float = 1.0) -> Array:
    """Original minus the weighted difference, in the on-disk type and unit of the original.

    Parameters
    ----------
    original : array
        Stored (unscaled) values of the T1w.
    difference : array
        Original minus healthy, in scaled intensities.
    weight : array
        0-1; where it is 0 the result is `original`, bit for bit.
    slope : float
        Scale factor of the stored values.

    Returns
    -------
    array
        Of the data type of `original`; integers are rounded and kept in range.
    """
    out = original.copy()
    dtype = original.dtype
    inside = weight > 0
    values = original[inside].astype(np.float64) - difference[inside] * weight[inside] / slope
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.round(values), limits.min, limits.max)
    out[inside] = values.astype(dtype)
    return out
