"""The lesions of a map, one by one (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.space import Grid

Array = np.ndarray


@dataclass(frozen=True)
class Lesion:
    """One lesion of the table.

    Attributes
    ----------
    label : int
        Its value in the labelled image.
    volume : float
        In mm³.
    centroid : tuple of float
        World coordinates in mm (RAS+).
    contrast : float
        Mean darkening, as a fraction of normal-appearing white matter at standard contrast.
    """

    label: int
    volume: float
    centroid: tuple[float, float, float]
    contrast: float


def tabulate(mask: Array, dark: Array, grid: Grid) -> tuple[Array, list[Lesion]]:
    """Label the lesions of a binary map and measure them, largest first.

    Parameters
    ----------
    mask : array of bool
    dark : array
        Darkening on the same grid.
    grid : Grid
        Gives volumes and coordinates.

    Returns
    -------
    labels : array of int
        0 background; 1 is the largest lesion.
    lesions : list of Lesion
    """
    labels, count = ndimage.label(mask, CONNECTIVITY)
    order = np.argsort(-np.bincount(labels.ravel(), minlength=count + 1)[1:], kind="stable") + 1
    rank = np.zeros(count + 1, np.int32)
    rank[order] = np.arange(1, count + 1)
    labels = rank[labels]
    if not count:
        return labels, []
    voxels = np.nonzero(labels)
    lesion = labels[voxels] - 1
    sizes = np.bincount(lesion)
    contrasts, *centres = (np.bincount(lesion, weights=v) / sizes for v in (dark[voxels], *voxels))
    world = np.stack(centres, 1) @ grid.matrix[:3, :3].T + grid.matrix[:3, 3]
    return labels, [
        Lesion(i, float(n * grid.voxel_volume), (float(x), float(y), float(z)), float(c))
        for i, (n, (x, y, z), c) in enumerate(zip(sizes, world, contrasts, strict=True), 1)
    ]
