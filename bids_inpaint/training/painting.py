"""Painting lesions into healthy brains, a whole batch of volumes at once.

Every lesion has a box of its own, in which its shape is blurred and its intensities are made. In one volume alone
the boxes are views of it. In a batch, boxes of one painter and of similar size are one stack, whatever volumes
they belong to, so that a GPU has few and large operations to do. The darkest of what is painted at a voxel is what
stays. Painting is deterministic given its parameters, which :mod:`bids_inpaint.training.parameters` and
:mod:`bids_inpaint.training.painters` draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.training.filters import kernels, smooth, spread, to_device
from bids_inpaint.training.outlines import Outline, Paint
from bids_inpaint.training.painters import PAINTERS
from bids_inpaint.training.parameters import LesionParameters

#: Where deep grey matter lies, in voxels of the working grid; lesions grow in it as in white matter.
DEEP_GREY = (slice(52, 129), slice(88, 149), slice(60, 97))
#: A volume that holds fewer voxels of a lesion has none of it.
FEWEST = 5
#: Voxels that take a GPU as long as one stack more.
STACK = 1_000_000


@dataclass(frozen=True)
class Boxes:
    """Lesions of one painter in boxes of one size, K of them.

    Attributes
    ----------
    painter : str
        One of :data:`bids_inpaint.training.painters.PAINTERS`.
    size : tuple of int, length 3
        Edges in voxels.
    volume : array of int64, (K,)
        The volume of the batch that each lies in.
    low, origin : array of int64, (K, 3)
        First voxel of each box in that volume, and on the working grid.
    more : dict of array
        What the painter needs beside the numbers of all, each (K, ...).
    """

    painter: str
    size: tuple[int, ...]
    volume: np.ndarray
    low: np.ndarray
    origin: np.ndarray
    more: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Boxed:
    """The lesions of a batch in boxes, L of them.

    Attributes
    ----------
    boxes : list of Boxes
    voxels : array of int64, (V,)
        Voxels of lesions, as indices in all boxes one after the other.
    numbers : array of float32, (len(:data:`NUMBERS`), L)
        Fields of :class:`bids_inpaint.training.parameters.LesionParameters`, in the order of the boxes.
    """

    boxes: list[Boxes]
    voxels: np.ndarray
    numbers: np.ndarray


NUMBERS = ("level", "retained", "rim", "unevenness", "depth", "strength")


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
    if not every:
        return Boxed([], np.zeros(0, np.int64), np.zeros((len(NUMBERS), 0), np.float32))
    firsts, extent = np.asarray(corners), np.asarray(shape)
    voxels, owner = _near(every, firsts[volume], extent)
    held, starts = np.unique(owner, return_index=True)
    if not len(held):
        return box_lesions([], corners, shape)
    margin = np.array([_margin(every[i]) for i in held])[:, None]
    low = np.zeros((len(every), 3), np.int64)
    sizes = np.zeros_like(low)
    low[held] = np.maximum(np.minimum.reduceat(voxels, starts) - margin, 0)
    sizes[held] = np.minimum(np.maximum.reduceat(voxels, starts) + margin + 1, extent) - low[held]
    held = held[(sizes[held] > 0).all(1)]
    boxes, order, begins = [], [], np.zeros(len(every), np.int64)
    begin = 0
    for rows in _stacks(held, [every[i].painter for i in held], sizes, len(lesions) > 1):
        size = sizes[rows].max(0)
        sizes[rows], low[rows] = size, np.minimum(low[rows], extent - size)
        begins[rows] = begin + np.arange(len(rows)) * size.prod()
        begin += len(rows) * int(size.prod())
        first = every[rows[0]]
        more = {name: np.stack([every[i].more[name] for i in rows]) for name in first.more}
        origin = low[rows] + firsts[volume[rows]]
        boxes.append(Boxes(first.painter, tuple(size.tolist()), volume[rows], low[rows], origin, more))
        order += [every[i] for i in rows]
    inside = ((voxels >= 0) & (voxels < extent)).all(1) & (sizes[owner] > 0).all(1)
    owner, (x, y, z) = owner[inside], (voxels - low[owner])[inside].T
    index = begins[owner] + (x * sizes[owner, 1] + y) * sizes[owner, 2] + z
    numbers = np.array([[getattr(lesion, name) for lesion in order] for name in NUMBERS], np.float32)
    return Boxed(boxes, index, numbers)


def _near(
    lesions: Sequence[LesionParameters], corners: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (V, 3) of lesions in and close to their volumes, and the lesion of each; whole lesions or none."""
    counts = [len(lesion.voxels) for lesion in lesions]
    owner = np.repeat(np.arange(len(lesions)), counts)
    voxels = np.rint(np.concatenate([lesion.voxels for lesion in lesions]) - corners[owner]).astype(np.int64)
    near = ((voxels >= -2) & (voxels < shape + 2)).all(1)
    near &= (np.bincount(owner[near], minlength=len(lesions)) >= FEWEST)[owner]
    return voxels[near], owner[near]


