"""Scores of FLAIR synthesis and lesion segmentation, on subjects kept apart and by cross-validation."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.metrics import FlairScores, flair_scores
from bids_inpaint.networks import registry, session
from bids_inpaint.networks.flair import synthesise
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.evaluate import axial, panels
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.inpainting import Place
from bids_inpaint.training.joint import MODES, JointSynthesis
from bids_inpaint.training.pairs import by_kind, kind_of, make_pair

#: Scores by name; None where undefined.
Row = dict[str, float | None]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def pair_of(subject: Subject, shapes: Lesions, config: Config) -> Pair:
    """T1w, FLAIR and lesions of a subject on the working grid, by its name alone; None without a mask.

    Those of patients are real. Others get the lesions of a patient and single ones.
    """
    if kind_of(subject) == "unmarked":
        return np.asarray(subject.image, np.float32), np.asarray(subject.flair, np.float32), None
    rng = np.random.default_rng(zlib.crc32(subject.name.encode()))
    plain = replace(config, synthesis=Synthesis(mix={"both": 1.0}))
    place = Place((0, 0, 0), WORKING_GRID.shape, False)
    t1w, flair, lesion = (v.numpy() for v in make_pair(rng, subject, shapes, place, plain))
    return t1w, flair, lesion > 0.5


def score(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    model_name: str,
    names: Sequence[str],
    threads: int,
    output: Path | None = None,
    figure: Path | None = None,
) -> dict:
    """Score a network that makes a FLAIR and a lesion map, and print a table.

    Parameters
    ----------
    config : Config
        Names the patients whose lesions were not trained with.
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    names : sequence of str
        Subjects of the cache.
    threads : int
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file with the slice of the most lesion of the first three subjects.

    Returns
    -------
    dict
        Scores by subject, and their means by kind of subject.
    """
    model = registry.find(model_name, "flair")
    trained = {person(name) for name in config.data.train}
    lend = [name for name in config.data.leave_out_patients if name not in trained]
    shapes = Lesions.load(shapes_folder, only=lend)
    priors = template_priors(cache)
    runtime = session.Runtime(threads=threads)
    rows: dict[str, Row] = {}
    views = []
    chosen = find_subjects(cache, list(names))
    for subject in chosen:
        t1w, flair, lesion = pair_of(subject, shapes, config)
        mask = (t1w > 0) & (flair > 0)
        scale = Scale.measure(t1w, t1w > 0, *priors)
        made, probability = synthesise(model, t1w, t1w > 0, scale, priors, runtime)
        reached = flair_scores(made, flair, probability > 0.5, lesion, mask)
        if not made.any():
            # a unimodal network
            reached = replace(reached, mae=math.nan, psnr=math.nan, lesion_mae=math.nan)
        row = {k: None if math.isnan(v) else v for k, v in asdict(reached).items()}
        rows[subject.name] = row
        print(subject.name, {k: v if v is None else round(v, 3) for k, v in row.items()}, flush=True)
        truth = np.zeros(t1w.shape, bool) if lesion is None else lesion
        z = int((truth if truth.any() else probability > 0.5).sum((0, 1)).argmax())
        views.append((_title(subject, reached), axial((t1w, flair, made, truth, probability > 0.5), z)))
    kinds = by_kind(chosen).items()
    means = {kind: mean_of([rows[s.name] for s in subjects]) for kind, subjects in kinds}
    scores = {"means": means, "subjects": rows}
    print(json.dumps(means, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        draw(figure, views[:3])
    return scores


def person(name: str) -> str:
    """Label of the participant of a subject of the cache.

    Examples
    --------
    >>> person("ms_sub-thick12_ses-2"), person("training_seg_01")
    ('thick12', 'training_seg_01')
    """
    return name.split("sub-")[-1].split("_ses-")[0].split("_run-")[0].split("_acq-")[0]


def mean_of(rows: Sequence[Row]) -> Row:
    """Mean of each score where it is defined."""
    out: Row = {}
    for key in rows[0]:
        defined = [value for row in rows if (value := row[key]) is not None]
        out[key] = float(np.mean(defined)) if defined else None
    return out


def cross_validate(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    run: Path,
    folds: int,
    modes: Sequence[str] = MODES,
    start: Path | None = None,
    threads: int = 2,
) -> dict:
    """Train each mode on all patients but those of a fold, and score it on these.

    Parameters
    ----------
    config : Config
        Those of its training subjects who have a FLAIR are divided, with all their images; the others are in
        every training.
    cache, shapes_folder : Path
    run : Path
        Where the runs go; resumed if it is there.
    folds : int
    modes : sequence of str
        See :data:`bids_inpaint.training.joint.MODES`.
    start : Path, optional
        Folder with a checkpoint ``MODE/checkpoint.pt`` of a network that saw no patient, to start from; from
        scratch without one.
    threads : int

    Returns
    -------
    dict
        Means over the patients by mode, and the scores of each.

    Raises
    ------
    ValueError
        If there are fewer patients than folds, or `run` holds those of another division.
    """
    kinds = by_kind(find_subjects(cache, config.data.train))
    patients = [s.name for kind in ("patients", "unmarked") for s in kinds.get(kind, [])]
    people = sorted({person(name) for name in patients})
    if not 2 <= folds <= len(people):
        raise ValueError(f"{folds} folds need at least so many patients, and two: there are {len(people)}")
    others = [name for name in config.data.train if name not in patients]
    parts = [[name for name in patients if person(name) in people[i::folds]] for i in range(folds)]
    division = json.dumps({"folds": parts, "start": str(start)})
    if (run / "folds.json").exists() and (run / "folds.json").read_text() != division:
        raise ValueError(f"{run} holds the runs of another division or start: name another folder")
    run.mkdir(parents=True, exist_ok=True)
    (run / "folds.json").write_text(division)
    rows: dict[str, dict[str, Row]] = {mode: {} for mode in modes}
    for mode in modes:
        for i, held in enumerate(parts):
            data = replace(
                config.data,
                train=[*others, *(p for p in patients if p not in held)],
                validation=held,
                leave_out_patients=[*config.data.leave_out_patients, *map(person, held)],
            )
            schedule = replace(config.fit, start=str(start / mode / "checkpoint.pt") if start else "")
            network = {**config.network, "mode": mode}
            own = replace(config, data=data, fit=schedule, network=network)
            folder = run / mode / f"fold-{i + 1}"
            checkpoint = fit(own, JointSynthesis(own, cache, shapes_folder), folder, threads=threads)
            exported = export(own, checkpoint, folder / f"{config.name}.onnx", None, 0.5)
            reached = score(
                own, cache, shapes_folder, str(exported), held, threads, figure=folder / "slices.png"
            )
            rows[mode] |= reached["subjects"]
    summary = {mode: mean_of(list(by_subject.values())) for mode, by_subject in rows.items()}
    print(f"\n{'':<10}" + "".join(f"{key:>12}" for key in next(iter(summary.values()))))
    for mode, row in summary.items():
        values = "".join(f"{'–' if value is None else format(value, '.4g'):>12}" for value in row.values())
        print(f"{mode:<10}{values}")
    scores = {"folds": parts, "means": summary, "subjects": rows}
    (run / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    return scores


def _title(subject: Subject, reached: FlairScores) -> str:
    return (
        f"{subject.name}: Dice {reached.dice:.2f}, FPR {reached.fpr:.2f}, FNR {reached.fnr:.2f}, "
        f"MAE {reached.mae:.2f}, PSNR {reached.psnr:.1f} dB"
    )


def draw(path: Path, cases: Sequence[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Draw T1w, real and made FLAIR, the real one's lesions in red and those found in blue."""
    for axes, (_, (t1w, flair, made, truth, found)) in zip(
        panels(path, [title for title, _ in cases]), cases, strict=True
    ):
        shown = (("T1w", t1w, 1.4), ("FLAIR", flair, 2), ("made FLAIR", made, 2), ("lesions", t1w, 1.4))
        for axis, (name, view, top) in zip(axes, shown, strict=True):
            axis.imshow(view, cmap="gray", vmin=0, vmax=top, origin="lower")
            axis.set_title(name, fontsize=9)
        for mask, colour in ((truth, "red"), (found, "deepskyblue")):
            if mask.any():
                axes[3].contour(mask, [0.5], colors=colour, linewidths=0.7)
