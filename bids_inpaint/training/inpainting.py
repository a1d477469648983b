"""Inpainting as a training task: samples with and without lesions, and the losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.inference import MASKED
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, Subject, subjects
from bids_inpaint.training.fit import Samples, Sums, mixed_precision
from bids_inpaint.training.networks import UNet, space_to_depth
from bids_inpaint.training.synthesis import (
    change_contrast,
    degrade,
    draw_centre,
    draw_image,
    draw_lesions,
    paint,
)


class Inpainting:
    """What :func:`bids_inpaint.training.fit.fit` needs to train an inpainting network.

    Parameters
    ----------
    config : Config
    cache : Path
        Made by ``prepare``.
    lesions : Path
        Folder of the lesion shapes.
    """

    def __init__(self, config: Config, cache: Path, lesions: Path):
        self.config = config
        self.cache = cache
        self.shapes = Lesions.load(lesions, config.data.leave_out_patients)

    def samples(self, first: int, device: str) -> Patches:
        """The samples from an index on."""
        return Patches(self.config, self.cache, self.shapes, first, device)

    def loss(self, network: UNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """The loss of a batch of :class:`Patches`, and squared errors for the log."""
        image, healthy, support = (t[:, None] for t in batch)
        given = image
        if not self.config.blind:
            support = given_mask(support, healthy)
            given = torch.where(support > 0, MASKED, image)
        x, target, lesion, before = (
            sub_volumes(t, network.multiple).contiguous(memory_format=torch.channels_last_3d)
            for t in (given, healthy, support, image)
        )
        schedule = self.config.fit
        brain = (target > 0).float()
        weight = brain * (1 + schedule.lesion_weight * lesion) + (1 - brain) * schedule.background_weight
        with mixed_precision(x.device.type):
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
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        self.config = config
        self.shapes = shapes
        super().__init__(first)
        self.device = device
        self.subjects = subjects(cache, config.data.train)
        missing = set(config.data.train) - {s.name for s in self.subjects}
        if missing:
            raise ValueError(f"not in the cache {cache}: {', '.join(sorted(missing))}")

    def sample(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        size = self.config.fit.patch
        image, healthy, support = make_sample(
            rng, subject, self.shapes, size, self.config.synthesis, self.device
        )
        unit = subject.mean_level if self.config.intensity == "mean" else 1.0
        return image / unit, healthy / unit, support


def draw_box(rng: np.random.Generator, shapes: Lesions, size: int) -> tuple[slice, ...]:
    """Draw where a patch lies on the working grid; size 0 is the whole grid."""
    if not size:
        return tuple(slice(0, n) for n in WORKING_GRID.shape)
    limit = np.array(WORKING_GRID.shape) - size
    corner = np.clip(np.round(draw_centre(rng, shapes) - size / 2), 0, limit).astype(int)
    return tuple(slice(c, c + size) for c in corner)


def make_sample(
    rng: np.random.Generator,
    subject: Subject,
    shapes: Lesions,
    size: int,
    synthesis: Synthesis,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """An image with lesions, without, and the lesion support.

    A healthy image is painted; a patient's comes with its lesion-free target and its lesion mask
    (step 2 of Manjón 2020, section 2.3).
    """
    box = draw_box(rng, shapes, size)
    flip = rng.random() < 0.5
    grey = subject.grey_level
    appearance = draw_image(rng, grey, synthesis.vary)

    def crop(volume: np.ndarray) -> Tensor:
        return torch.from_numpy(_crop(volume, box, flip)).to(device)

    image = change_contrast(crop(subject.image), grey, appearance)
    if subject.patient:
        lesioned, support = image, crop(subject.lesions)
        healthy = change_contrast(crop(subject.target), grey, appearance)
    else:
        healthy = image
        centre = np.array([(s.start + s.stop) / 2 for s in box])
        lesions = draw_lesions(rng, shapes, centre, size or 64, synthesis.mix, appearance.grey)
        corner = [s.start for s in box]
        lesioned, support = paint(healthy, appearance.grey, lesions, corner, appearance.seed)
    lesioned, healthy = degrade([lesioned, healthy], appearance)
    return lesioned, healthy, support


def _crop(image: np.ndarray, box: tuple[slice, ...], flip: bool) -> np.ndarray:
    if not flip:
        return np.asarray(image[box], dtype=np.float32)
    # voxel i of the mirrored image is voxel 180 - i; beyond the grid it continues with its border
    first = 180 - np.arange(box[0].start, box[0].stop)
    return np.asarray(image[first.clip(0), box[1], box[2]], dtype=np.float32)


def given_mask(support: Tensor, healthy: Tensor) -> Tensor:
    """What a non-blind network fills, 0 or 1, (N, 1, D, H, W): see :func:`bids_inpaint.inference.to_fill`.

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
    parts = space_to_depth(volume)
    pads = [p for n in parts.shape[:1:-1] for p in (0, -n % multiple)]
    return functional.pad(parts, pads)


def loss_of(outputs: Iterator[Tensor], healthy: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error, summed over the supervised outputs."""
    total = weight.sum().clamp(min=1)
    return sum(((o.float() - healthy).square() * weight).sum() / total for o in outputs)  # type: ignore[return-value]


def gate_loss(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of the lesion probability with the lesion support."""
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), lesion, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1)
