"""What each painter makes of the lesions that it drew: their outlines, and their intensities.

See :mod:`bids_inpaint.training.painters`, which draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bids_inpaint.space import MIRROR
from bids_inpaint.training.filters import bands, gaussian, radius, turned

#: Blur of the borders of cores, in voxels (standard deviation).
CORE = 2.0
#: How far fields reach from the centre, in radii of their ellipsoids.
REACH = 1.9


class Outline(NamedTuple):
    """Where K lesions are, in boxes of one size.

    Attributes
    ----------
    shape : Tensor, (K, d, h, w)
        1 in the voxels of the lesion.
    origin : Tensor, (K, 3)
        Voxel of the working grid where each box begins.
    halves : Tensor, (K, at least the longest edge)
        Of the kernels that blur their borders: see :func:`bids_inpaint.training.filters.kernels`.
    radius : int
        How far these reach.
    more : mapping of Tensor
        What the painter needs beside them, each (K, ...).
    changes : Tensor, (patients, 182, 218, 182), optional
        Of :class:`bids_inpaint.training.painters.RealLesions`.
    """

    shape: Tensor
    origin: Tensor
    halves: Tensor
    radius: int
    more: Mapping[str, Tensor]
    changes: Tensor | None = None

    def soft(self) -> Tensor:
        """How much of each voxel is lesion, 0-1."""
        return self._blurred(bands(self.halves, max(self.shape.shape[1:])), self.radius)

    def core(self) -> Tensor:
        """The same with borders so soft that only the middle of large lesions is 1."""
        return self._blurred(gaussian(CORE, max(self.shape.shape[1:]), self.shape.device), radius([CORE]))

    def _blurred(self, matrices: Tensor, reach: int) -> Tensor:
        blurred = self.shape
        for size in self.shape.shape[1:]:
            blurred = turned(matrices[:, :size, :size], blurred, reach)
        return blurred.mul_(1.15).clamp_(max=1)

    def steps(self, start: Tensor) -> list[Tensor]:
        """Coordinates (K, edge) of the voxels along each axis, from points (K, 3) of the working grid."""
        first = self.origin - start
        return [
            first[:, axis, None] + torch.arange(edge, device=start.device)
            for axis, edge in enumerate(self.shape.shape[1:])
        ]


class Paint(NamedTuple):
    """What is known at the voxels of K lesions.

    Attributes
    ----------
    here, waves : Tensor, (K, d, h, w)
        The healthy tissue, and the texture: normally distributed.
    fields : mapping of Tensor, (K, d, h, w)
        What the painter's outline knows of the voxels.
    more : mapping of Tensor
        Of the outline, each (K, ...).
    level, retained, rim, unevenness, depth, strength, grey : Tensor, (K, 1, 1, 1)
        Of :class:`bids_inpaint.training.parameters.LesionParameters`, and the grey-matter level.
    """

    here: Tensor
    waves: Tensor
    fields: Mapping[str, Tensor]
    more: Mapping[str, Tensor]
    level: Tensor
    retained: Tensor
    rim: Tensor
    unevenness: Tensor
    depth: Tensor
    strength: Tensor
    grey: Tensor


#: What an outline gives: how much of each voxel is lesion, 0-1, and fields; each (K, d, h, w).
Outlined = tuple[Tensor, dict[str, Tensor]]


def outline_shape(o: Outline) -> Outlined:
    """The shape with a blurred border."""
    return o.soft(), {}


def change_parametric(p: Paint) -> Tensor:
    """One level a lesion, and uneven texture."""
    return (p.waves * (p.level * p.unevenness)).addcmul_(p.here, p.retained - 1).add_(p.level - p.retained)


def outline_quantile(o: Outline) -> Outlined:
    """The shape with a blurred border; its core is deep."""
    return o.soft(), {"core": o.core()}


def change_quantile(p: Paint) -> Tensor:
    """Intensities of another lesion, the darkest in the core, and where the texture says so."""
    table = p.more["table"]
    last = table.shape[1] - 1
    rank = (
        (1.5 * p.unevenness * p.waves).add_(2.4 * p.depth).addcmul_(p.fields["core"], -4 * p.depth).sigmoid_()
    )
    place = rank.mul_(last)
    below = place.long().clamp_(max=last - 1)
    rows = below.flatten(1)
    low, step = (t.gather(1, rows).view_as(place) for t in (table[:, :-1], table.diff()))
    change = place.sub_(below).mul_(step).add_(low).mul_(p.strength * (1 - p.grey))
    return change.addcmul_(p.here, p.retained - 1).add_(1 - p.retained)


def outline_field(o: Outline) -> Outlined:
    """Ellipsoids with rough, soft borders and a halo; they are a mixture of two levels."""
    numbers = o.more["numbers"]
    roughness, softness, halo, dark, bias = numbers[:, 3:, None, None, None].unbind(1)
    places = [
        steps / radius[:, None]
        for steps, radius in zip(o.steps(o.more["centre"]), numbers[:, :3].T, strict=True)
    ]
    x, y, z = (place.square() for place in places)
    radius = (x[:, :, None, None] + y[:, None, :, None] + z[:, None, None]).sqrt_()
    rough, mixture = o.more["lattices"].unbind(1)
    for place in places:
        matrices = _between_knots(place, rough.shape[1])
        rough, mixture = turned(matrices, rough), turned(matrices, mixture)
    distance = rough.mul_(roughness).add_(radius)
    degree = ((1 - distance) / (0.5 * softness)).sigmoid_()
    around = distance.sub_(1.4).div_(-0.5 * softness - 0.1).sigmoid_().mul_(halo)
    # nothing of it reaches the faces of the box
    within = radius.sub_(REACH).div_(-0.3).clamp_(0, 1)
    degree = torch.maximum(degree, around).mul_(within)
    return degree, {"bright": mixture.add_(bias).mul_(3).sigmoid_(), "dark": dark}


def _between_knots(places: Tensor, knots: int) -> Tensor:
    """Matrices (K, edge, knots) of the linear interpolation of lattices over fields, at places (K, edge)."""
    index = ((places / REACH + 1) * (knots / 2) - 0.5).clamp_(0, knots - 1)
    return 1 - (index[..., None] - torch.arange(knots, device=places.device)).abs_().clamp_(max=1)


def change_field(p: Paint) -> Tensor:
    """Smooth patches of a dark and a bright level."""
    dark = p.fields["dark"]
    target = (p.fields["bright"] * (p.level - dark)).add_(dark - p.retained)
    return target.addcmul_(p.here, p.retained - 1)


def outline_patch(o: Outline) -> Outlined:
    """The shape of a patient's lesion, and what it took away there."""
    assert o.changes is not None
    source = o.more["source"]
    patient, flip = source[:, 0, None, None, None], source[:, 1, None]
    steps = o.steps(source[:, 2:])
    first = torch.where(flip > 0, MIRROR - steps[0], steps[0])
    last = [n - 1 for n in o.changes.shape[1:]]
    x, y, z = (s.clamp_(0, n) for s, n in zip((first, *steps[1:]), last, strict=True))
    change = o.changes[patient, x[:, :, None, None], y[:, None, :, None], z[:, None, None]].float()
    # its own border fades out by itself
    return o.soft().mul_(1.5).clamp_(max=1), {"change": change}


def change_patch(p: Paint) -> Tensor:
    """What the patient's lesion took away, at the contrast of this image."""
    return p.fields["change"] * (p.strength * (1 - p.grey))
