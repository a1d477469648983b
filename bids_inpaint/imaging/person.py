"""What the visits of a person have in common: a space, an image, a unit of intensity, a brain (pure arrays).

No visit is the reference, and the order of the visits does not matter, as a result that depends on it finds
changes that are none (Reuter et al. 2012, NeuroImage 61:1402-1418, doi:10.1016/j.neuroimage.2012.02.084).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import linalg, ndimage

from bids_inpaint.imaging.brain import largest_component
from bids_inpaint.imaging.rigid import Visit, logarithm, register
from bids_inpaint.io.headers import farthest
from bids_inpaint.space import Grid, resample

Array = np.ndarray

#: Two visits that are less alike may be of two people: in repeats, and in two patients who were scanned twice
#: with slices of 3 mm, the correlation is at least 0.95, and between people 0.72 at most.
SAME_PERSON = 0.85
#: Below, an alignment has failed: what is common to all brains is more.
ALIGNED = 0.5
#: The least edge of the template's voxels (mm): finer than the working grid would be for nothing.
LEAST_EDGE = 1.0
#: Room around the brains of all visits (mm).
_MARGIN = 10.0
#: Smoothing of masks before they vote, and of images before tissue is chosen by intensity (mm).
_SMOOTH = 1.0
#: Of the brain's intensities, between which white matter lies (per cent).
_BRIGHT = (60, 95)
#: Probabilities of white matter and of lesion that stable white matter has at each visit.
_WHITE, _NO_LESION = 0.9, 0.1
_ROUNDS = 100


@dataclass(frozen=True)
class Middle:
    """The middle space of a person's visits.

    Attributes
    ----------
    to_template : list of array, shape (4, 4)
        World of each visit to that of the middle space, rigid (RAS+, mm).
    likeness : array, shape (n, n)
        Correlation of each two visits (:func:`bids_inpaint.imaging.rigid.register`), 1 on the diagonal.
    apart : float
        How far apart (mm), at most, the middle space and the registration of two visits alone put a corner of
        an image: 0 for two visits, and the error of the registrations for more.
    """

    to_template: list[Array]
    likeness: Array
    apart: float


@dataclass(frozen=True)
class Template:
    """A person's image, made of all visits.

    Attributes
    ----------
    image : array of float32
        Median of the visits, in the geometric mean of their units, 0 where no visit has a voxel.
    mask : array of bool
        The brain of all visits.
    grid : Grid
    scales : array, shape (n,)
        An image over its scale is in the unit of the template.
    """

    image: Array
    mask: Array
    grid: Grid
    scales: Array


def middle_space(visits: Sequence[Visit]) -> Middle:
    """Align the visits of a person, all with all.

    Parameters
    ----------
    visits : sequence of Visit

    Notes
    -----
    Each two visits are registered. With three and more, the transforms :math:`P_i` from the middle space to
    the visits are those that agree best with all :math:`M_{ij} \\approx P_j P_i^{-1}`: each is the mean of
    what the others make of it. The middle space is where :math:`\\sum_i \\log P_i = 0`, the mean in the group
    of rigid transforms, which knows no reference (Pennec and Arsigny 2013,
    doi:10.1007/978-1-4471-2867-6_7). Between two visits that is half of the way.
    """
    n = len(visits)
    likeness = np.eye(n)
    matrices: dict[tuple[int, int], Array] = {(i, i): np.eye(4) for i in range(n)}
    for i, j in combinations(range(n), 2):
        matrices[i, j], likeness[i, j] = register(visits[i], visits[j])
        matrices[j, i], likeness[j, i] = np.linalg.inv(matrices[i, j]), likeness[i, j]
    from_middle = _centred(_agreeing(matrices, n))
    apart = max(
        farthest(matrices[i, j] @ from_middle[i], from_middle[j], visits[i].grid.shape) for i, j in matrices
    )
    return Middle([np.linalg.inv(p) for p in from_middle], likeness, apart)


def _agreeing(matrices: dict[tuple[int, int], Array], n: int) -> list[Array]:
    """Transforms of all visits from one space that agree best with those of each two."""
    out = [matrices[0, i] for i in range(n)]
    if n < 3:
        return out
    for _ in range(_ROUNDS):
        steps = [
            sum(logarithm(np.linalg.inv(out[i]) @ matrices[j, i] @ out[j]) for j in range(n)) / n
            for i in range(n)
        ]
        out = [one @ linalg.expm(step) for one, step in zip(out, steps, strict=True)]
        if max(np.abs(step).max() for step in steps) < 1e-12:
            break
    return out


def _centred(transforms: list[Array]) -> list[Array]:
    """The same from the space where the mean of their logarithms is 0."""
    for _ in range(_ROUNDS):
        step = np.mean([logarithm(one) for one in transforms], axis=0)
        transforms = [one @ linalg.expm(-step) for one in transforms]
        if np.abs(step).max() < 1e-12:
            break
    return transforms


def build(visits: Sequence[Visit], to_template: Sequence[Array]) -> Template:
    """Make a person's template.

    Parameters
    ----------
    visits : sequence of Visit
        Best without bias fields: one scale can't undo their differences.
    to_template : sequence of array, shape (4, 4)
        Of :func:`middle_space`.

    Notes
    -----
    Its voxels are cubes, as small as the smallest edge of a voxel of the visits, but not below 1 mm, and its
    axes are those of the world, so that no visit's lattice is favoured. It is centred on the brains and holds
    them with a margin of 10 mm.
    """
    grid = _lattice(visits, to_template)
    back = [np.linalg.inv(matrix) for matrix in to_template]
    images = [resample(v.data, v.grid, grid, matrix) for v, matrix in zip(visits, back, strict=True)]
    seen = [
        resample(np.ones(v.grid.shape, bool), v.grid, grid, matrix, order=0) > 0
        for v, matrix in zip(visits, back, strict=True)
    ]
    mask = consensus(
        [resample(v.support, v.grid, grid, matrix, order=1) for v, matrix in zip(visits, back, strict=True)],
        grid,
    )
    scales = match(images, _bright(images, mask & np.all(seen, axis=0), grid))
    nowhere = ~np.any(seen, axis=0)
    for image, scale, inside in zip(images, scales, seen, strict=True):
        image /= np.float32(scale)
        image[~inside & ~nowhere] = np.nan
    # of two they are the same, and the mean is quick
    middle = np.nanmedian if len(images) > 2 else np.nanmean
    return Template(middle(images, axis=0), mask, grid, scales)


def _lattice(visits: Sequence[Visit], to_template: Sequence[Array]) -> Grid:
    ends = []
    for visit, matrix in zip(visits, to_template, strict=True):
        to_world = matrix @ visit.grid.matrix
        places = np.argwhere(visit.support) @ to_world[:3, :3].T + to_world[:3, 3]
        ends.append((places.min(0), places.max(0)))
    low, high = np.min([e[0] for e in ends], axis=0) - _MARGIN, np.max([e[1] for e in ends], axis=0) + _MARGIN
    edge = max(LEAST_EDGE, min(float(v.grid.voxel_sizes.min()) for v in visits))
    # rounding does not change the number of voxels
    shape = 2 * np.ceil((high - low) / (2 * edge) - 1e-4).astype(int)
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = (low + high) / 2 - edge * (shape - 1) / 2
    return Grid.of(shape, affine)


def _bright(images: Sequence[Array], mask: Array, grid: Grid) -> Array:
    """White matter of all visits, roughly, before there is a segmentation."""
    width = _SMOOTH / grid.voxel_sizes
    smooth = [ndimage.gaussian_filter(np.where(mask, image, 0), width)[mask] for image in images]
    out = mask.copy()
    for values in smooth:
        low, high = np.percentile(values, _BRIGHT)
        out[mask] &= (values > low) & (values < high)
    return out


def stable_white_matter(white: Sequence[Array], lesions: Sequence[Array]) -> Array:
    """White matter that is healthy at all visits, where intensities can be compared.

    Parameters
    ----------
    white, lesions : sequence of array
        Probabilities (0-1) of white matter and of lesion of each visit, in one space.

    Returns
    -------
    array of bool
        Without the outermost voxels, which other tissue has a part in.
    """
    stable = np.all([w > _WHITE for w in white] + [p < _NO_LESION for p in lesions], axis=0)
    return ndimage.binary_erosion(stable)


def match(images: Sequence[Array], where: Array) -> Array:
    """Scales that give the visits one unit of intensity: each image is to be divided by its own.

    Parameters
    ----------
    images : sequence of array
        Of one shape, bias-corrected, in any units.
    where : array of bool
        Tissue that did not change: :func:`stable_white_matter`.

    Returns
    -------
    array of float, shape (n,)
        Their product is 1, up to rounding.

    Raises
    ------
    ValueError
        If no voxel has a signal at all visits.

    Notes
    -----
    The logarithm of a scale is the median, over the voxels, of that of the image less its mean over the
    visits. The ratio of the medians of two images would have the variance of the tissue in it, and their
    means the lesions that change.

    Examples
    --------
    >>> image = np.linspace(90, 110, 101); other = 4 * image; other[:30] /= 2
    >>> match([image, other], np.ones(101, bool)).round(9).tolist()
    [0.5, 2.0]
    """
    where = where & np.all([image > 0 for image in images], axis=0)
    if not where.any():
        raise ValueError("no voxel has a signal at all visits")
    logs = np.log([image[where].astype(float) for image in images])
    scales = np.median(logs - logs.mean(0), axis=1)
    return np.exp(scales - scales.mean())


def consensus(masks: Sequence[Array], grid: Grid) -> Array:
    """One brain mask for all visits: where the mean of the smoothed masks is at least a half.

    Parameters
    ----------
    masks : sequence of array, shape `grid.shape`
        Masks, or shares of voxels (0-1), of each visit in one space.
    grid : Grid
        Gives the smoothing, 1 mm.

    Returns
    -------
    array of bool
        One piece without holes. With two visits it is halfway between their surfaces; with more, a mask that
        failed is outvoted.
    """
    width = _SMOOTH / grid.voxel_sizes
    mean = sum(ndimage.gaussian_filter(np.asarray(m, np.float32), width) for m in masks) / len(masks)
    return ndimage.binary_fill_holes(largest_component(mean >= 0.5))
