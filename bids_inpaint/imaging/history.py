"""Lesions of a person over time: what all visits say of a voxel, and what became of a lesion (pure arrays).

Nothing depends on the order of the visits but the names of changes: with time reversed, what is new is
resolved, what enlarges shrinks, and all else stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import CONNECTIVITY, Rule
from bids_inpaint.options import LESION_MIN_VOLUME
from bids_inpaint.space import Grid

Array = np.ndarray

#: What can become of a lesion. Transient is one that neither the first nor the last of the visits has.
Change = Literal["stable", "new", "enlarging", "shrinking", "resolved", "transient"]
CHANGES: tuple[Change, ...] = get_args(Change)
#: Of the probability from which a voxel is lesion by itself, the part from which other visits support it.
SUPPORTED = 0.7


@dataclass(frozen=True)
class Limits:
    """When a voxel is lesion, and when a lesion changed.

    Attributes
    ----------
    alone : float
        Probability from which a voxel is lesion, whatever the other visits say.
    supported : float
        Probability from which it is lesion where it is at another visit by `alone`.
    growth : float
        Part of its smaller volume by which a lesion must differ between two visits to have changed.
    least_change : float
        Volume (mm³) by which it must differ as well.
    least_volume : float
        Volume (mm³) that a lesion must have at some visit, and from which it is there at a visit.

    Notes
    -----
    The defaults of `growth` and `least_change`, and `SUPPORTED`, were chosen on painted repeats of people of
    whom no score is reported (docs/longitudinal.md). The growth is also what repeated measurements of lesions
    leave room for: they vary by 12 %, so that a change of less than 24 % is none [1]_.

    References
    ----------
    .. [1] Magnetic resonance imaging lesion enlargement in multiple sclerosis: disease-related activity,
       chance occurrence, or measurement artifact? 1992, Arch Neurol 49:261-263
       (doi:10.1001/archneur.1992.00530270075021).
    """

    alone: float = 0.5
    supported: float = 0.25
    growth: float = 0.25
    least_change: float = 20.0
    least_volume: float = LESION_MIN_VOLUME

    def __post_init__(self) -> None:
        if not 0 < self.supported <= self.alone <= 1:
            raise ValueError("limits of probability must be 0 < supported <= alone <= 1")
        if min(self.growth, self.least_change, self.least_volume) < 0:
            raise ValueError("limits of volume must not be negative")

    @classmethod
    def of(cls, rule: Rule) -> Limits:
        """The limits that agree with the map of one visit: its least probability and its least volume."""
        return cls(alone=rule.low, supported=SUPPORTED * rule.low, least_volume=rule.min_volume)


@dataclass(frozen=True)
class LesionHistory:
    """A lesion over time.

    Attributes
    ----------
    label : int
        Its value in the labelled image.
    volumes : tuple of float
        At each visit, in mm³.
    change : str
        One of `CHANGES`, from the first visit to the last.
    steps : tuple of str
        The same from each visit to the next.
    centroid : tuple of float
        Of all its voxels at any visit, in mm (RAS+).
    """

    label: int
    volumes: tuple[float, ...]
    change: Change
    steps: tuple[Change, ...]
    centroid: tuple[float, float, float]


@dataclass(frozen=True)
class Numbers:
    """The numbers that lesions have already.

    Attributes
    ----------
    labels : array of int
        One integer a lesion; 0 background.
    last : int
        The largest number that a lesion ever had.
    """

    labels: Array
    last: int

    def of(self, components: Array, wanted: Array) -> Array:
        """The numbers of some connected components, in their order."""
        there = self.labels > 0
        pairs = np.unique(np.stack([components[there], self.labels[there]]), axis=1)
        # the smallest of those that a component has comes first
        had, first = np.unique(pairs[0], return_index=True)
        known = dict(zip(had.tolist(), pairs[1][first].tolist(), strict=True))
        out, last = [], self.last
        for component in wanted.tolist():
            last += component not in known
            out.append(known.get(component, last))
        return np.array(out, int)


def decide(
    probabilities: Sequence[Array], limits: Limits | None = None, kept: Mapping[int, Array] | None = None
) -> list[Array]:
    """Lesion masks of all visits, of which each helps the others.

    A voxel is lesion at a visit from the probability `limits.alone` on, and from `limits.supported` on if it
    is lesion by itself at any other visit: lesions rarely vanish, so that what is seen at one visit is likely
    there at the others.

    Parameters
    ----------
    probabilities : sequence of array
        Calibrated probability (0-1) of lesion at each visit, in one space.
    limits : Limits, optional
    kept : dict of array of bool, optional
        The masks of visits that were decided before, by their number. They stay as they are and support the
        others; what `probabilities` has of these visits is not looked at.

    Returns
    -------
    list of array of bool

    Examples
    --------
    >>> before, after = np.array([0.6, 0.6, 0.3, 0.3]), np.array([0.6, 0.3, 0.3, 0.1])
    >>> [mask.tolist() for mask in decide([before, after])]
    [[True, True, False, False], [True, True, False, False]]
    """
    limits, kept = limits or Limits(), kept or {}
    anywhere = np.any([kept.get(i, one >= limits.alone) for i, one in enumerate(probabilities)], axis=0)
    return [
        kept[i] if i in kept else anywhere & (one >= limits.supported) for i, one in enumerate(probabilities)
    ]


def follow(
    probabilities: Sequence[Array],
    rule: Rule,
    grid: Grid,
    kept: Mapping[int, Array] | None = None,
    numbers: Numbers | None = None,
) -> tuple[list[Array], Array, list[LesionHistory]]:
    """Lesion masks of all visits, and the history of each lesion, by what counts as a lesion at one visit.

    The visits decide together (:func:`decide`) which voxels are lesion. A lesion is kept if its surest voxel
    at any visit has the threshold of the rule, and is there at the visits where it has its least volume. With
    one visit that is :func:`bids_inpaint.imaging.lesions.find_probable`.

    Parameters
    ----------
    probabilities : sequence of array, shape `grid.shape`
        Calibrated probability (0-1) of lesion at each visit, in the order of time.
    rule : Rule
        For the probability.
    grid : Grid
        Gives volumes and coordinates.
    kept : dict of array of bool, optional
        Of :func:`decide`. All that is in these masks is a lesion, and stays.
    numbers : Numbers, optional
        Of the lesions in the masks that are kept.

    Returns
    -------
    masks : list of array of bool
        Of each visit.
    labels, lesions
        Of :func:`histories` of these masks.
    """
    limits, kept = Limits.of(rule), kept or {}
    masks = decide(probabilities, limits, kept)
    sure_voxels = np.any([kept.get(i, one >= rule.threshold) for i, one in enumerate(probabilities)], axis=0)
    while True:
        labels, lesions = histories(masks, grid, limits, numbers)
        there = np.zeros((len(masks), labels.max(initial=0) + 1), bool)
        sure = np.unique(labels[sure_voxels])
        for lesion in lesions:
            if lesion.label in sure:
                there[:, lesion.label] = np.array(lesion.volumes) >= limits.least_volume
        left = [
            mask if i in kept else mask & at_visit[labels]
            for i, (mask, at_visit) in enumerate(zip(masks, there, strict=True))
        ]
        if all(np.array_equal(*pair) for pair in zip(left, masks, strict=True)):
            return masks, labels, lesions
        masks = left


def numbered(stages: Sequence[Sequence[Array]], grid: Grid, limits: Limits | None = None) -> Numbers | None:
    """The numbers of lesions of visits that came one after the other.

    Parameters
    ----------
    stages : sequence of sequence of array of bool
        The masks of the visits that were processed together first, of those that were added to them, and so
        on.
    grid, limits
        Of :func:`histories`.

    Returns
    -------
    Numbers or None
        None without stages.
    """
    out: Numbers | None = None
    masks: list[Array] = []
    for stage in stages:
        masks += stage
        labels, _ = histories(masks, grid, limits, out)
        out = Numbers(labels, max(out.last if out else 0, int(labels.max(initial=0))))
    return out


def histories(
    masks: Sequence[Array], grid: Grid, limits: Limits | None = None, numbers: Numbers | None = None
) -> tuple[Array, list[LesionHistory]]:
    """Follow each lesion through all visits.

    A lesion is a connected component of all voxels that are lesion at any visit. Lesions that merge, and
    parts of one that splits, are one lesion at all visits, whose volume is the sum of its parts: otherwise a
    merger would be a lesion that resolved and another that enlarged. A new lesion that touches an older one
    enlarges it.

    Parameters
    ----------
    masks : sequence of array of bool, shape `grid.shape`
        Of each visit in the order of time, such as :func:`decide` gives.
    grid : Grid
        Gives volumes and coordinates.
    limits : Limits, optional
    numbers : Numbers, optional
        Of the lesions of some of the visits. A lesion keeps its number, and one that joins several has the
        smallest of theirs, which are gone then. The others have numbers that none ever had.

    Returns
    -------
    labels : array of int32
        0 background; 1 is the lesion with the largest volume at any visit, if none has a number before.
        Components that are smaller than `limits.least_volume` at all visits are no lesions.
    lesions : list of LesionHistory
        By their numbers.
    """
    limits = limits or Limits()
    labels, count = ndimage.label(np.any(masks, axis=0), CONNECTIVITY)
    voxels = np.array([np.bincount(labels[mask], minlength=count + 1)[1:] for mask in masks])
    # a volume that differs by the rounding of an affine is the same
    volumes = np.round(voxels * grid.voxel_volume, 3)
    order = np.argsort(-volumes.max(0), kind="stable")
    order = order[volumes.max(0)[order] >= limits.least_volume]
    names = numbers.of(labels, order + 1) if numbers else np.arange(1, order.size + 1)
    rank = np.zeros(count + 1, np.int32)
    rank[order + 1] = names
    labels = rank[labels]
    if not order.size:
        return labels, []
    order, names = order[np.argsort(names)], np.sort(names)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, names))
    world = centres @ grid.matrix[:3, :3].T + grid.matrix[:3, 3]
    out = []
    for label, index, (x, y, z) in zip(names.tolist(), order, world, strict=True):
        course = tuple(float(v) for v in volumes[:, index])
        steps = tuple(change_between(before, after, limits) for before, after in pairwise(course))
        place = (float(x), float(y), float(z))
        out.append(LesionHistory(label, course, _overall(course, limits), steps, place))
    return labels, out


def change_between(before: float, after: float, limits: Limits | None = None) -> Change:
    """What became of a lesion between two visits, by its volumes (mm³).

    It is there from `limits.least_volume` on. Where it is at neither visit it is called stable.

    Examples
    --------
    >>> [change_between(*v) for v in ((0, 50), (50, 0), (100, 130), (130, 100), (100, 110), (20, 30))]
    ['new', 'resolved', 'enlarging', 'shrinking', 'stable', 'stable']
    """
    limits = limits or Limits()
    there = [volume >= limits.least_volume and volume > 0 for volume in (before, after)]
    if there == [False, True]:
        return "new"
    if there == [True, False]:
        return "resolved"
    difference = abs(after - before)
    changed = difference >= limits.growth * min(before, after) and difference >= limits.least_change
    if not all(there) or not changed or not difference:
        return "stable"
    return "enlarging" if after > before else "shrinking"


def _overall(volumes: tuple[float, ...], limits: Limits) -> Change:
    first, last = volumes[0], volumes[-1]
    if max(first, last) < limits.least_volume or max(first, last) == 0:
        return "transient"
    return change_between(first, last, limits)


def change_map(labels: Array, lesions: Sequence[LesionHistory]) -> Array:
    """What became of each voxel's lesion: 0 background, and 1 on the change's place in `CHANGES`.

    Parameters
    ----------
    labels : array of int
    lesions : sequence of LesionHistory
        Both of :func:`histories`.
    """
    values = np.zeros(labels.max(initial=0) + 1, np.uint8)
    for lesion in lesions:
        values[lesion.label] = 1 + CHANGES.index(lesion.change)
    return values[labels]
