"""Intervals of true lesion volumes, fitted and tested on people whose lesions are known (pure arrays)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize, stats

from bids_inpaint.imaging.lesions import CONNECTIVITY, find_probable
from bids_inpaint.imaging.uncertainty import (
    LEVEL,
    OFFSET_ML,
    OFFSET_MM3,
    LesionModel,
    LoadModel,
    VolumeModel,
    expected_volume,
    features,
)
from bids_inpaint.networks.card import Card
from bids_inpaint.networks.selection import rule_of
from bids_inpaint.space import Grid
from bids_inpaint.training.calibration import Scan

Array = np.ndarray


@dataclass(frozen=True)
class Volumes:
    """True volumes of an image beside what a network makes of them; voxels have 1 mm³.

    Attributes
    ----------
    person : str
    group : str
        The painter of its lesions, 'patients', or 'lesion-free'.
    expected, truth : float
        Volume that the lesion probability comes to, and the true one, in ml.
    lesions : array of float, shape (n, 3)
        Of each mapped lesion: its volume (mm³), its mean probability, and the true volume (mm³): voxels of
        true lesions that the map touches, each counted for the mapped lesion that it is nearest to.
    """

    person: str
    group: str
    expected: float
    truth: float
    lesions: Array

    @classmethod
    def of(cls, scan: Scan, group: str, card: Card, min_volume: float) -> Volumes:
        """Measure an image of the working grid as the app maps it with the levels of a card.

        Parameters
        ----------
        scan : Scan
        group : str
        card : Card
            Of a network that tells a lesion probability.
        min_volume : float
            Of a lesion, in mm³.
        """
        told = card.lesion_probability
        assert told is not None
        logits = told.slope * scan.logit.astype(np.float32) + told.intercept
        probability = np.where(scan.brain, 1 / (1 + np.exp(-logits)), 0)
        grid = Grid.of(probability.shape, np.eye(4))
        mapped = find_probable(probability, rule_of(card, min_volume, "probability"), grid)
        truth = float(scan.truth.sum() / 1000)
        lesions = _lesions(mapped, probability, scan.truth)
        return cls(scan.person, group, expected_volume(probability, grid.voxel_volume), truth, lesions)


def _lesions(mapped: Array, probability: Array, truth: Array) -> Array:
    labels, count = ndimage.label(mapped, CONNECTIVITY)
    if not count:
        return np.zeros((0, 3))
    nearest = ndimage.distance_transform_edt(~mapped, return_distances=False, return_indices=True)
    true_labels, true_count = ndimage.label(truth, CONNECTIVITY)
    touched = np.zeros(true_count + 1, bool)
    touched[true_labels[mapped]] = True
    touched[0] = False
    owner = np.where(touched[true_labels], labels[tuple(nearest)], 0)
    sizes, sums, true = (
        np.bincount(which.ravel(), weights, count + 1)[1:]
        for which, weights in ((labels, None), (labels, probability.ravel()), (owner, None))
    )
    return np.stack([sizes, sums / sizes, true], axis=1)


def fit(measured: Sequence[Volumes]) -> VolumeModel:
    """Fit both models; each painter has the same weight, and so have all patients together.

    Parameters
    ----------
    measured : sequence of Volumes
        Images without lesions don't count.

    Raises
    ------
    ValueError
        If there are too few lesions.
    """
    used = [v for v in measured if v.truth > 0]
    found = sum(len(v.lesions) for v in used)
    if len(used) < 20 or found < 50:
        raise ValueError(f"{len(used)} images with {found} lesions are too few for intervals of volumes")
    return VolumeModel(_fit_load(used), _fit_lesions(used))


def _weights(groups: Sequence[str]) -> Array:
    names, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return len(place) / (len(names) * counts[place])


def _fit_load(measured: Sequence[Volumes]) -> LoadModel:
    """The likeliest model, widened as there are few people, whose images err together.

    As for the mean of a few, the normal quantile gives way to that of Student's t, with a degree of freedom
    less than there are people.
    """
    x = np.log([v.expected + OFFSET_ML for v in measured])
    y = np.log([v.truth + OFFSET_ML for v in measured])
    weights = _weights([v.group for v in measured])

    def cost(model: Array) -> float:
        intercept, slope, log_sd, log_sd_slope = model
        spread = log_sd + log_sd_slope * x
        z = (y - intercept - slope * x) * np.exp(-spread)
        return float((weights * (spread + z * z / 2)).sum())

    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-7, "fatol": 1e-9}
    best = optimize.minimize(cost, [0.0, 1.0, -1.0, 0.0], method="Nelder-Mead", options=options)
    intercept, slope, log_sd, log_sd_slope = map(float, best.x)
    few = stats.t.ppf((1 + LEVEL) / 2, len({v.person for v in measured}) - 1)
    wider = float(np.log(few / stats.norm.ppf((1 + LEVEL) / 2)))
    return LoadModel(intercept, slope, log_sd + wider, log_sd_slope)


def _fit_lesions(measured: Sequence[Volumes]) -> LesionModel:
    """Linear quantile regression (Koenker and Bassett 1978) of both ends."""
    lesions = np.concatenate([v.lesions for v in measured])
    weights = _weights([v.group for v in measured for _ in v.lesions])
    design, truth = features(lesions[:, 0], lesions[:, 1]), np.log(lesions[:, 2] + OFFSET_MM3)
    n, k = design.shape
    # what is above the line costs the quantile, and what is below it the rest
    balance = np.hstack([design, np.eye(n), -np.eye(n)])
    bounds = [(None, None)] * k + [(0, None)] * (2 * n)

    def line(quantile: float) -> tuple[float, float, float]:
        cost = np.concatenate([np.zeros(k), quantile * weights, (1 - quantile) * weights])
        a, b, c = optimize.linprog(cost, A_eq=balance, b_eq=truth, bounds=bounds, method="highs").x[:k]
        return float(a), float(b), float(c)

    return LesionModel(line((1 - LEVEL) / 2), line((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Held:
    """Which true volumes the intervals of a model hold.

    Attributes
    ----------
    group : str
    image : bool
        Of the whole image.
    lesions : array of bool
        Of each mapped lesion.
    """

    group: str
    image: bool
    lesions: Array


def hold(model: VolumeModel, one: Volumes) -> Held:
    """Look whether the intervals of an image hold the true volumes.

    As in the app, that of an image without mapped lesions begins at 0.
    """
    low, high = model.load.interval(one.expected)
    begins = low if len(one.lesions) else 0.0
    volumes, probabilities, true = one.lesions.T
    ends = model.lesion.interval(volumes, probabilities) if len(one.lesions) else ([], [])
    # a volume at an end of its interval differs from it by rounding
    inside = (true >= np.asarray(ends[0]) - 1e-6) & (true <= np.asarray(ends[1]) + 1e-6)
    return Held(one.group, bool(begins <= one.truth <= high), inside)


def hold_out(measured: Sequence[Volumes]) -> list[Held]:
    """The same for each image, with models that learned nothing from its person."""
    out = []
    for person in dict.fromkeys(v.person for v in measured):
        model = fit([v for v in measured if v.person != person])
        out += [hold(model, v) for v in measured if v.person == person]
    return out


def coverage(held: Sequence[Held]) -> dict[str, dict[str, float | None]]:
    """Share of the true volumes that intervals hold, of images and of lesions, by group and of all.

    Images without lesions are no part of 'all'. The share of nothing is None.
    """
    groups = dict.fromkeys(one.group for one in held)
    chosen = {group: [one for one in held if one.group == group] for group in groups}
    chosen["all"] = [one for one in held if one.group != "lesion-free"]
    return {group: _shares(some) for group, some in chosen.items()}


def _shares(held: Sequence[Held]) -> dict[str, float | None]:
    lesions = [inside for one in held for inside in one.lesions]
    return {
        "images": len(held),
        "images_held": float(np.mean([one.image for one in held])) if held else None,
        "lesions": len(lesions),
        "lesions_held": float(np.mean(lesions)) if lesions else None,
    }
