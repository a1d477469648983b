"""The networks of Orbes-Arteaga et al. 2018: a generator of FLAIR and a classifier of lesions."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.training.architectures import Architecture

#: 'joint': the loss of the lesions reaches the generator, too. 'offline': it doesn't. 'unimodal': there is
#: no generator.
Mode = Literal["joint", "offline", "unimodal"]
MODES: tuple[Mode, ...] = get_args(Mode)
#: Filters at full resolution of a network of sub-images.
WHOLE = 8


class SliceUNet(nn.Module):
    """The 2D U-Net of Li et al. 2018 (doi:10.1016/j.neuroimage.2018.07.005, section 2.3).

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    channels : list of int
        Filters of each resolution. The first level has kernels of 5 voxels, the others of 3.
    sub_images : bool
        Whether it works on the four parity sub-images of each slice, which takes a quarter of the time. The
        full resolution is then restored by two convolutions that look at the input again.
    """

    def __init__(self, inputs: int, outputs: int, channels: list[int], sub_images: bool = False):
        super().__init__()
        self.factor = 2 if sub_images else 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = inputs * self.factor**2
        for i, after in enumerate(channels):
            self.down.append(_twice(before, after, 3 if i else 5))
            before = after
        for after in channels[-2::-1]:
            self.up.append(_twice(before + after, after, 3))
            before = after
        if sub_images:
            self.whole = nn.Conv2d(channels[0], 4 * WHOLE, 1)
            mended = _convolve(WHOLE + inputs, WHOLE, 3)
            self.last = nn.Sequential(*mended, nn.Conv2d(WHOLE, outputs, 3, padding=1))
        else:
            self.last = nn.Sequential(nn.Conv2d(channels[0], outputs, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        x = functional.pixel_unshuffle(image, self.factor)
        skips: list[Tensor] = []
        for down in self.down:
            x = down(functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        if self.factor > 1:
            x = torch.cat([functional.pixel_shuffle(self.whole(x), self.factor), image], 1)
        return self.last(x)


def _convolve(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.02),
        nn.ReLU(inplace=True),
    ]


def _twice(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_convolve(inputs, outputs, kernel), *_convolve(outputs, outputs, kernel))


class Joint(Architecture):
    """A generator of FLAIR, and a classifier of lesions that looks at it and at the T1w.

    Parameters
    ----------
    channels : list of int
        Filters of each resolution of both networks.
    mode : {'joint', 'offline', 'unimodal'}
        The paper's method, or one of those it is compared with.
    context : int
        Slices on each side that the networks also see; the paper's see none.
    sub_images : bool
        See :class:`SliceUNet`.
    priors : bool
        Whether they also see how likely the template is white and grey matter; the paper's don't.
    inpainter : str
        Shipped blind network; they also see its output for the T1w, lesions removed. The paper's don't.
    probability : bool
        Whether they also see the lesion probability that this network tells.

    Raises
    ------
    ValueError
        If there is no such mode, or a probability but no `inpainter`.

    Notes
    -----
    Input (N, :attr:`inputs`, H, W): axial slices of a T1w brain, white matter 1; the priors of the middle
    one; the middle one inpainted; and its lesion probability. Output (N, 2, H, W): the FLAIR of the middle
    slice, white matter 1, and the logit of a lesion. H, W are multiples of :attr:`multiple`.
    """

    def __init__(
        self,
        channels: list[int],
        mode: Mode = "joint",
        context: int = 0,
        sub_images: bool = False,
        priors: bool = False,
        inpainter: str = "",
        probability: bool = False,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode} is not one of {', '.join(MODES)}")
        if probability and not inpainter:
            raise ValueError("a lesion probability is told by an inpainter: name one")
        self.mode, self.context = mode, context
        self.inpainter, self.probability = inpainter, probability
        self.multiple = (1 + sub_images) * 2 ** (len(channels) - 1)
        self.inputs = 2 * context + 1 + 2 * priors + bool(inpainter) + probability
        self.generator = None if mode == "unimodal" else SliceUNet(self.inputs, 1, channels, sub_images)
        self.classifier = SliceUNet(self.inputs + (self.generator is not None), 1, channels, sub_images)

    def forward(self, t1w: Tensor) -> Tensor:
        """FLAIR (0 of a unimodal network) and logit, (N, 2, H, W)."""
        if self.generator is None:
            logit = self.classifier(t1w)
            return torch.cat([0 * logit, logit], 1)
        flair = functional.leaky_relu(self.generator(t1w), 0.2)
        visible = flair if self.mode == "joint" else flair.detach()
        return torch.cat([flair, self.classifier(torch.cat([t1w, visible], 1))], 1)
