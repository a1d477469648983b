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
        """A cube of an edge around a point (3,) of the working grid, or the next one inside of it."""
        corner = np.round(centre - edge / 2).clip(0, np.array(WORKING_GRID.shape) - edge).astype(int)
        return cls(tuple(corner.tolist()), (edge, edge, edge), flip)

    @property
    def centre(self) -> np.ndarray:
        """Voxel coordinates of the middle, shape (3,)."""
        return np.array(self.corner) + np.array(self.size) / 2

    def crop(self, volume: np.ndarray, shift: tuple[int, ...] = (0, 0, 0), step: int = 1) -> Tensor:
        """The patch of a volume, as float32 of shape `size` / `step`; its border goes on beyond it."""
        # PyTorch is much faster at half precision than NumPy
        return self.cut(volume, shift, step).float()

    def cut(self, volume: np.ndarray, shift: tuple[int, ...] = (0, 0, 0), step: int = 1) -> Tensor:
        """The same in the type of the volume.

        Parameters
        ----------
        volume : array, shape of the working grid
        shift : tuple of int
            Voxels that the volume is moved by first.
        step : int
            Each cube of so many voxels is one voxel of the patch: its first one, see :func:`pooled`.
        """
        firsts, steps = self.lines(shift, step)
        lasts = [first + (n // step - 1) * by for first, n, by in zip(firsts, self.size, steps, strict=True)]
        if all(
            min(ends) >= 0 and max(ends) < n for *ends, n in zip(firsts, lasts, volume.shape, strict=True)
        ):
            # all inside: much faster than picking voxels
            first, *others = (slice(min(e), max(e) + 1, step) for e in zip(firsts, lasts, strict=True))
            cut = volume[first, *others]
            return torch.from_numpy(np.array(cut[::-1] if self.flip else cut, order="C"))
        indices = [i.clip(0, n - 1) for i, n in zip(self.indices(shift, step), volume.shape, strict=True)]
        return torch.from_numpy(volume[np.ix_(*indices)])

    def lines(self, shift: Sequence[int] = (0, 0, 0), step: int = 1) -> tuple[list[int], list[int]]:
        """First voxel of a volume along each axis, and the step to the next, of :meth:`cut`."""
        x, y, z = (c - s for c, s in zip(self.corner, shift, strict=True))
        return ([MIRROR - x - step + 1, y, z], [-step, step, step]) if self.flip else ([x, y, z], [step] * 3)

    def indices(self, shift: Sequence[int] = (0, 0, 0), step: int = 1) -> list[np.ndarray]:
        """Voxels of a volume along each axis, of :meth:`cut`, that may lie beyond it."""
        lines = zip(*self.lines(shift, step), self.size, strict=True)
        return [first + by * np.arange(n // step) for first, by, n in lines]


def pooled(volume: np.ndarray) -> np.ndarray:
    """The mean of each cube of 2x2x2 voxels at its first voxel; the border goes on beyond the volume."""
    for axis in range(3):
        following = np.take(volume, np.arange(1, volume.shape[axis] + 1), axis, mode="clip")
        volume = (volume + following) / 2
    return np.ascontiguousarray(volume, np.float32)


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
