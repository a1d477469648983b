"""Lesion probabilities that mean what they say (pure arrays)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.io.files import replacing
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: Voxels are counted by their logit in bins of this width, up to this logit on both sides.
STEP, FARTHEST = 0.02, 14.0
#: Logits of the middles of these bins.
LOGITS = np.arange(-FARTHEST, FARTHEST + STEP / 2, STEP)
#: Below this probability a voxel says that it is no lesion; a brain has a million of these.
TRIVIAL = 0.01
#: Edges of the bins of predicted probability.
EDGES = (0.0, TRIVIAL, *(round(0.1 * i, 1) for i in range(1, 11)))


def logit(probability: Array) -> Array:
    """Logits of probabilities, within ± :data:`FARTHEST`.

    Examples
    --------
    >>> logit(np.array([0.0, 0.5, 1.0])).tolist()
    [-14.0, 0.0, 14.0]
    """
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -FARTHEST, FARTHEST)


@dataclass(frozen=True)
class Scan:
    """What a network makes of an image whose lesions are known, in the box around the brain.

    Attributes
    ----------
    person : str
        Several images may be of one.
    logit : array of float16
        Of the raw probability.
    truth, brain : array of bool
    """

    person: str
    logit: Array
    truth: Array
    brain: Array

    @classmethod
    def of(cls, person: str, probability: Array, truth: Array, brain: Array) -> Scan:
        """Keep what is needed of the raw probability (0-1), the lesions and the brain of an image."""
        box = bounding_box(brain)
        kept = logit(probability[box]).astype(np.float16)
        return cls(person, kept, (truth & brain)[box].copy(), brain[box].copy())

    def save(self, path: Path) -> None:
        """Write a file that :meth:`load` reads."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(
                file, person=self.person, logit=self.logit, truth=self.truth, brain=self.brain
            )

    @classmethod
    def load(cls, path: Path) -> Scan:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is none of these.
        """
        try:
            with np.load(path) as stored:
                return cls(str(stored["person"]), stored["logit"], stored["truth"], stored["brain"])
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"{path} was not written by cross-validate: {error}") from None


@dataclass(frozen=True)
class Counts:
    """Voxels of a person's brain by the logit of their raw probability: all, and those in lesions.

    Attributes
    ----------
    voxels, lesions : array of float, shape of :data:`LOGITS`
    """

    voxels: Array
    lesions: Array

    @classmethod
    def of(cls, scan: Scan) -> Counts:
        """Count the voxels of an image."""
        place = np.rint((scan.logit[scan.brain].astype(np.float32) + FARTHEST) / STEP).astype(np.int64)
        inside = scan.truth[scan.brain]
        voxels, lesions = (np.bincount(v, minlength=len(LOGITS)) for v in (place, place[inside]))
        return cls(voxels.astype(float), lesions.astype(float))


def by_person(counted: Iterable[tuple[str, Counts]]) -> dict[str, Counts]:
    """The voxels of all images of each person, from those of each image."""
    out: dict[str, Counts] = {}
    for person, one in counted:
        seen = out.get(person)
        out[person] = Counts(seen.voxels + one.voxels, seen.lesions + one.lesions) if seen else one
    return out


def _shares(people: Mapping[str, Counts]) -> Counts:
    """The mean person: each brain counts alike, however many images of it there are."""
    totals = [c.voxels.sum() for c in people.values()]
    voxels = sum(c.voxels / n for c, n in zip(people.values(), totals, strict=True)) / len(people)
    lesions = sum(c.lesions / n for c, n in zip(people.values(), totals, strict=True)) / len(people)
    return Counts(np.asarray(voxels), np.asarray(lesions))


def fit_logistic(people: Mapping[str, Counts], least: float = TRIVIAL) -> tuple[float, float]:
    """Slope and intercept that make raw probabilities the likeliest ones, by Newton's method.

    Parameters
    ----------
    people : mapping of str to Counts
        Each weighs alike.
    least : float
        Voxels of a smaller raw probability are left out: those that no network can see (an expert saw them on
        another image) would else decide about those that it does.

    Returns
    -------
    slope, intercept : float
        Of :class:`bids_inpaint.networks.card.LesionProbability`.

    Raises
    ------
    ValueError
        If there are no lesions, or nothing else, or the probability does not rise with the raw one.

    References
    ----------
    Platt 1999, Probabilistic outputs for support vector machines; Guo et al. 2017 (arXiv:1706.04599).
    """
    mean = _shares(people)
    used = (np.log(least / (1 - least)) <= LOGITS) & (mean.voxels > 0)
    x, n, k = LOGITS[used], mean.voxels[used], mean.lesions[used]
    if not 0 < k.sum() < n.sum():
        raise ValueError("a calibration needs voxels of lesions and others, with a probability of their own")
    n, k = n / n.sum(), k / n.sum()
    design = np.stack([x, np.ones_like(x)])
    weights = np.array([1.0, 0.0])

    def likelihood(w: Array) -> float:
        z = w @ design
        return float((k * z - n * np.logaddexp(0, z)).sum())

    for _ in range(100):
        p = 1 / (1 + np.exp(-(weights @ design)))
        gradient = design @ (k - n * p)
        hessian = (design * (n * p * (1 - p))) @ design.T
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        while likelihood(weights + step) < likelihood(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    if not (np.isfinite(weights).all() and weights[0] > 0):
        raise ValueError("the probability of this network does not rise where lesions are")
    return float(weights[0]), float(weights[1])


@dataclass(frozen=True)
class Bin:
    """Voxels of like predicted probability.

    Attributes
    ----------
    low, high : float
        Edges.
    predicted, observed : float or None
        Mean probability, and the share of the voxels that is in lesions; None of no voxel.
    share : float
        Of the brain, each person weighing alike.
    voxels : int
        How many there are.
    """

    low: float
    high: float
    predicted: float | None
    observed: float | None
    share: float
    voxels: int


@dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities are from the shares observed.

    Attributes
    ----------
    bins : list of Bin
        By :data:`EDGES`.
    ece : float
        Expected calibration error over the voxels with a probability of at least :data:`TRIVIAL`.
    ece_with_missed : float
        The same, and the lesion voxels below that in a bin of their own, where 1 would be right. They are
        chosen by the truth: where there are any, no probability gets 0.
    ece_brain : float
        Over the whole brain, most of which is trivial.
    largest_gap : float
        Maximum calibration error: of the bin that is farthest off, of those that `ece` is over.
    missed : float or None
        Share of the lesions with less than :data:`TRIVIAL`.
    """

    bins: list[Bin]
    ece: float
    ece_with_missed: float
    ece_brain: float
    largest_gap: float
    missed: float | None

    def as_json(self) -> dict[str, Any]:
        """What a card keeps of it."""
        return asdict(self)


