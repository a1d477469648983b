"""Cross-validation of FLAIR synthesis and lesion segmentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bids_inpaint.training.architectures.slice_unet import MODES
from bids_inpaint.training.config import Config, individual, person
from bids_inpaint.training.data import find_subjects
from bids_inpaint.training.evaluate_flair import FlairScorer, Row, evaluate_flair, mean_of
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.joint import JointSynthesis
from bids_inpaint.training.pairs import by_kind
from bids_inpaint.training.strangers import Strangers


def cross_validate(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    run: Path,
    folds: int | None = None,
    modes: Sequence[str] = MODES,
    start: Path | None = None,
    threads: int = 2,
) -> dict[str, Any]:
    """Train each mode on all patients but those of a fold, and score it on these.

    Parameters
    ----------
    config : Config
        Those of its training subjects who have a FLAIR are divided, with all their images; the others are in
        every training. What is seen of a patient's image comes from a blind network that learned nothing
        from this person: see :class:`bids_inpaint.training.strangers.Strangers`.
    cache, shapes_folder : Path
    run : Path
        Where the runs go; resumed if it is there.
    folds : int, optional
        As many as people by default.
    modes : sequence of str
        See :data:`bids_inpaint.training.architectures.slice_unet.MODES`.
    start : Path, optional
        Folder with a checkpoint ``MODE/checkpoint.pt`` of a network that saw no patient, to start from; from
        scratch without one.
    threads : int

    Returns
    -------
    dict
        Means over the people by mode, and the scores of each image. Unimodal networks, which make no FLAIR,
        are not trained for people whose lesions nobody marked.

    Raises
    ------
    ValueError
        If there are fewer patients than folds, `run` holds those of another division, or the blind network
        that is to see a patient learned from this person.
    """
    kinds = by_kind(find_subjects(cache, config.data.train))
    marked = {s.name for s in kinds.get("patients", [])}
    patients = [*sorted(marked), *(s.name for s in kinds.get("unmarked", []))]
    Strangers(config).check(patients)
    parts = divide(patients, folds or len({person(name) for name in patients}))
    keep_division(run, json.dumps({"folds": parts, "start": str(start)}))
    rows: dict[str, dict[str, Row]] = {mode: {} for mode in modes}
    for mode in modes:
        for i, held in enumerate(parts):
            if mode == "unimodal" and not marked & set(held):
                continue
            schedule = replace(config.schedule, start=str(start / mode / "checkpoint.pt") if start else "")
            network = {**config.network, "mode": mode}
            fold = replace(
                config, data=config.data.leaving_out(held, "validation"), schedule=schedule, network=network
            )
            folder = run / mode / f"fold-{i + 1}"
            checkpoint = fit(fold, JointSynthesis(fold, cache, shapes_folder), folder, threads=threads)
            exported = export(fold, checkpoint, folder / f"{config.name}.onnx", None, 0.5)
            scorer = FlairScorer(fold, cache, shapes_folder, str(exported), threads)
            scores = evaluate_flair(scorer, find_subjects(cache, held), figure=folder / "slices.png")
            rows[mode] |= scores["subjects"]
    means = {mode: mean_of_people(by_subject) for mode, by_subject in rows.items() if by_subject}
    print(_table(means))
    summary = {"folds": parts, "means": means, "subjects": rows}
    (run / "scores.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def mean_of_people(rows: Mapping[str, Row]) -> Row:
    """Mean of each score over people, each of whom counts once however many images there are.

    Examples
    --------
    >>> mean_of_people({"a_sub-1_ses-1": {"mae": 1}, "a_sub-1_ses-2": {"mae": 2}, "a_sub-2": {"mae": 3}})
    {'mae': 2.25}
    """
    people: dict[str, list[Row]] = {}
    for name, row in rows.items():
        people.setdefault(individual(name), []).append(row)
    return mean_of([mean_of(images) for images in people.values()])


def divide(patients: Sequence[str], folds: int) -> list[list[str]]:
    """The patients of each fold; all images of a person are in the same one.

    Raises
    ------
    ValueError
        If there are fewer people than folds, or fewer than two folds.

    Examples
    --------
    >>> divide(["ms_sub-1_ses-1", "ms_sub-2", "ms_sub-1_ses-2"], 2)
    [['ms_sub-1_ses-1', 'ms_sub-1_ses-2'], ['ms_sub-2']]
    """
    people = sorted({person(name) for name in patients})
    if not 2 <= folds <= len(people):
        raise ValueError(f"{folds} folds need at least so many patients, and two: there are {len(people)}")
    return [[name for name in patients if person(name) in people[i::folds]] for i in range(folds)]


def keep_division(run: Path, division: str) -> None:
    """Write down how the patients of a run are divided; refuse to go on with another division."""
    path = run / "folds.json"
    if path.exists() and path.read_text() != division:
        raise ValueError(f"{run} holds the runs of another division or start: name another folder")
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(division)


def _table(means: Mapping[str, Row]) -> str:
    lines = [f"\n{'':<10}" + "".join(f"{key:>12}" for key in next(iter(means.values())))]
    for mode, row in means.items():
        values = "".join(f"{'–' if value is None else format(value, '.4g'):>12}" for value in row.values())
        lines.append(f"{mode:<10}{values}")
    return "\n".join(lines)
