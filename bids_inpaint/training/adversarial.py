"""ip-MedGAN (Armanious et al. 2019): generator, discriminators and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.networks.card import slice_channels
from bids_inpaint.training.config import Config
from bids_inpaint.training.fit import LesionTask, Sums, mixed_precision
from bids_inpaint.training.slices import Slices

#: Edge of the paper's holes, and of what the local discriminator sees.
HOLE = 64
#: Slices that a square goes on for.
DEPTH = 24
#: Convolutions of VGG-19 between its poolings.
VGG = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class UBlock(nn.Module):
    """Encoder and decoder of 4x4 convolutions with stride 2, with connections between them."""

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


class CasNet(nn.Module):
    """A cascade of U-blocks, each of which mends what the one before it made (section 2.2).

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
        made = torch.sigmoid(first(x).float())
        for block in others:
            mended = known + hole * made
            made = torch.sigmoid(torch.logit(made, 1e-4) + block(torch.cat([mended, x], 1)).float())
        return made


class PatchDiscriminator(nn.Module):
    """Tells real patches from made ones; with three halvings a patch is 70 voxels wide, with two 34."""

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
        """What each layer makes of an image; the last are the logits."""
        out = []
        for layer in self.layers:
            x = layer(x)
            out.append(x)
        return out


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


def style_loss(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """Squared distance of the correlations of features, summed over layers (section 2.3)."""
    return sum(  # type: ignore[return-value]
        (gram(a) - gram(b)).square().sum((1, 2)).mean() / (4 * a.shape[1] ** 2)
        for a, b in zip(made, real, strict=True)
    )


def gram(features: Tensor) -> Tensor:
    """Correlations of features, (N, C, H, W) to (N, C, C)."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def perceptual_loss(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute distance of the features of a discriminator, summed over layers."""
    return sum((a - b).abs().mean() for a, b in zip(made, real, strict=True))  # type: ignore[return-value]


class Adversarial(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a generator."""

    def __init__(self, config: Config, cache: Path, lesions: Path, device: str = "cpu"):
        super().__init__(config, cache, lesions)
        options = config.adversarial
        self.vgg = Vgg19(Path(options.vgg19) if options.vgg19 else None).to(device)
        self.critics = nn.ModuleDict(
            {
                "all": PatchDiscriminator(2, options.filters, 3),
                "local": PatchDiscriminator(1, options.filters, 2),
            }
        ).to(device)
        self.optimiser = torch.optim.Adam(
            self.critics.parameters(), config.fit.learning_rate, betas=(0.5, 0.999)
        )
        self.taken = 0

    def samples(self, first: int, device: str) -> Slices:
        """The samples from an index on."""
        return Holes(self.config, self.cache, self.shapes, first, device)

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

    def loss(self, network: Any, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """A step of the discriminators, and the loss of the generator."""
        image, given, corner = batch
        options = self.config.adversarial
        hole = given[:, 1:2]
        with mixed_precision(image):
            made = network(given)
        error = options.pixels * ((made - image).abs() * hole).sum() / hole.sum().clamp(min=1)
        squared = ((made.detach() - image).square() * hole).sum()
        self.taken += 1
        if self.taken <= options.alone:
            others: tuple[Tensor, ...] = tuple(torch.zeros(4))
        else:
            filled = given[:, :1] + hole * made
            others = self.assess(image, filled, given[:, :1], corner)
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

        real_part, made_part = (cut(v, corner) for v in (image, filled))

        def judge_whole(whole: Tensor) -> list[Tensor]:
            return features(self.critics["all"].features, torch.cat([whole, known], 1))  # type: ignore[arg-type]

        def judge(whole: Tensor, part: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            return judge_whole(whole), features(self.critics["local"].features, part)  # type: ignore[arg-type]

        real, false = judge(image, real_part), judge(filled.detach(), made_part.detach())
        blame = torch.stack(
            [
                weight * (says(r[-1], True) + says(f[-1], False)) / 2
                for weight, r, f in zip((options.all, options.local), real, false, strict=True)
            ]
        ).sum()
        self.optimiser.zero_grad(set_to_none=True)
        blame.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

        self.critics.requires_grad_(False)
        judged = judge(filled, made_part)
        with torch.no_grad():
            wanted = judge_whole(image)[:-1]
        adversarial = options.all * says(judged[0][-1], True) + options.local * says(judged[1][-1], True)
        style = style_loss(features(self.vgg, made_part), features(self.vgg, real_part))
        perceptual = perceptual_loss([filled, *judged[0][:-1]], [image, *wanted])
        self.critics.requires_grad_(True)
        return blame, adversarial, style, perceptual


def says(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of what a discriminator says of every patch."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def cut(images: Tensor, corners: Tensor) -> Tensor:
    """The square of `HOLE` voxels of each image that begins at its corner, (N, 2)."""
    return torch.stack(
        [v[:, i : i + HOLE, j : j + HOLE] for v, (i, j) in zip(images, corners.tolist(), strict=True)]
    )


class Holes(Slices):
    """:class:`Slices`, some with square holes, each with the corner of a square around its hole."""

    def holes(self, rng: np.random.Generator, corner: Sequence[int], white: np.ndarray) -> np.ndarray:
        """Draw a square that goes on for some slices, lesions or blobs."""
        if rng.random() > self.config.adversarial.squares:
            return super().holes(rng, corner, white)
        size = white.shape[1]
        holes = np.zeros((len(self.offsets), size, size), np.float32)
        x, y = (rng.normal(size / 2, size / 8, 2) - HOLE / 2).round().clip(0, size - HOLE).astype(int)
        first = -rng.integers(DEPTH)
        reached = [first <= offset < first + DEPTH for offset in self.offsets]
        holes[reached, x : x + HOLE, y : y + HOLE] = 1
        return holes

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        image, given = super().sample(index)
        rng = np.random.default_rng([self.config.seed, index, 1])
        size = image.shape[-1]
        where = given[1].nonzero().numpy()
        # the square around a hole that fits into one; any part of a larger one
        centre = np.full(2, size // 2)
        if len(where):
            low, high = where.min(0), where.max(0)
            centre = (low + high + 1) // 2 if (high - low < HOLE).all() else where[rng.integers(len(where))]
        corner = (centre - HOLE // 2).clip(0, size - HOLE)
        return image, given, torch.from_numpy(corner.astype(np.int64))
