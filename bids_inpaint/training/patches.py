"""Patches of the working grid: where they lie, and how a network of sub-volumes sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.space import MIRROR, WORKING_GRID
from bids_inpaint.training.architectures.unet import space_to_depth
from bids_inpaint.training.data import Lesions
from bids_inpaint.training.parameters import draw_centre


@dataclass(frozen=True)
class Place:
    """Where a patch lies on the working grid.

    Attributes
    ----------
    corner, size : tuple of int, length 3
        First voxel, and edges in voxels.
    flip : bool
        Whether it is taken from the image mirrored left to right.
    """

    corner: tuple[int, ...]
    size: tuple[int, ...]
    flip: bool

    @classmethod
    def whole(cls) -> Place:
        """The whole working grid."""
        return cls((0, 0, 0), WORKING_GRID.shape, False)

    @property
    def centre(self) -> np.ndarray:
        """Voxel coordinates of the middle, shape (3,)."""
        return np.array(self.corner) + np.array(self.size) / 2

    def crop(self, volume: np.ndarray, shift: tuple[int, ...] = (0, 0, 0)) -> Tensor:
        """The patch of a volume, as float32 of shape `size`; its border goes on beyond it.

        Parameters
        ----------
        volume : array, shape of the working grid
        shift : tuple of int
            Voxels that the volume is moved by first.
        """
        first, *others = (
            np.arange(c, c + n) - s for c, n, s in zip(self.corner, self.size, shift, strict=True)
        )
        indices = [MIRROR - first if self.flip else first, *others]
        clipped = (i.clip(0, n - 1) for i, n in zip(indices, volume.shape, strict=True))
        return torch.from_numpy(volume[np.ix_(*clipped)].astype(np.float32))


def draw_place(rng: np.random.Generator, shapes: Lesions, size: int) -> Place:
    """Draw where a cube of an edge of `size` voxels lies; size 0 is the whole grid."""
    corner, sizes = np.zeros(3, int), np.array(WORKING_GRID.shape)
    if size:
        corner = np.round(draw_centre(rng, shapes) - size / 2).clip(0, sizes - size).astype(int)
        sizes = np.full(3, size)
    return Place(tuple(corner.tolist()), tuple(sizes.tolist()), bool(rng.random() < 0.5))


def sub_volumes(volume: Tensor, multiple: int) -> Tensor:
    """(N, 1, D, H, W) as eight sub-volumes, padded with zeros as at inference and stored channels last."""
    return channels_last(padded(space_to_depth(volume), multiple))


def padded(channels: Tensor, multiple: int) -> Tensor:
    """Pad the spatial axes of (N, C, ...) with zeros at their end, to multiples of a number."""
    return functional.pad(channels, [p for n in channels.shape[:1:-1] for p in (0, -n % multiple)])


def channels_last(volumes: Tensor) -> Tensor:
    """(N, C, D, H, W) with the channels of each voxel side by side in memory, which convolves faster."""
    return volumes.contiguous(memory_format=torch.channels_last_3d)
