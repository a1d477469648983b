"""How good a filling or a lesion map is (pure arrays, doctested)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_inpaint.space import bounding_box

Array = np.ndarray


def dice(a: Array, b: Array) -> float:
    """Dice coefficient of two binary maps; 1 if both are empty.

    Examples
    --------
    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    0.5
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else 1.0


def tissue_dice(labels: Array, reference: Array) -> dict[str, float]:
    """Dice coefficients of grey matter, of white matter and their mean (Manjón 2020, table 1).

    Parameters
    ----------
    labels, reference : array of int
        1 GM, 2 WM.

    Examples
    --------
    >>> tissue_dice(np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2]))["wm"]
    0.8
    """
    gm, wm = (dice(labels == value, reference == value) for value in (1, 2))
    return {"gm": gm, "wm": wm, "average": (gm + wm) / 2}


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
class LesionScores:
    """Agreement of a lesion map with a reference.

    Attributes
    ----------
    dice, sensitivity, precision : float
        Voxel-wise, 0-1; NaN where undefined (nothing to find, nothing found).
    lesion_f1 : float
        Lesion-wise; a lesion is hit if the other map shares at least one voxel with it. NaN if both maps
        are empty.
    volume, reference_volume, volume_error : float
        In ml; the last is the absolute difference of the others.
    """

    dice: float
    sensitivity: float
    precision: float
    lesion_f1: float
    volume: float
    reference_volume: float
    volume_error: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def lesion_scores(found: Array, reference: Array, voxel_volume: float) -> LesionScores:
    """Compare a binary lesion map with a reference on the same grid.

    Parameters
    ----------
    found, reference : array of bool
    voxel_volume : float
        In mm³.

    Examples
    --------
    >>> a = np.zeros((1, 1, 6)); a[..., :2] = 1
    >>> b = np.zeros((1, 1, 6)); b[..., 1] = b[..., 4] = 1
    >>> s = lesion_scores(a, b, 1000.0)
    >>> s.dice, s.sensitivity, s.precision, s.volume
    (0.5, 0.5, 0.5, 2.0)
    >>> round(s.lesion_f1, 3)
    0.667
    """
    found, reference = np.asarray(found, bool), np.asarray(reference, bool)
    hit, n_found, n_reference = (int(np.count_nonzero(m)) for m in (found & reference, found, reference))
    recalled, n_lesions = _hits(reference, found)
    right, n_marks = _hits(found, reference)
    recall = recalled / n_lesions if n_lesions else float("nan")
    precision = right / n_marks if n_marks else float("nan")
    total = recall + precision
    return LesionScores(
        dice=dice(found, reference),
        sensitivity=hit / n_reference if n_reference else float("nan"),
        precision=hit / n_found if n_found else float("nan"),
        lesion_f1=2 * recall * precision / total if total > 0 else (0.0 if n_lesions + n_marks else total),
        volume=n_found * voxel_volume / 1000,
        reference_volume=n_reference * voxel_volume / 1000,
        volume_error=abs(n_found - n_reference) * voxel_volume / 1000,
    )


def _hits(lesions: Array, other: Array) -> tuple[int, int]:
    from skimage.measure import label

    # twice as fast as that of scipy, on bytes in C order; connectivity 2: faces and edges
    labels, count = label(np.ascontiguousarray(lesions).view(np.uint8), return_num=True, connectivity=2)
    return len(np.unique(labels[other & lesions])), count


def hausdorff95(a: Array, b: Array, voxel_sizes: Sequence[float]) -> float:
    """Robust distance of two surfaces in mm: the larger of the two directed 95th percentiles.

    A surface is the voxels of a map with a face on its outside. NaN if a map is empty.

    Parameters
    ----------
    a, b : array of bool
        On the same grid.
    voxel_sizes : sequence of float
        In mm.

    Examples
    --------
    >>> a = np.zeros((1, 1, 9), bool); a[..., 2] = True
    >>> b = np.zeros((1, 1, 9), bool); b[..., 6] = True
    >>> hausdorff95(a, b, (1, 1, 2.5))
    10.0
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if not (a.any() and b.any()):
        return float("nan")
    box = bounding_box(a | b)
    surfaces = [_surface(m[box]) * voxel_sizes for m in (a, b)]
    distances = (cKDTree(other).query(own)[0] for own, other in (surfaces, surfaces[::-1]))
    return float(max(np.percentile(d, 95) for d in distances))


def _surface(mask: Array) -> Array:
    """Coordinates of the true voxels with a face on the outside."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(padded)
    for axis in range(mask.ndim):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    surface = mask & ~inner[(slice(1, -1),) * mask.ndim]
    return np.transpose(np.unravel_index(np.flatnonzero(surface), surface.shape))


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

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


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
    """

    ssim: float
    psnr: float
    mse: float
    uqi: float
    whole_ssim: float
    whole_psnr: float


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
    return HoleScores(
        ssim=float(local[hole[brain]].mean()),
        psnr=psnr(f, t, 1.0),
        mse=float(np.mean((f - t) ** 2)),
        uqi=float(quality_index(filled[brain], truth[brain])[hole[brain]].mean()),
        whole_ssim=float(whole),
        whole_psnr=psnr(filled[brain], truth[brain], 1.0),
    )


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


@dataclass(frozen=True)
class FlairScores:
    """Quality of a FLAIR and a lesion map made from a T1w, as Orbes-Arteaga 2018 gives it.

    The FLAIR is measured in standard deviations of the real one inside the brain, with a peak of 1: so the
    paper's own MAE and PSNR fit together. The rates are those of Griffanti 2016
    (doi:10.1016/j.neuroimage.2016.07.018).

    Attributes
    ----------
    dice : float
    fpr, fnr : float
        False voxels as a share of those found, and missed voxels as a share of the true ones.
    mae, psnr : float
        Mean absolute error, and peak signal-to-noise ratio in dB.
    lesion_mae : float
        Mean absolute error inside the lesions.
    """

    dice: float
    fpr: float
    fnr: float
    mae: float
    psnr: float
    lesion_mae: float


def flair_scores(made: Array, real: Array, found: Array, lesions: Array | None, brain: Array) -> FlairScores:
    """Compare a made FLAIR and a lesion map with the real ones.

    Parameters
    ----------
    made, real : array
        In one unit.
    found, lesions : array of bool
        If nobody marked the lesions, their scores are NaN.
    brain : array of bool

    Examples
    --------
    >>> real = np.array([0.0, 2, 0, 2]); everywhere = real > -1
    >>> s = flair_scores(real + 0.5, real, real > 1, np.array([0, 1, 0, 0], bool), everywhere)
    >>> s.dice.__round__(3), s.fpr, s.fnr, s.mae, s.psnr.__round__(2), s.lesion_mae
    (0.667, 0.5, 0.0, 0.5, 6.02, 0.5)
    """
    spread = float(real[brain].std(dtype=np.float64))
    off = np.abs(made[brain].astype(float) - real[brain]) / spread
    nan = float("nan")
    dices = fpr = fnr = inside = nan
    if lesions is not None:
        hit, n_found, n_true = (int(np.count_nonzero(m)) for m in (found & lesions, found, lesions))
        dices = dice(found, lesions)
        fpr = 1 - hit / n_found if n_found else nan
        fnr = 1 - hit / n_true if n_true else nan
        marked = lesions[brain]
        inside = float(off[marked].mean()) if marked.any() else nan
    return FlairScores(dices, fpr, fnr, float(off.mean()), psnr(off, np.zeros_like(off), 1.0), inside)
