"""Painting lesions into healthy brains, a whole batch of volumes at once.

Every lesion has a box of its own, in which its shape is blurred and its intensities are made. In one volume
alone, large boxes are views of it. In a batch, boxes of one painter and of similar size are one stack,
whatever volumes they belong to, so that a GPU has few and large operations to do. The darkest of what is
painted at a voxel is what stays. Painting is deterministic given its parameters, which
:mod:`bids_inpaint.training.parameters` and :mod:`bids_inpaint.training.painters` draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.training.filters import kernels, radius, smooth, spread, to_device
from bids_inpaint.training.outlines import Outline, Paint
from bids_inpaint.training.painters import PAINTERS
from bids_inpaint.training.parameters import LesionParameters

#: Where deep grey matter lies, in voxels of the working grid; lesions grow in it as in white matter.
DEEP_GREY = (slice(52, 129), slice(88, 149), slice(60, 97))
#: What is darker than so much of grey matter is fluid.
FLUID = 0.6
#: A volume that holds fewer voxels of a lesion has none of it.
FEWEST = 5
#: Voxels that take a GPU as long as one stack more.
STACK = 1_000_000
#: Boxes of fewer voxels are one stack in a volume alone, too.
SMALL = 1500


@dataclass(frozen=True)
class Boxes:
    """K lesions of one painter in boxes of one size.

    Attributes
    ----------
    painter : str
        One of :data:`bids_inpaint.training.painters.PAINTERS`.
    count : int
        K.
    size : tuple of int, length 3
        Edges in voxels.
    more : dict of array
        What the painter needs beside the numbers of all, each (K, ...).
    """

    painter: str
    count: int
    size: tuple[int, ...]
    more: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Boxed:
    """The lesions of a batch in boxes, L of them.

    Attributes
    ----------
    boxes : list of Boxes
        The lesions, in the order of what follows.
    volume : array of int64, (L,)
        The volume of the batch that each lies in.
    low : array of int64, (L, 3)
        First voxel of each box in that volume.
    voxels : array of int64, (V,)
        Voxels of lesions, as indices in all boxes one after the other.
    numbers : array of float32, (len(:data:`NUMBERS`), L)
        Fields of :class:`bids_inpaint.training.parameters.LesionParameters`.
    """

    boxes: list[Boxes]
    volume: np.ndarray
    low: np.ndarray
    voxels: np.ndarray
    numbers: np.ndarray


NUMBERS = ("level", "retained", "rim", "unevenness", "depth", "strength", "melts")


def box_lesions(
    lesions: Sequence[Sequence[LesionParameters]], corners: Sequence[Sequence[int]], shape: Sequence[int]
) -> Boxed:
    """Put the lesions of a batch of volumes into boxes.

    Parameters
    ----------
    lesions : sequence of sequence of LesionParameters
        Those of each volume.
    corners : sequence of sequence of int, length 3
        Voxel of the working grid where each volume begins.
    shape : sequence of int, length 3
        Of a volume.
    """
    volume = np.repeat(np.arange(len(lesions)), [len(those) for those in lesions])
    every = [lesion for those in lesions for lesion in those]
    low, size = np.zeros((2, len(every), 3), np.int64)
    voxels, owner = _near(every, np.asarray(corners)[volume], np.array(shape))
    held = np.flatnonzero(np.bincount(owner, minlength=1))
    if len(held):
        starts = np.searchsorted(owner, held)
        margin = np.array([_margin(every[i]) for i in held])
        low[held] = np.maximum(np.minimum.reduceat(voxels, starts, 1) - margin, 0).T
        high = np.minimum((np.maximum.reduceat(voxels, starts, 1) + margin + 1).T, shape)
        size[held] = np.maximum(high - low[held], 0)
        held = held[size[held].all(1)]
    stacks = list(_stacks(held, [every[i].painter for i in held], size, len(lesions) > 1))
    order = np.concatenate([held[:0], *stacks])
    for rows in stacks:
        size[rows] = size[rows].max(0)
        low[rows] = np.minimum(low[rows], shape - size[rows])
    counts = size.prod(1)
    begins = np.zeros_like(counts)
    begins[order] = np.cumsum(counts[order]) - counts[order]
    inside = ((voxels >= 0) & (voxels < np.array(shape)[:, None])).all(0) & (counts > 0)[owner]
    owner, (x, y, z) = owner[inside], voxels[:, inside]
    strides = np.stack([size[:, 1] * size[:, 2], size[:, 2], np.ones_like(counts)], 1)
    index = (begins - (low * strides).sum(1))[owner] + x * strides[owner, 0] + y * strides[owner, 1] + z
    boxes = []
    for rows in stacks:
        first = every[rows[0]]
        more = {name: np.stack([every[i].more[name] for i in rows]) for name in first.more}
        boxes.append(Boxes(first.painter, len(rows), tuple(size[rows[0]].tolist()), more))
    numbers = np.array([[getattr(every[i], name) for i in order] for name in NUMBERS], np.float32)
    return Boxed(boxes, volume[order], low[order], index, numbers)


def _near(
    lesions: Sequence[LesionParameters], corners: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (3, V) of lesions in or close to their volumes, and the lesion of each."""
    if not lesions:
        return np.zeros((3, 0), np.int64), np.zeros(0, np.int64)
    counts = [len(lesion.voxels) for lesion in lesions]
    owner = np.repeat(np.arange(len(lesions)), counts)
    voxels = np.concatenate([lesion.voxels for lesion in lesions]).T - np.repeat(corners.T, counts, 1)
    near = ((voxels >= -2.5) & (voxels < shape[:, None] + 1.5)).all(0)
    held = (np.bincount(owner[near], minlength=len(lesions)) >= FEWEST)[owner]
    # what isn't made of its voxels may reach into the volume from those far outside
    near = held & (near | np.array([lesion.reach > 0 for lesion in lesions])[owner])
    return np.rint(voxels[:, near]).astype(np.int64), owner[near]


