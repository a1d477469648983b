"""The networks of ip-MedGAN (Armanious et al. 2019): generator, discriminators, and VGG-19 for its losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from bids_inpaint.networks.card import slice_channels
from bids_inpaint.training.architectures import Architecture

#: Convolutions of VGG-19 between its poolings.
VGG = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class UBlock(nn.Module):
    """Encoder and decoder of 4x4 convolutions with stride 2, with connections between them.

    Parameters
    ----------
    inputs : int
        Channels.
    channels : list of int
        Filters of each resolution.
    """

    def __init__(self, inputs: int, channels: list[int]):
        super().__init__()
        self.down = nn.ModuleList()
        for i, (before, after) in enumerate(pairwise([inputs, *channels])):
            layers: list[nn.Module] = [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
            if i:
                layers.insert(1, nn.BatchNorm2d(after))
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        before = channels[-1]
        for after in channels[-2::-1]:
            self.up.append(
                nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
            )
            before = 2 * after
        self.last = nn.ConvTranspose2d(before, 1, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 1, H, W)."""
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = torch.cat([up(x), skip], 1)
        return self.last(x)


class CasNet(Architecture):
    """A cascade of U-blocks, each of which mends the output of the one before it (section 2.2).

    Parameters
    ----------
    channels : list of int
        Filters of each resolution.
    blocks : int
    mirror : bool
        Whether it also sees the slice and the hole mirrored left to right.
    neighbours : sequence of int
        Distances of other slices that it also sees with their holes, on both sides.

    Notes
    -----
    Input (N, :attr:`inputs`, H, W): a slice with a hole of 0, the hole, and whatever else it sees; the
    paper's sees the slice alone. Output (N, 1, H, W), 0-1. H and W are multiples of :attr:`multiple`.
    """

    def __init__(
        self, channels: list[int], blocks: int, mirror: bool = False, neighbours: Sequence[int] = ()
    ):
        super().__init__()
        self.mirror, self.neighbours = mirror, list(neighbours)
        self.inputs = slice_channels(mirror, neighbours)
        self.multiple = 2 ** len(channels)
        self.blocks = nn.ModuleList(UBlock(self.inputs + bool(i), channels) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """The whole slice; what is outside the hole is not looked at."""
        known, hole = x[:, :1], x[:, 1:2]
        first, *others = self.blocks
        output = torch.sigmoid(first(x).float())
        for block in others:
            filled = known + hole * output
            output = torch.sigmoid(torch.logit(output, 1e-4) + block(torch.cat([filled, x], 1)).float())
        return output


class PatchDiscriminator(nn.Module):
    """Tells real patches from generated ones.

    Parameters
    ----------
    inputs : int
        Channels.
    filters : int
        Of the first layer.
    halvings : int
        Of the resolution: with three a patch is 70 voxels wide, with two 34.
    """

    def __init__(self, inputs: int, filters: int, halvings: int):
        super().__init__()
        self.layers = nn.ModuleList()
        channels = [inputs, *(filters * 2**i for i in range(halvings + 1))]
        for i, (before, after) in enumerate(pairwise(channels)):
            layers: list[nn.Module] = [
                nn.Conv2d(before, after, 4, 2 if i < halvings else 1, 1),
                nn.LeakyReLU(0.2),
            ]
            if i:
                layers.insert(1, nn.BatchNorm2d(after))
            self.layers.append(nn.Sequential(*layers))
        self.layers.append(nn.Conv2d(channels[-1], 1, 4, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """What each layer makes of images, (N, inputs, H, W); the last are the logits, (N, 1, h, w)."""
        out = []
        for layer in self.layers:
            x = layer(x)
            out.append(x)
        return out


class Critics(nn.Module):
    """The discriminators: of the filled slice beside what was known of it, and of a square around the hole.

    Parameters
    ----------
    filters : int
        Of the first layers.
    """

    def __init__(self, filters: int):
        super().__init__()
        self.all = PatchDiscriminator(2, filters, 3)
        self.local = PatchDiscriminator(1, filters, 2)


# torchvision has the same, but the package index has that for CUDA alone, which PyTorch for CPUs can't load
class Vgg19(nn.Module):
    """The convolutions of VGG-19, with fixed weights.

    Parameters
    ----------
    weights : Path, optional
        State dictionary in torchvision's names (``vgg19-*.pth``); fixed random weights without one.

    Raises
    ------
    ValueError
        If the file holds another network.
    """

    def __init__(self, weights: Path | None = None):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for filters, count in VGG:
            for _ in range(count):
                layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
                before = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        if weights is None:
            generator = torch.Generator().manual_seed(19)
            for layer in layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            try:
                self.load_state_dict({k: v for k, v in state.items() if k.startswith("features.")})
            except RuntimeError as error:
                raise ValueError(f"{weights} does not hold the weights of VGG-19: {error}") from None
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The activations before each pooling, of images (N, 1, H, W) of 0-1."""
        mean, deviation = (
            torch.tensor(v, device=image.device).view(1, 3, 1, 1)
            for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        x = (image - mean) / deviation
        out = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                out.append(x)
            x = layer(x)
        return out
