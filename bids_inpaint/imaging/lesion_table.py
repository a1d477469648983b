"""The lesions of a map, one by one (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.imaging.uncertainty import LesionModel
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
    probability : float, optional
        Mean probability of its voxels, 0-1.
    probability_sd : float, optional
        Mean of the standard deviation of their probabilities between the brain and its mirror image.
    interval : tuple of float, optional
        Ends of the interval of its true volume, in mm³; from 0 if it may be no lesion.
    """

    label: int
    volume: float
    centroid: tuple[float, float, float]
    contrast: float
    probability: float | None = None
    probability_sd: float | None = None
    interval: tuple[float, float] | None = None


def tabulate(
    mask: Array, dark: Array, grid: Grid, probability: Array | None = None, doubt: Array | None = None
) -> tuple[Array, list[Lesion]]:
    """Label the lesions of a binary map and measure them, largest first.

    Parameters
    ----------
    mask : array of bool
    dark : array
        Darkening on the same grid.
    grid : Grid
        Gives volumes and coordinates.
    probability : array, optional
        Of a lesion, 0-1, on the same grid.
    doubt : array, optional
        Its standard deviation.

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
    means: list[list[float] | list[None]] = [
        [None] * count if v is None else (np.bincount(lesion, weights=v[voxels]) / sizes).tolist()
        for v in (probability, doubt)
    ]
    return labels, [
        Lesion(i, float(n * grid.voxel_volume), (float(x), float(y), float(z)), float(c), p, sd)
        for i, (n, (x, y, z), c, p, sd) in enumerate(zip(sizes, world, contrasts, *means, strict=True), 1)
    ]


def with_intervals(measured: list[Lesion], model: LesionModel, scale: float) -> list[Lesion]:
    """Lesions that have a mean probability, each with the interval of its true volume.

    Parameters
    ----------
    measured : list of Lesion
    model : LesionModel
    scale : float
        What a volume has to be multiplied by on the working grid.
    """
    if not measured:
        return []
    volumes = np.array([lesion.volume for lesion in measured]) * scale
    ends = model.interval(volumes, np.array([lesion.probability for lesion in measured], float))
    low, high = (end / scale for end in ends)
    return [
        replace(lesion, interval=(float(a), float(b)))
        for lesion, a, b in zip(measured, low, high, strict=True)
    ]
