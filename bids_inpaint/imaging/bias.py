r"""Bias field correction by N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908), in NumPy.

The logarithm of an image is that of the tissues plus a smooth field, :math:`v(x) = u(x) + f(x)`. N4 looks for
the field that leaves the sharpest histogram. Each iteration has two steps:

1. *Sharpen* (Sled et al. 1998, doi:10.1109/42.668698). If the field has a Gaussian distribution :math:`F`,
   the histogram :math:`V` of :math:`v` is that of :math:`u` blurred by it: :math:`V = U * F`. A Wiener
   filter gives :math:`U`, and with it the value to expect of :math:`u` where :math:`v` is known:
   :math:`E(u|v) = (F * xU)(v) / (F * U)(v)`, :math:`x` being the values of the bins.
2. *Fit*. The residual :math:`r = v - E(u|v)` is approximated by cubic B-splines on a lattice of control
   points (Lee, Wolberg and Shin 1997, doi:10.1109/2945.620490), and this is added to the field. With the
   weights :math:`w_c(x)` of the control points at a voxel, the control points are

   .. math:: \phi_c = \frac{\sum_x w_c^3 \, r(x) / \sum_b w_b^2}{\sum_x w_c^2}.

The lattice spans the image. It begins with one span along each axis, and each level of iterations halves the
spans of the one before, without a change of the field.

The voxels that the field is fitted to form a lattice themselves, so that a weight is a product of one factor
for each axis, and each of its powers as well: all sums over voxels are three contractions of an array with a
small matrix. They are done by `numpy.einsum`, which uses no threads and adds up in the same order each time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bids_inpaint.space import bounding_box

#: Levels of the lattice, and iterations at each.
_LEVELS, _ITERATIONS = 4, 50
#: Of the histogram: its bins, and their number with zeros around them for the Fourier transform.
_BINS, _PADDED = 200, 512
#: Of the distribution of the field: full width at half maximum, in units of the logarithm.
_FWHM = 0.15
#: Of the Wiener filter: power of the noise relative to that of the histogram.
_NOISE = 0.01
#: Control points with less weight than this have no voxels to be fitted to.
_NO_WEIGHT = 1e-8


def correct(
    data: np.ndarray, mask: np.ndarray, estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Divide an image by its bias field.

    Parameters
    ----------
    data : array of float32, three-dimensional
        In any unit.
    mask : array of bool
        The brain.
    estimate : callable
        Takes the part of the image around the brain, with positive values alone, and that of the mask, and
        returns the multiplicative field there, as :func:`n4` does.

    Returns
    -------
    corrected, field : arrays of the shape of `data`
        The image without its bias, 0 outside the mask; and the field, all positive. Far outside the brain,
        the field goes on as at the border of the box around it.

    Raises
    ------
    ValueError
        If the mask is empty, or the image has what is no number in it.
    """
    box = bounding_box(mask, margin=4)
    floor = 1e-3 * float(data[mask].mean(dtype=np.float64))
    if not np.isfinite(floor):
        raise ValueError("intensities in the mask are no numbers, or infinite")
    if floor > 0:
        inside = estimate(np.maximum(data[box], np.float32(floor)), mask[box])
    else:
        # what has no signal has no bias
        inside = np.ones(mask[box].shape, np.float32)
    margins = [(s.start, n - s.stop) for s, n in zip(box, data.shape, strict=True)]
    field = np.pad(np.maximum(inside, np.float32(1e-3)), margins, mode="edge")
    return np.where(mask, data / field, 0), field


def n4(data: np.ndarray, mask: np.ndarray, shrink: int = 4) -> np.ndarray:
    """Multiplicative bias field of an image by N4.

    Parameters
    ----------
    data : array, three-dimensional
        Positive inside the mask. Its unit and the size of its voxels have no influence.
    mask : array of bool
        What the field is fitted to.
    shrink : int
        The field is fitted to one of so many voxels along each axis, and to more of them where the image or
        the mask is too small for that.

    Returns
    -------
    array of float32, shape of `data`
        Positive everywhere.

    Raises
    ------
    ValueError
        If the mask is empty, or the image has a value inside it that is not positive or not finite.

    Notes
    -----
    The field is that of ANTs' N4BiasFieldCorrection with a mesh of 1x1x1 and 4x50 iterations, but for
    rounding. As there, the lattice is fitted to a sample whose outermost voxels lie up to `shrink` voxels
    inside the image, and then spans the whole image, so that the field is stretched by as much. Without this,
    known fields were not found better on real brains, and white matter became no more even.
    """
    values = data[mask]
    if not values.size:
        raise ValueError("an empty mask has no bias field")
    if not (np.isfinite(values).all() and values.min() > 0):
        raise ValueError("N4 needs positive and finite values inside the mask")
    sample = _sample(mask, shrink)
    inside = np.flatnonzero(mask[sample])
    log = np.log(data[sample].ravel()[inside].astype(np.float64))
    lattice = _fit(log, inside, mask[sample].shape)
    spans = lattice.shape[0] - 3
    return np.exp(_evaluate(lattice, [_weights(n, spans) for n in data.shape])).astype(np.float32)


