"""Rigid registration of two contrasts of a head."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint.errors import FilterFailed
from bids_inpaint.imaging.flair import mutual_information
from bids_inpaint.imaging.itk import register
from bids_inpaint.space import Grid, bounding_box, resample, upright

#: Voxel edge (mm) that images are resampled to, so that levels are alike for voxels of any size. In a brain
#: mask, a level of 9 mm leads astray.
_CUBE = 1.5


def rigid(
    fixed: np.ndarray, mask: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid, folder: str
) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) from one image of a head to another of any contrast.

    Of the registrations that begin where the headers place the images, and with the centres of mass on one
    another, the one with more mutual information is the result.

    Parameters
    ----------
    fixed, moving : array, three-dimensional
    mask : array of bool
        Brain of the fixed image, which the result depends on alone.
    fixed_grid, moving_grid : Grid
    folder : str
        For temporary files.

    Raises
    ------
    FilterFailed
        If the images don't overlap in either way.
    """
    box = bounding_box(mask, margin=10)
    part, grid, brain = fixed[box], fixed_grid.part(box), mask[box]
    seen, inside, target = (
        _cubes(image, on) for image, on in ((part, grid), (brain, grid), (moving, moving_grid))
    )
    inside = ndimage.binary_dilation(inside[0] > 0.5, iterations=2), inside[1]
    found = []
    for centred in (False, True):
        try:
            points = register(seen, target, "rigid", folder, 0, inside, centred)
        except FilterFailed:
            continue
        moved = resample(moving, moving_grid, grid, points, order=1)
        found.append((mutual_information(part, moved, brain), points))
    if not found:
        raise FilterFailed("antsRegistration found no overlap of the images")
    return max(found, key=lambda one: one[0])[1]


def _cubes(data: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """A volume on upright cubes."""
    cubes = upright(grid, _CUBE)
    return resample(np.asarray(data, np.float32), grid, cubes, order=1), cubes
