"""Scores of an inpainting network: those of a subject, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_inpaint.imaging.metrics import lesion_scores
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.calibration import Counts, by_person, reliability
from bids_inpaint.training.config import individual
from bids_inpaint.training.data import Subject

#: Lesions in a healthy image may sum up to so much on average (ml).
FALSE_ML = 0.3

#: Scores of lesion maps by what they are made with, a λ or a probability or a name, and by name.
Sweep = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Scored:
    """What is known of a network on a subject.

    Attributes
    ----------
    row : dict
        Single scores by name.
    sweeps : dict of Sweep
        Scores of lesion maps: see :func:`bids_inpaint.training.evaluate.evaluate`.
    counts : list of Counts
        Voxels of each of the subject's images by their lesion probability.
    """

    row: dict[str, float]
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    counts: list[Counts] = field(default_factory=list)


def map_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Scores of a lesion map on the working grid, by name."""
    scores = lesion_scores(found, truth, WORKING_GRID.voxel_volume)
    return {
        "dice": scores.dice,
        "sensitivity": scores.sensitivity,
        "precision": scores.precision,
        "lesion_f1": scores.lesion_f1,
        "volume_error_ml": scores.volume_error,
    }


def suggest_threshold(sweep: dict[str, dict[str, dict[str, float]]]) -> float | None:
    """The λ with the best Dice coefficient among those that map too little of healthy images to matter.

    It is for the subjects of the training: those of the test would be judged by what they chose.

    Parameters
    ----------
    sweep : dict
        ``threshold_sweep`` of :func:`bids_inpaint.training.evaluate.evaluate`.

    Returns
    -------
    float, optional
        None if every λ maps too much.

    Examples
    --------
    >>> def row(dice, false):
    ...     return {"dice": {"mean": dice}, "false_ml": {"mean": false}}
    >>> suggest_threshold({"0.05": row(0.8, 0.9), "0.1": row(0.7, 0.2), "0.2": row(0.5, 0.0)})
    0.1
    """
    allowed = {t: row["dice"]["mean"] for t, row in sweep.items() if row["false_ml"]["mean"] < FALSE_ML}
    return float(max(allowed, key=lambda t: allowed[t])) if allowed else None


def tabulate(subjects: Sequence[Subject], rows: Sequence[Scored]) -> dict[str, Any]:
    """Print the scores of each subject, and summarise them."""
    for subject, scored in zip(subjects, rows, strict=True):
        dices = {
            f"dice of {kind.split('_')[0]} {key}": values["dice"]
            for kind, sweep in scored.sweeps.items()
            for key, values in sweep.items()
        }
        print(subject.name, {k: round(v, 3) for k, v in (scored.row | dices).items()}, flush=True)
    table: dict[str, Any] = {
        "subjects": [s.name for s in subjects],
        **{k: _spread([scored.row[k] for scored in rows]) for k in (rows[0].row if rows else ())},
    }
    sweeps = rows[0].sweeps if rows else {"threshold_sweep": {}}
    for kind, sweep in sweeps.items():
        table[kind] = {
            key: {k: _spread([scored.sweeps[kind][key][k] for scored in rows]) for k in values}
            for key, values in sweep.items()
        }
    counted = [
        (individual(s.name), counts)
        for s, scored in zip(subjects, rows, strict=True)
        for counts in scored.counts
    ]
    if counted:
        table["reliability"] = reliability(by_person(counted)).as_json()
    return table


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation of those that are defined."""
    defined = [v for v in values if not np.isnan(v)]
    if not defined:
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(defined)), "sd": float(np.std(defined))}
