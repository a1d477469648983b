"""The model that tells lesions by a T1w and a FLAIR together, fitted to patients and tested on others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, optimize
from scipy.special import expit

from bids_inpaint.imaging.flair import Both, FlairModel
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.lesions import Rule, find_probable
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io.files import replacing
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.networks.selection import rule_of
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import person
from bids_inpaint.training.data import Subject, find_subjects, template_priors
from bids_inpaint.training.evaluate import SMALLEST_MM3
from bids_inpaint.training.strangers import learned_from

Array = np.ndarray

#: FLAIR images of other scanners, made of those of the patients: how much lesions stand out, times that of
#: the patient, and the standard deviation of a blur along the third axis (voxels), as of slices of 3 mm.
VARIANTS = ((1.0, 0.0), (0.7, 0.0), (1.5, 0.0), (1.0, 1.2))
#: Healthy voxels of a patient that are fitted to, at most.
_HEALTHY = 80_000
#: Thresholds of maps to choose from.
_THRESHOLDS = np.round(np.arange(0.2, 0.61, 0.05), 2)
#: Weight of the squares of the standardised coefficients beside the mean cost of a voxel.
_RIDGE = 1e-6


@dataclass(frozen=True)
class Patient:
    """A patient as seen by a blind network that learned nothing from him.

    Attributes
    ----------
    name : str
    both : Both
    lesions : array of bool
        Drawn by an expert.
    alone : array of bool
        The map of the network, by the T1w alone.
    """

    name: str
    both: Both
    lesions: Array
    alone: Array

    def voxels(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Features, whether it is lesion, and weight, of all lesion voxels and some others, in all variants.

        The weights are those of all voxels of the brain.
        """
        lesion = self.lesions[self.both.mask]
        healthy = np.flatnonzero(~lesion)
        some = rng.choice(healthy, min(_HEALTHY, len(healthy)), replace=False)
        used = np.concatenate([np.flatnonzero(lesion), some])
        weights = np.where(lesion[used], 1, len(healthy) / len(some))
        features = [vary(self.both, *variant).features()[used] for variant in VARIANTS]
        return (
            np.concatenate(features),
            np.tile(lesion[used], len(VARIANTS)),
            np.tile(weights, len(VARIANTS)),
        )

    def dice(self, found: Array) -> float:
        """Dice coefficient of a map with the lesions."""
        return dice(found, self.lesions)


def vary(both: Both, gain: float, blur: float) -> Both:
    """The same with a FLAIR of another contrast and resolution: see :data:`VARIANTS`."""
    level = both.white_level()
    flair = np.maximum(level + gain * (both.flair - level), 0)
    if blur:
        flair = ndimage.gaussian_filter1d(np.where(both.mask, flair, 0), blur, axis=2)
    return replace(both, flair=flair.astype(np.float32))


def look(subject: Subject, without: Path, priors: Sequence[Array], runtime: session.Runtime) -> Patient:
    """Let a stranger network look at the T1w of a patient of the cache, and put the FLAIR beside.

    Parameters
    ----------
    subject : Subject
    without : Path
        Folder with the blind network ``PERSON.onnx``.
    priors : sequence of array
        White- and grey-matter probability of the template.
    runtime : Runtime

    Raises
    ------
    ValueError
        If the patient has no FLAIR or no lesion mask, or the network tells no probability or has learned from
        the person.
    """
    subject.check_flair()
    if not subject.patient:
        raise ValueError(f"{subject.name} has no lesion mask in the cache")
    model = registry.find(str(without / f"{person(subject.name)}.onnx"))
    if learned_from(model, subject.name):
        raise ValueError(f"{model.path} learned from {subject.name}: it is not a network without this person")
    image = np.asarray(subject.image, np.float32)
    mask = image > 0
    scale = Scale.measure(image, mask, *priors)
    filled = inpainting.inpaint(model, image, mask, scale, None, runtime, priors)
    if filled.probability is None:
        raise ValueError(f"network {model.path} tells no lesion probability")
    both = Both(
        scale.apply(image), scale.apply(filled.image), filled.probability,
        np.asarray(subject.flair, np.float32), mask, priors[0],
    )  # fmt: skip
    alone = find_probable(filled.probability, rule_of(model.card, SMALLEST_MM3, "probability"), WORKING_GRID)
    return Patient(subject.name, both, np.asarray(subject.lesions) > 0, alone)


