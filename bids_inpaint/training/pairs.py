"""T1w and FLAIR of the same brain with lesions, drawn from three kinds of subjects.

Label maps give both contrasts by drawing the intensity of each tissue; healthy T1w images give a FLAIR as a
function of their own intensity; lesions are painted into both. Patients come with their own FLAIR and mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.intensity import GREY
from bids_inpaint.training.config import Synthesis
from bids_inpaint.training.data import Lesions, Subject
from bids_inpaint.training.filters import smooth
from bids_inpaint.training.heads import FLUID, WHITE
from bids_inpaint.training.painters import Scene, draw_kind, draw_lesions
from bids_inpaint.training.parameters import ImageParameters, LesionParameters, draw_image
from bids_inpaint.training.patches import Place
from bids_inpaint.training.synthesis import change_contrast, degrade, paint

#: Value of the voxels of a lesion mask that nobody drew.
UNKNOWN = -1.0
#: FreeSurfer's labels of lesions in the label maps.
LESION = (25, 77)
#: Where thalamus, pallidum, caudate, putamen and accumbens lie between grey (0) and white matter (1).
DEEP = {10: 0.55, 13: 0.8, 11: 0.15, 12: 0.15, 26: 0.15}

#: What a subject of the cache is, for pairs.
Kind = Literal["patients", "label maps", "healthy", "unmarked"]


#: Point spread along each axis in voxels.
Blur = tuple[float, float, float]


@dataclass(frozen=True)
class Contrast:
    """Levels of the tissues in both contrasts, as fractions of white matter.

    Attributes
    ----------
    t1w, flair : dict
        Label to level.
    texture : float
        Relative standard deviation inside a tissue.
    lesion : float
        Level of the typical lesion in the FLAIR.
    blur : tuple of float
        Point spread of the FLAIR in voxels.
    """

    t1w: dict[int, float]
    flair: dict[int, float]
    texture: float
    lesion: float
    blur: Blur


def draw_contrast(rng: np.random.Generator, labels: Sequence[int], grey: float) -> Contrast:
    """Draw how bright tissues are.

    Parameters
    ----------
    rng : Generator
    labels : sequence of int
        FreeSurfer's.
    grey : float
        Level of the cortex in the T1w.
    """
    fluid, cortex = rng.uniform(0.1, 0.45), rng.uniform(1.0, 1.4)
    dark = rng.uniform(0.1, 0.6)
    t1w, flair = {0: 0.0}, {0: 0.0}
    for label in labels:
        if label in FLUID:
            t1w[label], flair[label] = fluid * rng.normal(1, 0.1), dark * rng.normal(1, 0.1)
        elif label in (*WHITE, *LESION):
            t1w[label], flair[label] = rng.normal((1.0, 1.0), 0.02)
        elif label:
            deep = DEEP.get(label)
            share = float(np.clip(deep + rng.normal(0, 0.1), 0, 1)) if deep else rng.normal(0, 0.05)
            t1w[label] = grey + share * (1 - grey)
            flair[label] = (cortex + share * (1 - cortex)) * rng.normal(1, 0.03)
    return Contrast(t1w, flair, rng.uniform(0.01, 0.06), *_draw_flair(rng, cortex))


def _draw_flair(rng: np.random.Generator, cortex: float) -> tuple[float, Blur]:
    lesion = cortex + rng.uniform(0.05, 0.6)
    blur = [rng.uniform(0.3, 0.9)] * 3
    if rng.random() < 0.4:
        # thick slices
        blur[int(rng.integers(3))] = rng.uniform(0.8, 1.8)
    return float(lesion), (float(blur[0]), float(blur[1]), float(blur[2]))


def from_labels(labels: Tensor, contrast: Contrast, seed: int) -> tuple[Tensor, Tensor]:
    """The healthy brain of a label map in both contrasts.

    Parameters
    ----------
    labels : Tensor of int, (D, H, W)
        FreeSurfer's.
    contrast : Contrast
    seed : int
        Of the texture.

    Returns
    -------
    t1w, flair : Tensor, (D, H, W)
        White matter about 1, background 0.
    """
    generator = torch.Generator().manual_seed(seed)
    out = []
    for levels in (contrast.t1w, contrast.flair):
        table = torch.zeros(256)
        for label, level in levels.items():
            table[label] = level
        fine = torch.randn(labels.shape, generator=generator)
        coarse = torch.randn([1, 1, *(max(2, n // 8) for n in labels.shape)], generator=generator)
        waves = functional.interpolate(coarse, size=labels.shape, mode="trilinear")[0, 0]
        image = table[labels] * (1 + contrast.texture * (fine + waves))
        out.append(smooth(image[None], (0.6, 0.6, 0.6))[0].clamp(min=0) * (labels > 0))
    return out[0], out[1]


def from_t1w(image: Tensor, grey: float, rng: np.random.Generator) -> tuple[Tensor, float, Blur]:
    """A FLAIR as a function of the intensity of a healthy T1w, and the level of lesions and blur of it.

    Parameters
    ----------
    image : Tensor, (D, H, W)
        White matter 1.
    grey : float
        Its grey-matter level.
    rng : Generator

    Returns
    -------
    flair : Tensor, (D, H, W)
        White matter 1.
    level : float
        Of the typical lesion in it.
    blur : tuple of float
        Its point spread along each axis in voxels.
    """
    cortex, fluid = rng.uniform(1.0, 1.4), rng.uniform(0.1, 0.6)
    middle = 0.5 * grey
    known = [0.0, middle, 0.5 * (middle + grey), grey, 1.0, 1.25, 2.5]
    wanted = [0.7 * fluid, fluid, 0.6 * cortex + 0.4 * fluid, cortex, 1.0, rng.uniform(0.7, 1), 0.5]
    flair = np.interp(image.numpy(), known, wanted).astype(np.float32)
    return torch.from_numpy(flair) * (image > 0), *_draw_flair(rng, cortex)


def paint_both(
    t1w: Tensor,
    flair: Tensor,
    grey: float,
    lesions: Sequence[LesionParameters],
    corner: Sequence[int],
    level: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lesions that are dark in the T1w and bright in the FLAIR.

    Parameters
    ----------
    t1w, flair : Tensor, (D, H, W)
        The healthy brain, white matter 1.
    grey : float
        Grey-matter level of the T1w.
    lesions : sequence of LesionParameters
    corner : sequence of int
        Voxel of the working grid where the patch begins.
    level : float
        Of the typical lesion in the FLAIR.
    seed : int
        Of the texture inside the lesions.

    Returns
    -------
    t1w, flair, support : Tensor, (D, H, W)
        How much of each voxel is lesion is 0-1.
    """
    image, support = paint(t1w, grey, lesions, corner, seed)
    # what is darker in the T1w is mostly brighter in the FLAIR
    depth = ((t1w - image) / (1 - grey)).clamp(0, 1.5)
    bright = level + 0.15 * (depth - 0.5)
    return image, flair + support * (bright - flair).clamp(min=0), support


