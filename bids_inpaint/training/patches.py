"""Patches of the working grid: where they lie, and how a network of sub-volumes sees them."""

from __future__ import annotations

from collections.abc import Sequence
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

    @classmethod
    def around(cls, centre: np.ndarray, edge: int, flip: bool) -> Place:
        """A cube of an edge around a point, (3,) in voxels of the working grid, or the next one inside of it."""
        corner = np.round(centre - edge / 2).clip(0, np.array(WORKING_GRID.shape) - edge).astype(int)
        return cls(tuple(corner.tolist()), (edge, edge, edge), flip)

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
        indices = self.indices(volume.shape, shift)
        if all(i[-1] - i[0] in (len(i) - 1, 1 - len(i)) for i in indices):
            # all inside: much faster than picking voxels
            first, *others = (slice(min(i[0], i[-1]), max(i[0], i[-1]) + 1) for i in indices)
            cut = volume[first, *others]
            # PyTorch is much faster at half precision than NumPy
            return torch.from_numpy(np.array(cut[::-1] if self.flip else cut)).float()
        return torch.from_numpy(volume[np.ix_(*indices)].astype(np.float32))

    def indices(self, shape: Sequence[int], shift: Sequence[int] = (0, 0, 0)) -> list[np.ndarray]:
        """Voxels of a volume of this shape along each axis, of :meth:`crop`."""
        first, *others = (
            np.arange(c, c + n) - s for c, n, s in zip(self.corner, self.size, shift, strict=True)
        )
        indices = [MIRROR - first if self.flip else first, *others]
        return [i.clip(0, n - 1) for i, n in zip(indices, shape, strict=True)]


def draw_place(rng: np.random.Generator, shapes: Lesions, size: int) -> Place:
    """Draw where a cube of an edge of `size` voxels lies; size 0 is the whole grid."""
    flip = bool(rng.random() < 0.5)
    if not size:
        return Place((0, 0, 0), WORKING_GRID.shape, flip)
    return Place.around(draw_centre(rng, shapes), size, flip)


def sub_volumes(volume: Tensor, multiple: int) -> Tensor:
    """(N, 1, D, H, W) as eight sub-volumes, padded with zeros as at inference and stored channels last."""
    return channels_last(padded(space_to_depth(volume), multiple))


def padded(channels: Tensor, multiple: int) -> Tensor:
    """Pad the spatial axes of (N, C, ...) with zeros at their end, to multiples of a number."""
    return functional.pad(channels, [p for n in channels.shape[:1:-1] for p in (0, -n % multiple)])


def channels_last(volumes: Tensor) -> Tensor:
    """(N, C, D, H, W) with the channels of each voxel side by side in memory, which convolves faster."""
    return volumes.contiguous(memory_format=torch.channels_last_3d)
