"""Lesion maps from probabilities, or from the difference to an inpainted version (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.intensity import GREY, Scale
from bids_inpaint.imaging.uncertainty import VolumeModel
from bids_inpaint.space import Grid, Misplaced, resample

Array = np.ndarray


@dataclass(frozen=True)
class Rule:
    """What counts as a lesion.

    Attributes
    ----------
    kind : {'probability', 'difference'}
        What it is told by.
    threshold : float
        Probability of the surest voxel of a lesion, at least; or λ, the least difference as a fraction of
        normal-appearing white matter at standard contrast.
    low : float
        Probability of each of its voxels, at least; of no use for the difference.
    min_volume : float
        Of a lesion, in mm³.
    volumes : VolumeModel, optional
        What is known of the true volumes behind maps by this rule.
    """

    kind: str
    threshold: float
    low: float
    min_volume: float
    volumes: VolumeModel | None = None


#: 18-connectivity: voxels that share a face or an edge.
CONNECTIVITY = ndimage.generate_binary_structure(3, 2)
#: A voxel with a larger part in the trilinear value at a place of a lesion is reached by it.
_REACHED = 0.05


def white_matter_reference(inpainted: Array, white_matter: Array) -> float:
    """Median intensity of the inpainted white matter: the unit of the lesion threshold.

    Parameters
    ----------
    inpainted : array
        Image without lesions.
    white_matter : array
        White-matter probability, 0-1.

    Raises
    ------
    Misplaced
        If there is no white matter.
    """
    core = white_matter > 0.9
    if not core.any():
        raise Misplaced("has no white matter by its segmentation")
    return float(np.median(inpainted[core]))


def darkening(image: Array, inpainted: Array, white_matter: Array) -> Array:
    """How much darker than healthy each voxel is, as a fraction of normal-appearing white matter.

    Parameters
    ----------
    image, inpainted : array
        In one unit. Their contrast is standardised before (:class:`bids_inpaint.imaging.intensity.Scale`).
    white_matter : array
        White-matter probability, 0-1.

    Returns
    -------
    array of float32
        ``(inpainted - image) / reference``, smoothed by half a voxel against single-voxel noise.
    """
    reference = white_matter_reference(inpainted, white_matter)
    difference = (inpainted - image).astype(np.float32) / reference
    return ndimage.gaussian_filter(difference, 0.5)


#: How far the white matter of a person may lie from the template's after an affine (mm).
PRIOR_BLUR_MM = 2.0


def search_region(white_matter: Array, prior: Array, grid: Grid) -> Array:
    """Where lesions are looked for: white matter of the inpainted image and, roughly, of the template.

    A network that fills a piece of cortex as if it were a lesion makes white matter of it; the template
    knows better.

    Parameters
    ----------
    white_matter : array
        Probability of white matter in the inpainted image, 0-1.
    prior : array
        White-matter probability of the template, 0-1.
    grid : Grid

    Returns
    -------
    array of bool
    """
    blurred = ndimage.gaussian_filter(np.asarray(prior, np.float32), PRIOR_BLUR_MM / grid.voxel_sizes)
    return (white_matter >= 0.5) & (blurred >= 0.5)


def probability(dark: Array, region: Array, threshold: float) -> Array:
    """Graded lesion map: 0.5 at the threshold, 1 from twice the threshold, 0 outside the region.

    Parameters
    ----------
    dark : array
        Of :func:`darkening`.
    region : array
        Where lesions are looked for; not 0 inside.
    threshold : float
        λ, as a fraction of normal-appearing white matter at standard contrast.

    Examples
    --------
    >>> probability(np.array([-0.2, 0.1, 0.2, 0.3]), np.ones(4), 0.1).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    return np.clip(dark / (2 * threshold), 0, 1) * (np.asarray(region) > 0)


def lesion_map(graded: Array, min_voxels: int = 1) -> Array:
    """Binary lesion map: at least 0.5 in the graded one, in components of at least `min_voxels`.

    Examples
    --------
    >>> graded = np.zeros((4, 4, 4)); graded[0, 0, :3] = 0.7; graded[3, 3, 3] = 0.9
    >>> int(lesion_map(graded, 2).sum()), int(lesion_map(graded, 1).sum())
    (3, 4)
    """
    return remove_small(graded >= 0.5, min_voxels)


def find_probable(probability: Array, rule: Rule, grid: Grid) -> Array:
    """Binary lesion map by hysteresis: connected voxels that may be lesion, one of which surely is.

    Parameters
    ----------
    probability : array
        Of a lesion, 0-1.
    rule : Rule
        For the probability.
    grid : Grid

    Returns
    -------
    array of bool

    Examples
    --------
    >>> chance = np.zeros((1, 1, 8)); chance[0, 0] = [0.3, 0.6, 0.3, 0, 0.3, 0.3, 0, 0.7]
    >>> rule = Rule("probability", threshold=0.5, low=0.2, min_volume=0)
    >>> find_probable(chance, rule, Grid.of(chance.shape, np.eye(4)))[0, 0].astype(int).tolist()
    [1, 1, 1, 0, 0, 0, 0, 1]
    """
    labels, count = ndimage.label(probability >= rule.low, CONNECTIVITY)
    sure = np.zeros(count + 1, bool)
    sure[labels[probability >= rule.threshold]] = True
    sure[0] = False
    return remove_small(sure[labels], least_voxels(rule.min_volume, grid))


