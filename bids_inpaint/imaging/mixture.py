"""Tissues of a brain by a Gaussian mixture with priors and a Markov random field (pure arrays)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import PRIOR_BLUR_MM
from bids_inpaint.imaging.tissues import Implausible
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: Exponent of the template's odds of fluid. Sulci differ between people: with all of the odds, the fluid of
#: those that lie elsewhere than the template's became grey matter, as it does with Atropos.
FLUID_WEIGHT = 0.5
#: No tissue is ruled out anywhere.
PRIOR_FLOOR = 0.01
#: Weight of each of the six neighbours. It is small, as the image is denoised: a larger one closes sulci.
NEIGHBOUR_WEIGHT = 0.1
#: Percentile of the brain above which all intensities count as this one: vessels have no Gaussian.
BRIGHTEST = 99.5
#: Means of grey and white matter differ by this fraction of the brain's mean, at least; 26 images have 0.06
#: and more.
LEAST_CONTRAST = 0.02
#: Fluid is darker than grey matter by this fraction of what that is darker than white matter, at least; 26
#: images have 0.6 and more. Without fluid in the brain, its Gaussian comes to lie on grey matter.
LEAST_FLUID_CONTRAST = 0.4

#: The Gaussians are fitted to as many voxels, or up to twice as many, spread over the brain.
_SAMPLES = 250_000
_FITS, _UPDATES = 100, 3
#: Change of a mean, as a fraction of the brain's mean, at which the fit ends.
_SMALL = 1e-4
#: The least variance, in the square of the brain's mean: about that of the rounding to 8 bits.
_LEAST_VARIANCE = 1e-5


@dataclass(frozen=True)
class Mixture:
    """Gaussians of fluid, grey and white matter, in units of the brain's mean.

    Attributes
    ----------
    means, variances : array of float, shape (3,)
    """

    means: Array
    variances: Array

    def likelihood(self, values: Array) -> Array:
        """Density of each tissue, shape (3, n), without the factor that all have."""
        means, factors, heights = (
            a.astype(np.float32)[:, None]
            for a in (self.means, -0.5 / self.variances, 1 / np.sqrt(self.variances))
        )
        return heights * np.exp(factors * np.square(values - means))


def segment(
    image: Array, mask: Array, priors: Sequence[Array], voxel_sizes: Array | Sequence[float] = (1, 1, 1)
) -> list[Array]:
    """Segment a bias-corrected T1-weighted brain into fluid, grey and white matter.

    Parameters
    ----------
    image : array, three-dimensional
        Intensities; fluid is darker than grey matter, and that is darker than white matter.
    mask : array of bool
        The brain.
    priors : sequence of 3 arrays
        Probabilities (0-1) of CSF, GM and WM in the template. What is neither GM nor WM there is taken as
        fluid, beyond its brain, too.
    voxel_sizes : sequence of 3 floats
        In mm.

    Returns
    -------
    list of 3 arrays of float32
        Probabilities (0-1) of CSF, GM and WM; their sum is 1 in the brain, and 0 elsewhere.

    Raises
    ------
    Implausible
        If the intensities are no numbers, or do not differ between the tissues as in a T1w.

    Notes
    -----
    The intensity :math:`x_v` of a voxel :math:`v` of tissue :math:`k` has a normal distribution,

    .. math:: p(x_v \\mid k) = N(x_v; \\mu_k, \\sigma_k^2),

    whose parameters are fitted by expectation-maximisation with the prior probabilities :math:`\\pi_{vk}` of
    :func:`place_priors` [1]_ [2]_. Unlike SPM's, the model has no proportion of each tissue: where grey and
    white matter overlap, as in images with thick slices, white matter grew to three quarters of the brain.
    The posterior probabilities :math:`q` are those of the mean field of a Potts model over the six
    neighbours :math:`N_v` [3]_ [4]_,

    .. math:: q_{vk} \\propto \\pi_{vk} \\, p(x_v \\mid k) \\exp(\\beta \\sum_{u \\in N_v} q_{uk}),

    with :math:`\\beta` = `NEIGHBOUR_WEIGHT`. No sum is taken by BLAS, so that its threads don't change a
    byte.

    References
    ----------
    .. [1] Dempster et al. 1977, J R Stat Soc B 39:1-38.
    .. [2] Ashburner and Friston 2005, NeuroImage 26:839-851.
    .. [3] Van Leemput et al. 1999, IEEE Trans Med Imaging 18:897-908.
    .. [4] Zhang et al. 2001, IEEE Trans Med Imaging 20:45-57.
    """
    box = bounding_box(mask, margin=1)
    inside = mask[box]
    values: Array = np.asarray(image[box][inside], np.float32)
    mean = float(values.mean(dtype=np.float64))
    if not (np.isfinite(mean) and mean > 0):
        raise Implausible("its intensities are not those of an image")
    values = np.minimum(values, np.percentile(values, BRIGHTEST)) / np.float32(mean)
    _, grey, white = (prior[box] for prior in priors)
    weights = place_priors(grey, white, inside, voxel_sizes)
    step = max(values.size // _SAMPLES, 1)
    mixture = fit(values[::step], weights[:, ::step])
    # of two Gaussians the wider one has the tails: what is darker than fluid would be grey matter
    likelihood = mixture.likelihood(np.clip(values, *mixture.means[[0, 2]].astype(np.float32)))
    out = []
    for posterior in mean_field(np.log(weights * likelihood + np.float32(1e-30)), inside):
        volume = np.zeros(mask.shape, np.float32)
        volume[box][inside] = posterior
        out.append(volume)
    return out


def place_priors(grey: Array, white: Array, inside: Array, voxel_sizes: Array | Sequence[float]) -> Array:
    """Prior probabilities of the tissues of each voxel of the brain.

    With the template's probabilities :math:`c`, :math:`g` and :math:`w` of fluid, grey and white matter,
    after a Gaussian of `PRIOR_BLUR_MM`, the odds of fluid are :math:`(c / (g + w))^a`, where :math:`a` is
    `FLUID_WEIGHT`, and those of grey and white matter are the template's.

    Parameters
    ----------
    grey, white : array
        The template's probabilities, 0-1.
    inside : array of bool
        The brain.
    voxel_sizes : sequence of 3 floats
        In mm.

    Returns
    -------
    array of float32, shape (3, n)
        Of fluid, grey and white matter; the sum is 1.
    """
    sigma = PRIOR_BLUR_MM / np.asarray(voxel_sizes, float)
    grey, white = (
        np.maximum(ndimage.gaussian_filter(np.asarray(p, np.float32), sigma, truncate=3)[inside], 0)
        for p in (grey, white)
    )
    matter = grey + white
    share = np.clip((white + np.float32(1e-6)) / (matter + np.float32(2e-6)), PRIOR_FLOOR, 1 - PRIOR_FLOOR)
    matter = np.clip(matter, PRIOR_FLOOR, 1 - PRIOR_FLOOR)
    odds = ((1 - matter) / matter) ** np.float32(FLUID_WEIGHT)
    matter = 1 / (1 + odds)
    return np.stack([1 - matter, matter * (1 - share), matter * share])


def fit(values: Array, weights: Array) -> Mixture:
    """Fit a Gaussian to each tissue by expectation-maximisation.

    Parameters
    ----------
    values : array of float32, shape (n,)
        Intensities in units of their mean.
    weights : array of float32, shape (3, n)
        Prior probabilities of the tissues.

    Raises
    ------
    Implausible
        If the means do not rise from fluid to grey and from grey to white matter, as without any fluid.
    """
    mixture = _moments(values, weights)
    for _ in range(_FITS):
        responsibilities = weights * mixture.likelihood(values)
        responsibilities /= responsibilities.sum(0) + np.float32(1e-30)
        before, mixture = mixture, _moments(values, responsibilities)
        if np.abs(mixture.means - before.means).max() < _SMALL:
            break
    fluid, grey, white = mixture.means
    contrast = white - grey
    if contrast < LEAST_CONTRAST or grey - fluid < LEAST_FLUID_CONTRAST * contrast:
        raise Implausible(
            "fluid, grey and white matter do not differ in intensity as in a T1w: their means are "
            f"{fluid:.2f}, {grey:.2f} and {white:.2f} of the brain's"
        )
    return mixture


def _moments(values: Array, weights: Array) -> Mixture:
    """Weighted means and variances."""
    counts = weights.sum(1, dtype=np.float64) + 1e-9
    means = (weights * values).sum(1, dtype=np.float64) / counts
    deviations = np.square(values - means.astype(np.float32)[:, None])
    variances = (weights * deviations).sum(1, dtype=np.float64) / counts
    return Mixture(means, variances + _LEAST_VARIANCE)


def mean_field(evidence: Array, inside: Array) -> Array:
    """Posterior probabilities of the tissues in a Potts model.

    Parameters
    ----------
    evidence : array of float32, shape (3, n)
        Logarithm of prior times likelihood of each tissue.
    inside : array of bool, three-dimensional
        Where the n voxels are.

    Returns
    -------
    array of float32, shape (3, n)
        The sum is 1.
    """
    posterior = _normalised(evidence)
    volume = np.zeros(inside.shape, np.float32)
    for _ in range(_UPDATES):
        field = evidence.copy()
        for tissue, values in zip(field, posterior, strict=True):
            volume[inside] = values
            tissue += np.float32(NEIGHBOUR_WEIGHT) * _neighbours(volume)[inside]
        posterior = _normalised(field)
    return posterior


def _neighbours(volume: Array) -> Array:
    """Sum of the six neighbours of each voxel."""
    out = np.zeros_like(volume)
    for axis in range(3):
        lower = (slice(None),) * axis + (slice(None, -1),)
        upper = (slice(None),) * axis + (slice(1, None),)
        out[upper] += volume[lower]
        out[lower] += volume[upper]
    return out


def _normalised(logarithms: Array) -> Array:
    exponentials = np.exp(logarithms - logarithms.max(0))
    return exponentials / exponentials.sum(0)
