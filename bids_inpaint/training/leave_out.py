"""Cross-validation of a blind network: its lesion maps of patients of whom it saw nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_inpaint.training.calibrate import calibrate
from bids_inpaint.training.calibration import by_person, reliability
from bids_inpaint.training.config import Config, individual, person
from bids_inpaint.training.cross_validation import divide, keep_division
from bids_inpaint.training.data import Subject, find_subjects
from bids_inpaint.training.engines import make_task
from bids_inpaint.training.evaluate import Scorer
from bids_inpaint.training.evaluate_flair import Row, mean_of
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.scored import Scored
from bids_inpaint.training.weights import mix

#: Patients with less (ml) are summed up apart: a Dice coefficient of little says little.
LIGHT_ML = 5.0


@dataclass(frozen=True)
class Fitting:
    """How the network of each fold is trained.

    Attributes
    ----------
    start : Path, optional
        Checkpoint of a network that saw no patient, to start from; from scratch without one.
    share : float
        Of the weights after the training, 0-1; the others are those of `start`.
    minutes : float, optional
        Train for so long instead of the steps of the configuration.
    device : {'cpu', 'cuda'}
    threads, workers : int
        See :func:`bids_inpaint.training.fit.fit`.
    """

    start: Path | None = None
    share: float = 1.0
    minutes: float | None = None
    device: str = "cpu"
    threads: int = 2
    workers: int = 1


def leave_out(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    run: Path,
    fitting: Fitting,
    folds: int | None = None,
    threshold: float = 0.1,
) -> dict[str, Any]:
    """Train a blind network without each patient in turn, and score its lesion maps on this one.

    Nothing of a person who is left out is learned from: neither images, nor shapes of lesions, nor what
    painters take from patients. What the probability means, and how lesions are mapped by it, is measured on
    the validation subjects and on what the networks of the other folds made of those left out there.

    Parameters
    ----------
    config : Config
        Those of its training subjects who have a lesion mask are left out in turn; the others are in every
        training.
    cache, shapes_folder : Path
    run : Path
        Where the runs go; resumed if it is there. ``held/SUBJECT.npz`` is what ``calibrate --held`` reads;
        ``without/PERSON.onnx`` learned nothing from this person: for networks that see its output.
    fitting : Fitting
    folds : int, optional
        As many as people by default.
    threshold : float
        λ of the map of the difference.

    Returns
    -------
    dict
        Scores of each patient, their means, the reliability of the probability over all of them, and, by
        patient, why a fold's probability is ``uncalibrated``.

    Raises
    ------
    ValueError
        If the network is not blind, `fitting` starts from one that learned from the patients or has a share
        without a start, there are fewer people than folds, or `run` holds those of another division.
    """
    if not config.blind:
        raise ValueError(f"{config.name} is not blind: it maps no lesions")
    if fitting.share != 1 and not fitting.start:
        raise ValueError("a share of the weights needs a network to start from")
    patients = [s.name for s in find_subjects(cache, config.data.train) if s.patient]
    parts = divide(patients, folds or len({person(name) for name in patients}))
    if fitting.start:
        _check_start(fitting.start, patients, shapes_folder)
    plan = {"folds": parts, "start": str(fitting.start), "share": fitting.share, "minutes": fitting.minutes}
    keep_division(run, json.dumps(plan))
    (run / "held").mkdir(exist_ok=True)
    networks: list[tuple[Config, str, list[Subject]]] = []
    for i, names in enumerate(parts, 1):
        fold = replace(config, data=config.data.leaving_out(names, "test"))
        folder = run / f"fold-{i}"
        checkpoint = _fit(fold, cache, shapes_folder, folder, fitting)
        exported = str(export(fold, checkpoint, folder / f"{config.name}.onnx", None, threshold))
        held = find_subjects(cache, names)
        networks.append((fold, exported, held))
        if config.network.get("gated"):
            scorer = Scorer(fold, cache, shapes_folder, exported, fitting.threads)
            for subject in held:
                image, lesions = np.asarray(subject.image, np.float32), np.asarray(subject.lesions)
                scorer.scan(subject.name, image, lesions).save(run / "held" / f"{subject.name}.npz")
    _name_by_people(networks, run / "without")
    scored: dict[str, Scored] = {}
    uncalibrated: dict[str, str] = {}
    for fold, exported, held in networks:
        if config.network.get("gated"):
            scorer = Scorer(fold, cache, shapes_folder, exported, fitting.threads)
            mine = {subject.name for subject in held}
            others = [run / "held" / f"{name}.npz" for name in patients if name not in mine]
            try:
                calibrate(scorer, fold, cache, fold.data.validation, others)
            except ValueError as error:
                # days of training are not lost for that
                uncalibrated |= dict.fromkeys(mine, str(error))
        scorer = Scorer(fold, cache, shapes_folder, exported, fitting.threads)
        scored |= {subject.name: scorer.patient(subject) for subject in held}
    summary = {"folds": parts, **_summary(scored), "uncalibrated": uncalibrated}
    print(json.dumps(summary, indent=1))
    (run / "scores.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _name_by_people(networks: Sequence[tuple[Config, str, list[Subject]]], folder: Path) -> None:
    """Keep the network of each fold, with its card, under the names of those who are left out."""
    folder.mkdir(exist_ok=True)
    for _, exported, held in networks:
        for name in {person(subject.name) for subject in held}:
            for suffix in (".onnx", ".json"):
                shutil.copyfile(Path(exported).with_suffix(suffix), folder / f"{name}{suffix}")


def _check_start(start: Path, patients: Sequence[str], shapes_folder: Path) -> None:
    """Refuse a checkpoint that learned from a patient's images or from the shapes of his lesions."""
    learned = torch.load(start, map_location="cpu", weights_only=True).get("learns")
    beside = start.parent / "config.toml"
    if learned is None and beside.exists():
        # of a campaign, before checkpoints said it themselves
        data = Config.load(beside).data
        learned = repr((data.train, data.leave_out_patients))
    if learned is None:
        raise ValueError(f"{start} does not say what it learned from: train it again")
    for name in patients:
        shaped = (shapes_folder / "patients" / f"{person(name)}_mask.nii.gz").exists()
        # it names whom it trained on, and whose shapes it did not
        if repr(name) in learned or (shaped and repr(person(name)) not in learned):
            raise ValueError(f"{start} learned from {name}: start from a network that saw no patient")