def _sample(mask: np.ndarray, shrink: int) -> tuple[np.ndarray, ...]:
    """Index of every `shrink`-th voxel along each axis, centred, or of more, so that some are in the mask."""
    for step in range(shrink, 0, -1):
        axes = []
        for n in mask.shape:
            own = min(step, max(n // 2, 1))
            rest = n - 1 - own * (n // own - 1)
            axes.append(np.arange((rest + 1) // 2, n, own)[: n // own])
        sample = np.ix_(*axes)
        if mask[sample].any():
            break
    return sample


def _fit(log: np.ndarray, inside: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Lattice of the log of the field.

    Parameters
    ----------
    log : array, shape (n,)
        Log of the image, at voxels of the mask.
    inside : array of int, shape (n,)
        Where they are in an array of this shape.
    """
    lattice = np.zeros((4, 4, 4))
    log_field = np.zeros_like(log)
    residual = np.zeros(shape)
    mask = np.zeros(shape)
    mask.ravel()[inside] = 1
    for level in range(_LEVELS):
        if level:
            lattice = _evaluate(lattice, [_refinement(lattice.shape[0] - 3)] * 3)
        weights = [_weights(n, lattice.shape[0] - 3) for n in shape]
        squares = [w**2 for w in weights]
        cubes = [w**3 / (w**2).sum(1, keepdims=True) for w in weights]
        total = _sum(mask, squares)
        filled = total > _NO_WEIGHT
        for _ in range(_ITERATIONS):
            v = log - log_field
            residual.ravel()[inside] = v - _sharpen(v)
            lattice += np.divide(_sum(residual, cubes), total, out=np.zeros_like(total), where=filled)
            log_field = _evaluate(lattice, weights).ravel().take(inside)
    return lattice


def _sharpen(v: np.ndarray) -> np.ndarray:
    """What to expect of the logs without the field, by the histogram of the logs with it."""
    low, high = float(v.min()), float(v.max())
    width = (high - low) / (_BINS - 1)
    if not width > 1e-9 * max(abs(low), abs(high), 1):
        return v
    place = (v - low) / width
    lower = np.minimum(place.astype(np.intp), _BINS - 2)
    place -= lower
    upper = np.bincount(lower, place, _BINS)
    histogram = np.bincount(lower, minlength=_BINS) - upper
    histogram[1:] += upper[:-1]

    first = (_PADDED - _BINS) // 2
    padded = np.zeros(_PADDED)
    padded[first : first + _BINS] = histogram
    distance = np.fft.fftfreq(_PADDED, 1 / _PADDED) * width
    gauss = np.exp(-4 * np.log(2) * (distance / _FWHM) ** 2)
    gauss *= 2 * np.sqrt(np.log(2) / np.pi) * width / _FWHM
    # of a symmetric function, the transform is real
    blur = np.fft.rfft(gauss).real
    sharp = np.maximum(np.fft.irfft(np.fft.rfft(padded) * blur / (blur**2 + _NOISE)), 0)
    values = low + (np.arange(_PADDED) - first) * width
    above, below = (np.fft.irfft(np.fft.rfft(x) * blur) for x in (values * sharp, sharp))
    expected = np.divide(above, below, out=np.zeros(_PADDED), where=below != 0)[first : first + _BINS]
    return expected[lower] + place * np.diff(expected)[lower]


def _weights(count: int, spans: int) -> np.ndarray:
    """Weights of the control points of a cubic B-spline, shape (count, spans + 3), at evenly spaced places.

    The first is the beginning of the first span, and the last the end of the last one.
    """
    u = np.arange(count) * (spans / max(count - 1, 1))
    first = np.minimum(u.astype(np.intp), spans - 1)
    t = u - first
    cubics = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3)
    weights = np.zeros((count, spans + 3))
    np.put_along_axis(weights, first[:, None] + np.arange(4), np.stack(cubics, 1) / 6, 1)
    return weights


def _refinement(spans: int) -> np.ndarray:
    """Matrix from control points to those of the same curve with spans of half the length."""
    matrix = np.zeros((2 * spans + 3, spans + 3))
    for new in range(len(matrix)):
        old, odd = divmod(new, 2)
        if odd:
            matrix[new, old : old + 3] = 1 / 8, 6 / 8, 1 / 8
        else:
            matrix[new, old : old + 2] = 1 / 2, 1 / 2
    return matrix


def _sum(values: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """For each control point, the sum of the values of all voxels times its weights for them."""
    # the longest axis stays last as long as it can: einsum is fast along it
    values = np.einsum("ia,ijk->ajk", weights[0], values)
    values = np.einsum("jb,ajk->abk", weights[1], values)
    return np.einsum("kc,abk->abc", weights[2], values)


def _evaluate(lattice: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """For each voxel, the sum of all control points times their weights for it."""
    lattice = np.einsum("kc,abc->abk", weights[2], lattice)
    lattice = np.einsum("jb,abk->ajk", weights[1], lattice)
    return np.einsum("ia,ajk->ijk", weights[0], lattice)