def reliability(people: Mapping[str, Counts], slope: float = 1.0, intercept: float = 0.0) -> Reliability:
    """Compare calibrated probabilities with what share of the voxels is in lesions.

    Parameters
    ----------
    people : mapping of str to Counts
        Each weighs alike.
    slope, intercept : float
        Of :class:`bids_inpaint.networks.card.LesionProbability`.
    """
    mean = _shares(people)
    predicted = 1 / (1 + np.exp(-(slope * LOGITS + intercept)))
    numbers = sum(c.voxels for c in people.values())
    place = np.clip(np.searchsorted(EDGES, predicted, side="right") - 1, 0, len(EDGES) - 2)
    size = len(EDGES) - 1
    share, expected, found, count = (
        np.bincount(place, weights=w, minlength=size)
        for w in (mean.voxels, mean.voxels * predicted, mean.lesions, np.asarray(numbers))
    )
    gaps = np.abs(expected - found)
    bins = [
        Bin(low, high, float(e / s) if s else None, float(f / s) if s else None, float(s), int(n))
        for low, high, e, f, s, n in zip(EDGES, EDGES[1:], expected, found, share, count, strict=False)
    ]
    # the first bin is the trivial one
    told = share[1:].sum()
    missed = (mean.lesions * (1 - predicted))[place == 0].sum()
    return Reliability(
        bins=bins,
        ece=float(gaps[1:].sum() / told) if told else 0.0,
        ece_with_missed=float((gaps[1:].sum() + missed) / (told + found[0])) if told + found[0] else 0.0,
        ece_brain=float(gaps.sum()),
        largest_gap=float(max((g / s for g, s in zip(gaps[1:], share[1:], strict=True) if s), default=0.0)),
        missed=float(found[0] / found.sum()) if found.sum() else None,
    )
