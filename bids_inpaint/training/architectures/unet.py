"""The 3D U-Net of Manjón et al. 2020 (section 2.3 and figure 2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.training.architectures import Architecture


class Block(nn.Sequential):
    """3x3x3 convolution, ReLU and batch normalisation, once or several times.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    convolutions : int
    first : type
        Kind of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, convolutions: int, first: type[nn.Conv3d] = nn.Conv3d):
        layers: list[nn.Module] = []
        for i in range(convolutions):
            layers += [
                nn.Conv3d(outputs, outputs, 3, padding=1) if i else first(inputs, outputs, 3, padding=1),
                nn.ReLU(inplace=True),
                # statistics of a few patches are noisy: average them over many steps
                nn.BatchNorm3d(outputs, momentum=0.02),
            ]
        super().__init__(*layers)


class Join(nn.Conv3d):
    """3x3x3 convolution of features of half the resolution, repeated, and of others."""

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, D, H, W) and (N, F, 2·D, 2·H, 2·W) to (N, F, 2·D, 2·H, 2·W)."""
        return super().forward(torch.cat([functional.interpolate(deep, scale_factor=2.0), skip], 1))


class JoinBlock(Block):
    """A :class:`Block` of the decoder.

    Parameters
    ----------
    deep, skip : int
        Channels of the features of half the resolution, and of those of the encoder; the output has the
        latter's.
    convolutions : int
    """

    def __init__(self, deep: int, skip: int, convolutions: int):
        super().__init__(deep + skip, skip, convolutions, Join)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, D, H, W) and (N, F, 2·D, 2·H, 2·W) to (N, F, 2·D, 2·H, 2·W)."""
        first, *rest = self
        x = first(deep, skip)
        for layer in rest:
            x = layer(x)
        return x


class FullOutput(nn.Sequential):
    """The paper's full-resolution output, as eight sub-volumes.

    Parameters
    ----------
    inputs : int
        Channels.
    """

    def __init__(self, inputs: int):
        super().__init__(
            nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False),
            nn.Conv3d(inputs, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv3d(8, 1, 1),
        )

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) to (N, 8, D, H, W)."""
        return space_to_depth(super().forward(input))


class UNet(Architecture):
    """U-Net on the eight parity sub-volumes of an image.

    Parameters
    ----------
    filters : int
        Filters of the first level; doubled at each of the following ones.
    levels : int
        Number of resolutions.
    residual : bool
        Whether the network's output is added to its input. The last layer then starts near zero.
    gated : bool
        Whether what is added is multiplied by a lesion probability that the network also learns. Healthy
        tissue then stays as it is, and a loss of its own teaches lesions apart from grey matter.
    full_resolution : bool
        Whether to add the paper's second, full-resolution output (trilinear upsampling, eight 3x3x3
        filters, one 1x1x1 filter) to the low-resolution one; both are trained (deep supervision).
    convolutions : int
        Convolutions at each level; the paper has one.
    centre : bool
        Whether the input is centred between grey and white matter and stretched, so that the contrast
        of lesions is not small beside that of the brain with the background.
    priors : bool
        Whether the network also sees where the template has white and grey matter, as two more channels:
        a dark spot in white matter is a lesion, one in the cortex hardly ever.

    Raises
    ------
    ValueError
        If a gated network is not residual, or has a full-resolution output.

    Notes
    -----
    Input (N, 8, D, H, W), or (N, 10, D, H, W) with priors; each of D, H, W a multiple of
    ``2 ** (levels - 1)``.
    """

    def __init__(
        self,
        filters: int = 40,
        levels: int = 4,
        residual: bool = False,
        gated: bool = False,
        full_resolution: bool = True,
        convolutions: int = 1,
        centre: bool = False,
        priors: bool = False,
    ):
        super().__init__()
        widths = [filters * 2**k for k in range(levels)]
        self.residual = residual
        self.centre = centre
        self.inputs = 8 + 2 * priors
        self.multiple = 2 ** (levels - 1)
        self.encoder = nn.ModuleList(
            Block(i, o, convolutions) for i, o in zip([self.inputs, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            JoinBlock(deep, skip, convolutions)
            for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.low = nn.Conv3d(filters, 8, 1)
        if gated and not (residual and not full_resolution):
            raise ValueError("a gated network is residual and has the low-resolution output alone")
        self.gate = nn.Conv3d(filters, 8, 1) if gated else None
        if self.gate is not None:
            # lesions are rare
            nn.init.constant_(self.gate.bias, -2.0)  # type: ignore[arg-type]
        elif residual:
            nn.init.normal_(self.low.weight, std=1e-3)
            nn.init.zeros_(self.low.bias)  # type: ignore[arg-type]
        self.full = FullOutput(filters) if full_resolution else None

    def features(self, x: Tensor) -> Tensor:
        """Features at the resolution of the input, (N, filters, D, H, W)."""
        skips: list[Tensor] = []
        if self.centre:
            x = torch.cat([4 * x[:, :8] - 3, x[:, 8:]], 1)
        for block in self.encoder:
            x = block(functional.max_pool3d(skips[-1], 2) if skips else x)
            skips.append(x)
        for block, skip in zip(self.decoder, skips[-2::-1], strict=True):
            x = block(x, skip)
        return x

    def gated_output(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of a gated network, and the logits of its lesion probability; (N, 8, D, H, W) each."""
        assert self.gate is not None
        features = self.features(x)
        logits = self.gate(features)
        return base(x) + torch.sigmoid(logits) * self.low(features), logits

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Every supervised output, (N, 8, D, H, W); the last is what the network returns."""
        if self.gate is not None:
            yield self.gated_output(x)[0]
            return
        features = self.features(x)
        low = self.low(features)
        yield low + base(x) if self.residual else low
        if self.full is not None:
            full = self.full(features)
            yield full + base(x) if self.residual else full

    def forward(self, x: Tensor) -> Tensor:
        """The inpainted sub-volumes, (N, 8, D, H, W)."""
        *_, last = self.outputs(x)
        return last


def base(x: Tensor) -> Tensor:
    """What a residual network adds to, (N, 8, D, H, W): the image, white matter (1) where it is masked."""
    image = x[:, :8]
    return torch.where(image < 0, 1.0, image)


def space_to_depth(x: Tensor) -> Tensor:
    """(N, 1, 2·D, 2·H, 2·W) to (N, 8, D, H, W), as :func:`bids_inpaint.networks.volumes.space_to_depth`."""
    n, _, d, h, w = x.shape
    parts = x.reshape(n, d // 2, 2, h // 2, 2, w // 2, 2)
    return parts.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, 8, d // 2, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """Undo :func:`space_to_depth`."""
    n, _, d, h, w = x.shape
    parts = x.reshape(n, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3)
    return parts.reshape(n, 1, 2 * d, 2 * h, 2 * w)
