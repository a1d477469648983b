"""What the images of all visits say of lesions, beside what the network told of each alone (pure arrays).

A network that looks at one image misses small lesions that anybody sees who compares two, and finds others at
one visit alone though nothing changed. Nothing here depends on the order of the visits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.agreement import by_brightness
from bids_inpaint.imaging.intensity import WM_CORE, white_level
from bids_inpaint.space import Grid

Array = np.ndarray

#: Images are compared after a Gaussian (mm), and their slopes are taken after a wider one.
_SMOOTH, _SLOPE = 0.7, 1.0
#: A difference may be noise up to so many standard deviations or this fraction of white matter, and what
#: tissue makes that lies so far apart (mm) after a registration. Half of that is none, and twice is certain.
_SIGMAS, _LEAST, _APART = 4.0, 0.05, 0.3
#: What is darker than this fraction of white matter at a visit is fluid, and no lesion. Where fluid comes and
#: goes, the tissue up to so far from it (voxels) has moved.
_FLUID, _MOVED = 0.45, 3
#: What a certain darkening adds to the log odds of a lesion. The network has to find it possible, still.
_GAIN = 6.0
#: What is taken from them at a visit that is certainly brighter than another: most lesions appear in healthy
#: tissue, and some become darker.
_LOSS = 2.0
#: The least probability, as log odds are finite.
_FLOOR = 1e-3


def weigh(
    probabilities: Sequence[Array],
    images: Sequence[Array],
    mask: Array,
    white: Array,
    grid: Grid,
    kept: Collection[int] = (),
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
    kept : collection of int
        Numbers of visits whose lesions were decided before. The others have their mean :math:`\bar l` where
        the images do not differ, so that what is not seen is no change; what is returned for these visits is
        of no use.

    Returns
    -------
    list of array of float32
        Those of a visit alone stay as they are.

    Notes
    -----
    With the log odds :math:`l_i` of visit i, the result has

    .. math:: s \\, \bar l + (1 - s) \\, l_i + 6 c_i - 2 b_i.

    Here, :math:`c_i` is how certainly visit i is darker than the brightest of all visits, :math:`b_i` how
    certainly it is brighter than the darkest, and :math:`s` how likely no visit differs from another: where
    the images are the same, there is one probability for all, and where a visit became darker, a lesion is
    more likely than the network thinks that knows no other visit, and less likely before. The images have one
    contrast first (:func:`bids_inpaint.imaging.agreement.by_brightness`). Differences are compared with the
    noise in white matter, and with what a shift of 0.3 mm would do at the edges of tissue.
    """
    if len(images) < 2:
        return list(probabilities)
    level = float(np.mean([white_level(image, mask, white) for image in images]))
    images = _of_one_contrast([image / np.float32(level) for image in images], mask)
    smooth = [_gaussian(image, _SMOOTH, grid) for image in images]
    brightest, darkest = np.max(smooth, axis=0), np.min(smooth, axis=0)
    least = max(_LEAST, _SIGMAS * _noise(smooth, ndimage.binary_erosion(mask & (white > WM_CORE))))
    slopes = [_slope(image, grid) for image in images]
    limit = least + _APART * np.min(slopes, axis=0)
    moved = (darkest < _FLUID) & (brightest - darkest > 2 * limit)
    tissue = ~ndimage.binary_dilation(moved, iterations=_MOVED)
    # vessels and contrast agents are brighter than white matter, which a lesion never was
    most = [np.minimum(one, 1) for one in smooth]
    darker = [np.clip((np.minimum(brightest, 1) - one) / limit - 1, 0, 1) * tissue for one in most]
    brighter = [np.clip((one - darkest) / limit - 1, 0, 1) * tissue for one in most]
    same = np.clip(2 - 2 * (brightest - darkest) / limit, 0, 1)
    odds = []
    for probability in probabilities:
        clipped = np.clip(probability, _FLOOR, 1 - _FLOOR)
        odds.append(np.log(clipped / (1 - clipped)))
    spoken = [one for i, one in enumerate(odds) if i in kept or not kept]
    mean = sum(spoken) / len(spoken)
    out = []
    for one, down, up in zip(odds, darker, brighter, strict=True):
        weighed = same * mean + (1 - same) * one + _GAIN * down - _LOSS * up
        out.append(np.where(mask, 1 / (1 + np.exp(-weighed)), 0).astype(np.float32))
    return out


def _of_one_contrast(images: Sequence[Array], mask: Array) -> list[Array]:
    """The images without what their contrast differs by; 0 outside the brain."""
    inside = np.stack([image[mask] for image in images]).astype(np.float32)
    mean = inside.mean(0)
    inside -= by_brightness(inside - mean, mean)
    out = []
    for values in inside:
        volume = np.zeros(mask.shape, np.float32)
        volume[mask] = values
        out.append(volume)
    return out


def _noise(images: Sequence[Array], core: Array) -> float:
    """Robust standard deviation of the difference of two visits in white matter."""
    away = np.stack([image[core] for image in images])
    away -= away.mean(0)
    # the deviations from the mean of n have (n - 1) / n of the variance, and a difference twice as much
    return float(1.4826 * np.median(np.abs(away)) * np.sqrt(2 * len(images) / (len(images) - 1)))


def _slope(image: Array, grid: Grid) -> Array:
    """How much an image rises in a mm."""
    return ndimage.gaussian_gradient_magnitude(image, _SLOPE / grid.voxel_sizes) / grid.voxel_sizes.mean()


def _gaussian(image: Array, width: float, grid: Grid) -> Array:
    return ndimage.gaussian_filter(np.asarray(image, np.float32), width / grid.voxel_sizes)
