"""Samples for the inpainting of volumes: a brain with lesions, without, and where they are.

A sample is drawn first, in numbers, and then made. What is drawn is little, so that processes of the CPU draw
whole batches, and a GPU makes them: no operation there is about one sample or one lesion alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bids_inpaint.training.borders import Borders, draw_at_borders, fainter
from bids_inpaint.training.brains import Brains
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.filters import to_device
from bids_inpaint.training.painters import PAINTERS, RealLesions, Scene, draw_kind, draw_lesions
from bids_inpaint.training.painting import Boxed, box_lesions, paint_batch
from bids_inpaint.training.parameters import ImageParameters, LesionParameters, draw_image
from bids_inpaint.training.patches import Place, draw_place
from bids_inpaint.training.synthesis import Draws, change_contrast, degrade
from bids_inpaint.training.task import Drawn, Samples
from bids_inpaint.training.tissue import draw_mimics, expert_support, redraw_contrast, seen, vary_tissue

#: The middle of the brainstem and the cerebellar peduncles, in voxels of the working grid.
INFRATENTORIAL = (90, 90, 40)
#: Of patients' patches, the share that is cut where they have a lesion.
AT_LESIONS = 0.8
#: What an image, or what is to become of it, is in a batch, at least and at most; 1 is white matter.
RANGES = {"image": (0.0, 10.0), "support": (0.0, 1.0), "priors": (0.0, 1.0)}


@dataclass(frozen=True)
class Recipe:
    """All that a sample is made of, but for random numbers of each voxel.

    Attributes
    ----------
    subject : int
    place : Place
    appearance : ImageParameters
    lesions : list of LesionParameters
        To paint; a patient has his own.
    shift : tuple of int
        Voxels that the template is moved by.
    """

    subject: int
    place: Place
    appearance: ImageParameters
    lesions: list[LesionParameters]
    shift: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Recipes of samples of one size, without their lesions, and these in boxes."""

    recipes: list[Recipe]
    lesions: Boxed

    @classmethod
    def of(cls, recipes: Sequence[Recipe]) -> Batch:
        """Put the lesions of samples into boxes."""
        corners = [r.place.corner for r in recipes]
        boxed = box_lesions([r.lesions for r in recipes], corners, recipes[0].place.size)
        return cls([replace(r, lesions=[]) for r in recipes], boxed)


