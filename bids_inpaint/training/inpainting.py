"""Inpainting of volumes as a training task: samples with and without lesions, the losses, the engine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.volumes import MASKED
from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.extraction import BrainExtraction
from bids_inpaint.training.parameters import draw_image, draw_lesions
from bids_inpaint.training.patches import Place, channels_last, draw_place, padded, sub_volumes
from bids_inpaint.training.synthesis import change_contrast, degrade, paint
from bids_inpaint.training.task import Engine, LesionTask, Samples, Sums, mixed_precision
from bids_inpaint.training.to_onnx import volumes_to_onnx


class Inpainting(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train an inpainting network of volumes."""

    def samples(self, first: int, device: str) -> Patches:
        """The samples from an index on."""
        return Patches(self.config, self.cache, self.shapes, first, device)

    def loss(self, network: UNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """The loss of a batch of :class:`Patches`, and squared errors for the log."""
        image, healthy, support = (t[:, None] for t in batch[:3])
        visible = image
        if not self.config.blind:
            support = fill_mask(support, healthy)
            visible = torch.where(support > 0, MASKED, image)
        x, target, lesion, before = (
            sub_volumes(t, network.multiple) for t in (visible, healthy, support, image)
        )
        if len(batch) > 3:
            x = channels_last(torch.cat([x, padded(batch[3], network.multiple)], 1))
        schedule = self.config.schedule
        brain = (target > 0).float()
        weight = brain * (1 + schedule.lesion_weight * lesion) + (1 - brain) * schedule.background_weight
        with mixed_precision(x, network.multiple):
            if network.gate is None:
                outputs, logits = list(network.outputs(x)), None
            else:
                output, logits = network.gated_output(x)
                outputs = [output]
        loss = squared_error(outputs, target, weight)
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
        If a subject is not in the cache.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.subjects = find_subjects(cache, config.data.train)
        self.priors: list[np.ndarray] = template_priors(cache) if config.network.get("priors") else []

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        place = draw_place(rng, self.shapes, self.config.schedule.patch)
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

    Returns
    -------
    image, healthy, support : Tensor, each of the shape of the place
        White matter is 1, and the background 0; the support is 0-1.

    Raises
    ------
    ValueError
        If a patient has no lesion-free target yet.
    """
    grey = subject.grey_level
    appearance = draw_image(rng, grey, synthesis.vary)
    image = change_contrast(place.crop(subject.image).to(device), grey, appearance)
    if subject.patient:
        lesioned, support = image, place.crop(subject.lesions).to(device)
        healthy = change_contrast(place.crop(subject.target).to(device), grey, appearance)
    else:
        healthy = image
        reach = min(*place.size, 64)
        lesions = draw_lesions(rng, shapes, place.centre, reach, synthesis.mix, appearance.grey)
        lesioned, support = paint(healthy, appearance.grey, lesions, place.corner, appearance.seed)
    lesioned, healthy = degrade([lesioned, healthy], appearance)
    return lesioned, healthy, support


def fill_mask(support: Tensor, healthy: Tensor) -> Tensor:
    """What a non-blind network fills, 0 or 1, (N, 1, D, H, W).

    As :func:`bids_inpaint.networks.inpainting.to_fill` says.

    Parameters
    ----------
    support : Tensor, (N, 1, D, H, W)
        How much of each voxel is lesion, 0-1.
    healthy : Tensor, (N, 1, D, H, W)
        0 outside the brain.
    """
    lesion = (support > 0.5).float()
    kernels = [[3, 1, 1], [1, 3, 1], [1, 1, 3]]
    grown = [functional.max_pool3d(lesion, k, 1, [n // 2 for n in k]) for k in kernels]
    return torch.stack(grown).amax(0) * (healthy > 0)


def squared_error(outputs: Iterable[Tensor], healthy: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error, summed over the supervised outputs; all (N, 8, D, H, W)."""
    total = weight.sum().clamp(min=1)
    errors = (((o.float() - healthy).square() * weight).sum() / total for o in outputs)
    return sum(errors, torch.zeros(()))


def gate_loss(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of the lesion probability with the lesion support; all (N, 8, D, H, W)."""
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), lesion, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1)


ENGINE = Engine(
    name="unet",
    architecture=UNet,
    description="UNet (Manjón 2020)",
    tasks={"inpaint": Inpainting, "brain": BrainExtraction},
    to_onnx=volumes_to_onnx,
    may_be_blind=True,
    volumes=True,
    starts_from_onnx=True,
)