def _fit(config: Config, cache: Path, shapes_folder: Path, folder: Path, fitting: Fitting) -> Path:
    """Train the network of a fold; its checkpoint, or that of the mean with what it started from."""
    start = str(fitting.start) if fitting.start else ""
    config = replace(config, schedule=replace(config.schedule, start=start, start_sha256=""))
    task = make_task(config, cache, shapes_folder)
    checkpoint = fit(config, task, folder, fitting.device, fitting.threads, fitting.workers, fitting.minutes)
    if fitting.start and fitting.share != 1:
        return mix(fitting.start, checkpoint, fitting.share, folder / "mixed.pt")
    return checkpoint


def _summary(scored: dict[str, Scored]) -> dict[str, Any]:
    """Scores by subject, and what they come to."""
    rows = {name: _flat(one) for name, one in scored.items()}
    heavy = {name: one.row["volume_ml"] > LIGHT_ML for name, one in scored.items()}
    groups = {
        f"more than {LIGHT_ML:g} ml": [row for name, row in rows.items() if heavy[name]],
        f"up to {LIGHT_ML:g} ml": [row for name, row in rows.items() if not heavy[name]],
    }
    counted = [(individual(name), counts) for name, one in scored.items() for counts in one.counts]
    return {
        "means": {group: mean_of(of_group) for group, of_group in groups.items() if of_group},
        "subjects": rows,
        **({"reliability": asdict(reliability(by_person(counted)))} if counted else {}),
    }


def _flat(scored: Scored) -> Row:
    """All scores of a patient in a row; None where undefined."""
    row = dict(scored.row)
    for kind, scores in scored.sweeps["maps"].items():
        row |= {f"{kind}_{name}": value for name, value in scores.items()}
    return {name: None if np.isnan(value) else value for name, value in row.items()}