def fit(patients: Sequence[Patient], seed: int = 0) -> FlairModel:
    """The likeliest model; each patient weighs as much as the voxels of the brain.

    The threshold is the one with the best mean Dice coefficient of these patients.

    Raises
    ------
    ValueError
        If nobody has lesions.
    """
    if not any(patient.lesions.any() for patient in patients):
        raise ValueError("nobody of these patients has lesions")
    drawn = [patient.voxels(np.random.default_rng(seed)) for patient in patients]
    coefficients, intercept = fit_logistic(*map(np.concatenate, zip(*drawn, strict=True)))
    model = FlairModel(coefficients, intercept, 0.5)
    mapped = [patient.both.lesion_probability(model) for patient in patients]
    scores = [
        np.mean([patient.dice(p >= limit) for patient, p in zip(patients, mapped, strict=True)])
        for limit in _THRESHOLDS
    ]
    return replace(model, threshold=float(_THRESHOLDS[int(np.argmax(scores))]))


def fit_logistic(features: Array, lesion: Array, weights: Array) -> tuple[tuple[float, ...], float]:
    """Coefficients and intercept of a logistic regression.

    Parameters
    ----------
    features : array of float, shape (n, k)
    lesion : array of bool, shape (n,)
    weights : array of float, shape (n,)
        Of each voxel, in any unit.

    Examples
    --------
    >>> x = np.linspace(-3, 3, 2000)[:, None]
    >>> chance = expit(2 * x[:, 0] - 1)
    >>> twice = np.concatenate([x, x]), np.repeat([True, False], 2000), np.concatenate([chance, 1 - chance])
    >>> (slope,), intercept = fit_logistic(*twice)
    >>> round(slope, 2), round(intercept, 2)
    (2.0, -1.0)
    """
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    design = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    share = weights / weights.sum()
    sign = np.where(lesion, 1.0, -1.0)
    ridge = np.append(np.full(features.shape[1], _RIDGE), 0)

    def cost(values: Array) -> tuple[float, Array]:
        margin = sign * (design @ values)
        slope = -share * sign * expit(-margin)
        return float(
            share @ np.logaddexp(0, -margin) + ridge @ values**2
        ), design.T @ slope + 2 * ridge * values

    best = optimize.minimize(cost, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B",
                             options={"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-10})  # fmt: skip
    coefficients = best.x[:-1] / spread
    return tuple(map(float, coefficients)), float(best.x[-1] - coefficients @ mean)


def score(patient: Patient, model: FlairModel) -> dict[str, float]:
    """How well the maps of a patient agree with the expert: by both images, and by the T1w alone."""
    probability = patient.both.lesion_probability(model)
    rule = Rule("probability", model.threshold, model.threshold, SMALLEST_MM3)
    mapped = find_probable(probability, rule, WORKING_GRID)
    found, true = mapped.sum(), patient.lesions.sum()
    hit = (mapped & patient.lesions).sum()
    return {
        "volume_ml": float(true / 1000),
        "mapped_ml": float(found / 1000),
        "dice": patient.dice(mapped),
        "fpr": float(1 - hit / found) if found else 0.0,
        "fnr": float(1 - hit / true) if true else 0.0,
        "dice_t1w_alone": patient.dice(patient.alone),
    }


def fit_card(
    card: Path, cache: Path, names: Sequence[str], without: Path, threads: int = 1
) -> dict[str, Any]:
    """Fit the model to patients, each seen by a network that left him out, and write it into a card.

    Parameters
    ----------
    card : Path
        JSON file of the blind network that learned from all of them.
    cache : Path
    names : sequence of str
        Patients of the cache.
    without : Path
        Folder with a blind network ``PERSON.onnx`` for each, which learned nothing from the person.
    threads : int

    Returns
    -------
    dict
        ``lesion_by_flair`` and ``flair_scores`` of the card: the model, and the scores of each patient by a
        model that was fitted to the others.

    Raises
    ------
    ValueError
        If there are less than two patients, or one has no FLAIR or no lesions.
    """
    if len(names) < 2:
        raise ValueError("two patients are needed at least: each is scored by a model of the others")
    priors, runtime = template_priors(cache), session.Runtime(threads=threads)
    patients = [look(subject, without, priors, runtime) for subject in find_subjects(cache, list(names))]
    rows = {}
    for patient in patients:
        others = [other for other in patients if other is not patient]
        rows[patient.name] = row = score(patient, fit(others))
        print(patient.name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    content = {"lesion_by_flair": asdict(fit(patients)), "flair_scores": {"left_out_in_turn": rows}}
    print(json.dumps(content["lesion_by_flair"], indent=1))
    written = json.loads(card.read_text()) | content
    with replacing(card) as part:
        part.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return content
