"""The conditional diffusion model of Durrer et al. 2023 as a training task: samples, loss and engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.networks.diffusion import STEPS, signal
from bids_inpaint.networks.engines.ddpm import draw
from bids_inpaint.networks.slices import Sliced
from bids_inpaint.training.architectures.denoiser import Denoiser
from bids_inpaint.training.config import Config
from bids_inpaint.training.filters import to_device
from bids_inpaint.training.slice_task import SliceTask
from bids_inpaint.training.slices import Made, Recipe, Slices, slice_card
from bids_inpaint.training.task import Engine, Sums, mixed_precision
from bids_inpaint.training.to_onnx import slices_to_onnx

#: Weight of the bound beside the error: with more, its rare large gradients drown those of the error.
VARIANCE = 0.01
#: How a model is sampled if nothing else is asked for.
SAMPLING: dict[str, str | int] = {"sampler": "ddim", "steps": 2}


class Diffusion(SliceTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a diffusion model."""

    def samples(self, first: int, device: str) -> NoisySlices:
        """The samples from an index on."""
        return NoisySlices(self.config, self.cache, self.shapes, first, device)

    def content(self, network: Denoiser, brain: Sliced) -> np.ndarray:
        """What is drawn as a card with :data:`SAMPLING` says."""

        def run(channels: np.ndarray, step: int) -> np.ndarray:
            return self.run(network, channels, torch.tensor([step], device=self.device))

        told_image = network.prediction == "image"
        return draw(brain, run, told_image, str(SAMPLING["sampler"]), int(SAMPLING["steps"]), 0)

    def loss(self, network: Denoiser, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Squared error of the prediction, and the bound that teaches variance (Nichol 2021, section 3.1)."""
        made, step = Made(*batch[:3]), batch[3]
        image, hole = made.image, made.holes[:, :1]
        left = torch.from_numpy(signal()).to(image.device)
        now, before = left[step], torch.where(step > 0, left[step - 1], 1.0)
        now, before = (v.float().view(-1, 1, 1, 1) for v in (now, before))
        seen = made.slices if network.together else image
        generator = torch.Generator(image.device).manual_seed(self.config.seed + int(batch[4][0]))
        noise = torch.randn(seen.shape, generator=generator, device=image.device)
        noisy_slices = now.sqrt() * seen + (1 - now).sqrt() * noise
        noisy, noise = noisy_slices[:, :1], noise[:, :1]
        visible = made.visible(noisy_slices[:, 1:] if network.together else None)
        with mixed_precision(image):
            output = network(torch.cat([noisy, visible], 1), step)
        prediction, share = output.float().chunk(2, 1)
        weight = 1 + self.config.schedule.lesion_weight * hole
        if network.prediction == "image":
            error = (prediction - image).square()
            predicted_noise = (noisy - now.sqrt() * prediction) / (1 - now).sqrt()
            off = error.detach()
        else:
            error, predicted_noise = (prediction - noise).square(), prediction
            off = error.detach() * (1 - now) / now
        bits = bound(image, noisy, predicted_noise.detach(), share, now, before)
        loss = ((error + VARIANCE * bits) * weight).sum()
        early, late = hole * (now < 0.1), hole * (now > 0.5)
        return loss / weight.sum(), {
            "mse": (error.detach().sum(), torch.tensor(error.numel())),
            "hole_mse": ((error.detach() * hole).sum(), hole.sum()),
            # of the image, from much noise and from little
            "hole_early_mse": ((off * early).sum(), early.sum()),
            "hole_late_mse": ((off * late).sum(), late.sum()),
        }


class NoisySlices(Slices):
    """:class:`Slices`, each with the step that noise is added at.

    Yields
    ------
    slices, holes, other : Tensor
        Of :class:`bids_inpaint.training.slices.Made`.
    step : Tensor, int
    index : Tensor, int
        Of the sample: that of the first of a batch is the seed of its noise. It stays on the CPU.
    """

    def tensors(self, recipes: Sequence[Recipe]) -> list[Tensor]:
        """What this yields of a batch."""
        made, noisiest = self.make(recipes), self.config.synthesis.noisiest
        # what is drawn above the share of the noisiest is spread over all steps
        chances = (np.array([r.chance for r in recipes]) - noisiest) / max(1 - noisiest, 1e-9)
        steps = np.where(chances < 0, STEPS - 1, np.minimum(chances * STEPS, STEPS - 1)).astype(np.int64)
        # read on the CPU, where a GPU would have to be waited for
        index = torch.tensor([r.index for r in recipes])
        return [made.slices, made.holes, made.other, to_device(steps, made.slices.device), index]


def bound(image: Tensor, noisy: Tensor, noise: Tensor, share: Tensor, now: Tensor, before: Tensor) -> Tensor:
    """Bits that a voxel of one step costs with the variance that the network gives it.

    Parameters
    ----------
    image, noisy : Tensor, (N, 1, H, W)
        The truth, 0-1, and what the network saw of it.
    noise, share : Tensor, (N, 1, H, W)
        The predicted noise, and the share of the larger variance, -1 to 1.
    now, before : Tensor, (N, 1, 1, 1)
        Share of the image's variance that is left at this step and at the one before.

    Returns
    -------
    Tensor, (N, 1, H, W)
    """
    beta = 1 - now / before
    first = before == 1
    # the variance of the first step would be 0: that of the second is close to it
    smaller = torch.where(first, beta, beta * (1 - before) / (1 - now)).log()
    larger = beta.log()
    variance = smaller + (share + 1) / 2 * (larger - smaller)

    def mean(of: Tensor) -> Tensor:
        return (before.sqrt() * beta * of + (now / before).sqrt() * (1 - before) * noisy) / (1 - now)

    apart = mean(image) - mean((noisy - (1 - now).sqrt() * noise) / now.sqrt())
    divergence = 0.5 * (
        variance - smaller - 1 + (smaller - variance).exp() + apart.square() * (-variance).exp()
    )
    # the first step is that of an image of 256 values
    scale = (0.5 * variance).exp()
    upper, lower = ((apart + half) / scale for half in (1 / 510, -1 / 510))
    likelihood = (torch.special.ndtr(upper) - torch.special.ndtr(lower)).clamp(min=1e-12).log()
    return torch.where(first, -likelihood, divergence) / np.log(2)


def _card(config: Config, network: Denoiser) -> dict[str, Any]:
    return {**slice_card(config, network), "prediction": network.prediction, "sampling": SAMPLING}


ENGINE = Engine(
    name="ddpm",
    architecture=Denoiser,
    description="diffusers.UNet2DModel (Durrer 2023)",
    tasks={"inpaint": Diffusion},
    to_onnx=partial(slices_to_onnx, has_step=True),
    card=_card,
)