def find(dark: Array, white_matter: Array, prior: Array, rule: Rule, grid: Grid) -> tuple[Array, Array]:
    """Graded and binary lesion map of a bias-corrected brain.

    Parameters
    ----------
    dark : array
        Of :func:`darkening`.
    white_matter : array
        Probability of white matter in the inpainted image, 0-1.
    prior : array
        White-matter probability of the template, 0-1.
    rule : Rule
        For the difference.
    grid : Grid

    Returns
    -------
    graded : array of float, 0-1
    mask : array of bool
    """
    graded = probability(dark, search_region(white_matter, prior, grid), rule.threshold)
    return graded, lesion_map(graded, least_voxels(rule.min_volume, grid))


def least_voxels(min_volume: float, grid: Grid) -> int:
    """Voxels of the smallest lesion that is kept.

    Examples
    --------
    >>> least_voxels(10, Grid.of((9, 9, 9), np.diag([1, 1, 3, 1])))
    4
    """
    # a volume that differs by the rounding of an affine is the same
    return int(np.ceil(min_volume / grid.voxel_volume - 1e-4))


def find_unsegmented(
    image: Array,
    inpainted: Array,
    scale: Scale,
    prior: Array,
    rule: Rule,
    grid: Grid,
) -> Array:
    """Binary lesion map before there is a segmentation: white matter is what is as bright as it.

    Parameters
    ----------
    image, inpainted : array
        The brain and what a network made of it, in one unit.
    scale : Scale
        Of the image.
    prior, rule, grid
        Of :func:`find`.

    Returns
    -------
    array of bool
    """
    standard = scale.apply(inpainted)
    white = (standard > (1 + GREY) / 2).astype(np.float32)
    dark = darkening(scale.apply(image), standard, white)
    return find(dark, white, prior, rule, grid)[1]


def remove_small(mask: Array, min_voxels: int) -> Array:
    """Drop 18-connected components smaller than `min_voxels`."""
    mask = np.asarray(mask, dtype=bool)
    if min_voxels < 2:
        return mask
    labels, _ = ndimage.label(mask, CONNECTIVITY)
    keep = np.bincount(labels.ravel()) >= min_voxels
    keep[0] = False
    return keep[labels]


def transfer(
    mask: Array, source: Grid, target: Grid, target_to_source: Array | None = None
) -> tuple[Array, Array]:
    """Bring a lesion mask onto another grid, with its volume and all of its lesions.

    Half a voxel as the limit would lose what is thin: of a patient's 430 lesions, moved by half a voxel along
    each axis, 142 were left, and three quarters of the volume.

    Parameters
    ----------
    mask : array of bool, shape `source.shape`
    source, target : Grid
    target_to_source : array, shape (4, 4), optional
        Maps a world point (mm, RAS+) of the target onto the source; identity by default.

    Returns
    -------
    kept : array of bool, shape `target.shape`
        As many voxels as the lesions fill, those that they fill most, and at least one of each lesion.
    reached : array of bool
        `kept`, and every voxel that has a part in the value of a voxel of the mask once it is brought back.
    """
    world = np.eye(4) if target_to_source is None else np.asarray(target_to_source)
    to_target = np.linalg.inv(target.matrix) @ np.linalg.inv(world) @ source.matrix

    def places(voxels: Array) -> Array:
        return voxels @ to_target[:3, :3].T + to_target[:3, 3]

    def inside(voxels: Array) -> Array:
        return np.all((voxels >= 0) & (voxels < target.shape), axis=1)

    exact = places(np.argwhere(mask))
    volume = inside(np.rint(exact)).sum() * abs(np.linalg.det(to_target[:3, :3]))
    share = resample(mask, source, target, target_to_source, order=1)
    kept = np.zeros(target.shape, bool)
    labels, _ = ndimage.label(mask, CONNECTIVITY)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        voxels = np.argwhere(labels[box] == label) + [s.start for s in box]
        nearest = np.rint(places(voxels)).astype(int)
        nearest = nearest[inside(nearest)]
        if nearest.size:
            kept[tuple(nearest[share[tuple(nearest.T)].argmax()])] = True
    candidates = np.flatnonzero((share > 0) & ~kept)
    fullest = candidates[np.argsort(-share.flat[candidates], kind="stable")]
    kept.flat[fullest[: max(round(float(volume)) - int(kept.sum()), 0)]] = True
    reached = kept.copy()
    below = np.floor(exact).astype(int)
    for corner in product((0, 1), repeat=3):
        weight = np.abs(1 - np.array(corner) - (exact - below)).prod(axis=1)
        voxels = (below + corner)[weight > _REACHED]
        reached[tuple(voxels[inside(voxels)].T)] = True
    return kept, reached
