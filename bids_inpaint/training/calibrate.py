"""What the lesion probability and the lesion volume of a network mean, measured on people, for its card."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.imaging.lesions import least_voxels
from bids_inpaint.imaging.uncertainty import LesionProbability
from bids_inpaint.io.files import replacing
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.calibration import Counts, Scan, by_person, fit_logistic, reliability
from bids_inpaint.training.config import Config, individual
from bids_inpaint.training.data import Subject, find_subjects
from bids_inpaint.training.evaluate import SMALLEST_MM3, Scorer, real_lesions
from bids_inpaint.training.intervals import Volumes, coverage, fit, hold, hold_out
from bids_inpaint.training.levels import choose
from bids_inpaint.training.painted import painted
from bids_inpaint.training.painters import PAINTERS, RealLesions
from bids_inpaint.training.pictures import draw_reliability
from bids_inpaint.training.scored import FALSE_ML

#: Loads that lesions are painted with for intervals: from the first (ml) to so many times it.
_LEAST_LOAD, _RANGE = 0.2, 300.0


def calibrate(
    scorer: Scorer,
    config: Config,
    cache: Path,
    names: Sequence[str],
    held: Sequence[Path] = (),
    figure: Path | None = None,
) -> dict[str, Any]:
    """Make the lesion probability of a network mean what it says, and choose how lesions are mapped by it.

    Healthy people are looked at as they are and with lesions of each painter, patients with their lesions.
    Older people (of OASIS) may have lesions that nobody marked: they decide about what is mapped in healthy
    people, but not about the probability.

    Parameters
    ----------
    scorer : Scorer
        Of the network; its card, beside the ONNX file, is written.
    config : Config
    cache : Path
    names : sequence of str
        Subjects from whom the network learned nothing.
    held : sequence of Path
        What networks made of patients who were left out of their training: files of :func:`cross_validate`.
    figure : Path, optional
        Image file for the reliability diagram.

    Returns
    -------
    dict
        ``lesion_probability`` and ``calibration`` of the card.

    Raises
    ------
    ValueError
        If the network tells no probability, a person is one of the test, there are no lesions, or all
        thresholds map too much of healthy people.
    """
    tested = {individual(name) for name in config.data.test}
    stored = [Scan.load(path) for path in held]
    people = {individual(name) for name in names} | {scan.person for scan in stored}
    if both := sorted(people & tested):
        raise ValueError(f"{', '.join(both)} is tested: who is tested can't choose how")
    older, known = list[Scan](), list(stored)
    real = real_lesions(cache, config.data.test)
    for subject in find_subjects(cache, list(names)):
        scans = list(_scans(scorer, subject, real))
        (older if _is_older(subject) else known).extend(scans)
    counts = by_person((scan.person, Counts.of(scan)) for scan in known)
    slope, intercept = fit_logistic(counts)
    least = least_voxels(SMALLEST_MM3, WORKING_GRID)
    chosen = choose([*known, *older], slope, intercept, least, FALSE_ML)
    if chosen is None:
        raise ValueError(
            f"{scorer.model.name} maps {FALSE_ML} ml and more of healthy people as lesions at every threshold"
        )
    before, after = reliability(counts), reliability(counts, slope, intercept)
    written = LesionProbability(slope, intercept, chosen.threshold, chosen.low)
    content = {
        "lesion_probability": asdict(written),
        "calibration": {
            "subjects": [*names, *(scan.person for scan in stored)],
            "left_out_in_turn": [scan.person for scan in stored],
            "dice": chosen.dice,
            "false_ml": chosen.false_ml,
            "raw_reliability": before.as_json(),
            "reliability": after.as_json(),
        },
    }
    _write(scorer.model.path.with_suffix(".json"), content)
    print(json.dumps(content, indent=1))
    if figure:
        draw_reliability(figure, {"raw": before.as_json()["bins"], "calibrated": after.as_json()["bins"]})
    return content


def _is_older(subject: Subject) -> bool:
    return subject.name.startswith("oasis")


def _scans(scorer: Scorer, subject: Subject, real: RealLesions) -> Iterator[Scan]:
    """A patient, or a healthy subject without lesions and with those of each painter."""
    image = np.asarray(subject.image, np.float32)
    if subject.patient:
        yield scorer.scan(subject.name, image, np.asarray(subject.lesions))
        return
    yield scorer.scan(subject.name, image, np.zeros(image.shape, bool))
    if _is_older(subject):
        return
    for name, painter in PAINTERS.items():
        if painter.real and not real.components:
            print(f"painter {name} is left out: no patient in the cache lends lesions")
            continue
        lesioned, support = painted(subject, scorer.shapes, name, real)
        yield scorer.scan(subject.name, lesioned, support > 0.5)


def fit_intervals(
    scorer: Scorer, config: Config, cache: Path, names: Sequence[str], held: Sequence[Path], loads: int
) -> dict[str, Any]:
    """Fit the intervals of true volumes to people from whom the network learned nothing.

    Parameters
    ----------
    scorer : Scorer
        Of the network; its card, beside the ONNX file, is written.
    config, cache, names, held
        Of :func:`calibrate`. What is mapped of older people beside painted lesions counts as none.
    loads : int
        Images of each person and painter, with loads from 0.2 to 60 ml.

    Returns
    -------
    dict
        ``lesion_volume`` and ``intervals`` of the card: the model, and what it holds of the people whom it
        was fitted to, each left out in turn.

    Raises
    ------
    ValueError
        If the network tells no probability, a person is one of the test, or there are too few lesions.
    """
    tested = {individual(name) for name in config.data.test}
    stored = [Scan.load(path) for path in held]
    people = {individual(name) for name in names} | {scan.person for scan in stored}
    if both := sorted(people & tested):
        raise ValueError(f"{', '.join(both)} is tested: who is tested can't choose how")
    measured = list(_volumes(scorer, config, cache, names, loads))
    card = scorer.model.card
    measured += [Volumes.of(scan, "patients", card, SMALLEST_MM3) for scan in stored]
    model = fit(measured)
    content = {
        "lesion_volume": asdict(model),
        "intervals": {
            "subjects": [*dict.fromkeys(v.person for v in measured)],
            "left_out_in_turn": coverage(hold_out(measured)),
        },
    }
    _write(scorer.model.path.with_suffix(".json"), content)
    print(json.dumps(content, indent=1))
    return content


def score_intervals(
    scorer: Scorer, config: Config, cache: Path, names: Sequence[str], held: Sequence[Path], loads: int
) -> dict[str, dict[str, float | None]]:
    """Print the share of true volumes that the intervals of a network's card hold, by painter.

    Parameters
    ----------
    scorer, config, cache, names, held, loads
        Of :func:`fit_intervals`.

    Raises
    ------
    ValueError
        If the card has no intervals.
    """
    card = scorer.model.card
    if card.lesion_volume is None:
        raise ValueError(f"the card of {card.name} has no lesion_volume: fit it first")
    measured = list(_volumes(scorer, config, cache, names, loads))
    measured += [Volumes.of(Scan.load(path), "patients", card, SMALLEST_MM3) for path in held]
    found = coverage([hold(card.lesion_volume, one) for one in measured])
    print(json.dumps(found, indent=1))
    return found


def _volumes(
    scorer: Scorer, config: Config, cache: Path, names: Sequence[str], loads: int
) -> Iterator[Volumes]:
    """Healthy subjects without lesions, and with loads of those of each painter."""
    real = real_lesions(cache, config.data.test)
    card = scorer.model.card
    if card.lesion_probability is None:
        raise ValueError(f"network {card.name} tells no lesion probability")
    for subject in find_subjects(cache, list(names)):
        image = np.asarray(subject.image, np.float32)
        if subject.patient:
            scan = scorer.scan(subject.name, image, np.asarray(subject.lesions))
            yield Volumes.of(scan, "patients", card, SMALLEST_MM3)
            continue
        if not _is_older(subject):
            scan = scorer.scan(subject.name, image, np.zeros(image.shape, bool))
            yield Volumes.of(scan, "lesion-free", card, SMALLEST_MM3)
        for name, painter in PAINTERS.items():
            if painter.real and not real.components:
                print(f"painter {name} is left out: no patient in the cache lends lesions")
                continue
            for i in range(loads):
                seed = zlib.crc32(f"{subject.name} {name} {i} {loads}".encode())
                part = (i + np.random.default_rng(seed).random()) / loads
                load = _LEAST_LOAD * _RANGE**part
                lesioned, support = painted(subject, scorer.shapes, name, real, load_ml=load)
                scan = scorer.scan(subject.name, lesioned, support > 0.5)
                yield Volumes.of(scan, name, card, SMALLEST_MM3)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Add to a card; intervals of volumes are those of its calibration."""
    card = json.loads(path.read_text())
    if "lesion_probability" in content:
        for key in ("lesion_volume", "intervals"):
            card.pop(key, None)
    card |= content
    with replacing(path) as part:
        part.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
