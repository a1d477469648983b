"""How near a filling is to the truth (pure arrays, doctested)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.space import bounding_box

Array = np.ndarray


def psnr(image: Array, truth: Array, peak: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images.

    Examples
    --------
    >>> round(psnr(np.array([0.9, 1.1]), np.array([1.0, 1.0]), peak=1.0), 2)
    20.0
    """
    error = float(np.mean((np.asarray(image, float) - truth) ** 2))
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


@dataclass(frozen=True)
class FillingScores:
    """Quality of a filling against the known healthy truth, inside the lesions.

    Attributes
    ----------
    gain : float
        Decibels by which the error fell against the lesioned input.
    psnr : float
        In dB; the peak is the white-matter level.
    ssim : float
        Mean structural similarity over the lesion voxels (7³ windows, Gaussian weights off), with the
        white-matter level as its data range.
    ssim_range : float
        The same with the maximum of the truth as its data range, as is usual; vessels make it large, and
        the index lenient.
    rmse, bias : float
        As fractions of the white-matter level.
    texture : float
        Standard deviation of the filling over that of the truth.
    """

    gain: float
    psnr: float
    ssim: float
    ssim_range: float
    rmse: float
    bias: float
    texture: float


def filling_scores(
    filled: Array, truth: Array, lesioned: Array, lesions: Array, white_matter: float = 1.0
) -> FillingScores:
    """Score a filling where the lesion-free truth is known.

    Parameters
    ----------
    filled, truth, lesioned : array
        In one unit.
    lesions : array of bool
        Where to look.
    white_matter : float
        The white-matter level in that unit.

    Raises
    ------
    ValueError
        If there is no lesion voxel.
    """
    from skimage.metrics import structural_similarity

    inside = np.asarray(lesions, bool)
    if not inside.any():
        raise ValueError("no lesion voxel to score")
    f, t, x = (np.asarray(v, float)[inside] / white_matter for v in (filled, truth, lesioned))
    rmse = float(np.sqrt(np.mean((f - t) ** 2)))
    before = float(np.sqrt(np.mean((x - t) ** 2)))
    box = bounding_box(inside, margin=8)

    def similarity(data_range: float) -> float:
        _, local = structural_similarity(
            np.asarray(filled, np.float32)[box] / white_matter,
            np.asarray(truth, np.float32)[box] / white_matter,
            data_range=data_range,
            full=True,
        )
        return float(local[inside[box]].mean())

    spread = float(t.std())
    return FillingScores(
        gain=float(20 * np.log10(before / rmse)) if rmse else float("inf"),
        psnr=psnr(f, t, 1.0),
        ssim=similarity(1.0),
        ssim_range=similarity(float(np.max(truth)) / white_matter),
        rmse=rmse,
        bias=float(np.mean(f - t)),
        texture=float(f.std() / spread) if spread else float("nan"),
    )


@dataclass(frozen=True)
class HoleScores:
    """Quality of a filling inside a hole, of images scaled to 0-1, as Durrer 2023 and Armanious 2019 give it.

    Attributes
    ----------
    ssim : float
        Mean structural similarity over the voxels of the hole (windows of 7³ voxels, data range 1).
    psnr : float
        In dB, with a peak of 1.
    mse : float
    uqi : float
        Mean universal quality index over the voxels of the hole (:func:`quality_index`).
    whole_ssim, whole_psnr : float
        The same over the box around the brain, where all but the hole is equal.
    seams : float
        How much neighbouring slices of the filling differ (:func:`seams`): 1 as in real tissue, more if there
        are seams between the slices, less if they are too alike.
    fine, medium, coarse : float
        Power of the filling over that of the truth in three bands of its slices (:func:`band_power`): 1 for
        the texture of real tissue, 0 for a smooth filling.
    """

    ssim: float
    psnr: float
    mse: float
    uqi: float
    whole_ssim: float
    whole_psnr: float
    seams: float
    fine: float
    medium: float
    coarse: float