def _margin(lesion: LesionParameters) -> int:
    """Voxels around those of a lesion that it changes."""
    return int(max(np.ceil(3 * lesion.rim), np.ceil(3 * lesion.reach) + 1))


def _stacks(
    lesions: np.ndarray, painters: Sequence[str], sizes: np.ndarray, together: bool
) -> Iterator[np.ndarray]:
    """Lesions of one painter whose boxes are to have one size; each alone, if not together."""
    if not together:
        yield from lesions[:, None]
        return
    for painter in sorted(set(painters)):
        mine = lesions[np.array(painters) == painter]
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
        grey matter.
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
    volume = to_device(np.concatenate([b.volume for b in lesions.boxes]), device)
    numbers = torch.cat([to_device(lesions.numbers, device), grey[volume][None]])[..., None, None, None]
    rims = lesions.numbers[NUMBERS.index("rim")]
    rim = to_device(kernels(rims, max(max(b.size) for b in lesions.boxes)), device)
    counts = [len(b.volume) for b in lesions.boxes]
    voxels = [count * int(np.prod(b.size)) for count, b in zip(counts, lesions.boxes, strict=True)]
    shapes = torch.zeros(sum(voxels), device=device)
    shapes[to_device(lesions.voxels, device)] = 1
    parts = (shapes.split(voxels), rim.split(counts), numbers.split(counts, 1))
    for boxes, shape, halves, those in zip(lesions.boxes, *parts, strict=True):
        painter = PAINTERS[boxes.painter]
        more = {key: to_device(values, device) for key, values in boxes.more.items()}
        origin = to_device(boxes.origin, device)
        outline = Outline(shape.view(-1, *boxes.size), origin, halves, more, changes)
        degree, fields = painter.outline(outline)
        where = _where(boxes, healthy)
        degree.mul_(_cut(white, where))
        here = _cut(healthy, where)
        change = painter.change(Paint(here, _cut(waves, where), fields, more, *those))
        _merge(image, where, change.mul_(degree).add_(here).clamp_(min=0), "amin")
        _merge(support, where, degree, "amax")
    return image, support


#: Where boxes lie in a batch of volumes: slices of one box, or indices in the flat batch.
Where = tuple[slice, ...] | Tensor


def _where(boxes: Boxes, volumes: Tensor) -> Where:
    low = np.concatenate([boxes.volume[:, None], boxes.low], 1)
    size = (1, *boxes.size)
    if len(low) == 1:
        return tuple(slice(first, first + n) for first, n in zip(low[0].tolist(), size, strict=True))
    strides = volumes.stride()
    place = to_device(low @ np.array(strides), volumes.device).view(-1, 1, 1, 1)
    offset = sum(
        torch.arange(n, device=volumes.device).mul_(stride).view(-1, *[1] * (3 - axis))
        for axis, (n, stride) in enumerate(zip(size, strides, strict=True))
    )
    return place + offset


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
