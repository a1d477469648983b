"""ip-MedGAN (Armanious et al. 2019) as a training task: samples, losses, discriminators and engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.slices import Sliced
from bids_inpaint.training.architectures.casnet import CasNet, Critics, Vgg19
from bids_inpaint.training.config import Config
from bids_inpaint.training.filters import to_device
from bids_inpaint.training.missing import SQUARE
from bids_inpaint.training.slice_task import SliceTask
from bids_inpaint.training.slices import Recipe, Slices, slice_card
from bids_inpaint.training.task import Engine, Sums, mixed_precision
from bids_inpaint.training.to_onnx import slices_to_onnx


def style_loss(filled: list[Tensor], real: list[Tensor]) -> Tensor:
    """Squared distance of the correlations of features, summed over layers (section 2.3).

    Parameters
    ----------
    filled, real : list of Tensor, each (N, C, H, W)
        Features of each layer.
    """
    distances = (
        (gram(a) - gram(b)).square().sum((1, 2)).mean() / (4 * a.shape[1] ** 2)
        for a, b in zip(filled, real, strict=True)
    )
    return sum(distances, torch.zeros(()))


def gram(features: Tensor) -> Tensor:
    """Correlations of features, (N, C, H, W) to (N, C, C)."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def perceptual_loss(filled: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute distance of the features of a discriminator, (N, C, H, W) each, summed over layers."""
    return sum(((a - b).abs().mean() for a, b in zip(filled, real, strict=True)), torch.zeros(()))


