"""T1w and FLAIR slices of the same brain with lesions, drawn from three kinds of subjects.

Label maps give both contrasts by drawing the intensity of each tissue; healthy T1w images give a FLAIR as a
function of their own intensity; lesions are painted into both. Patients come with their own FLAIR and mask.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.intensity import GREY, Scale
from bids_inpaint.networks import inpainting, registry
from bids_inpaint.networks.card import Model
from bids_inpaint.space import WORKING_GRID, bounding_box
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects, storing, template_priors
from bids_inpaint.training.fit import Samples
from bids_inpaint.training.heads import FLUID, WHITE
from bids_inpaint.training.inpainting import Place
from bids_inpaint.training.synthesis import (
    ImageParameters,
    LesionParameters,
    change_contrast,
    degrade,
    draw_centre,
    draw_image,
    draw_lesions,
    paint,
    smooth,
)

#: Value of the voxels of a lesion mask that nobody drew.
UNKNOWN = -1.0
#: Pairs that are made of each subject.
DRAWS = 2
#: Slices that are taken from one patch, and the distance of one from the next.
SLICES, GAP = 4, 3
#: FreeSurfer's labels of lesions in the label maps.
LESION = (25, 77)
#: Where thalamus, pallidum, caudate, putamen and accumbens lie between grey (0) and white matter (1).
DEEP = {10: 0.55, 13: 0.8, 11: 0.15, 12: 0.15, 26: 0.15}


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
    blur: tuple[float, float, float]


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


def _draw_flair(rng: np.random.Generator, cortex: float) -> tuple[float, tuple[float, float, float]]:
    lesion = cortex + rng.uniform(0.05, 0.6)
    blur = [rng.uniform(0.3, 0.9)] * 3
    if rng.random() < 0.4:
        # thick slices
        blur[int(rng.integers(3))] = rng.uniform(0.8, 1.8)
    return float(lesion), (float(blur[0]), float(blur[1]), float(blur[2]))


def from_labels(labels: Tensor, contrast: Contrast, seed: int) -> tuple[Tensor, Tensor]:
    """The healthy brain of a label map in both contrasts, (D, H, W) each."""
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
        out.append(smooth(image, (0.6, 0.6, 0.6)).clamp(min=0) * (labels > 0))
    return out[0], out[1]


def from_t1w(image: Tensor, grey: float, rng: np.random.Generator) -> tuple[Tensor, float, tuple]:
    """A FLAIR as a function of the intensity of a healthy T1w, and the level of lesions and blur of it.

    Parameters
    ----------
    image : Tensor
        White matter 1.
    grey : float
        Its grey-matter level.
    rng : Generator
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
    """Lesions that are dark in the T1w and bright in the FLAIR; both images, and the support, 0-1."""
    image, support = paint(t1w, grey, lesions, corner, seed)
    # what is darker in the T1w is mostly brighter in the FLAIR
    depth = ((t1w - image) / (1 - grey)).clamp(0, 1.5)
    bright = level + 0.15 * (depth - 0.5)
    return image, flair + support * (bright - flair).clamp(min=0), support


