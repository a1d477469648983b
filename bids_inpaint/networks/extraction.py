"""The brain of a full head, by a network."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.brain import BRAIN_VOLUME, largest_component, largest_part
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.session import Runtime
from bids_inpaint.networks.volumes import run_on_volume
from bids_inpaint.space import Grid, bounding_box, resample, upright

#: The extractor sees cubes of this edge (mm).
EDGE = 2.0


def _checked(mask: np.ndarray, grid: Grid) -> np.ndarray:
    mask = ndimage.binary_fill_holes(largest_component(mask))
    volume = mask.sum() * grid.voxel_volume
    if not BRAIN_VOLUME[0] < volume < BRAIN_VOLUME[1]:
        raise ValueError(f"the brain extracted measures {volume / 1e6:.2f} l")
    return mask


def normalise(volume: np.ndarray) -> np.ndarray:
    """Bring a head to 0-1: its 0.5 and 99.5 percentiles without the zeros around it, clipped."""
    signal = volume[volume != 0]
    if not signal.size:
        return np.zeros_like(volume, np.float32)
    low, high = np.percentile(signal, (0.5, 99.5))
    scaled = (volume - low) / max(high - low, np.finfo(np.float32).tiny)
    return (np.clip(scaled, 0, 1) * (volume != 0)).astype(np.float32)


def extract(
    data: np.ndarray,
    grid: Grid,
    model: Model,
    runtime: Runtime | None = None,
    head: np.ndarray | None = None,
) -> np.ndarray:
    """Brain mask of a full head of any contrast, by a network on 2 mm voxels.

    Parameters
    ----------
    data : array, three-dimensional
        Intensities in any unit.
    grid : Grid
        Its voxel lattice.
    model : Model
        A network of the kind 'brain'.
    runtime : Runtime, optional
    head : array of bool, optional
        The largest component of the foreground, if it is known.

    Raises
    ------
    ValueError
        If what was found is no brain by its volume, or there is no head.
    """
    # where the network pools must not depend on how much of the volume is empty
    box = bounding_box(largest_part(data)[0] if head is None else head)
    cubes = upright(grid.part(box), EDGE)
    # what a voxel of 2 mm averages over
    blur = 0.4 * np.sqrt(np.maximum(EDGE**2 - grid.voxel_sizes**2, 0)) / grid.voxel_sizes
    low = resample(ndimage.gaussian_filter(data, blur, mode="constant"), grid, cubes, order=1)
    logits = run_on_volume(model, normalise(low), runtime)[0]
    # far from the border the logits would outweigh their neighbours
    mask = resample(np.clip(logits, -4, 4), cubes, grid, order=1, outside="nearest") > 0
    return _checked(mask, grid)
