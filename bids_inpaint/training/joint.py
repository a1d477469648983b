"""Joint synthesis of FLAIR and segmentation of lesions from T1w (Orbes-Arteaga et al. 2018): loss, engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.registry import find
from bids_inpaint.training.architectures.slice_unet import Joint
from bids_inpaint.training.config import Config
from bids_inpaint.training.paired_slices import Pairs
from bids_inpaint.training.paired_validation import PairedValidation
from bids_inpaint.training.pairs import UNKNOWN
from bids_inpaint.training.task import Engine, LesionTask, Sums, mixed_precision
from bids_inpaint.training.to_onnx import slices_to_onnx


class JointSynthesis(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train both networks."""

    device = "cpu"
    validation: PairedValidation | None = None

    def to(self, device: str) -> None:
        """Validate on this device."""
        self.device = device

    def samples(self, first: int, device: str) -> Pairs:
        """The samples from an index on."""
        return Pairs(self.config, self.cache, self.shapes, first, device)

    def check(self, batch: list[Tensor]) -> None:
        """Refuse samples with a channel out of its range."""
        check_ranges(batch, self.config)

    def validate(self, network: Joint) -> dict[str, float]:
        """Scores of a network on the validation subjects: see :class:`PairedValidation`."""
        if self.validation is None:
            self.validation = PairedValidation(self.config, self.cache, self.lesions_folder, self.device)
        return self.validation.scores(network)

    def loss(self, network: Joint, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Error of the FLAIR inside the brain, and cross-entropy and soft Dice of the lesions.

        The sum of both, each with weight 1, is what a joint network learns from. Voxels of lesions weigh more
        in the error and in the cross-entropy. Slices whose lesions nobody marked teach the FLAIR alone.
        """
        t1w, flair, lesion, real = (part.flatten(0, 1) for part in batch)
        with mixed_precision(t1w):
            output = network(t1w)
        synthetic, logit = output.float().chunk(2, 1)
        brain = (flair > 0).float()
        judged = brain * (lesion != UNKNOWN)
        lesion = lesion * judged
        weight = brain * (1 + self.config.schedule.lesion_weight * lesion)
        error = (synthetic - flair).abs() if self.config.schedule.absolute else (synthetic - flair).square()
        taught = weight * real if self.config.schedule.real_flair else weight
        contrast = (error * taught).sum() / taught.sum().clamp(min=1)
        # outside the brain nothing is asked
        probability = torch.sigmoid(logit) * judged
        overlap, total = 2 * (probability * lesion).sum(), probability.sum() + lesion.sum()
        entropy = functional.binary_cross_entropy_with_logits(logit, lesion, reduction="none")
        weight = weight * judged
        segmentation = (entropy * weight).sum() / weight.sum().clamp(min=1) + 1 - (overlap + 1) / (total + 1)
        hit, truth = probability > 0.5, lesion > 0.5
        off = (synthetic.detach() - flair).square()
        sums = {
            "flair_mse": ((off * brain).sum(), brain.sum()),
            "lesion_flair_mse": ((off * lesion).sum(), lesion.sum()),
            "dice": (2 * (hit & truth).sum(), hit.sum() + truth.sum()),
        }
        if network.generator is None:
            return segmentation, {"dice": sums["dice"]}
        return contrast + segmentation, sums


def check_ranges(batch: list[Tensor], config: Config) -> None:
    """Refuse samples that can't be pairs.

    Parameters
    ----------
    batch : list of Tensor
        Of :class:`Pairs`: what is visible, the FLAIR, the lesions, and whether the FLAIR is real.
    config : Config

    Raises
    ------
    ValueError
        If a channel is out of its range, or a batch has no brain.
    """
    visible, flair, lesion, real = batch
    network = config.network
    slices = 2 * int(network.get("context", 0)) + 1
    ranges: dict[str, tuple[Tensor, float, float]] = {"T1w": (visible[:, :, :slices], 0, 12)}
    if network.get("priors"):
        ranges["template"] = (visible[:, :, slices : slices + 2], 0, 1)
        slices += 2
    if network.get("inpainter"):
        ranges["inpainted T1w"] = (visible[:, :, slices : slices + 1], 0, 12)
    if network.get("probability"):
        ranges["lesion probability"] = (visible[:, :, slices + 1 :], 0, 1)
    ranges |= {"FLAIR": (flair, 0, 12), "lesion mask": (lesion, UNKNOWN, 1), "mark": (real, 0, 1)}
    for name, (values, low, high) in ranges.items():
        # half precision rounds
        if not (values.numel() and low - 1e-3 <= values.min() and values.max() <= high + 1e-3):
            raise ValueError(f"samples have a {name} that is not {low:g} to {high:g}")
    if not (flair > 0).any():
        raise ValueError("samples have no brain")


def _card(config: Config, network: Joint) -> dict[str, Any]:
    card: dict[str, Any] = {"context": network.context}
    if network.inpainter:
        card |= {"inpainter": network.inpainter, "inpainter_sha256": find(network.inpainter).sha256}
    if network.probability:
        card["inpainter_probability"] = True
    return card


ENGINE = Engine(
    name="joint",
    architecture=Joint,
    description="two SliceUNets (Li 2018, Orbes-Arteaga 2018)",
    tasks={"flair": JointSynthesis},
    to_onnx=slices_to_onnx,
    card=_card,
    may_be_blind=True,
)
