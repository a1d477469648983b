"""What makes the visits of a person comparable: one unit of intensity, and one filling (pure arrays).

All images are in one space. Nothing depends on the order of the visits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.intensity import WM_CORE, white_level
from bids_inpaint.imaging.person import match
from bids_inpaint.space import Grid, Misplaced, resample

Array = np.ndarray

#: White matter is as bright as its level at all visits, up to this fraction of it; lesions have 0.65 to 0.8.
_HEALTHY = 0.12
#: Tissue is brighter than this fraction of white matter; below are fluid and the border of the brain.
_TISSUE = 0.5
#: The least voxels of stable white matter.
_LEAST = 1000
#: Smoothing of what is left of the bias fields (mm): the lattice of N4 has spans of some 25 mm.
SMOOTH = 10.0
#: Edge of the voxels on which it is smoothed, in voxels.
_COARSE = 4
#: Differences beyond so many standard deviations count as these: no bias field.
_MOST = 3.0
#: Weight of no difference, as a fraction of that of tissue all around.
_FAR = 0.01
#: Voxels of one brightness, of which the median is taken.
_ALIKE = 4000


def matching_fields(images: Sequence[Array], masks: Sequence[Array], white: Array, grid: Grid) -> list[Array]:
    """Fields that give all visits one intensity in the white matter that is stable.

    Each image is to be divided by its own. What differs smoothly between the visits is what is left of their
    bias fields [1]_: N4 looks at one image alone.

    Parameters
    ----------
    images : sequence of array, shape `grid.shape`
        Bias-corrected, in any units.
    masks : sequence of array of bool
        The brain of each.
    white : array
        Probability (0-1) of white matter in the template.
    grid : Grid

    Returns
    -------
    list of array of float32
        Their product is 1 at each voxel, up to rounding.

    Raises
    ------
    Misplaced
        If there is hardly any such white matter.

    Notes
    -----
    The logarithm of a field is that of the image less its mean over the visits and less what visits of that
    brightness differ by everywhere (:func:`by_brightness`), smoothed by a Gaussian of 10 mm over all tissue.
    Lesions that changed have hardly a part in it: differences beyond 3 standard deviations are cut. Then the
    images are brought to one median in stable white matter, which is as bright as healthy white matter at all
    visits.

    References
    ----------
    .. [1] Lewis and Fox 2004, NeuroImage 23:75-83 (doi:10.1016/j.neuroimage.2004.04.030).
    """
    logs, tissue, stable = _compared(images, masks, white)
    away = _cut(logs - logs.mean(0), logs.mean(0))
    away -= away.mean(0)
    fields = [np.exp(_smooth(values, tissue, grid)) for values in away]
    scales = match([image / field for image, field in zip(images, fields, strict=True)], stable)
    return [(field * scale).astype(np.float32) for field, scale in zip(fields, scales, strict=True)]


def field_towards(
    kept: Sequence[Array], image: Array, masks: Sequence[Array], white: Array, grid: Grid
) -> Array:
    """The field that gives a visit the intensity of others, which have one already.

    Parameters
    ----------
    kept : sequence of array, shape `grid.shape`
        The others, which stay as they are.
    image : array
        To be divided by the field.
    masks : sequence of array of bool
        The brain of each of the others, and that of the image.
    white, grid
        As in :func:`matching_fields`.

    Returns
    -------
    array of float32

    Raises
    ------
    Misplaced
        If there is hardly any white matter that is bright at all of these visits.

    Notes
    -----
    As :func:`matching_fields`, with the mean of the others instead of that of all.
    """
    logs, tissue, stable = _compared([*kept, image], masks, white)
    mean = logs[:-1].mean(0)
    away = _cut(logs[-1:] - mean, mean)[0]
    field = np.exp(_smooth(away, tissue, grid))
    stable &= np.all([one > 0 for one in (*kept, image)], axis=0)
    unit = np.mean([np.log(one[stable].astype(float)) for one in kept], axis=0)
    scale = np.exp(np.median(np.log((image / field)[stable].astype(float)) - unit))
    return (field * scale).astype(np.float32)


def _compared(images: Sequence[Array], masks: Sequence[Array], white: Array) -> tuple[Array, Array, Array]:
    """Logarithms of the visits in tissue, where that is, and where stable white matter is."""
    common = np.all(masks, axis=0)
    levels = [white_level(image, mask, white) for image, mask in zip(images, masks, strict=True)]
    parts = [image / np.float32(level) for image, level in zip(images, levels, strict=True)]
    # other tissue has a part in the outermost voxels
    tissue = ndimage.binary_erosion(common, iterations=2) & np.all([part > _TISSUE for part in parts], axis=0)
    near = np.all([np.abs(part - 1) < _HEALTHY for part in parts], axis=0)
    stable = ndimage.binary_erosion(common & (white > WM_CORE) & near)
    if stable.sum() < _LEAST:
        raise Misplaced("has hardly any white matter that is bright at all visits")
    return np.log([part[tissue].astype(float) for part in parts]), tissue, stable


def _cut(away: Array, mean: Array) -> Array:
    """Differences from a mean without those of the contrast, and without outliers."""
    # the cortex of a scanner with another contrast is no bias field
    away = away - by_brightness(away, mean)
    limit = _MOST * 1.4826 * np.median(np.abs(away), axis=1, keepdims=True)
    return np.clip(away, -limit, limit)


def by_brightness(away: Array, mean: Array) -> Array:
    """By how much each visit differs from the mean of all, by the brightness of a voxel alone.

    That is how the contrast of the visits differs, as it does between scanners. What changed has hardly a
    part in it, as most voxels of any brightness did not change.

    Parameters
    ----------
    away : array, shape (n, voxels)
        The visits less their mean.
    mean : array, shape (voxels,)

    Returns
    -------
    array, shape (n, voxels)
        Medians over some 4000 voxels of about the same mean, and straight lines between them.

    Examples
    --------
    >>> mean = np.linspace(0.5, 1, 100_000)
    >>> away = np.stack([mean**1.5 - mean, mean - mean**1.5])
    >>> bool(np.abs(by_brightness(away, mean) - away).max() < 0.01)
    True
    """
    order = np.argsort(mean, kind="stable")
    parts = np.array_split(order, max(1, len(mean) // _ALIKE))
    places = [float(np.median(mean[part])) for part in parts]
    return np.stack([np.interp(mean, places, [np.median(one[part]) for part in parts]) for one in away])


def _smooth(values: Array, where: Array, grid: Grid) -> Array:
    """Values at some voxels, smoothed and continued everywhere; far from all of them they fade to 0."""
    shape = np.array(where.shape)
    room = [(0, n) for n in -shape % _COARSE]
    volume = np.zeros(shape)
    volume[where] = values
    width = SMOOTH / grid.voxel_sizes / _COARSE
    total, count = (ndimage.gaussian_filter(_blocks(np.pad(v, room)), width) for v in (volume, where * 1.0))
    to_world = grid.matrix @ np.diag([_COARSE, _COARSE, _COARSE, 1.0])
    to_world[:3, 3] = (grid.matrix @ [*[(_COARSE - 1) / 2] * 3, 1])[:3]
    coarse = Grid.of(total.shape, to_world)
    return resample(total / (count + _FAR), coarse, grid, order=1, outside="nearest")


def _blocks(volume: Array) -> Array:
    """Means of cubes of voxels."""
    x, y, z = (n // _COARSE for n in volume.shape)
    return volume.reshape(x, _COARSE, y, _COARSE, z, _COARSE).mean((1, 3, 5))


def agreed(fillings: Sequence[Array], weights: Sequence[Array]) -> list[Array]:
    """One filling for what is filled at several visits: their mean.

    Parameters
    ----------
    fillings : sequence of array
        What a network made of each visit, in one unit.
    weights : sequence of array
        Where each is filled, 0-1 (:func:`bids_inpaint.imaging.feathering.feather`).

    Returns
    -------
    list of array
        Where a visit is filled, the mean of all fillings by their weights; elsewhere they stay as they are.

    Examples
    --------
    >>> agreed([np.array([1.0, 1, 1]), np.array([3.0, 3, 3])], [np.array([1, 1, 0]), np.array([1, 0, 0])])
    [array([2., 1., 1.]), array([2., 3., 3.])]
    """
    mean = _mean(fillings, weights)
    return [np.where(w > 0, mean, filling) for filling, w in zip(fillings, weights, strict=True)]


def joined(filling: Array, weight: Array, kept: Sequence[Array], weights: Sequence[Array]) -> Array:
    """The filling of a visit that agrees with those of others, which stay as they are.

    Parameters
    ----------
    filling : array
        What a network made of the visit.
    weight : array
        Where it is filled, 0-1.
    kept, weights : sequence of array
        The fillings of the others, in one unit, and where each is filled.

    Returns
    -------
    array
        Where others are wholly filled, the mean of theirs; where they fade out, so does their part in it.

    Examples
    --------
    >>> joined(np.ones(4), np.array([1, 1, 1, 0]), [np.full(4, 3.0)], [np.array([1, 0.5, 0, 1])])
    array([3., 2., 1., 1.])
    """
    part = np.max(weights, axis=0)
    return np.where(weight > 0, part * _mean(kept, weights) + (1 - part) * filling, filling)


def unconfined(image: Array, inpainted: Array, weight: Array) -> Array:
    """The filling before it faded out into the image around lesions; where it has no part, the image.

    Undoes :func:`bids_inpaint.imaging.feathering.confine`.
    """
    return image + np.divide(inpainted - image, weight, out=np.zeros_like(image), where=weight > 0)


def agreed_spread(
    spreads: Sequence[Array], fillings: Sequence[Array], weights: Sequence[Array]
) -> list[Array]:
    """Standard deviation among all that :func:`agreed` takes the mean of.

    Parameters
    ----------
    spreads : sequence of array
        Of each of the fillings.
    fillings, weights
        As there.
    """
    mean = _mean(fillings, weights)
    around = [s**2 + (f - mean) ** 2 for s, f in zip(spreads, fillings, strict=True)]
    together = np.sqrt(_mean(around, weights))
    return [np.where(w > 0, together, spread) for spread, w in zip(spreads, weights, strict=True)]


def _mean(values: Sequence[Array], weights: Sequence[Array]) -> Array:
    total = sum(weights)
    summed = sum(w * v for w, v in zip(weights, values, strict=True))
    return np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)
