"""Lesions by a T1w and a FLAIR of the same head together, and whether both fit (pure arrays)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from bids_inpaint.space import bounding_box

Array = np.ndarray

#: What the probability of a lesion depends on, in the order of the coefficients. Log odds are those of the
#: blind network; brightness is of the FLAIR, as a fraction of its healthy white matter, less 1; darkening is
#: of the T1w, inpainted minus original; shares are of white matter nearby, in the template and in the
#: inpainted T1w. Lengths are standard deviations of Gaussians.
FEATURES = (
    "log odds", "log odds within 1.5 mm", "brightness", "brightness within 1 mm", "brightness within 5 mm",
    "darkening", "white matter of the template within 3 mm", "white matter within 2 mm",
)  # fmt: skip
#: A probability is at least so far from 0 and 1.
_LEAST = 1e-3
#: Beyond is no tissue of the brain: brightness and darkening.
_BRIGHT, _DARK = (-0.5, 1.0), (-0.5, 0.5)
#: Healthy white matter: probability of the template, of a lesion, and intensities of the inpainted T1w.
_WHITE, _HEALTHY, _WHITE_T1W = 0.8, 0.1, (0.9, 1.1)
#: Least intensity of white matter at standard contrast.
_WHITE_FROM = 0.85
#: Voxels of healthy white matter that tell its level, at least.
_ENOUGH = 10_000
#: A FLAIR covers so much of the brain, at least, and more than so much if it is whole: the six people's,
#: 0.984 to 0.997.
_COVERED, _WHOLE = 0.9, 0.97
#: Fluid is no brighter than so much of white matter, and grey matter no darker.
_FLUID, _GREY = 0.9, 0.9
#: Fluid and grey matter of a T1w at standard contrast, and voxels of them that tell their level.
_FLUID_T1W, _GREY_T1W, _FEW = 0.3, (0.6, 0.8), 500
#: The mutual information of two images of one brain falls by so much (fraction, mean of six directions), at
#: least, if one is shifted by so many voxels. It falls by 0.56 to 0.68 in six people, with noise and slices
#: of up to 6 mm, too, and by 0.07 to 0.33 with the FLAIR of another or a mirrored one, registered.
_FALLS, _SHIFT = 0.4, 3
#: Bins of the histograms of both images.
_BINS = 32


@dataclass(frozen=True)
class FlairModel:
    """A logistic model of the probability of a lesion by a T1w and a FLAIR.

    Attributes
    ----------
    coefficients : tuple of float
        Of :data:`FEATURES`.
    intercept : float
    threshold : float
        Least probability of a lesion in a map, 0 to 1.

    Raises
    ------
    ValueError
        If a number is missing or out of range.
    """

    coefficients: tuple[float, ...]
    intercept: float
    threshold: float

    def __post_init__(self) -> None:
        numbers = (*self.coefficients, self.intercept)
        sound = len(self.coefficients) == len(FEATURES) and all(abs(v) < 1e3 for v in numbers)
        if not (sound and 0 < self.threshold < 1):
            raise ValueError(f"{self} is no model of lesions by a FLAIR")

    @classmethod
    def read(cls, content: Any) -> FlairModel:
        """From the content of a card, which anybody may have written."""
        coefficients = tuple(float(v) for v in content["coefficients"])
        return cls(coefficients, float(content["intercept"]), float(content["threshold"]))

    def probability(self, features: Array) -> Array:
        """Of a lesion, 0-1, from an array of shape (..., number of features)."""
        return expit(features @ np.array(self.coefficients) + self.intercept).astype(np.float32)


@dataclass(frozen=True)
class Both:
    """A T1w and a FLAIR on one lattice of 1 mm, and what the blind network told of the T1w.

    Attributes
    ----------
    image, inpainted : array of float32
        T1w at standard contrast (:class:`bids_inpaint.imaging.intensity.Scale`), with lesions and without.
    probability : array of float32
        Of a lesion by the T1w alone, 0-1.
    flair : array of float32
        Without its bias field, in any unit.
    mask : array of bool
        Brain.
    white_prior : array of float
        White-matter probability of the template, 0-1.
    """

    image: Array
    inpainted: Array
    probability: Array
    flair: Array
    mask: Array
    white_prior: Array

    def white_level(self) -> float:
        """Median of the FLAIR in healthy white matter.

        Raises
        ------
        ValueError
            If there is none, or it has no signal.
        """
        low, high = _WHITE_T1W
        healthy = self.mask & (self.white_prior > _WHITE) & (self.probability < _HEALTHY)
        healthy &= (self.inpainted > low) & (self.inpainted < high) & (self.flair > 0)
        if healthy.sum() < _ENOUGH:
            raise ValueError("has too little signal in healthy white matter")
        return float(np.median(self.flair[healthy]))

    def features(self) -> Array:
        """What the probability depends on, for each voxel of the brain: shape (voxels, features)."""
        box = bounding_box(self.mask, margin=1)
        mask, inpainted, prior = self.mask[box], self.inpainted[box], self.white_prior[box]
        odds = logit(self.probability[box].astype(np.float64).clip(_LEAST, 1 - _LEAST)).astype(np.float32)
        bright = (self.flair[box] / np.float32(self.white_level()) - 1).clip(*_BRIGHT)
        inside = mask.astype(np.float32)
        near = [
            ndimage.gaussian_filter(bright * inside, sigma)
            / np.maximum(ndimage.gaussian_filter(inside, sigma), _LEAST)
            for sigma in (1, 5)
        ]
        volumes = (
            odds, ndimage.gaussian_filter(odds, 1.5), bright, *near,
            (inpainted - self.image[box]).clip(*_DARK),
            ndimage.gaussian_filter(np.asarray(prior, np.float32), 3),
            ndimage.gaussian_filter((mask & (inpainted > _WHITE_FROM)).astype(np.float32), 2),
        )  # fmt: skip
        return np.stack([volume[mask] for volume in volumes], axis=-1).astype(np.float32)

    def lesion_probability(self, model: FlairModel) -> Array:
        """Of a lesion by both images, 0-1 and 0 outside the brain; array of float32."""
        out = np.zeros(self.mask.shape, np.float32)
        out[self.mask] = model.probability(self.features())
        return out


def why_not_flair(flair: Array, image: Array, mask: Array, grey_prior: Array, white_prior: Array) -> str:
    """What speaks against an image being the FLAIR of a T1w, as the end of a sentence; empty if nothing does.

    Parameters
    ----------
    flair : array
        On the lattice of the T1w, in any unit.
    image : array
        T1w at standard contrast.
    mask : array of bool
        Brain.
    grey_prior, white_prior : array of float
        Of the template, 0-1.
    """
    there = mask & (flair > 0)
    if (share := covered(flair, mask)) < _COVERED:
        return f"covers {share:.0%} of the brain of its T1w image"
    if _sharpness(image, flair, mask) < _FALLS:
        return (
            "does not match the brain of its T1w image, as if it were of somebody else, mirrored or misplaced"
        )
    white = there & (white_prior > _WHITE) & (image > _WHITE_FROM)
    if not white.any():
        return "has no signal in white matter"
    level = float(np.median(flair[white]))
    fluid = there & (image < _FLUID_T1W)
    if fluid.sum() >= _FEW and (bright := float(np.median(flair[fluid])) / level) > _FLUID:
        return f"has fluid of {bright:.2f} times the intensity of white matter, as no FLAIR has"
    grey = there & (grey_prior > _WHITE) & (image > _GREY_T1W[0]) & (image < _GREY_T1W[1])
    if grey.sum() >= _FEW and (dark := float(np.median(flair[grey])) / level) < _GREY:
        return f"has grey matter of {dark:.2f} times the intensity of white matter, as a T1w image has"
    return ""


def covered(flair: Array, mask: Array) -> float:
    """Share of the brain in which a FLAIR has signal, 0-1."""
    return float((flair[mask] > 0).mean()) if mask.any() else 0.0


def lacking(flair: Array, mask: Array) -> list[str]:
    """Sentences on the part of a brain that a FLAIR lacks, if it is more than borders."""
    share = covered(flair, mask)
    if share >= _WHOLE:
        return []
    return [
        f"The FLAIR covers {share:.0%} of the brain: in the rest, the map of lesions by both images lacks "
        "them; use that of the T1w image there."
    ]


def _sharpness(image: Array, flair: Array, mask: Array) -> float:
    """By how much mutual information falls if one image is shifted: fraction, mean of six directions.

    Neither noise nor the contrast matters, as they weaken both.
    """
    box = bounding_box(mask, margin=_SHIFT)
    image, flair = image[box], flair[box]
    # what is shifted into it is of the brain, too
    inner = ndimage.binary_erosion(mask[box], iterations=_SHIFT)
    here = mutual_information(image, flair, inner)
    if not here:
        return 0.0
    shifted = [
        mutual_information(image, np.roll(flair, step, axis), inner)
        for axis in range(3) for step in (-_SHIFT, _SHIFT)
    ]  # fmt: skip
    return 1 - float(np.mean(shifted)) / here


def mutual_information(one: Array, other: Array, mask: Array) -> float:
    """Mutual information (nats) of two images inside a mask, by histograms of equal counts.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((2, 100_000))
    >>> everywhere = np.ones(100_000, bool)
    >>> round(mutual_information(noise[0], noise[1], everywhere), 1)
    0.0
    >>> abs(mutual_information(noise[0], -noise[0], everywhere) - math.log(32)) < 0.01
    True
    """
    ranks = []
    for image in (one, other):
        values = image[mask]
        edges = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])
        ranks.append(np.searchsorted(edges, values))
    joint = np.bincount(ranks[0] * _BINS + ranks[1], minlength=_BINS**2).reshape(_BINS, _BINS)
    joint = joint / max(joint.sum(), 1)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return math.fsum(joint[seen] * np.log(joint[seen] / apart[seen]))
