"""Inpainting of volumes as a training task: the losses, and the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.uncertainty import LesionProbability
from bids_inpaint.networks.volumes import MASKED
from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions
from bids_inpaint.training.extraction import BrainExtraction
from bids_inpaint.training.lesioned import Patches, check_ranges
from bids_inpaint.training.patches import channels_last, padded, sub_volumes
from bids_inpaint.training.task import Engine, LesionTask, Sums, mixed_precision
from bids_inpaint.training.to_onnx import volumes_to_onnx
from bids_inpaint.training.validation import Validation


class Inpainting(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train an inpainting network of volumes."""

    device = "cpu"
    validation: Validation | None = None

    def samples(self, first: int, device: str) -> Patches:
        """The samples from an index on."""
        return Patches(self.config, self.cache, self.shapes, first, device)

    def check(self, batch: list[Tensor]) -> None:
        """Refuse samples with a channel out of its range."""
        check_ranges(batch)

    def validate(self, network: UNet) -> dict[str, float]:
        """Scores of a network on the validation subjects: see :class:`Validation`."""
        if self.validation is None:
            # of nobody that it learns from, unless all may be learned from
            shapes = Lesions.load(self.lesions_folder, only=self.config.data.lenders or None)
            self.validation = Validation(self.config, self.cache, shapes, self.device)
        return self.validation.scores(network)

    def to(self, device: str) -> None:
        """Validate on this device."""
        self.device = device

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


def _card(config: Config, network: UNet) -> dict[str, Any]:
    """What a blind network tells is taken as it is until it is calibrated."""
    told = config.task == "inpaint" and config.blind and network.gate is not None
    return {"lesion_probability": asdict(LesionProbability())} if told else {}


ENGINE = Engine(
    name="unet",
    architecture=UNet,
    description="UNet (Manjón 2020)",
    tasks={"inpaint": Inpainting, "brain": BrainExtraction},
    to_onnx=volumes_to_onnx,
    card=_card,
    may_be_blind=True,
    volumes=True,
    starts_from_onnx=True,
)
