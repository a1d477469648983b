"""Planes through images on the voxels of a T1w, upright in the world however these are tilted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from bids_inpaint.reports.figures import ROWS
from bids_inpaint.space import Grid

Array = np.ndarray
Box = tuple[slice, ...]


def around(grid: Grid, centre: Array, reach: float) -> Box:
    """The part of a grid that a cube of the world meets.

    Parameters
    ----------
    grid : Grid
    centre : array, shape (3,)
        In mm (RAS+), within the grid.
    reach : float
        From the centre to the faces of the cube (mm).
    """
    inverse = np.linalg.inv(grid.matrix)
    middle = inverse[:3, :3] @ centre + inverse[:3, 3]
    away = np.abs(inverse[:3, :3]).sum(1) * reach + 1
    low = np.maximum(np.floor(middle - away), 0).astype(int)
    high = np.minimum(np.ceil(middle + away) + 1, grid.shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))


def plane(
    data: Array,
    grid: Grid,
    axis: int,
    centre: Array,
    size: Sequence[float],
    step: float,
    beyond: float = 0.0,
) -> Array:
    """Sample a plane of an image, trilinearly.

    Parameters
    ----------
    data : array, shape `grid.shape`
    grid : Grid
    axis : {0, 1, 2}
        Of the world, at a right angle to the plane.
    centre : array, shape (3,)
        Of the plane, in mm (RAS+).
    size : sequence of float, shape (2,)
        Width and height (mm).
    step : float
        Edge of a pixel (mm).
    beyond : float
        What is beyond the image.

    Returns
    -------
    array of float32, shape (height, width)
        The right of a person is at the right, the front at the right or above, and the top above.
    """
    _, across, up = next(row for row in ROWS if row[0] == axis)
    wide, high = (max(round(extent / step), 1) for extent in size)
    points = np.empty((3, high, wide))
    points[axis] = centre[axis]
    points[across] = centre[across] + step * (np.arange(wide) - (wide - 1) / 2)
    points[up] = (centre[up] + step * ((high - 1) / 2 - np.arange(high)))[:, None]
    inverse = np.linalg.inv(grid.matrix)
    voxels = np.tensordot(inverse[:3, :3], points, 1) + inverse[:3, 3].reshape(3, 1, 1)
    return ndimage.map_coordinates(data, voxels, np.float32, order=1, mode="grid-constant", cval=beyond)


def contours(view: Array, level: float = 0.5) -> Iterator[Array]:
    """The outlines of a mask that was sampled on a plane, each an array of points (x, y) in pixels.

    The origin is the upper left corner of the picture; an outline that leaves it is closed along its border.
    """
    from contourpy import contour_generator

    if (view > level).any():
        for line in map(np.asarray, contour_generator(z=np.pad(view, 1)).lines(level)):
            # the first pixel is padded, and coordinates are those of the middles of pixels
            yield line - 0.5
