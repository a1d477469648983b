"""Inpainting as a training task: samples with and without lesions, and the losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.volumes import MASKED
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.fit import LesionTask, Samples, Sums, mixed_precision
from bids_inpaint.training.networks import UNet, space_to_depth
from bids_inpaint.training.synthesis import (
    change_contrast,
    degrade,
    draw_centre,
    draw_image,
    draw_lesions,
    paint,
)


class Inpainting(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train an inpainting network."""

    def samples(self, first: int, device: str) -> Patches:
        """The samples from an index on."""
        return Patches(self.config, self.cache, self.shapes, first, device)

    def loss(self, network: UNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """The loss of a batch of :class:`Patches`, and squared errors for the log."""
        image, healthy, support = (t[:, None] for t in batch[:3])
        given = image
        if not self.config.blind:
            support = given_mask(support, healthy)
            given = torch.where(support > 0, MASKED, image)
        x, target, lesion, before = (
            sub_volumes(t, network.multiple).contiguous(memory_format=torch.channels_last_3d)
            for t in (given, healthy, support, image)
        )
        if len(batch) > 3:
            parts = torch.cat([x, padded(batch[3], network.multiple)], 1)
            x = parts.contiguous(memory_format=torch.channels_last_3d)
        schedule = self.config.fit
        brain = (target > 0).float()
        weight = brain * (1 + schedule.lesion_weight * lesion) + (1 - brain) * schedule.background_weight
        with mixed_precision(x, network.multiple):
            if network.gate is None:
                outputs, logits = list(network.outputs(x)), None
            else:
                answer, logits = network.gated_output(x)
                outputs = [answer]
        loss = loss_of(iter(outputs), target, weight)
        if logits is not None:
            loss = loss + schedule.gate_weight * gate_loss(logits, lesion, weight)
        inside, outside = lesion > 0.5, (lesion == 0) & (target > 0)
        after = (outputs[-1].detach().float() - target).square()
        return loss, {
            "lesion_mse": (after[inside].sum(), inside.sum()),
            "lesioned_mse": ((before - target).square()[inside].sum(), inside.sum()),
            "healthy_mse": (after[outside].sum(), outside.sum()),
        }


class Patches(Samples):
    """Endless samples; sample *i* depends on the seed and on *i* alone.

    Yields
    ------
    image, healthy, support : Tensor, each (patch, patch, patch) or of the size of the working grid
        With lesions, without, and how much of each voxel is lesion (0-1).
    priors : Tensor, (2, patch / 2, patch / 2, patch / 2), if the network looks at them
        Probability of white and of grey matter in the template.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        self.config = config
        self.shapes = shapes
        super().__init__(first)
        self.device = device
        self.subjects = find_subjects(cache, config.data.train)
        self.priors: list[np.ndarray] = []
        if config.network.get("priors"):
            self.priors = template_priors(cache)

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        place = draw_place(rng, self.shapes, self.config.fit.patch)
        image, healthy, support = make_sample(
            rng, subject, self.shapes, place, self.config.synthesis, self.device
        )
        unit = subject.mean_level if self.config.intensity == "mean" else 1.0
        sample = image / unit, healthy / unit, support
        if not self.priors:
            return sample
        # the template fits some brains worse than those of the training
        shift = tuple(np.round(rng.normal(0, 2, 3)).astype(int).tolist())
        crops = torch.stack([place.crop(p, shift) for p in self.priors])
        return *sample, functional.avg_pool3d(crops, 2).to(self.device)


@dataclass(frozen=True)
class Place:
    """Where a patch lies on the working grid.

    Attributes
    ----------
    corner, size : tuple of int
    flip : bool
        Whether it is taken from the image mirrored left to right.
    """

    corner: tuple[int, ...]
    size: tuple[int, ...]
    flip: bool

    def crop(self, volume: np.ndarray, shift: tuple[int, ...] = (0, 0, 0)) -> Tensor:
        """The patch of a volume that is first moved by some voxels; its border goes on beyond it."""
        first, *others = (
            np.arange(c, c + n) - s for c, n, s in zip(self.corner, self.size, shift, strict=True)
        )
        # voxel i of the mirrored image is voxel 180 - i
        indices = [180 - first if self.flip else first, *others]
        clipped = (i.clip(0, n - 1) for i, n in zip(indices, volume.shape, strict=True))
        return torch.from_numpy(volume[np.ix_(*clipped)].astype(np.float32))


def draw_place(rng: np.random.Generator, shapes: Lesions, size: int) -> Place:
    """Draw where a patch lies; size 0 is the whole grid."""
    corner, sizes = np.zeros(3, int), np.array(WORKING_GRID.shape)
    if size:
        corner = np.round(draw_centre(rng, shapes) - size / 2).clip(0, sizes - size).astype(int)
        sizes = np.full(3, size)
    return Place(tuple(corner.tolist()), tuple(sizes.tolist()), bool(rng.random() < 0.5))


def make_sample(
    rng: np.random.Generator,
    subject: Subject,
    shapes: Lesions,
    place: Place,
    synthesis: Synthesis,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """An image with lesions, without, and the lesion support.

    A healthy image is painted; a patient's comes with its lesion-free target and its lesion mask
    (step 2 of Manjón 2020, section 2.3).
    """
    grey = subject.grey_level
    appearance = draw_image(rng, grey, synthesis.vary)
    image = change_contrast(place.crop(subject.image).to(device), grey, appearance)
    if subject.patient:
        lesioned, support = image, place.crop(subject.lesions).to(device)
        healthy = change_contrast(place.crop(subject.target).to(device), grey, appearance)
    else:
        healthy = image
        centre = np.array(place.corner) + np.array(place.size) / 2
        reach = min(*place.size, 64)
        lesions = draw_lesions(rng, shapes, centre, reach, synthesis.mix, appearance.grey)
        lesioned, support = paint(healthy, appearance.grey, lesions, place.corner, appearance.seed)
    lesioned, healthy = degrade([lesioned, healthy], appearance)
    return lesioned, healthy, support


def given_mask(support: Tensor, healthy: Tensor) -> Tensor:
    """What a non-blind network fills, 0 or 1, (N, 1, D, H, W).

    As :func:`bids_inpaint.networks.inpainting.to_fill` says.

    Parameters
    ----------
    support : Tensor
        How much of each voxel is lesion, 0-1.
    healthy : Tensor
        0 outside the brain.
    """
    lesion = (support > 0.5).float()
    kernels = [[3, 1, 1], [1, 3, 1], [1, 1, 3]]
    grown = [functional.max_pool3d(lesion, k, 1, [n // 2 for n in k]) for k in kernels]
    return torch.stack(grown).amax(0) * (healthy > 0)


def sub_volumes(volume: Tensor, multiple: int) -> Tensor:
    """(N, 1, D, H, W) as eight sub-volumes, padded with zeros as at inference."""
    return padded(space_to_depth(volume), multiple)


def padded(channels: Tensor, multiple: int) -> Tensor:
    """Pad the spatial axes with zeros at their end, to multiples of a number."""
    return functional.pad(channels, [p for n in channels.shape[:1:-1] for p in (0, -n % multiple)])


def loss_of(outputs: Iterator[Tensor], healthy: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error, summed over the supervised outputs."""
    total = weight.sum().clamp(min=1)
    return sum(((o.float() - healthy).square() * weight).sum() / total for o in outputs)  # type: ignore[return-value]


def gate_loss(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of the lesion probability with the lesion support."""
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), lesion, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1)
