"""What the images of all visits say of lesions, beside what the network told of each alone (pure arrays).

A network that looks at one image misses small lesions that anybody sees who compares two, and finds others at
one visit alone though nothing changed. Nothing here depends on the order of the visits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.intensity import WM_CORE, white_level
from bids_inpaint.space import Grid

Array = np.ndarray

#: Images are compared after a Gaussian (mm), and their slopes are taken after a wider one.
_SMOOTH, _SLOPE = 0.7, 1.0
#: How far tissue of two visits may lie apart after a rigid registration (mm): what moved is no lesion.
_APART = 0.3
#: A difference is none up to so many standard deviations, and up to this fraction of white matter. From
#: twice as much on it is certain.
_SIGMAS, _LEAST = 4.0, 0.05
#: What a certain darkening adds to the log odds of a lesion. The network has to find it possible, still.
_GAIN = 6.0
#: The least probability, as log odds are finite.
_FLOOR = 1e-3


def weigh(
    probabilities: Sequence[Array], images: Sequence[Array], mask: Array, white: Array, grid: Grid
) -> list[Array]:
    """Probabilities of a lesion at each visit by what all visits show.

    Parameters
    ----------
    probabilities : sequence of array, shape `grid.shape`
        Calibrated probability (0-1) of lesion at each visit.
    images : sequence of array
        The brains in one unit, without bias fields.
    mask : array of bool
        The brain.
    white : array
        Probability (0-1) of white matter in the template.
    grid : Grid

    Returns
    -------
    list of array of float32
        Those of a visit alone stay as they are.

    Notes
    -----
    With the log odds :math:`l_i` of visit i, the result has

    .. math:: s \\, \\bar l + (1 - s) \\, l_i + g \\, c_i.

    Here, :math:`c_i` is how certainly visit i is darker than the brightest of all visits, and :math:`s` how
    certainly none is: where the images are the same, there is one probability for all, and where a visit
    became darker, a lesion is more likely than the network thinks that knows no other visit. Differences are
    compared with the noise in white matter, and with what a shift of 0.3 mm would do at the edges of tissue.
    """
    if len(images) < 2:
        return list(probabilities)
    level = float(np.mean([white_level(image, mask, white) for image in images]))
    smooth = [_gaussian(image / np.float32(level), _SMOOTH, grid) for image in images]
    brightest = np.max(smooth, axis=0)
    limit = np.maximum(_LEAST, _SIGMAS * _noise(images, smooth, mask, white, level, grid))
    certain = [np.clip((brightest - one) / limit - 1, 0, 1) for one in smooth]
    same = 1 - np.max(certain, axis=0)
    odds = []
    for probability in probabilities:
        clipped = np.clip(probability, _FLOOR, 1 - _FLOOR)
        odds.append(np.log(clipped / (1 - clipped)))
    mean = sum(odds) / len(odds)
    return [
        np.where(mask, 1 / (1 + np.exp(-(same * mean + (1 - same) * one + _GAIN * sure))), 0).astype(
            np.float32
        )
        for one, sure in zip(odds, certain, strict=True)
    ]


def _noise(
    images: Sequence[Array], smooth: Sequence[Array], mask: Array, white: Array, level: float, grid: Grid
) -> Array:
    """Standard deviation of the difference of two visits without lesions (white matter is 1)."""
    core = ndimage.binary_erosion(mask & (white > WM_CORE))
    away = np.stack([one[core] for one in smooth])
    away -= away.mean(0)
    # the deviations from the mean of n have (n - 1) / n of the variance, and a difference twice as much
    flat = 1.4826 * np.median(np.abs(away)) * np.sqrt(2 * len(images) / (len(images) - 1))
    slopes = [
        ndimage.gaussian_gradient_magnitude(image / np.float32(level), _SLOPE / grid.voxel_sizes)
        / grid.voxel_sizes.mean()
        for image in images
    ]
    return np.sqrt(flat**2 + (_APART * np.min(slopes, axis=0)) ** 2)


def _gaussian(image: Array, width: float, grid: Grid) -> Array:
    return ndimage.gaussian_filter(np.asarray(image, np.float32), width / grid.voxel_sizes)
