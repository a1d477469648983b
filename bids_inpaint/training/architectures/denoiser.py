"""The denoising network of Durrer et al. 2023."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Literal

from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.card import slice_channels
from bids_inpaint.training.architectures import Architecture

#: Of the group normalisation, at most, a power of 2; there are fewer where the filters are no multiple of it.
GROUPS = 32


class Denoiser(Architecture):
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
    together : bool
        Whether it sees the holes of these slices as noisy as its own, so that all are drawn together.
    prediction : {'noise', 'image'}
        What it predicts: the noise, as the paper's does, or the image, which takes fewer steps to learn.

    Raises
    ------
    ValueError
        If `prediction` is neither.

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
        mirror: bool = False,
        prediction: Literal["noise", "image"] = "noise",
        neighbours: Sequence[int] = (),
        together: bool = False,
    ):
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel

        if prediction not in ("noise", "image"):
            raise ValueError(f"prediction {prediction} is neither noise nor image")
        self.prediction, self.mirror, self.neighbours = prediction, mirror, list(neighbours)
        self.together = together
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
            norm_num_groups=gcd(GROUPS, *channels),
        )

    def forward(self, image: Tensor, step: Tensor) -> Tensor:
        """Noise or image, and variance, (N, 2, H, W), of images (N, inputs, H, W) at steps (N,)."""
        if self.factor == 1:
            return self.unet(image, step).sample
        parts = functional.pixel_unshuffle(image, self.factor)
        return functional.pixel_shuffle(self.unet(parts, step).sample, self.factor)
