"""Painting lesions into healthy brains, a whole batch of volumes at once.

Every lesion has a cube of its own, in which its shape is blurred and its intensities are made; cubes of one size
and one painter are one stack, whatever volumes they belong to. All lesions are then put into all volumes by one
operation, as the darkest of what is painted at a voxel is what stays. Painting is deterministic given its
parameters, which :mod:`bids_inpaint.training.parameters` and :mod:`bids_inpaint.training.painters` draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.training.filters import smooth, spread
from bids_inpaint.training.painters import PAINTERS, Outline, Paint
from bids_inpaint.training.parameters import LesionParameters

#: Where deep grey matter lies, in voxels of the working grid; lesions grow in it as in white matter.
DEEP_GREY = (slice(52, 129), slice(88, 149), slice(60, 97))
#: Edges of the cubes, in voxels.
EDGES = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
#: A volume that holds fewer voxels of a lesion has none of it.
FEWEST = 5

#: Stacks of cubes by painter and edge.
Key = tuple[str, int]


@dataclass(frozen=True)
class Cubes:
    """Lesions of one painter in cubes of one edge, K of them.

    Attributes
    ----------
    volume : array of int64, (K,)
        The volume of the batch that each lies in.
    low, origin : array of int64, (K, 3)
        First voxel of each cube in that volume, and on the working grid.
    lesion : array of int64, (V,)
        The cube of each voxel of a lesion.
    voxel : array of int64, (V,)
        Its index in the cube.
    numbers : array of float32, (K, len(:data:`NUMBERS`))
        Fields of :class:`bids_inpaint.training.parameters.LesionParameters`.
    more : dict of array
        What a painter needs beside them, each (K, ...).
    """

    volume: np.ndarray
    low: np.ndarray
    origin: np.ndarray
    lesion: np.ndarray
    voxel: np.ndarray
    numbers: np.ndarray
    more: Mapping[str, np.ndarray]


NUMBERS = ("level", "retained", "rim", "unevenness", "depth", "strength")


def cubes(
    lesions: Sequence[Sequence[LesionParameters]], corners: Sequence[Sequence[int]], shape: Sequence[int]
) -> dict[Key, Cubes]:
    """Sort the lesions of a batch of volumes into cubes.

    Parameters
    ----------
    lesions : sequence of sequence of LesionParameters
        Those of each volume.
    corners : sequence of sequence of int, length 3
        Voxel of the working grid where each volume begins.
    shape : sequence of int, length 3
        Of a volume.
    """
    stacks: dict[Key, list[tuple[int, np.ndarray, np.ndarray, LesionParameters]]] = {}
    corners = np.asarray(corners)
    for number, those in enumerate(lesions):
        for lesion, low, voxels, size in _placed(those, corners[number], np.asarray(shape)):
            edge = next(e for e in EDGES if e >= size)
            index = (voxels[:, 0] * edge + voxels[:, 1]) * edge + voxels[:, 2]
            stacks.setdefault((lesion.painter, edge), []).append((number, low, index, lesion))
    out = {}
    for key, stack in stacks.items():
        parameters = [lesion for *_, lesion in stack]
        volume, low = np.array([number for number, *_ in stack]), np.array([low for _, low, *_ in stack])
        out[key] = Cubes(
            volume=volume,
            low=low,
            origin=low + corners[volume],
            lesion=np.repeat(np.arange(len(stack)), [len(index) for *_, index, _ in stack]),
            voxel=np.concatenate([index for *_, index, _ in stack]),
            numbers=np.array([[getattr(p, n) for n in NUMBERS] for p in parameters], np.float32),
            more={name: np.stack([p.more[name] for p in parameters]) for name in parameters[0].more},
        )
    return out


def _placed(
    lesions: Sequence[LesionParameters], corner: np.ndarray, shape: np.ndarray
) -> Iterator[tuple[LesionParameters, np.ndarray, np.ndarray, int]]:
    """Of each lesion of which a volume holds something, its box's first voxel, voxels there, and largest edge."""
    if not lesions:
        return
    counts = [len(lesion.voxels) for lesion in lesions]
    local = np.rint(np.concatenate([lesion.voxels for lesion in lesions]) - corner).astype(np.int64)
    owner = np.repeat(np.arange(len(lesions)), counts)
    near = ((local >= -2) & (local < shape + 2)).all(1)
    held = np.bincount(owner[near], minlength=len(lesions)) >= FEWEST
    near &= held[owner]
    local, owner = local[near], owner[near]
    ends = np.searchsorted(owner, np.arange(len(lesions) + 1))
    for number in np.flatnonzero(held):
        lesion, voxels = lesions[number], local[ends[number] : ends[number + 1]]
        margin = int(np.ceil(3 * max(lesion.rim, lesion.reach))) + 1
        low = np.maximum(voxels.min(0) - margin, 0)
        high = np.minimum(voxels.max(0) + margin + 1, shape)
        if (high > low).all():
            inside = ((voxels >= low) & (voxels < high)).all(1)
            yield lesion, low, voxels[inside] - low, int((high - low).max())