class Adversarial(SliceTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a generator.

    Parameters
    ----------
    config : Config
    cache : Path
        Made by ``prepare``.
    lesions : Path
        Folder of the lesion shapes.

    Raises
    ------
    ValueError
        If there is no such folder, or the file of VGG-19 holds another network.
    """

    def __init__(self, config: Config, cache: Path, lesions: Path | None = None):
        super().__init__(config, cache, lesions)
        options = config.adversarial
        self.vgg = Vgg19(Path(options.vgg19) if options.vgg19 else None)
        self.critics = Critics(options.filters)
        self.optimiser = torch.optim.Adam(
            self.critics.parameters(), config.schedule.learning_rate, betas=(0.5, 0.999)
        )
        self.taken = 0

    def to(self, device: str) -> None:
        """Move the discriminators and VGG-19 to a device, and validate there."""
        super().to(device)
        self.vgg.to(device)
        self.critics.to(device)

    def samples(self, first: int, device: str) -> Slices:
        """The samples from an index on."""
        return Holes(self.config, self.cache, self.shapes, first, device)

    def content(self, network: CasNet, brain: Sliced) -> np.ndarray:
        """What the generator makes of a hole."""
        return brain.answers(lambda channels: self.run(network, channels))[0]

    def state_dict(self) -> dict[str, Any]:
        """The discriminators, their optimiser, and the steps taken."""
        return {
            "critics": self.critics.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "taken": self.taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.taken = state["taken"]

    def loss(self, network: CasNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """A step of the discriminators, and the loss of the generator."""
        image, visible, corner = batch
        options = self.config.adversarial
        known, hole = visible[:, :1], visible[:, 1:2]
        with mixed_precision(image):
            output = network(visible)
        error = options.pixels * ((output - image).abs() * hole).sum() / hole.sum().clamp(min=1)
        squared = ((output.detach() - image).square() * hole).sum()
        self.taken += 1
        if self.taken <= options.alone:
            others: tuple[Tensor, ...] = tuple(torch.zeros(4))
        else:
            others = self.assess(image, known + hole * output, known, corner)
        critics, adversarial, style, perceptual = others
        total = error + adversarial + options.style * style + options.perceptual * perceptual
        one = torch.tensor(1)
        return total, {
            "critics": (critics.detach(), one),
            "adversarial": (adversarial.detach(), one),
            "style": (style.detach(), one),
            "perceptual": (perceptual.detach(), one),
            "hole_mse": (squared, hole.sum()),
        }

    def assess(self, image: Tensor, filled: Tensor, known: Tensor, corner: Tensor) -> tuple[Tensor, ...]:
        """A step of the discriminators: their loss, and what they and VGG-19 say of the filled slices.

        Parameters
        ----------
        image, filled, known : Tensor, (N, 1, H, W)
            The truth, the truth with what the generator made of the hole, and with 0 in the hole; 0-1.
        corner : Tensor, (N, 2)
            Where the square that the local discriminator sees begins, in voxels.

        Returns
        -------
        critics, adversarial, style, perceptual : Tensor
            The last three are losses of the generator, the adversarial one weighted.
        """
        options = self.config.adversarial
        precision = mixed_precision(image)

        def features(of: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
            with precision:
                return [v.float() for v in of(images)]

        real_part, filled_part = (cut(v, corner) for v in (image, filled))

        def judge_whole(whole: Tensor) -> list[Tensor]:
            return features(self.critics.all.features, torch.cat([whole, known], 1))

        def judge(whole: Tensor, part: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            return judge_whole(whole), features(self.critics.local.features, part)

        real, false = judge(image, real_part), judge(filled.detach(), filled_part.detach())
        blame = torch.stack(
            [
                weight * (says(r[-1], True) + says(f[-1], False)) / 2
                for weight, r, f in zip((options.all, options.local), real, false, strict=True)
            ]
        ).sum()
        self.optimiser.zero_grad(set_to_none=True)
        blame.backward()
        self.optimiser.step()

        self.critics.requires_grad_(False)
        judged = judge(filled, filled_part)
        with torch.no_grad():
            wanted = judge_whole(image)[:-1]
        adversarial = options.all * says(judged[0][-1], True) + options.local * says(judged[1][-1], True)
        style = style_loss(features(self.vgg, filled_part), features(self.vgg, real_part))
        perceptual = perceptual_loss([filled, *judged[0][:-1]], [image, *wanted])
        self.critics.requires_grad_(True)
        return blame, adversarial, style, perceptual


def says(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of what a discriminator says of every patch, logits of any shape."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def cut(images: Tensor, corners: Tensor) -> Tensor:
    """The square of `SQUARE` voxels of each image, (N, C, H, W), that begins at its corner, (N, 2)."""
    return torch.stack(
        [v[:, i : i + SQUARE, j : j + SQUARE] for v, (i, j) in zip(images, corners.tolist(), strict=True)]
    )


class Holes(Slices):
    """:class:`Slices`, each with the corner of a square around its hole, (2,)."""

    def tensors(self, recipes: Sequence[Recipe]) -> list[Tensor]:
        """What this yields of a batch."""
        made = self.make(recipes)
        chances = to_device(np.array([r.chance for r in recipes], np.float32), made.slices.device)
        return [made.image, made.visible(), square_around(made.holes[:, 0], chances)]


def square_around(holes: Tensor, chances: Tensor) -> Tensor:
    """First voxels, (N, 2), of a square of `SQUARE` voxels around each hole, or a voxel of a larger one.

    Parameters
    ----------
    holes : Tensor, (N, size, size)
    chances : Tensor, (N,)
        0-1, by which a voxel of a large hole is chosen, the middle of the square.
    """
    size = holes.shape[1]
    lines = torch.stack([holes.amax(2), holes.amax(1)], 1)
    low, high = lines.argmax(2), size - 1 - lines.flip(2).argmax(2)
    counts = holes.flatten(1).cumsum(1)
    voxel = (counts > (chances * counts[:, -1])[:, None]).to(torch.uint8).argmax(1)
    drawn = torch.stack([voxel // size, voxel % size], 1)
    fits = ((high - low) < SQUARE).all(1, keepdim=True)
    centre = torch.where(fits, (low + high + 1) // 2, drawn)
    return (centre - SQUARE // 2).clamp(0, size - SQUARE)


ENGINE = Engine(
    name="ip-medgan",
    architecture=CasNet,
    description="CasNet (Armanious 2019)",
    tasks={"inpaint": Adversarial},
    to_onnx=slices_to_onnx,
    card=slice_card,
)