def _margin(lesion: LesionParameters) -> int:
    """Voxels around those of a lesion that it changes."""
    return int(max(np.ceil(3 * lesion.rim), np.ceil(3 * lesion.reach) + 1))


def _stacks(
    lesions: np.ndarray, painters: Sequence[str], sizes: np.ndarray, together: bool
) -> Iterator[np.ndarray]:
    """Lesions of one painter whose boxes are to have one size; if not together, large ones are alone."""
    for painter in sorted(set(painters)):
        mine = lesions[np.array(painters) == painter]
        if not together:
            small = sizes[mine].prod(1) < SMALL
            yield from mine[~small, None]
            if small.any():
                yield mine[small]
            continue
        todo = [mine[np.argsort(sizes[mine].prod(1), kind="stable")]]
        while todo:
            rows = todo.pop()
            counts = np.arange(1, len(rows) + 1)
            # voxels of the first ones together, and of the last ones
            first = counts * np.maximum.accumulate(sizes[rows]).prod(1)
            last = (counts * np.maximum.accumulate(sizes[rows[::-1]]).prod(1))[::-1]
            apart = first[:-1] + last[1:]
            if len(apart) and apart.min() < first[-1] - STACK:
                todo += np.split(rows, [int(apart.argmin()) + 1])
            else:
                yield rows


