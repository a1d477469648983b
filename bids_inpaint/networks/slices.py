"""Filling a volume slice by slice (pure arrays).

With the diffusion model of Durrer et al. 2023 or the generator of Armanious et al. 2019 (ip-MedGAN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.networks.card import Card
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: From the channels (1, C, H, W) of a window to what the network answers, (1, n, H, W).
Run = Callable[[Array], Array]

#: Voxels around what is wanted of a slice that the network sees.
MARGIN = 32
#: Half voxels that the plane between the halves of a brain may lie beside the middle of what is known of it.
TILT = 24
#: Standard deviation, in slices, of the filter across the borders of filled slices (Durrer 2023, section 3).
ACROSS = 1.075


def upper_limit(brain: Array) -> float:
    """The intensity that becomes 1: the top 0.1 % of the brain is cut off.

    Parameters
    ----------
    brain : array
        0 outside the brain and where it is not known.
    """
    return float(np.percentile(brain[brain > 0], 99.9))


def offsets(neighbours: Sequence[int]) -> list[int]:
    """Offsets of the slices that a network sees, by the distances of its neighbours.

    Examples
    --------
    >>> offsets([1, 4])
    [0, -1, 1, -4, 4]
    """
    return [0, *(side * distance for distance in neighbours for side in (-1, 1))]


@dataclass(frozen=True)
class Sight:
    """What a network of slices sees of a brain, as its card says.

    Attributes
    ----------
    edge, multiple : int
        Edge in voxels of the squares of its training, and what sides of a window are multiples of.
    mirror : bool
    neighbours : sequence of int
    together : bool
        Whether it sees what it has made of the holes of the neighbouring slices so far.
    """

    edge: int
    multiple: int
    mirror: bool = False
    neighbours: Sequence[int] = ()
    together: bool = False

    @classmethod
    def of(cls, card: Card) -> Sight:
        """That of an exported network."""
        assert card.edge is not None
        return cls(card.edge, card.multiple, card.mirror, card.neighbours, card.together)


class Sliced:
    """A brain with a hole, as a network of slices sees it.

    Parameters
    ----------
    sight : Sight
    image : array of float32, shape (X, Y, Z)
        Brain with axial slices along the last axis, oriented as the working grid, 0 outside; what it holds
        where it is wanted is not looked at.
    wanted : array of bool
        The hole.

    Attributes
    ----------
    known : array of float32, shape (X, Y, Z)
        The image, of which `limit` has become 1, and 0 in the hole.
    limit : float
    """

    def __init__(self, sight: Sight, image: Array, wanted: Array):
        known = np.where(wanted, 0, image).astype(np.float32)
        self.sight, self.image, self.wanted = sight, image, wanted
        self.limit = upper_limit(known)
        self.known = np.minimum(known / self.limit, 1)
        self.mirrored = []
        if sight.mirror:
            self.mirrored = [_mirrored(v, (known > 0) | wanted) for v in (self.known, wanted)]
        self.windows = [
            (int(z), Window.around(wanted[:, :, z], sight)) for z in np.flatnonzero(wanted.any((0, 1)))
        ]

    def answers(self, run: Run, noisy: Array | None = None) -> Array:
        """What a network says of each voxel of the hole, (n, voxels), from the voxels in the order of NumPy.

        Parameters
        ----------
        run : callable
            The network, on one slice.
        noisy : array, shape (X, Y, Z), optional
            What a diffusion model has made so far; it is the first channel, and what is seen of the holes of
            neighbouring slices where the slices are drawn together.
        """
        out: Array | None = None
        seen = self.known
        if noisy is not None and self.sight.together:
            seen = np.where(self.wanted, noisy, self.known)
        last = self.wanted.shape[2] - 1
        for z, window in self.windows:
            planes = [] if noisy is None else [noisy[:, :, z]]
            # a missing voxel is as dark as fluid: where they are must be said
            planes += [self.known[:, :, z], self.wanted[:, :, z]]
            for offset in offsets(self.sight.neighbours)[1:]:
                there = min(max(z + offset, 0), last)
                planes += [seen[:, :, there], self.wanted[:, :, there]]
            planes += [v[:, :, z] for v in self.mirrored]
            answer = run(np.stack([window.cut(plane) for plane in planes])[None])[0]
            if out is None:
                out = np.zeros((len(answer), *self.wanted.shape), np.float32)
            for plane, told in zip(out[..., z], answer, strict=True):
                window.paste(told, plane, self.wanted[:, :, z])
        assert out is not None
        return out[:, self.wanted]

    def filled(self, content: Array) -> Array:
        """The image with a content of its hole, (voxels,) of 0-1, as float32 in its unit."""
        whole = self.known.copy()
        whole[self.wanted] = content
        smooth = ndimage.gaussian_filter1d(whole, ACROSS, axis=2, mode="nearest")
        return np.where(self.wanted, smooth * self.limit, self.image).astype(np.float32)


def _mirrored(volume: Array, brain: Array) -> Array:
    """A volume mirrored left to right about the middle of the brain's bounding box."""
    first = bounding_box(brain)[0]
    out = np.zeros_like(volume)
    out[first] = volume[first][::-1]
    return out