def by_kind(subjects: Sequence[Subject]) -> dict[Kind, list[Subject]]:
    """Patients, label maps, healthy brains, and FLAIR whose lesions nobody marked, those that there are."""
    kinds: dict[Kind, list[Subject]] = {}
    for subject in sorted(subjects, key=lambda s: (kind_of(s), s.name)):
        kinds.setdefault(kind_of(subject), []).append(subject)
    return kinds


def kind_of(subject: Subject) -> Kind:
    """What a subject is."""
    if subject.labelled:
        return "label maps"
    if subject.patient:
        return "patients"
    return "unmarked" if subject.has_flair else "healthy"


def make_pair(
    rng: np.random.Generator, subject: Subject, shapes: Lesions, place: Place, synthesis: Synthesis
) -> tuple[Tensor, Tensor, Tensor]:
    """Both contrasts and the lesions in a patch of a subject.

    Without variation, the contrast is that of standardised images, as at inference.

    Returns
    -------
    t1w, flair, lesion : Tensor, each of the shape of the place
        White matter is 1, the background 0; the lesion mask is 0, 1, or :data:`UNKNOWN`.

    Raises
    ------
    ValueError
        If a patient has no FLAIR.
    """
    appearance = draw_image(rng, GREY, synthesis.vary)
    kind = kind_of(subject)
    if kind in ("patients", "unmarked"):
        t1w = change_contrast(place.crop(subject.image), subject.grey_level, appearance)
        flair = place.crop(subject.flair)
        lesion = place.crop(subject.lesions) if subject.patient else torch.full_like(flair, UNKNOWN)
        return _degraded(t1w, appearance), flair.clamp(min=0) * (t1w > 0), lesion
    if kind == "label maps":
        labels = place.crop(subject.labels).long()
        contrast = draw_contrast(rng, subject.classes, appearance.grey)
        healthy, flair = from_labels(labels, contrast, appearance.seed)
        level, blur = contrast.lesion, contrast.blur
        labelled = np.argwhere(np.isin(labels.numpy(), LESION))
    else:
        grey = subject.grey_level
        crop = place.crop(subject.image)
        flair, level, blur = from_t1w(crop, grey, rng)
        healthy = change_contrast(crop, grey, appearance)
        labelled = np.empty((0, 3), int)
    reach = np.minimum(place.size, 96)
    scene = Scene(shapes, place.centre, reach, draw_kind(rng, synthesis.mix), appearance.grey)
    lesions = draw_lesions(rng, scene, synthesis.painters)
    if len(labelled):
        typical = 1 - rng.uniform(0.3, 1.3) * (1 - appearance.grey)
        lesions.append(LesionParameters(labelled + np.array(place.corner), typical, 0.5, 0.8))
    t1w, flair, support = paint_both(
        healthy, flair, appearance.grey, lesions, place.corner, level, appearance.seed
    )
    brain = healthy > 0
    flair = smooth(flair[None], blur)[0] * brain
    return _degraded(t1w, appearance), flair, (support > 0.5).float()


def _degraded(t1w: Tensor, appearance: ImageParameters) -> Tensor:
    """The T1w with its bias, point spread, noise and brain mask."""
    return degrade([t1w[None]], [appearance])[0][0]
