"""The conditional diffusion model of Durrer et al. 2023: network, samples and loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.networks.card import slice_channels
from bids_inpaint.networks.diffusion import STEPS, signal
from bids_inpaint.training.fit import LesionTask, Sums, mixed_precision
from bids_inpaint.training.slices import Slices

#: Weight of the bound beside the error: with more, its rare large gradients drown those of the error.
VARIANCE = 0.01


class Denoiser(nn.Module):
    """The U-Net of diffusers on a noisy slice, the slice with its hole, and the hole.

    Parameters
    ----------
    channels : list of int
        Filters of each resolution.
    attention : list of bool
        Whether there is attention at each resolution.
    layers : int
        Residual blocks of each resolution.
    sub_images : bool
        Whether the network sees the four parity sub-images of a slice, as the 3D network sees the eight
        sub-volumes, which takes a quarter of the time.
    mirror : bool
        Whether it also sees the slice and the hole mirrored left to right.
    neighbours : sequence of int
        Distances of other slices that it also sees with their holes, on both sides.
    prediction : {'noise', 'image'}
        What it tells: the noise, as the paper's does, or the image, which takes fewer steps to learn.

    Notes
    -----
    Input (N, :attr:`inputs`, H, W) and steps (N,); output (N, 2, H, W): the noise or the image, and the
    share of the larger variance, -1 to 1. H and W are multiples of :attr:`multiple`.
    """

    def __init__(
        self,
        channels: list[int],
        attention: list[bool],
        layers: int = 2,
        sub_images: bool = False,
        groups: int = 32,
        mirror: bool = False,
        prediction: str = "noise",
        neighbours: Sequence[int] = (),
    ):
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel

        if prediction not in ("noise", "image"):
            raise ValueError(f"prediction {prediction} is neither noise nor image")
        self.prediction, self.mirror, self.neighbours = prediction, mirror, list(neighbours)
        self.inputs = 1 + slice_channels(mirror, neighbours)
        self.factor = 2 if sub_images else 1
        self.multiple = self.factor * 2 ** (len(channels) - 1)
        self.unet = UNet2DModel(
            in_channels=self.inputs * self.factor**2,
            out_channels=2 * self.factor**2,
            layers_per_block=layers,
            block_out_channels=tuple(channels),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
            norm_num_groups=groups,
        )

    def forward(self, image: Tensor, step: Tensor) -> Tensor:
        """Noise and variance."""
        if self.factor == 1:
            return self.unet(image, step).sample
        parts = functional.pixel_unshuffle(image, self.factor)
        return functional.pixel_shuffle(self.unet(parts, step).sample, self.factor)


class Diffusion(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a diffusion model."""

    def samples(self, first: int, device: str) -> NoisySlices:
        """The samples from an index on."""
        return NoisySlices(self.config, self.cache, self.shapes, first, device)

    def loss(self, network: nn.Module, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Squared error of what is told, and the bound that teaches variance (Nichol 2021, section 3.1)."""
        image, given, noise, step = batch
        hole = given[:, 1:2]
        left = torch.from_numpy(signal()).to(image.device)
        now, before = left[step], torch.where(step > 0, left[step - 1], 1.0)
        now, before = (v.float().view(-1, 1, 1, 1) for v in (now, before))
        noisy = now.sqrt() * image + (1 - now).sqrt() * noise
        with mixed_precision(image):
            output = network(torch.cat([noisy, given], 1), step)
        told, share = output.float().chunk(2, 1)
        weight = 1 + self.config.fit.lesion_weight * hole
        if network.prediction == "image":
            error = (told - image).square()
            found = (noisy - now.sqrt() * told) / (1 - now).sqrt()
            off = error.detach()
        else:
            error, found = (told - noise).square(), told
            off = error.detach() * (1 - now) / now
        bits = bound(image, noisy, found.detach(), share, now, before)
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
    """:class:`Slices`, each with its noise (1, size, size) and the step it is added at."""

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        image, given = super().sample(index)
        rng = np.random.default_rng([self.config.seed, index, 1])
        noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32)).to(self.device)
        return image, given, noise, torch.tensor(rng.integers(STEPS)).to(self.device)


def bound(image: Tensor, noisy: Tensor, noise: Tensor, share: Tensor, now: Tensor, before: Tensor) -> Tensor:
    """Bits that a voxel of one step costs with the variance that the network gives it.

    Parameters
    ----------
    image, noisy : Tensor, (N, 1, H, W)
        The truth, 0-1, and what the network saw of it.
    noise, share : Tensor
        The network's answer.
    now, before : Tensor, (N, 1, 1, 1)
        Share of the image's variance that is left at this step and at the one before.
    """
    beta = 1 - now / before
    first = before == 1
    # the variance of the first step would be 0: that of the second is near
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