def paint_batch(
    healthy: Tensor,
    grey: Tensor,
    lesions: Boxed,
    corners: Sequence[Sequence[int]],
    texture: Tensor,
    changes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Paint T1-hypointense lesions into healthy volumes.

    Parameters
    ----------
    healthy : Tensor, (N, D, H, W)
        White matter 1, background 0.
    grey : Tensor, (N,)
        Grey-matter levels; lesions grow in tissue brighter than about halfway to white matter, and in deep
        grey matter; those that melt, in all but fluid.
    lesions : Boxed
        Of :func:`box_lesions`.
    corners : sequence of sequence of int, length 3
        Voxel of the working grid where each volume begins.
    texture : Tensor, (N, d, h, w)
        Normally distributed; interpolated, it makes the lesions uneven.
    changes : Tensor, optional
        Of :class:`bids_inpaint.training.painters.RealLesions`, one patient after the other.

    Returns
    -------
    image : Tensor, (N, D, H, W)
        The volumes with lesions.
    support : Tensor, (N, D, H, W)
        How much of each voxel is lesion, 0-1 (partial volume at the rim).
    """
    healthy = healthy.contiguous()
    image, support = healthy.clone(), torch.zeros_like(healthy)
    if not lesions.boxes:
        return image, support
    device = healthy.device
    white, waves = _white(healthy, grey, corners), spread(texture, healthy.shape[1:])
    melting = lesions.numbers[NUMBERS.index("melts")].any()
    solid = (healthy / grey.view(-1, 1, 1, 1)).sub_(FLUID).div_(0.8 - FLUID).clamp_(0, 1) if melting else None
    numbers = torch.cat([to_device(lesions.numbers, device), grey[to_device(lesions.volume, device)][None]])
    rims = lesions.numbers[NUMBERS.index("rim")]
    blurs = to_device(kernels(rims, max(max(boxes.size) for boxes in lesions.boxes)), device)
    origins = to_device(lesions.low + np.asarray(corners)[lesions.volume], device)
    lows = np.column_stack([lesions.volume, lesions.low])
    starts = to_device(lows @ np.array(healthy.stride()), device)
    counts = [boxes.count for boxes in lesions.boxes]
    voxels = [boxes.count * math.prod(boxes.size) for boxes in lesions.boxes]
    shapes = torch.zeros(sum(voxels), device=device)
    shapes.index_fill_(0, to_device(lesions.voxels, device), 1)
    parts = zip(
        lesions.boxes,
        shapes.split(voxels),
        numbers[..., None, None, None].split(counts, 1),
        *(table.split(counts) for table in (blurs, origins, starts)),
        *(np.split(table, np.cumsum(counts)[:-1]) for table in (lows, rims)),
        strict=True,
    )
    for boxes, shape, those, blur, origin, start, low, rim in parts:
        painter = PAINTERS[boxes.painter]
        more = {key: to_device(values, device) for key, values in boxes.more.items()}
        outline = Outline(shape.view(-1, *boxes.size), origin, blur, radius(rim), more, changes)
        degree, fields = painter.outline(outline)
        where = _where(low, start, boxes.size, healthy.stride())
        named = dict(zip((*NUMBERS, "grey"), those, strict=True))
        melts, within = named.pop("melts"), _cut(white, where)
        if solid is not None and melts.any():
            there = _cut(solid, where)
            # where nothing melts, all stays as it is
            within = torch.maximum(within, there * melts).minimum(torch.where(melts > 0, there, 1.0))
        degree.mul_(within)
        here = _cut(healthy, where)
        change = painter.change(Paint(here, _cut(waves, where), fields, more, **named))
        _merge(image, where, change.mul_(degree).add_(here).clamp_(min=0), "amin")
        _merge(support, where, degree, "amax")
    return image, support


#: Where boxes lie in a batch of volumes: slices of one box, or indices in the flat batch.
Where = tuple[slice, ...] | Tensor


def _where(low: np.ndarray, starts: Tensor, size: Sequence[int], strides: Sequence[int]) -> Where:
    """Where boxes of a size lie, by volume and first voxel (K, 4) and by its index in the flat batch (K,)."""
    if len(low) == 1:
        return tuple(slice(i, i + n) for i, n in zip(low[0].tolist(), (1, *size), strict=True))
    x, y, z = (
        torch.arange(0, n * stride, stride, device=starts.device)
        for n, stride in zip(size, strides[1:], strict=True)
    )
    plane = starts[:, None, None] + (x[:, None] + y)
    return plane[..., None] + z


def _cut(volumes: Tensor, where: Where) -> Tensor:
    """Voxels of boxes, (K, d, h, w)."""
    return volumes.view(-1)[where] if isinstance(where, Tensor) else volumes[where]


def _merge(volumes: Tensor, where: Where, values: Tensor, how: str) -> None:
    """Keep the least (amin) or the largest (amax) of volumes and of what boxes (K, d, h, w) hold."""
    if isinstance(where, Tensor):
        volumes.view(-1).scatter_reduce_(0, where.view(-1), values.view(-1), how)
    else:
        here = volumes[where]
        (torch.minimum if how == "amin" else torch.maximum)(here, values, out=here)


def _white(healthy: Tensor, grey: Tensor, corners: Sequence[Sequence[int]]) -> Tensor:
    """Soft white matter: 0 at half-way to grey matter, 1 close to white matter; lower in deep grey matter."""
    contrast = (1 - grey)[:, None, None, None]
    white = smooth(healthy, (0.7, 0.7, 0.7)).sub_(1 - 0.65 * contrast)
    firsts = np.asarray(corners)[:, :, None]
    deep = []
    for axis, box in enumerate(DEEP_GREY):
        here = firsts[:, axis] + np.arange(healthy.shape[axis + 1])
        deep.append(((here >= box.start) & (here < box.stop)).astype(np.float32))
    if all(inside.any() for inside in deep):
        x, y, z = to_device(np.concatenate(deep, 1), healthy.device).split(healthy.shape[1:], 1)
        plane = (0.65 * contrast) * x[:, :, None, None] * y[:, None, :, None]
        white.addcmul_(plane, z[:, None, None])
    return white.div_(0.4 * contrast).clamp_(0, 1)
