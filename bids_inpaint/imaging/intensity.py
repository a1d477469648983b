"""The intensity scale that makes T1w images of different scanners alike (pure arrays).

White matter is 1 and grey matter a fixed fraction of it. Both levels are medians where the template is sure
of the tissue, so that lesions, ventricles or the tightness of the brain mask move them little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.space import Misplaced, bounding_box

Array = np.ndarray

#: Grey matter as a fraction of white matter in standardised images: the mean over the training subjects.
GREY = 0.70
#: Tissue probability above which the template is taken as pure white or grey matter.
WM_CORE, GM_CORE = 0.95, 0.8
#: The contrast of an image is stretched at most so much, and until its noise is what the networks were
#: trained with (standard deviation as a fraction of white matter).
EXPONENTS = (0.5, 4.0)
NOISE = 0.035


@dataclass(frozen=True)
class Scale:
    """Intensities of an image, and how they are standardised.

    Attributes
    ----------
    white : float
        White-matter level, in the unit of the image.
    exponent : float
        A standardised intensity is the fraction of white matter to this power; above white matter
        it goes on straight.
    """

    white: float
    exponent: float = 1.0

    @classmethod
    def measure(cls, image: Array, mask: Array, wm_prior: Array, gm_prior: Array) -> Scale:
        """The scale that standardises a bias-corrected brain; the arguments are those of :func:`levels`."""
        white, grey = levels(image, mask, wm_prior, gm_prior)
        exponent = np.log(GREY) / np.log(np.clip(grey, 0.05, 0.99))
        noise = noise_level(image, (wm_prior > WM_CORE) & mask) / white
        limit = max(1.0, NOISE / noise) if noise else np.inf
        return cls(white, float(min(np.clip(exponent, *EXPONENTS), limit)))

    def apply(self, image: Array) -> Array:
        """Standardise: white matter becomes 1, grey matter `GREY`, and 0 stays.

        Examples
        --------
        >>> scale = Scale(white=200.0, exponent=2.0)
        >>> scale.apply(np.array([0.0, 100, 200, 300])).tolist()
        [0.0, 0.25, 1.0, 2.0]
        >>> scale.undo(scale.apply(np.array([0.0, 100, 200, 300]))).tolist()
        [0.0, 100.0, 200.0, 300.0]
        """
        x = np.maximum(image, 0) / np.float32(self.white)
        if self.exponent == 1:
            return x
        out = (1 + self.exponent * (x - 1)).astype(x.dtype)
        # most of a volume is 0, and a power takes long
        out[x == 0] = 0
        np.power(x, np.float32(self.exponent), out=out, where=(x > 0) & (x < 1))
        return out

    def undo(self, image: Array) -> Array:
        """Bring standardised intensities back; negative ones become 0."""
        x = np.maximum(image, 0)
        if self.exponent != 1:
            below = np.minimum(x, 1) ** np.float32(1 / self.exponent)
            x = np.where(x < 1, below, 1 + (x - 1) / self.exponent).astype(x.dtype)
        return x * np.float32(self.white)


def levels(image: Array, mask: Array, wm_prior: Array, gm_prior: Array) -> tuple[float, float]:
    """White-matter level of a brain on the working grid, and grey matter as a fraction of it.

    Parameters
    ----------
    image : array
        Bias-corrected, in any unit.
    mask : array of bool
        Brain.
    wm_prior, gm_prior : array of float
        Tissue probabilities of the template, 0-1.

    Raises
    ------
    Misplaced
        If the mask hardly holds any of the template's tissue, or it is not bright.
    """
    white = white_level(image, mask, wm_prior)
    # CSF between the gyri is left out
    return white, _median(image, (gm_prior > GM_CORE) & mask & (image > 0.3 * white), "grey") / white


def white_level(image: Array, mask: Array, wm_prior: Array) -> float:
    """White-matter level of a brain of any contrast; the arguments are those of :func:`levels`."""
    return _median(image, (wm_prior > WM_CORE) & mask, "white")


def noise_level(image: Array, core: Array) -> float:
    """Robust standard deviation of what varies within some 3 voxels inside `core`."""
    box = bounding_box(core, margin=6)
    part = np.asarray(image[box], np.float32)
    fine = part - ndimage.gaussian_filter(part, 1.5)
    return float(1.4826 * np.median(np.abs(fine[core[box]])))


def _median(image: Array, core: Array, tissue: str) -> float:
    if core.sum() < 10_000:
        raise Misplaced(f"does not overlap the {tissue} matter of the template")
    level = float(np.median(image[core]))
    if not level > 0:
        raise Misplaced(f"has no signal in the {tissue} matter of the template")
    return level
