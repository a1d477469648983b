"""The networks themselves: ``nn.Module`` alone, without samples, losses or files."""

from __future__ import annotations

from torch import nn


class Architecture(nn.Module):
    """A network that can be trained and exported.

    Attributes
    ----------
    inputs : int
        Channels of its input.
    multiple : int
        The spatial axes of its input must be multiples of this.
    together : bool
        Whether a diffusion model of slices sees what it has made of the neighbouring ones so far.
    """

    inputs: int
    multiple: int
    together: bool = False
