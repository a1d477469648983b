"""What a network computes after an upsampling, computed before it: the same sums from fewer numbers.

A convolution of an upsampled volume is, at each of the eight parities of the result, a convolution of the
volume itself: with 2x2x2 weights where voxels were repeated, with 3x3x3 where they were interpolated. Nothing
is upsampled any more, and where two resolutions are joined, the lower one needs 8 weights in place of 27.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.training.architectures.unet import FullOutput, Join, UNet

#: [parity, low-resolution tap, tap] of one axis, where voxels are repeated.
REPEATED = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
#: [parity, low-resolution tap, tap] of one axis, where voxels are interpolated linearly.
INTERPOLATED = torch.tensor(
    [
        [[0.75, 0.25, 0], [0.25, 0.75, 0.75], [0, 0, 0.25]],
        [[0.25, 0, 0], [0.75, 0.75, 0.25], [0, 0.25, 0.75]],
    ]
)


def fold(network: UNet) -> UNet:
    """A copy of a network that computes the same without upsampling.

    Parameters
    ----------
    network : UNet

    Returns
    -------
    UNet
        For inference alone. Its output is that of `network` up to rounding; that of the full-resolution
        output differs at the border of the volume, where the upsampling repeats the last voxel.
    """
    network = copy.deepcopy(network)
    for block in network.decoder:
        block[0] = FoldedJoin(block[0])  # type: ignore[operator,index]
    if network.full is not None:
        network.full = FoldedFull(network.full)  # type: ignore[assignment]
    return network


def unfold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network by name from those of its folded copy.

    Parameters
    ----------
    state : dict of Tensor
        State dictionary of the folded copy.
    """
    state = dict(state)
    for name in [n for n in state if n.endswith(".folded")]:
        stem, folded = name.removesuffix(".folded"), state.pop(name)
        axis = REPEATED if folded.shape[-1] == 2 else INTERPOLATED
        back = torch.linalg.pinv(axis.flatten(0, 1)).reshape(3, *axis.shape[:2])
        outputs = len(folded) // 8
        parts = folded.reshape(2, 2, 2, outputs, *folded.shape[1:])
        weight = torch.einsum("xpa,yqb,zrc,pqroiabc->oixyz", back, back, back, parts)
        if (beside := state.get(f"{stem}.weight")) is not None:
            weight = torch.cat([weight, beside], 1)
        state[f"{stem}.weight"] = weight
        state[f"{stem}.bias"] = state[f"{stem}.bias"][:outputs]
    return state


def _folded(weight: Tensor, axis: Tensor) -> nn.Parameter:
    """Weights (O, I, 3, 3, 3) after an upsampling as (8·O, I, taps, taps, taps) before it."""
    parts = torch.einsum("pax,qby,rcz,oixyz->pqroiabc", axis, axis, axis, weight.detach())
    return nn.Parameter(parts.flatten(0, 3))


class FoldedJoin(nn.Module):
    """A folded :class:`bids_inpaint.training.architectures.unet.Join`, with the same input and output.

    Parameters
    ----------
    join : Join
    """

    def __init__(self, join: Join):
        super().__init__()
        deep = join.in_channels - join.out_channels
        self.folded = _folded(join.weight[:, :deep], REPEATED)
        self.weight = nn.Parameter(join.weight[:, deep:].detach())
        self.bias = join.bias

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(N, C, D, H, W) and (N, F, 2·D, 2·H, 2·W) to (N, F, 2·D, 2·H, 2·W)."""
        n, _, d, h, w = deep.shape
        # position i of the result has taps i - 1 and i: those of the odd parity begin one further on
        all_parities = functional.conv3d(deep, self.folded, padding=1).chunk(8, 1)
        parts = [
            part[:, :, (k >> 2) & 1 :, (k >> 1) & 1 :, k & 1 :][:, :, :d, :h, :w]
            for k, part in enumerate(all_parities)
        ]
        filters = parts[0].shape[1]
        parities = torch.stack(parts, 2).reshape(n, filters, 2, 2, 2, d, h, w)
        upsampled = parities.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, filters, 2 * d, 2 * h, 2 * w)
        return upsampled + functional.conv3d(skip, self.weight, self.bias, padding=1)


class FoldedFull(nn.Module):
    """A folded :class:`bids_inpaint.training.architectures.unet.FullOutput`.

    Parameters
    ----------
    full : FullOutput
    """

    def __init__(self, full: FullOutput):
        super().__init__()
        _, join, _, last = full
        self.add_module("1", _FoldedConvolution(join))  # type: ignore[arg-type]
        self.add_module("3", last)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to (N, 8, D, H, W)."""
        n, _, d, h, w = x.shape
        parities = functional.relu(self.get_submodule("1")(x)).reshape(n * 8, -1, d, h, w)
        return self.get_submodule("3")(parities).reshape(n, 8, d, h, w)


class _FoldedConvolution(nn.Module):
    """A 3x3x3 convolution of an interpolated volume, as (N, 8·O, D, H, W)."""

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        assert convolution.bias is not None
        self.folded = _folded(convolution.weight, INTERPOLATED)
        self.bias = nn.Parameter(convolution.bias.detach().repeat(8))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv3d(x, self.folded, self.bias, padding=1)
