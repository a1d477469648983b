"""What is no lesion and looks like one, and what experts mark and what is dark: a whole batch at once.

Dirty white matter, tracts, perivascular spaces, sulci and vessels are in healthy and lesioned images alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.space import MIRROR
from bids_inpaint.training.config import Synthesis
from bids_inpaint.training.filters import Rows, column, having, positive, smooth, spread, to_device
from bids_inpaint.training.parameters import ImageParameters
from bids_inpaint.training.patches import Place
from bids_inpaint.training.synthesis import Draws

#: Voxels between the knots of what is alike in both hemispheres.
STEP = 4
#: A fall of intensity to a neighbouring voxel by so much of the contrast of grey and white matter is noise.
NOISE = 0.3
#: What is darker by so much of the contrast of grey and white matter is clearly darker.
SEEN = 0.25


def draw_mimics(
    rng: np.random.Generator, appearance: ImageParameters, place: Place, synthesis: Synthesis
) -> ImageParameters:
    """Draw symmetric tracts, wide sulci and the contrast of fluid and deep grey matter, as often as wanted.

    Nothing is drawn of what is not wanted, so that samples without it stay what they were.
    """
    if synthesis.tracts and rng.random() < synthesis.tracts:
        appearance = replace(appearance, tracts=draw_tracts(rng, place))
    if synthesis.sulci and rng.random() < synthesis.sulci:
        appearance = replace(appearance, sulci=float(rng.uniform(0.3, 1)))
    if synthesis.contrast and rng.random() < synthesis.contrast:
        fluid, deep = np.exp(rng.normal(0, 0.2, 2)).clip(0.6, 1.6)
        appearance = replace(appearance, fluid=float(fluid), deep=float(deep))
    return appearance


def draw_tracts(rng: np.random.Generator, place: Place) -> np.ndarray:
    """How much darker white matter is in a patch, a lattice of shape `place.size` / 4.

    It is a sum of a few long and smooth spots that are the same in both hemispheres.
    """
    knots = [max(2, n // STEP) for n in place.size]
    axes = [
        c + (np.arange(k) + 0.5) * n / k - 0.5
        for c, n, k in zip(place.corner, place.size, knots, strict=True)
    ]
    x, y, z = np.meshgrid(np.abs(axes[0] - MIRROR / 2), *axes[1:], indexing="ij", sparse=True)
    lattice = np.zeros(knots, np.float32)
    centre, size = place.centre, np.minimum(place.size, 64)
    for _ in range(rng.integers(2, 6)):
        point = centre + rng.uniform(-0.5, 0.5, 3) * size
        # as the pyramidal tracts and the posterior white matter beside the ventricles
        point[0] = np.clip(abs(point[0] - MIRROR / 2), 14, 38)
        widths = np.exp(rng.normal(np.log((5, 8, 8)), 0.35))
        slope = rng.normal(0, 0.4, 2)
        across = (x - point[0] - slope[0] * (z - point[2]) - slope[1] * (y - point[1])) / widths[0]
        distance = across**2 + ((y - point[1]) / widths[1]) ** 2 + ((z - point[2]) / widths[2]) ** 2
        lattice += rng.uniform(0.04, 0.16) * np.exp(-0.5 * distance)
    return lattice.clip(max=0.2).astype(np.float32)


def vary_tissue(
    volumes: Sequence[Tensor], grey: Tensor, parameters: Sequence[ImageParameters], draws: Draws
) -> list[Tensor]:
    """Darken white matter, widen sulci, and add perivascular spaces and vessels: alike in all versions.

    Parameters
    ----------
    volumes : sequence of Tensor, each (N, D, H, W)
        White matter 1, background 0; tissues are told by the last.
    grey : Tensor, (N,)
        Grey-matter levels.
    parameters : sequence of ImageParameters, length N
    draws : Draws
    """
    wanted = [p.dirty or p.spaces or p.vessels or p.sulci or p.tracts is not None for p in parameters]
    if not any(wanted):
        return list(volumes)
    tissue = volumes[-1]
    volumes = [v.clone() for v in volumes]
    level = grey.view(-1, 1, 1, 1)
    rows, sulci = having([p.sulci for p in parameters], tissue)
    if len(sulci):
        places = spread((2 * draws.waves[rows, 0]).sigmoid_().mul_(sulci), tissue.shape[1:])
        narrower = _shrunk(tissue[rows], level[rows], places)
        _change(volumes, rows, lambda v: v * narrower)
        tissue = volumes[-1].clone()

    def white(rows: Rows) -> Tensor:
        return ((tissue[rows] - level[rows]) / (1 - level[rows])).clamp_(0, 1)

    def waves(rows: Rows, number: int) -> Tensor:
        return spread(draws.waves[rows, number], tissue.shape[1:])

    def tubes(rows: Rows, number: int) -> Tensor:
        # where two smooth fields are zero at once is a curve
        squares = waves(rows, number).square_() + waves(rows, number + 1).square_()
        return squares.div_(-0.006).exp_()

    rows, dirty = having([p.dirty for p in parameters], tissue)
    if len(dirty):
        darker = 1 - dirty * white(rows).mul_(waves(rows, 4).clamp_(0, 1.5))
        _change(volumes, rows, lambda v: v * darker)
    rows, tracts = having([p.tracts is not None for p in parameters], tissue)
    if len(tracts):
        lattices = np.stack([p.tracts for p in parameters if p.tracts is not None])
        paler = spread(to_device(-lattices, tissue.device), tissue.shape[1:]).mul_(white(rows)).add_(1)
        _change(volumes, rows, lambda v: v * paler)
    rows, spaces = having([p.spaces for p in parameters], tissue)
    if len(spaces):
        narrow = 1 - spaces * white(rows).mul_(tubes(rows, 0))
        _change(volumes, rows, lambda v: v * narrow)
    rows, vessels = having([p.vessels for p in parameters], tissue)
    if len(vessels):
        brighter = vessels * tubes(rows, 2).mul_(positive(tissue[rows]))
        _change(volumes, rows, lambda v: v + brighter)
    return volumes


def _change(volumes: Sequence[Tensor], rows: Rows, change: Callable[[Tensor], Tensor]) -> None:
    for volume in volumes:
        volume[rows] = change(volume[rows])


def _shrunk(tissue: Tensor, grey: Tensor, places: Tensor) -> Tensor:
    """What tissue is multiplied by where fluid and cortex grow into it by a part of a voxel, `places`."""
    # nothing grows from beyond the brain
    fall = grown(torch.where(tissue > 0, -tissue, -9.0)).add_(tissue).sub_(NOISE * (1 - grey))
    return fall.clamp_(min=0).mul_(places).div_(tissue.clamp(min=0.05)).neg_().add_(1)


def grown(volumes: Tensor) -> Tensor:
    """The largest of each voxel and its 26 neighbours; much faster than to pool. Shape (N, D, H, W)."""
    for axis in (1, 2, 3):
        size, largest = volumes.shape[axis] - 1, volumes.clone()
        for to, other in ((1, 0), (0, 1)):
            part = largest.narrow(axis, to, size)
            torch.maximum(part, volumes.narrow(axis, other, size), out=part)
        volumes = largest
    return volumes


def redraw_contrast(volumes: Tensor, grey: Tensor, parameters: Sequence[ImageParameters]) -> Tensor:
    """Change the brightness of fluid and of deep grey matter; 0, grey and white matter stay what they are.

    The intensities are mapped by a curve of four straight lines that never falls.

    Parameters
    ----------
    volumes : Tensor, (N, D, H, W)
        White matter 1, background 0.
    grey : Tensor, (N,)
        Their grey-matter levels.
    parameters : sequence of ImageParameters, length N
    """
    if all(p.fluid == 1 and p.deep == 1 for p in parameters):
        return volumes
    level = grey.view(-1, 1, 1, 1)
    fluid, deep = (column([getattr(p, n) - 1 for p in parameters], volumes) for n in ("fluid", "deep"))
    # a tent each, of half its width: the slopes of the curve stay above 0
    below = (volumes - 0.5 * level).abs_().neg_().add_(0.5 * level).clamp_(min=0).mul_(fluid)
    above = (volumes - 0.5 * (1 + level)).abs_().neg_().add_(0.5 * (1 - level)).clamp_(min=0).mul_(deep)
    return below.add_(above).add_(volumes)


def seen(darker: Tensor, grey: Tensor, unseen: float) -> Tensor:
    """How much a voxel of a lesion counts as one, `unseen` to 1.

    Parameters
    ----------
    darker : Tensor, (N, D, H, W)
        By how much it is darker than without the lesion; white matter is 1.
    grey : Tensor, (N,)
        Grey-matter levels.
    unseen : float
        How much it counts if it is not darker at all.
    """
    degree = darker * ((1 - unseen) / (SEEN * (1 - grey))).view(-1, 1, 1, 1)
    return degree.add_(unseen).clamp_(unseen, 1)


def expert_support(
    image: Tensor, target: Tensor, lesions: Tensor, grey: Tensor, unseen: float = 1.0, beyond: float = 0.0
) -> Tensor:
    """How much of each voxel of a patient is lesion, of an expert's mask and of what is dark.

    An expert marks on a FLAIR what a T1w image may not show, and draws borders a voxel too tight or too wide.

    Parameters
    ----------
    image, target : Tensor, (N, D, H, W)
        With the lesions and without; white matter is 1.
    lesions : Tensor, (N, D, H, W)
        The mask, 0 or 1.
    grey : Tensor, (N,)
        Grey-matter levels.
    unseen, beyond : float
        See :class:`bids_inpaint.training.config.Synthesis`.

    Returns
    -------
    Tensor, (N, D, H, W)
        0-1.
    """
    support, contrast = lesions.float(), (1 - grey).view(-1, 1, 1, 1)
    mask = support
    if unseen < 1:
        support = mask * seen(smooth((target - image) * mask, (0.6,) * 3), grey, unseen)
    if beyond:
        dims = (1, 2, 3)
        # what is darkest counts most
        dark = (target - image).clamp_(min=0).mul_(mask)
        usual = (image * dark).sum(dims, keepdim=True) / dark.sum(dims, keepdim=True).clamp(min=1e-3)
        alike = ((image - usual).abs() < 0.3 * contrast) & (image < 1 - 0.3 * contrast)
        support = torch.maximum(support, (grown(mask) - mask).mul_(alike).mul_(beyond))
    return support