class Pairs(Samples):
    """Endless samples of `SLICES` slices of a brain; sample *i* depends on the seed and on *i* alone.

    They are taken from whole pairs, `DRAWS` of each subject, that are made and stored in the cache first.

    Yields
    ------
    t1w : Tensor, (SLICES, 2·context + 1, size, size)
        White matter 1; followed by the template's white- and grey-matter probability and by the inpainted
        slice, if the network looks at them.
    flair, lesion : Tensor, (SLICES, 1, size, size)
        White matter 1, and 0 outside the brain; 0, 1, or :data:`UNKNOWN`.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.context = int(config.network.get("context", 0))
        kinds = by_kind(find_subjects(cache, config.data.train))
        for patient in kinds.get("patients", []):
            _ = patient.flair  # a missing one is told now
        self.kinds = list(kinds.values())
        self.priors = template_priors(cache)
        self.stored = {
            subject.name: [_Stored(folder) for folder in folders]
            for subject, folders in make_pairs(kinds, shapes, self.priors, config, cache).items()
        }

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subjects = self.kinds[rng.integers(len(self.kinds))]
        subject = subjects[rng.integers(len(subjects))]
        drawn = self.stored[subject.name]
        stored = drawn[rng.integers(len(drawn))]
        edge = self.config.fit.patch
        size = np.array([edge, edge, 2 * self.context + (SLICES - 1) * GAP + 1])
        corner = np.round(draw_centre(rng, self.shapes) - size / 2)
        corner = corner.clip(0, np.array(WORKING_GRID.shape) - size).astype(int)
        place = Place(tuple(corner.tolist()), tuple(size.tolist()), False)
        t1w, flair, lesion, *inpainted = stored.crop(place)
        priors = []
        if self.config.network.get("priors"):
            # the template fits some brains worse than those of the training
            shift = tuple(np.round(rng.normal(0, 1.5, 3)).astype(int).tolist())
            priors = [place.crop(prior, shift) for prior in self.priors]
        middles = [self.context + i * GAP for i in range(SLICES)]
        mirrored = bool(rng.random() < 0.5)

        def slices(volume: Tensor, around: int = 0) -> Tensor:
            chosen = torch.stack([volume[..., z - around : z + around + 1] for z in middles])
            out = chosen.permute(0, 3, 1, 2)
            return (out.flip(2) if mirrored else out).contiguous().to(self.device)

        seen = [slices(t1w, self.context), *(slices(v) for v in (*priors, *inpainted))]
        return torch.cat(seen, 1), slices(flair), slices(lesion)


class _Stored:
    """A stored pair; volumes of the box of the brain, slices first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.corner = np.array(json.loads((folder / "corner.json").read_text()))

    @cached_property
    def volumes(self) -> np.ndarray:
        return np.load(self.folder / "volumes.npy", mmap_mode="r")

    def crop(self, place: Place) -> Tensor:
        """The volumes in a place of the working grid, (C, X, Y, Z), 0 outside the box."""
        out = torch.zeros(len(self.volumes), *place.size)
        shape = np.array(self.volumes.shape)[[2, 3, 1]]
        start = np.array(place.corner) - self.corner
        low, high = start.clip(0, shape), (start + place.size).clip(0, shape)
        x, y, z = (slice(*v) for v in zip(low, high, strict=True))
        to = [slice(*v) for v in zip(low - start, high - start, strict=True)]
        out[:, *to] = torch.from_numpy(self.volumes[:, z, x, y].astype(np.float32)).permute(0, 2, 3, 1)
        return out


def make_pairs(
    kinds: dict[str, list[Subject]],
    shapes: Lesions,
    priors: Sequence[np.ndarray],
    config: Config,
    cache: Path,
) -> dict[Subject, list[Path]]:
    """Make the pairs that are not in the cache yet, in several processes; the folders of each subject's.

    They depend on the subjects, the lesion shapes, the inpainting network and `config.synthesis` alone.
    """
    voxels = [v.astype("<i2").tobytes() for p in [*shapes.patients, shapes.singles] for v in p]
    inpainter = config.network.get("inpainter")
    blind = registry.find(inpainter) if inpainter else None
    made_with = [asdict(config.synthesis), zlib.crc32(b"".join(voxels)), blind.sha256 if blind else None]
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12]
    folders = {
        subject: [cache / f"pairs-{key}" / f"{subject.name}_{i}" for i in range(DRAWS)]
        for group in kinds.values()
        for subject in group
    }
    missing = [(subject, f) for subject, own in folders.items() for f in own if not f.exists()]
    processes = min(len(os.sched_getaffinity(0)), len(missing) // 4)
    make = partial(_make_stored, shapes=shapes, priors=priors, config=config, blind=blind)
    if processes > 1:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,)) as pool:
            list(pool.map(make, [missing[i::processes] for i in range(processes)]))
    else:
        make(missing)
    return folders