def hole_scores(filled: Array, truth: Array, hole: Array) -> HoleScores:
    """Score a filling where the truth is known.

    Parameters
    ----------
    filled, truth : array, three-dimensional
        0-1, 0 outside the brain.
    hole : array of bool

    Raises
    ------
    ValueError
        If the hole is empty.
    """
    from skimage.metrics import structural_similarity

    if not hole.any():
        raise ValueError("no voxel to score")
    brain = bounding_box(truth > 0)
    whole, local = structural_similarity(filled[brain], truth[brain], data_range=1.0, full=True)
    f, t = (np.asarray(v, float)[hole] for v in (filled, truth))
    powers = (band_power(v[brain], hole[brain]) for v in (filled, truth))
    shares = [a / b if b else float("nan") for a, b in zip(*powers, strict=True)]
    return HoleScores(
        ssim=float(local[hole[brain]].mean()),
        psnr=psnr(f, t, 1.0),
        mse=float(np.mean((f - t) ** 2)),
        uqi=float(quality_index(filled[brain], truth[brain])[hole[brain]].mean()),
        whole_ssim=float(whole),
        whole_psnr=psnr(filled[brain], truth[brain], 1.0),
        seams=seams(filled[brain], truth[brain], hole[brain]),
        fine=shares[0],
        medium=shares[1],
        coarse=shares[2],
    )


def seams(filled: Array, truth: Array, hole: Array) -> float:
    """How much neighbouring slices of a filling differ, by how much it varies within them, against the truth.

    The mean absolute difference of neighbours along the last axis is divided by that along the first two, and
    this ratio by that of the truth. Only neighbours that both lie in the hole count, so that the border of
    the filling has no part in it.

    Parameters
    ----------
    filled, truth : array, shape (X, Y, Z)
        Slices along the last axis, in one unit.
    hole : array of bool

    Returns
    -------
    float
        1 if the slices fit together as those of the truth do, and more if each was filled for itself. NaN if
        the hole is in one slice, or the filling or the truth is constant within its slices.

    Examples
    --------
    >>> x, y, z = np.mgrid[:8, :8, :8]
    >>> everywhere = np.ones((8, 8, 8), bool)
    >>> seams(x + y + 3 * z, x + y + z, everywhere)
    3.0
    """

    def ratio(image: Array) -> float:
        steps: list[float] = []
        for axis in range(3):
            inside = np.moveaxis(hole, axis, 0)
            pairs = inside[1:] & inside[:-1]
            change = np.abs(np.diff(np.moveaxis(np.asarray(image, float), axis, 0), axis=0))
            steps.append(float(change[pairs].mean()) if pairs.any() else float("nan"))
        within = (steps[0] + steps[1]) / 2
        return steps[2] / within if within else float("nan")

    true = ratio(truth)
    return ratio(filled) / true if true else float("nan")


def band_power(image: Array, hole: Array) -> tuple[float, ...]:
    """Mean square inside a hole of what lies in each of three bands of the slices of an image.

    The bands are those between Gaussian filters with standard deviations of 0, 1, 2 and 4 voxels: most of
    what they pass has periods of 2 to 6, 6 to 12 and 12 to 25 voxels.

    Parameters
    ----------
    image : array, shape (X, Y, Z)
        Slices along the last axis.
    hole : array of bool

    Examples
    --------
    >>> x = np.arange(64)[:, None, None] + np.zeros((64, 64, 3))
    >>> power = band_power(np.sin(2 * np.pi * x / 9), np.ones(x.shape, bool))
    >>> int(np.argmax(power))
    1
    """
    wide = np.asarray(image, np.float32)
    out = []
    for deviation in (1.0, 2.0, 4.0):
        wider = ndimage.gaussian_filter(np.asarray(image, np.float32), (deviation, deviation, 0))
        out.append(float(np.mean((wide - wider)[hole] ** 2, dtype=float)))
        wide = wider
    return tuple(out)


def quality_index(image: Array, truth: Array, window: int = 8) -> Array:
    """Universal quality index (Wang and Bovik 2002) of the square around each voxel of each slice, -1 to 1.

    Parameters
    ----------
    image, truth : array, shape (X, Y, Z)
        Slices along the last axis.
    window : int
        Edge of the squares.

    Examples
    --------
    >>> truth = np.random.default_rng(0).random((16, 16, 2))
    >>> bool(np.allclose(quality_index(truth, truth), 1))
    True
    >>> bool(quality_index(1 - truth, truth).mean() < -0.8)
    True
    """
    x, y = (np.asarray(v, float) for v in (image, truth))

    def mean(values: Array) -> Array:
        return ndimage.uniform_filter(values, (window, window, 1))

    mx, my = mean(x), mean(y)
    vx, vy, together = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    below = (vx + vy) * (mx**2 + my**2)
    # flat and equal squares are perfect
    safe = below > 1e-12
    return np.where(safe, 4 * together * mx * my / np.where(safe, below, 1), np.isclose(mx, my))
