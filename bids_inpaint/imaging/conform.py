"""The plain intensity scale that all steps expect: 0 is no signal, and there are no spikes (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Array = np.ndarray

#: The background is constant if so much of the faces of the volume has one value.
_CONSTANT = 0.25
#: A scale is shifted if all but a thousandth of the image lies above the first (a fraction of its
#: brightness), or if a good share of it lies below minus the second; less is enough where the background is
#: a floor. Resampled images dip below 0 at edges.
_ABOVE, _BELOW = 0.1, 0.05
_SHARE, _SHARE_OVER_FLOOR = 0.1, 0.02
#: Where zeros lie below a shifted scale, it begins above the first if a share of more than the last, as of
#: air, is about as dark as its least, else above the second. In 29 images of six scanners a stripped brain
#: begins at 0.26 at most and has a share of up to 0.07, and a head begins at 0.01 and has 0.19 to 0.72.
_BEGINS_WITH_AIR, _BEGINS, _AIR = 0.25, 0.5, 0.12
#: Voxels that are so many times as bright as 99 % of the others are spikes. In 60 images of six scanners the
#: brightest vessel reaches 5.1.
SPIKE = 6.0
#: They are fewer than these (fraction).
_MOST_SPIKES = 0.2
#: Filters with thresholds of their own expect an image whose brightest voxel lies in this range.
_ORDINARY = (64.0, 2.0**20)
#: An image with fewer grey levels is hardly an image of tissue.
FEWEST_LEVELS = 24


@dataclass(frozen=True)
class Conformed:
    """An image on the plain scale.

    Attributes
    ----------
    data : array of float32
        0 where there is no signal. It is the image itself, bit for bit, where nothing was unusual.
    offset : float
        What was subtracted from the image: ``image = data + offset`` away from spikes and background.
    warnings : tuple of str
        Clauses on what was unusual.
    """

    data: Array
    offset: float = 0.0
    warnings: tuple[str, ...] = ()


def conform(data: Array) -> Conformed:
    """Bring an image of any scale to the plain one.

    Parameters
    ----------
    data : array of float32, three-dimensional, finite
        Intensities in any unit: shifted, standardised, padded with a value far below, or with spikes.

    Examples
    --------
    >>> head = np.zeros((20, 20, 20), np.float32)
    >>> head[2:18, 2:18, 2:18] = np.linspace(1, 100, 16)
    >>> conform(head).data is head, conform(head - 1000).offset
    (True, -1000.0)
    """
    background, share = commonest_at_faces(data)
    constant = share > _CONSTANT
    signal = _sample(data, background if constant else None)
    if not signal.size:
        return Conformed(data)
    low, high = _range(signal)
    scale = high - low
    warnings = []
    floor = constant and background < min(low, 0)
    negative = float((signal < -_BELOW * scale).mean())
    padded = floor and (negative < _SHARE_OVER_FLOOR or background < low - scale)
    offset = 0.0
    below_zero = negative > (_SHARE_OVER_FLOOR if floor else _SHARE)
    # as of a standardised brain whose scale was shifted
    within = constant and float((signal < background - _BELOW * scale).mean()) > _SHARE
    above_zero = np.percentile(signal if within else _sample(data, None), 0.1) > _ABOVE * high
    above_background = _begins_above(signal[signal != 0], high)
    if below_zero or above_zero or above_background:
        lit = signal[signal != 0] if above_background else signal
        # one voxel may lie far below all others
        least, low = float(lit.min()), float(np.percentile(lit, 0.1))
        offset = least if low - least < 0.1 * (high - low) else low
        if constant and not padded and background < low and (below_zero or above_zero):
            offset = background
        warnings.append(
            f"its intensities begin at {offset:g}, and {-offset:+g} was added to all for the processing; "
            "where they were standardised (z-scores, MP2RAGE), the contrast may not be the usual one"
        )
    if constant and (padded or within or (offset and background > offset)):
        # around a head whose scale is another one
        data = np.where(data == background, np.float32(offset), data)
        warnings.append(f"its background is {background:g}, which was taken as no signal")
    if offset:
        data = np.maximum(data - np.float32(offset), 0)
    else:
        low_spikes = data < -0.5 * scale
        if low_spikes.any():
            data = np.where(low_spikes, np.float32(0), data)
            warnings.append(f"values far below 0 (voxels: {int(low_spikes.sum())}) were taken as no signal")
    cap = SPIKE * (high - offset)
    spikes = data > cap
    if spikes.any():
        data = _without(data, spikes, np.float32(high - offset))
        warnings.append(
            f"values more than {SPIKE:g} times as bright as 99 % of the others (voxels: {int(spikes.sum())}) "
            "were replaced by their surroundings for the processing, and stay in what is written"
        )
    levels = np.unique(signal[:: max(1, signal.size // 200_000)]).size
    if levels < FEWEST_LEVELS:
        warnings.append(
            f"it has only {levels} grey levels, which hide lesions; export it with its full range"
        )
    return Conformed(data, offset, tuple(warnings))


def ordinary_factor(data: Array) -> np.float32:
    """Power of two by which an image is brought to ordinary intensities, without rounding; 1 if it has them.

    Examples
    --------
    >>> [float(ordinary_factor(np.array([0, top]))) for top in (100, 0.1, 1e7, 0)]
    [1.0, 8192.0, 6.103515625e-05, 1.0]
    """
    top = float(np.abs(data).max())
    low, high = _ORDINARY
    if not top or low <= top < high:
        return np.float32(1)
    return np.float32(2.0 ** (10 - np.frexp(top)[1]))


def _range(signal: Array) -> tuple[float, float]:
    """The 0.1 and 99 percentiles, without spikes: bright values with a gap below them."""
    low, high = (float(v) for v in np.percentile(signal, (0.1, 99)))
    dark = signal[signal <= (low + high) / 2]
    if dark.size > (1 - _MOST_SPIKES) * signal.size:
        usual = float(np.percentile(dark, 99))
        if high - low > SPIKE * (usual - low):
            return low, usual
    return low, high


def _begins_above(lit: Array, high: float) -> bool:
    """Whether the scale of what is not 0 begins far above it."""
    if not lit.size:
        return False
    least = float(np.percentile(lit, 0.1))
    air = float((lit < least + 0.1 * (high - least)).mean())
    return least > (_BEGINS_WITH_AIR if air > _AIR else _BEGINS) * high


def commonest_at_faces(data: Array) -> tuple[float, float]:
    """The commonest value on the faces of a volume, and the share of the faces that has it."""
    # np.take would copy a volume whose first axis is the fastest
    faces = np.concatenate([np.moveaxis(data, axis, 0)[i].ravel() for axis in range(3) for i in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / faces.size)


def _sample(data: Array, without: float | None) -> Array:
    """Some million voxels, spread evenly over those that differ from a value."""
    values = data.ravel()
    if without is not None:
        values = values[values != np.float32(without)]
    return values[:: max(1, values.size // 2_000_000)]


def _without(data: Array, spikes: Array, most: np.float32) -> Array:
    """Replace spikes by the median of what is around them (5 voxels along each axis; 3 if they are many).

    It is at most `most`, and `most` where there is nothing else.
    """
    out = data.copy()
    points = np.argwhere(spikes)
    if len(points) > 100_000:
        out[spikes] = np.minimum(ndimage.median_filter(data, 3)[spikes], most)
        return out
    for point in points:
        box = tuple(slice(max(p - 2, 0), p + 3) for p in point)
        around = data[box][~spikes[box]]
        out[tuple(point)] = np.median(around) if around.size else most
    return out
