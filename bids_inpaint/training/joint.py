"""Joint synthesis of FLAIR and segmentation of lesions from T1w (Orbes-Arteaga et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_inpaint.training.fit import LesionTask, Sums, mixed_precision
from bids_inpaint.training.pairs import UNKNOWN, Pairs

#: 'joint': the loss of the lesions reaches the generator, too. 'offline': it doesn't. 'unimodal': there is
#: no generator.
MODES = ("joint", "offline", "unimodal")
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
        full resolution is then told by two convolutions that look at the input again.
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


class Joint(nn.Module):
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
        Shipped blind network; they also see what it makes of the T1w, lesions removed. The paper's don't.

    Notes
    -----
    Input (N, :attr:`inputs`, H, W): axial slices of a T1w brain, white matter 1; the priors of the middle
    one; and the middle one inpainted. Output (N, 2, H, W): the FLAIR of the middle slice, white matter 1, and
    the logit of a lesion. H, W are multiples of :attr:`multiple`.
    """

    def __init__(
        self,
        channels: list[int],
        mode: str = "joint",
        context: int = 0,
        sub_images: bool = False,
        priors: bool = False,
        inpainter: str = "",
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode} is not one of {', '.join(MODES)}")
        self.mode, self.context, self.inpainter = mode, context, inpainter
        self.multiple = (1 + sub_images) * 2 ** (len(channels) - 1)
        self.inputs = 2 * context + 1 + 2 * priors + bool(inpainter)
        self.generator = None if mode == "unimodal" else SliceUNet(self.inputs, 1, channels, sub_images)
        self.classifier = SliceUNet(self.inputs + (self.generator is not None), 1, channels, sub_images)

    def forward(self, t1w: Tensor) -> Tensor:
        """FLAIR (0 of a unimodal network) and logit."""
        if self.generator is None:
            logit = self.classifier(t1w)
            return torch.cat([0 * logit, logit], 1)
        flair = functional.leaky_relu(self.generator(t1w), 0.2)
        shown = flair if self.mode == "joint" else flair.detach()
        return torch.cat([flair, self.classifier(torch.cat([t1w, shown], 1))], 1)


class JointSynthesis(LesionTask):
    """What :func:`bids_inpaint.training.fit.fit` needs to train both networks."""

    def samples(self, first: int, device: str) -> Pairs:
        """The samples from an index on."""
        return Pairs(self.config, self.cache, self.shapes, first, device)

    def loss(self, network: Joint, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Squared error of the FLAIR inside the brain, and cross-entropy and soft Dice of the lesions.

        The sum of both, each with weight 1, is what a joint network learns from. Voxels of lesions weigh more
        in the error and in the cross-entropy. Slices whose lesions nobody marked teach the FLAIR alone.
        """
        t1w, flair, lesion = (part.flatten(0, 1) for part in batch)
        with mixed_precision(t1w):
            answer = network(t1w)
        made, logit = answer.float().chunk(2, 1)
        brain = (flair > 0).float()
        judged = brain * (lesion != UNKNOWN)
        lesion = lesion * judged
        weight = brain * (1 + self.config.fit.lesion_weight * lesion)
        squared = ((made - flair).square() * weight).sum() / weight.sum().clamp(min=1)
        # outside the brain nothing is asked
        probability = torch.sigmoid(logit) * judged
        overlap, total = 2 * (probability * lesion).sum(), probability.sum() + lesion.sum()
        entropy = functional.binary_cross_entropy_with_logits(logit, lesion, reduction="none")
        weight = weight * judged
        found = (entropy * weight).sum() / weight.sum().clamp(min=1) + 1 - (overlap + 1) / (total + 1)
        hit, truth = probability > 0.5, lesion > 0.5
        off = (made.detach() - flair).square()
        sums = {
            "flair_mse": ((off * brain).sum(), brain.sum()),
            "lesion_flair_mse": ((off * lesion).sum(), lesion.sum()),
            "dice": (2 * (hit & truth).sum(), hit.sum() + truth.sum()),
        }
        if network.generator is None:
            return found, {"dice": sums["dice"]}
        return squared + found, sums