class Patches(Samples):
    """Endless samples; sample *i* depends on the seed and on *i* alone.

    Parameters
    ----------
    config : Config
    cache : Path
    shapes : Lesions
    first : int
        Index of the first sample.
    device : str
        Where samples are made.

    Yields
    ------
    image, healthy, support : Tensor, each (patch, patch, patch) or of the size of the working grid
        With lesions, without, and how much of each voxel is lesion (0-1).
    priors : Tensor, (2, patch / 2, patch / 2, patch / 2), if the network looks at them
        Probability of white and of grey matter in the template.

    Raises
    ------
    ValueError
        If a subject is not in the cache, or the painters need patients and there are none.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.subjects = find_subjects(cache, config.data.train)
        self.real = RealLesions([s for s in self.subjects if s.patient])
        synthesis = config.synthesis
        wanted = any(PAINTERS[name].real and share for name, share in synthesis.painters.items())
        if wanted or synthesis.patients:
            if not self.real.patients:
                raise ValueError(
                    f"{config.name} is to learn from patients, but trains on none: add some to 'train'."
                )
            if not self.real.components:
                raise ValueError(
                    f"{config.name} is to learn from patients, of whom none has a lesion of 10 voxels."
                )
            # once, and not in each process that draws
            _ = self.real.tables
        if (
            synthesis.patients is not None
            and synthesis.patients < 1
            and all(s.patient for s in self.subjects)
        ):
            raise ValueError(
                f"{config.name} is to learn from healthy people, too, but trains on patients alone."
            )
        #: Probability of white and of grey matter in the template, if the network looks at them.
        self.priors = template_priors(cache) if config.network.get("priors") else []
        self.brains = Brains(self.subjects, self.priors, self.real, device)
        at_borders = synthesis.periventricular or synthesis.juxtacortical
        # once, and not in each process that draws
        self.borders = [Borders.of(s) if at_borders and not s.patient else None for s in self.subjects]

    def draw(self, index: int) -> Recipe:
        """Draw the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        synthesis = self.config.synthesis
        number = self._draw_subject(rng, synthesis.patients)
        subject = self.subjects[number]
        edge = self.config.schedule.patch
        place = draw_place(rng, self.shapes, edge)
        if subject.patient and edge and rng.random() < AT_LESIONS:
            voxels = self._lesion_of(rng, subject)
            centre = voxels[rng.integers(len(voxels))] + rng.normal(0, edge / 8, 3)
            place = Place.around(centre, edge, place.flip)
        elif not subject.patient and edge and 0 < synthesis.infratentorial > rng.random():
            place = Place.around(rng.normal(INFRATENTORIAL, (10, 9, 9)), edge, place.flip)
        appearance = draw_image(rng, subject.grey_level, synthesis.vary, synthesis.artefacts)
        lesions = [] if subject.patient else self._draw_lesions(rng, number, place, appearance)
        # the template fits some brains worse than those of the training
        shift = np.round(rng.normal(0, 2, 3)).astype(int) if len(self.priors) else np.zeros(3, int)
        appearance = draw_mimics(rng, appearance, place, synthesis)
        return Recipe(number, place, appearance, lesions, tuple(shift.tolist()))

    def _draw_subject(self, rng: np.random.Generator, share: float | None) -> int:
        if share is None:
            return int(rng.integers(len(self.subjects)))
        wanted = rng.random() < share
        return int(rng.choice(np.flatnonzero(self.brains.patients == wanted)))

    def _lesion_of(self, rng: np.random.Generator, subject: Subject) -> np.ndarray:
        """Voxels of one of a patient's lesions: small ones are as frequent as large ones."""
        mine = [v for n, v in self.real.components if self.real.patients[n] is subject]
        return mine[rng.integers(len(mine))] if mine else np.argwhere(subject.lesions)

    def _draw_lesions(
        self, rng: np.random.Generator, number: int, place: Place, appearance: ImageParameters
    ) -> list[LesionParameters]:
        synthesis = self.config.synthesis
        size = np.minimum(place.size, min(*place.size, 64))
        kind = draw_kind(rng, synthesis.mix)
        scene = Scene(self.shapes, place.centre, size, kind, appearance.grey, self.real)
        lesions = draw_lesions(rng, scene, synthesis.painters)
        borders = self.borders[number]
        if borders and kind != "none":
            lesions += draw_at_borders(rng, scene, borders, place.flip, synthesis)
        if synthesis.faint:
            lesions = [
                fainter(rng, lesion, appearance.grey) if rng.random() < synthesis.faint else lesion
                for lesion in lesions
            ]
        return lesions

    def make(self, batch: Batch, draws: Draws | None = None) -> list[Tensor]:
        """Make the samples of a batch.

        A healthy image is painted; a patient's comes with its lesion-free target and its lesion mask (step 2
        of Manjón 2020, section 2.3).

        Parameters
        ----------
        batch : Batch
        draws : Draws, optional
            Those of the seeds by default.

        Returns
        -------
        list of Tensor
            What this yields, each with one more axis at its beginning.
        """
        recipes, brains = batch.recipes, self.brains
        places, appearances = [r.place for r in recipes], [r.appearance for r in recipes]
        if draws is None:
            noisy = [bool(a.noise or a.rim) for a in appearances]
            draws = Draws.seeded([a.seed for a in appearances], places[0].size, noisy)
        which = np.array([r.subject for r in recipes])
        grey = to_device(np.array([a.grey for a in appearances], np.float32), brains.device)
        image = change_contrast(brains.crop(brains.images, which, places), brains.levels[which], appearances)
        own = np.flatnonzero(brains.patients[which])
        versions = [image]
        if len(own):
            number, theirs = np.cumsum(brains.patients)[which[own]] - 1, [places[i] for i in own]
            target, lesions = (brains.crop(v, number, theirs) for v in (brains.targets, brains.lesions))
            rows = to_device(own, brains.device)
            target = change_contrast(target, brains.levels[which[own]], [appearances[i] for i in own])
            versions.append(image.index_copy(0, rows, target))
        versions = [redraw_contrast(v, grey, appearances) for v in versions]
        *images, healthy = vary_tissue(versions, grey, appearances, draws)
        corners = [p.corner for p in places]
        lesioned, support = paint_batch(healthy, grey, batch.lesions, corners, draws.texture, brains.changes)
        unseen, beyond = self.config.synthesis.unseen, self.config.synthesis.beyond
        if unseen < 1 and batch.lesions.boxes:
            support.mul_(seen(healthy - lesioned, grey, unseen))
        for image in images:
            unhealthy = image[rows]
            lesioned.index_copy_(0, rows, unhealthy)
            marked = expert_support(unhealthy, healthy[rows], lesions, grey[rows], unseen, beyond)
            support.index_copy_(0, rows, marked)
        versions = [lesioned, healthy] if len(own) or batch.lesions.boxes else [healthy]
        versions = degrade(versions, appearances, draws)
        if self.config.intensity == "mean":
            unit = to_device(brains.means[which], brains.device).view(-1, 1, 1, 1)
            versions = [v / unit for v in versions]
        made = [versions[0], versions[-1], support]
        if len(brains.priors):
            shifts = [r.shift for r in recipes]
            pooled = [brains.crop(brains.priors, [i] * len(recipes), places, shifts, 2) for i in range(2)]
            made.append(torch.stack(pooled, 1).float())
        return made

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        return tuple(t[0] for t in self.make(Batch.of([self.draw(index)])))

    def batches(self, size: int, workers: int) -> Iterator[list[Tensor]]:
        """Endless batches that are drawn by processes and made on the device of the samples, several at once.

        Random numbers of each voxel are the device's: they are the same again for a seed and a first sample.

        Parameters
        ----------
        size : int
            Samples of a batch.
        workers : int
            Processes that draw; 0 draws in this one.
        """
        at_once = max(1, 64 // size)
        drawn = Drawn(self.draw, self.first, size * at_once, Batch.of)
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.first)
        for batch in DataLoader(
            drawn, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        ):
            shape = batch.recipes[0].place.size
            made = self.make(batch, Draws.on(self.device, generator, len(batch.recipes), shape))
            yield from ([t[i : i + size] for t in made] for i in range(0, len(batch.recipes), size))


def check_ranges(batch: Sequence[Tensor], grey: float = 1.3) -> None:
    """Refuse samples that can't be what a network is to learn from.

    Parameters
    ----------
    batch : sequence of Tensor
        Of :class:`Patches`.

    Raises
    ------
    ValueError
        If a channel holds what is no intensity, no share or no probability, or white matter is not near 1.
    """
    for name, tensor in zip(("image", "image", "support", "priors"), batch, strict=False):
        low, high = RANGES[name]
        least, most = float(tensor.min()), float(tensor.max())
        if not (low <= least <= most <= high):
            raise ValueError(
                f"the samples' {name} ranges from {least:.3g} to {most:.3g}: {low} to {high} is allowed"
            )
    healthy = batch[1]
    brain = healthy[healthy > 0]
    if brain.numel() and not 0.4 < float(brain.mean()) < grey:
        raise ValueError(
            f"the mean of the samples' brains is {float(brain.mean()):.3g}: it should be 0.4 to {grey}"
        )
