"""The plain intensity scale that all steps expect: 0 is no signal, and there are no spikes (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

#: The background is constant if so much of the faces of the volume has one value.
_CONSTANT = 0.25
#: A scale is shifted if the whole image lies above the first (a fraction of its brightness), or if a good
#: share of it lies below minus the second; less is enough where the background is a floor. Resampled images
#: dip below 0 at edges.
_ABOVE, _BELOW = 0.1, 0.05
_SHARE, _SHARE_OVER_FLOOR = 0.1, 0.02
#: Voxels that are so many times as bright as 99 % of the image are spikes. In 60 images of six scanners the
#: brightest vessel reaches 5.1.
SPIKE = 6.0
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
    low, high = (float(v) for v in np.percentile(signal, (0.1, 99)))
    scale = high - low
    warnings = []
    floor = constant and background < min(low, 0)
    negative = float((signal < -_BELOW * scale).mean())
    padded = floor and (negative < _SHARE_OVER_FLOOR or background < low - scale)
    offset = 0.0
    if negative > (_SHARE_OVER_FLOOR if floor else _SHARE) or (not padded and data.min() > _ABOVE * high):
        # one voxel may lie far below all others
        least = float(signal.min())
        offset = least if low - least < 0.1 * scale else low
        if constant and not padded and background < low:
            offset = background
        warnings.append(
            f"its intensities begin at {offset:g}, and {-offset:+g} was added to all for the processing; "
            "where they were standardised (z-scores, MP2RAGE), the contrast may not be that of a plain T1w"
        )
    if constant and (padded or (offset and background > offset)):
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
            f"values more than {SPIKE:g} times as bright as 99 % of the image (voxels: {int(spikes.sum())}) "
            "were replaced by their surroundings for the processing, and stay in what is written"
        )
    levels = np.unique(signal[:: max(1, signal.size // 200_000)]).size
    if levels < FEWEST_LEVELS:
        warnings.append(
            f"it has only {levels} grey levels, which hide lesions; export it with its full range"
        )
    return Conformed(data, offset, tuple(warnings))


def commonest_at_faces(data: Array) -> tuple[float, float]:
    """The commonest value on the faces of a volume, and the share of the faces that has it."""
    faces = np.concatenate([np.take(data, i, axis).ravel() for axis in range(3) for i in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / faces.size)


def _sample(data: Array, without: float | None) -> Array:
    """Some million voxels, spread evenly over those that differ from a value."""
    values = data.ravel()
    if without is not None:
        values = values[values != np.float32(without)]
    return values[:: max(1, values.size // 2_000_000)]


def _without(data: Array, spikes: Array, most: np.float32) -> Array:
    """Replace spikes by the median of what is around them (5 voxels along each axis), or by `most`."""
    out = data.copy()
    points = np.argwhere(spikes)
    if len(points) > 100_000:
        out[spikes] = most
        return out
    for point in points:
        box = tuple(slice(max(p - 2, 0), p + 3) for p in point)
        around = data[box][~spikes[box]]
        out[tuple(point)] = np.median(around) if around.size else most
    return out
