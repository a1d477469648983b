"""The scores of the BraTS challenge on inpainting, which Durrer 2023 gives (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.fidelity import psnr
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: What becomes 0 and 1: these percentiles of the voided volume, with all that is 0 around the brain.
PERCENTILES = (0.5, 99.5)
#: Standard deviation in voxels, and radius, of the Gaussian windows of the structural similarity.
WINDOW, RADIUS = 1.5, 5
#: What keeps the structural similarity finite, as fractions of the range of the intensities (Wang 2004).
STABLE = (0.01, 0.03)


@dataclass(frozen=True)
class ChallengeScores:
    """Quality of a filling inside the healthy mask, as the challenge of 2023 measured it.

    Attributes
    ----------
    ssim : float
        Mean structural similarity over the mask, where both images are 0 outside it, in Gaussian windows of
        the planes along the second and third axis.
    psnr : float
        In dB; the peak is the maximum of the truth in the mask, 1 for all but dark regions. Infinite for
        equal images.
    psnr_clamped : float
        As the challenge has measured it since August 2025: the filling is clamped to the range of the truth
        in the mask, and the peak is this range.
    mse : float
        Mean squared error of intensities that are scaled to 0-1.
    """

    ssim: float
    psnr: float
    psnr_clamped: float
    mse: float


def challenge_scores(filled: Array, truth: Array, voided: Array, mask: Array) -> ChallengeScores:
    """Score a filling as the BraTS challenge "Local synthesis of healthy brain tissue via inpainting" does.

    Parameters
    ----------
    filled, truth : array, shape (X, Y, Z)
        In one unit, 0 around the brain. The challenge's own volumes have (240, 240, 155) voxels; how many of
        them are background decides what becomes 1.
    voided : array
        What the network saw: 0 in everything that was to be filled.
    mask : array of bool
        The healthy region that was to be filled; it may reach beyond the brain.

    Raises
    ------
    ValueError
        If the mask is empty or holds no tissue, or the voided volume has next to no brain.

    Notes
    -----
    After Kofler et al. 2023 (arXiv:2305.08992, section 2.5) and the challenge's evaluation, the Python
    package ``inpainting``, whose results are the same but for rounding.
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        raise ValueError("no voxel to score")
    low, high = (float(v) for v in np.percentile(voided, PERCENTILES))
    low = max(low, 0.0)
    if not high > low:
        raise ValueError("99.5 % of the voided volume are background, so that its intensities have no scale")

    def scale(image: Array) -> Array:
        return (np.clip(np.where(mask, image, 0).astype(float), low, high) - low) / (high - low)

    # beyond the windows of the mask, all is equal; the border of the volume stays one
    box = bounding_box(mask, margin=RADIUS)
    inside = mask[box]
    f, t = (scale(image)[box] for image in (filled, truth))
    local = _similarity(f, t)[inside]
    f, t = f[inside], t[inside]
    least, most = float(t.min()), float(t.max())
    if not most:
        raise ValueError("the truth is 0 in the whole mask")
    return ChallengeScores(
        ssim=float(local.mean()),
        psnr=psnr(f, t, most),
        psnr_clamped=psnr(f.clip(least, most), t, most - least),
        mse=float(np.mean((f - t) ** 2)),
    )


def _similarity(image: Array, truth: Array) -> Array:
    """Structural similarity around each voxel, in windows along the second and third axis."""

    def mean(values: Array) -> Array:
        return ndimage.gaussian_filter(
            values, WINDOW, axes=(1, 2), mode="mirror", radius=RADIUS, output=np.float64
        )

    width = max(float(np.ptp(v)) for v in (image, truth))
    one, two = ((share * width) ** 2 for share in STABLE)
    mx, my = mean(image), mean(truth)
    # rounding may make a variance negative
    vx, vy = np.maximum(mean(image**2) - mx**2, 0), np.maximum(mean(truth**2) - my**2, 0)
    together = mean(image * truth) - mx * my
    above = (2 * mx * my + one) * (2 * together + two)
    return above / ((mx**2 + my**2 + one) * (vx + vy + two))
