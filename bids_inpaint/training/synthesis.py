"""Images of training samples, a whole batch at once: deterministic given the parameters and what is drawn.

:mod:`bids_inpaint.training.parameters` draws the parameters, so that a sample can be made again from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.imaging.intensity import EXPONENTS
from bids_inpaint.training.filters import (
    NARROWEST,
    Filter,
    column,
    filtered,
    gaussian,
    gaussians,
    having,
    joined,
    positive,
    radius,
    spread,
    to_device,
    turned,
)
from bids_inpaint.training.painting import box_lesions, paint_batch
from bids_inpaint.training.parameters import ImageParameters, LesionParameters

#: Knots of what is smooth in the tissue along each axis.
KNOTS = 12


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch of N volumes.

    Attributes
    ----------
    texture : Tensor, (N, d, h, w)
        Normally distributed, at every sixth voxel.
    noise : Tensor, (N, D, H, W)
        Normally distributed.
    border : Tensor, (N, d, h, w)
        Evenly distributed, 0-1, at every twelfth voxel.
    waves : Tensor, (N, 5, knots, knots, knots)
        Normally distributed.
    """

    texture: Tensor
    noise: Tensor
    border: Tensor
    waves: Tensor

    @classmethod
    def seeded(cls, seeds: Sequence[int], shape: Sequence[int], noisy: Sequence[bool] | None = None) -> Draws:
        """The same numbers for a seed, whatever the batch; slow, on the CPU.

        Noise and border of those that are not noisy are 0.
        """
        noisy = noisy or [True] * len(seeds)
        drawn = [_seeded(seed, shape, noise) for seed, noise in zip(seeds, noisy, strict=True)]
        return cls(*(joined(t) for t in zip(*drawn, strict=True)))

    @classmethod
    def on(
        cls, device: torch.device | str, generator: torch.Generator, n: int, shape: Sequence[int]
    ) -> Draws:
        """Numbers of a generator of a device; fast."""

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device)

        border = torch.rand((n, *_knots(shape, 12)), generator=generator, device=device)
        waves = normal(n, 5, KNOTS, KNOTS, KNOTS)
        return cls(normal(n, *_knots(shape, 6)), normal(n, *shape), border, waves)