def _make_stored(
    wanted: Sequence[tuple[Subject, Path]],
    shapes: Lesions,
    priors: Sequence[np.ndarray],
    config: Config,
    blind: Model | None,
) -> None:
    for subject, folder in wanted:
        rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
        brain = subject.labels if subject.labelled else subject.image
        box = bounding_box(np.asarray(brain) > 0, margin=4)
        # networks of sub-volumes need even sizes
        corner, size = [s.start for s in box], [(s.stop - s.start) // 2 * 2 for s in box]
        place = Place(tuple(corner), tuple(size), False)
        volumes = [v.numpy() for v in make_pair(rng, subject, shapes, place, config)]
        if blind:
            t1w, near = volumes[0], [place.crop(prior).numpy() for prior in priors]
            volumes.append(inpainting.inpaint(blind, t1w, t1w > 0, Scale(1.0), priors=near))
        with storing(folder) as part:
            np.save(part / "volumes.npy", np.stack(volumes).transpose(0, 3, 1, 2).astype(np.float16))
            (part / "corner.json").write_text(json.dumps(corner))


def by_kind(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Patients, label maps, healthy brains, and FLAIR whose lesions nobody marked, those that there are."""
    kinds: dict[str, list[Subject]] = {}
    for subject in sorted(subjects, key=lambda s: (kind_of(s), s.name)):
        kinds.setdefault(kind_of(subject), []).append(subject)
    return kinds


def kind_of(subject: Subject) -> str:
    """One of patients, label maps, healthy and unmarked."""
    if subject.labelled:
        return "label maps"
    if subject.patient:
        return "patients"
    return "unmarked" if (subject.folder / "flair.npy").exists() else "healthy"


def make_pair(
    rng: np.random.Generator, subject: Subject, shapes: Lesions, place: Place, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """Both contrasts and the lesions in a patch of a subject, (D, H, W) each.

    Without variation, the contrast is that of standardised images, as at inference.
    """
    appearance = draw_image(rng, GREY, config.synthesis.vary)
    kind = kind_of(subject)
    if kind in ("patients", "unmarked"):
        t1w = change_contrast(place.crop(subject.image), subject.grey_level, appearance)
        flair = place.crop(subject.flair)
        lesion = place.crop(subject.lesions) if subject.patient else torch.full_like(flair, UNKNOWN)
        return _seen(t1w, appearance), flair.clamp(min=0) * (t1w > 0), lesion
    if kind == "label maps":
        labels = place.crop(subject.labels).long()
        contrast = draw_contrast(rng, subject.classes, appearance.grey)
        healthy, flair = from_labels(labels, contrast, appearance.seed)
        level, blur = contrast.lesion, contrast.blur
        own = np.argwhere(np.isin(labels.numpy(), LESION))
    else:
        grey = subject.grey_level
        crop = place.crop(subject.image)
        flair, level, blur = from_t1w(crop, grey, rng)
        healthy = change_contrast(crop, grey, appearance)
        own = np.empty((0, 3), int)
    centre = np.array(place.corner) + np.array(place.size) / 2
    reach = np.minimum(place.size, 96)
    lesions = draw_lesions(rng, shapes, centre, reach, config.synthesis.mix, appearance.grey)
    if len(own):
        typical = 1 - rng.uniform(0.3, 1.3) * (1 - appearance.grey)
        lesions.append(LesionParameters(own + np.array(place.corner), typical, 0.5, 0.8))
    t1w, flair, support = paint_both(
        healthy, flair, appearance.grey, lesions, place.corner, level, appearance.seed
    )
    brain = healthy > 0
    flair = smooth(flair, blur) * brain
    return _seen(t1w, appearance), flair, (support > 0.5).float()


def _seen(t1w: Tensor, appearance: ImageParameters) -> Tensor:
    """The T1w with its bias, point spread, noise and brain mask."""
    return degrade([t1w], appearance)[0]