def outline(brain: Array, hole: Array) -> Array:
    """Where a brain may be in a hole that reaches beyond it: where its other half is, or has a hole.

    Parameters
    ----------
    brain : array, shape (X, Y, Z)
        The first axis from side to side; 0 outside and in the hole.
    hole : array of bool

    Returns
    -------
    array of bool
        The known brain and the hole, mirrored about the plane that leaves the least of the known brain
        without its mirror image.
    """
    known = ndimage.binary_fill_holes(brain > 0) & ~hole
    first = bounding_box(known)[0]
    middle = first.start + first.stop - 1
    # every third row and slice say as much
    few, few_holes = known[:, ::3, ::3], hole[:, ::3, ::3]

    def unlike(total: int) -> float:
        other, missing = _about(few, total), _about(few_holes, total) | few_holes
        return float(((few != other) & ~missing).sum() / max(((few | other) & ~missing).sum(), 1))

    best = min(range(middle - TILT, middle + TILT + 1), key=unlike)
    return _about(known | hole, best)


def _about(volume: Array, total: int) -> Array:
    """A volume whose voxel i along the first axis is voxel `total` - i; what has no opposite is False."""
    here = np.arange(len(volume))
    there = total - here
    inside = (there >= 0) & (there < len(volume))
    out = np.zeros_like(volume)
    out[here[inside]] = volume[there[inside]]
    return out


@dataclass(frozen=True)
class Window:
    """What a network sees of a slice; it may reach beyond it, where all is 0."""

    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def around(cls, hole: Array, sight: Sight) -> Window:
        """As wide as the squares of the training, and `MARGIN` around the hole."""
        corner, size = [], []
        for part in bounding_box(hole):
            wide = max(part.stop - part.start + 2 * MARGIN, sight.edge)
            size.append(wide + -wide % sight.multiple)
            corner.append((part.start + part.stop - size[-1]) // 2)
        return cls((corner[0], corner[1]), (size[0], size[1]))

    def _inside(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where slice and window overlap, in the one and in the other."""
        bounds = [
            (max(c, 0), min(c + n, m), c) for c, n, m in zip(self.corner, self.size, shape, strict=True)
        ]
        return (
            tuple(slice(a, b) for a, b, _ in bounds),
            tuple(slice(a - c, b - c) for a, b, c in bounds),
        )

    def cut(self, plane: Array) -> Array:
        """What the window shows of a slice."""
        out = np.zeros(self.size, np.float32)
        there, here = self._inside(plane.shape)
        out[here] = plane[there]
        return out

    def paste(self, window: Array, plane: Array, wanted: Array) -> None:
        """Put what a window shows into a slice, where it is wanted."""
        there, here = self._inside(plane.shape)
        np.copyto(plane[there], window[here], where=wanted[there])