def _knots(shape: Sequence[int], every: int) -> list[int]:
    return [max(2, n // every) for n in shape]


def _seeded(seed: int, shape: Sequence[int], noisy: bool) -> tuple[Tensor, ...]:
    """Texture, noise, border and waves of a seed."""
    texture, noise, waves = (torch.Generator().manual_seed(s) for s in (seed, seed, seed + 1))
    return (
        torch.randn(_knots(shape, 6), generator=texture),
        torch.randn(*shape, generator=noise) if noisy else torch.zeros(*shape),
        torch.rand(_knots(shape, 12), generator=noise) if noisy else torch.zeros(_knots(shape, 12)),
        torch.randn((5, KNOTS, KNOTS, KNOTS), generator=waves),
    )


def paint(
    healthy: Tensor,
    grey: float,
    lesions: Sequence[LesionParameters],
    corner: Sequence[int],
    seed: int,
    changes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Paint lesions into one volume: see :func:`bids_inpaint.training.painting.paint_batch`.

    Parameters
    ----------
    healthy : Tensor, shape (D, H, W)
        White matter 1, background 0.
    grey : float
        Its grey-matter level.
    lesions : sequence of LesionParameters
    corner : sequence of int
        Voxel of the working grid where the volume begins.
    seed : int
        Of the texture inside the lesions.
    changes : Tensor, optional
        What lesions of patients take away.

    Returns
    -------
    image, support : Tensor, shape (D, H, W)
    """
    texture = torch.randn(_knots(healthy.shape, 6), generator=torch.Generator().manual_seed(seed))
    boxed = box_lesions([lesions], [corner], healthy.shape)
    batch, level = healthy[None], torch.tensor([grey], device=healthy.device)
    out = paint_batch(batch, level, boxed, [corner], texture[None].to(healthy.device), changes)
    return out[0][0], out[1][0]


def change_contrast(
    image: Tensor, grey: float | np.ndarray, parameters: ImageParameters | Sequence[ImageParameters]
) -> Tensor:
    """Map grey matter to another level by a power law that leaves 0 and white matter (1) alone.

    Above white matter it goes on straight, as :class:`bids_inpaint.imaging.intensity.Scale` does.

    Parameters
    ----------
    image : Tensor
        Of any shape; the first axis is that of a batch, if there are several parameters.
    grey : float or array, (N,)
        Its grey-matter level as a fraction of white matter.
    parameters : ImageParameters or sequence of them
        Holds the level that grey matter gets.
    """
    if isinstance(parameters, ImageParameters):
        return _to_power(image, torch.tensor(_exponent(grey, parameters.grey), dtype=torch.float32))
    exponents = _exponent(np.asarray(grey), np.array([p.grey for p in parameters]))
    return _to_power(image, column(exponents, image))


def _to_power(image: Tensor, exponent: Tensor) -> Tensor:
    if image.dtype == torch.float16 and image.device.type == "cpu" and exponent.numel() == 1:
        # a volume has more voxels than there are numbers of half precision
        table = _to_power(_halves(), exponent.view(1))
        return table.index_select(0, image.view(torch.int16).int().add_(2**15).view(-1)).view(image.shape)
    image = image.float().clamp(0, 2)
    # above white matter, what is left of the straight line is added to 1
    return image.clamp(max=1).pow_(exponent).add_((image - 1).clamp_(min=0).mul_(exponent))


@lru_cache(1)
def _halves() -> Tensor:
    """Every number of half precision, in the order of their bits as integers."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16).float()


def _exponent(grey: float | np.ndarray, wanted: float | np.ndarray) -> np.ndarray:
    return np.clip(np.log(wanted) / np.log(np.minimum(grey, 0.95)), 0.3, EXPONENTS[1])


def degrade(
    volumes: Sequence[Tensor], parameters: Sequence[ImageParameters], draws: Draws | None = None
) -> list[Tensor]:
    """Give several versions of a batch the same bias, point spread, gain, noise and brain mask.

    The noise is the same in all, as the network shall not denoise.

    Parameters
    ----------
    volumes : sequence of Tensor, each (N, D, H, W)
        White matter 1, background 0; the brain is that of the first.
    parameters : sequence of ImageParameters, length N
    draws : Draws, optional
        Those of the seeds of the parameters by default.
    """
    reference = volumes[0]
    shape = reference.shape[1:]
    draws = draws or Draws.seeded([p.seed for p in parameters], shape)
    # the gain is a part of the bias
    lattices = np.stack([p.bias + np.float32(np.log(p.gain)) for p in parameters])
    field = spread(to_device(lattices, reference.device), shape).exp_()
    brain = positive(reference)
    rows, rims = having([p.rim for p in parameters], reference)
    if len(rims):
        # scalp, fluid or vessels in place of what the image hasn't
        levels = column([p.rim_level if p.rim else 0 for p in parameters], reference)
        around = levels * (1 - brain)
        volumes = [v + around for v in volumes]
        brain[rows] = shift_border(brain[rows], rims, draws.border[rows])
    spreads = _point_spreads(parameters, reference)
    noise = [p.noise * p.gain for p in parameters]
    added = draws.noise * column(noise, reference) if any(noise) else None
    out = []
    for volume in volumes:
        volume = filtered(volume, spreads)
        volume = volume * field if added is None else torch.addcmul(added, volume, field)
        out.append(volume.clamp_(min=0).mul_(brain))
    return out


def _point_spreads(parameters: Sequence[ImageParameters], like: Tensor) -> list[Filter | None]:
    """Matrices of blur, ringing and ghosts along each axis, and how far they reach, if they do anything."""
    out: list[Filter | None] = []
    for axis in range(3):
        blur = [p.blur[axis] for p in parameters]
        ringing = [p.ringing[axis] for p in parameters]
        ghosts = [p.ghost if p.ghost[2] == axis else (0.0, 1, axis) for p in parameters]
        strange = any(r < 1 for r in ringing) or any(g[0] for g in ghosts)
        if max(blur) < NARROWEST and not strange:
            out.append(None)
            continue
        size = like.shape[axis + 1]
        matrices = gaussians(blur, size, like.device)
        if strange:
            matrices = _low_pass(ringing, size, like.device) @ matrices
            for shares in zip(matrices, ghosts, strict=True):
                _add_ghost(*shares)
        out.append((matrices, None if strange else radius(blur)))
    return out


def _low_pass(parts: Sequence[float], size: int, device: torch.device) -> Tensor:
    """Matrices (N, size, size) that keep a part of the frequencies of a mirrored axis: a cosine transform."""
    steps = torch.arange(size, dtype=torch.float32, device=device)
    basis = torch.cos(torch.pi / size * (steps[None] + 0.5) * steps[:, None])
    basis = basis / basis.norm(dim=1, keepdim=True)
    kept = (steps[None] < torch.tensor(parts, device=device)[:, None] * size).float()
    return torch.einsum("kx,nk,ky->nxy", basis, kept, basis)


def _add_ghost(matrix: Tensor, ghost: tuple[float, int, int]) -> None:
    """Add the image, moved both ways, to what a matrix (size, size) makes."""
    share, step, _ = ghost
    if share:
        moved = torch.roll(matrix, step, 0) + torch.roll(matrix, -step, 0)
        matrix.mul_(1 - share).add_(0.5 * share * moved)


def shift_border(masks: Tensor, distances: Tensor, lattices: Tensor) -> Tensor:
    """Move the borders of masks unevenly.

    Parameters
    ----------
    masks : Tensor, (N, D, H, W)
        0 or 1.
    distances : Tensor, (N, 1, 1, 1)
        How far outwards on average, in voxels; at most some 4.
    lattices : Tensor, (N, d, h, w)
        Unevenness, evenly distributed, 0-1.
    """
    sigma = 2.0
    soft = masks
    for size in masks.shape[1:]:
        matrix = gaussian(sigma, size, masks.device)
        # no border where the patch ends
        soft = turned(matrix / matrix.sum(-1, keepdim=True), soft, radius([sigma]))
    # a straight border becomes the normal distribution
    uneven = spread(lattices * (-math.sqrt(2) / sigma * distances), masks.shape[1:])
    return positive(soft.mul_(2).sub_(1).sub_(uneven.erf_()))