def paint_batch(
    healthy: Tensor,
    grey: Tensor,
    stacks: Mapping[Key, Cubes],
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
    stacks : mapping
        Of :func:`cubes`.
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
    if not stacks:
        return healthy.clone(), torch.zeros_like(healthy)
    device = healthy.device
    tissue = healthy.flatten()
    white, waves = _white(healthy, grey, corners).flatten(), spread(texture, healthy.shape[1:]).flatten()
    image, support = tissue.clone(), torch.zeros_like(tissue)
    for (name, edge), stack in stacks.items():
        painter = PAINTERS[name]
        numbers = dict(zip(NUMBERS, _to(stack.numbers, device).T, strict=True))
        more = {key: _to(values, device) for key, values in stack.more.items()}
        origin = _to(stack.origin, device)
        outline = Outline(_shape(stack, edge, device), origin, numbers["rim"], more, changes)
        degree, fields = painter.outline(outline)
        # most of a cube is no lesion
        chosen = degree.flatten().nonzero()[:, 0]
        row, place, inside = _places(stack, chosen, edge, healthy.shape)
        degree = degree.flatten()[chosen] * inside
        fields = {key: values.flatten()[chosen] for key, values in fields.items()}
        numbers["grey"] = grey[_to(stack.volume, device)]
        numbers = {key: values[row] for key, values in numbers.items()}
        here = tissue[place]
        target = painter.paint(Paint(here, waves[place], row=row, fields=fields, more=more, **numbers))
        degree = degree * white[place]
        darker = torch.minimum((here + degree * (target - here)).clamp(min=0), here)
        image.scatter_reduce_(0, place, darker, "amin")
        support.scatter_reduce_(0, place, degree, "amax")
    return image.view_as(healthy), support.view_as(healthy)


def _to(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def _places(
    stack: Cubes, chosen: Tensor, edge: int, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where voxels of cubes lie in a batch of volumes.

    Parameters
    ----------
    stack : Cubes
    chosen : Tensor, (A,)
        Voxels of the flat cubes.
    edge : int
    shape : sequence of int, length 4
        Of the batch.

    Returns
    -------
    row, place, inside : Tensor, (A,)
        The lesion; the index in the flat batch of the voxel, or of the next one inside of the volume; and
        whether it is the voxel itself.
    """
    volume, low = _to(stack.volume, chosen.device), _to(stack.low, chosen.device)
    row = chosen // edge**3
    steps = (chosen // edge**2 % edge, chosen // edge % edge, chosen % edge)
    place, inside = volume[row], torch.ones_like(chosen, dtype=torch.bool)
    for step, first, size in zip(steps, low.T, shape[1:], strict=True):
        at = step + first[row]
        inside &= at < size
        place = place * size + at.clamp(max=size - 1)
    return row, place, inside


def _shape(stack: Cubes, edge: int, device: torch.device) -> Tensor:
    """1 in the voxels of lesions, (K, edge, edge, edge)."""
    out = torch.zeros(len(stack.volume) * edge**3, device=device)
    out[_to(stack.lesion, device) * edge**3 + _to(stack.voxel, device)] = 1
    return out.view(-1, edge, edge, edge)


def _white(healthy: Tensor, grey: Tensor, corners: Sequence[Sequence[int]]) -> Tensor:
    """Soft white matter: 0 at half-way to grey matter, 1 close to white matter; lower in deep grey matter."""
    deep = torch.ones_like(healthy, dtype=torch.bool)
    first = torch.as_tensor(np.asarray(corners), device=healthy.device)
    for axis, box in enumerate(DEEP_GREY):
        here = first[:, axis, None] + torch.arange(healthy.shape[axis + 1], device=healthy.device)
        inside = (here >= box.start) & (here < box.stop)
        deep &= inside.view(len(inside), *(-1 if a == axis else 1 for a in range(3)))
    grey = grey[:, None, None, None]
    low = torch.where(deep, grey - 0.3 * (1 - grey), grey + 0.35 * (1 - grey))
    return ((smooth(healthy, (0.7, 0.7, 0.7)) - low) / (0.4 * (1 - grey))).clamp(0, 1)
