"""Scores of FLAIR synthesis and lesion segmentation on subjects kept apart."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.metrics import FlairScores, flair_scores
from bids_inpaint.networks import registry, session
from bids_inpaint.networks.flair import synthesise
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, Subject, template_priors
from bids_inpaint.training.pairs import by_kind, kind_of, make_pair
from bids_inpaint.training.patches import Place
from bids_inpaint.training.pictures import View, axial, panels
from bids_inpaint.training.strangers import Strangers

#: Scores by name; None where undefined.
Row = dict[str, float | None]
#: T1w and FLAIR, white matter 1, and lesion mask; None where nobody drew one.
Pair = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def pair_of(subject: Subject, shapes: Lesions) -> Pair:
    """T1w, FLAIR and lesions of a subject on the working grid, by its name alone; None without a mask.

    Those of patients are real. Others get the lesions of a patient and single ones.

    Raises
    ------
    ValueError
        If a patient has no FLAIR.
    """
    if kind_of(subject) == "unmarked":
        return np.asarray(subject.image, np.float32), np.asarray(subject.flair, np.float32), None
    rng = np.random.default_rng(zlib.crc32(subject.name.encode()))
    plain = Synthesis(mix={"both": 1.0})
    t1w, flair, lesion = (v.numpy() for v in make_pair(rng, subject, shapes, Place.whole(), plain))
    return t1w, flair, lesion > 0.5


class FlairScorer:
    """A network that makes a FLAIR and a lesion map, and what is needed to score it.

    Parameters
    ----------
    config : Config
        Names the patients whose lesions were not trained with, and the folder of the blind networks that
        learned nothing from a person (``data.without``), whose output is then seen of this person.
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    threads : int
        Of the CPU.

    Attributes
    ----------
    views : list of View
        A picture of each subject: see :func:`draw`.
    """

    def __init__(self, config: Config, cache: Path, shapes_folder: Path, model_name: str, threads: int):
        self.model = registry.find(model_name, "flair")
        self.strangers = Strangers(config)
        self.shapes = Lesions.load(shapes_folder, only=config.data.lenders)
        self.priors = template_priors(cache)
        self.runtime = session.Runtime(threads=threads)
        self.views: list[View] = []

    def score(self, subject: Subject) -> Row:
        """Scores of the synthetic FLAIR and of the lesion map of a subject."""
        t1w, flair, lesion = pair_of(subject, self.shapes)
        brain = t1w > 0
        scale = Scale.measure(t1w, brain, *self.priors)
        model = self.model
        if model.inpainter and (stranger := self.strangers.of(subject.name)):
            model = replace(model, inpainter=stranger)
        synthetic, probability = synthesise(model, t1w, brain, scale, self.priors, self.runtime)
        segmented = probability > 0.5
        scores = flair_scores(synthetic, flair, segmented, lesion, brain & (flair > 0))
        if not synthetic.any():
            # a unimodal network
            scores = replace(scores, mae=math.nan, psnr=math.nan, lesion_mae=math.nan)
        truth = np.zeros(t1w.shape, bool) if lesion is None else lesion
        z = int((truth if truth.any() else segmented).sum((0, 1)).argmax())
        self.views.append((_title(subject, scores), axial((t1w, flair, synthetic, truth, segmented), z)))
        return {k: None if math.isnan(v) else v for k, v in asdict(scores).items()}


def evaluate_flair(
    scorer: FlairScorer, subjects: Sequence[Subject], output: Path | None = None, figure: Path | None = None
) -> dict[str, Any]:
    """Score a network that makes a FLAIR and a lesion map, and print a table.

    Parameters
    ----------
    scorer : FlairScorer
    subjects : sequence of Subject
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file with the slice of the most lesion of the first three subjects.

    Returns
    -------
    dict
        Scores by subject, and their means by kind of subject.
    """
    rows: dict[str, Row] = {}
    for subject in subjects:
        rows[subject.name] = row = scorer.score(subject)
        print(subject.name, {k: v if v is None else round(v, 3) for k, v in row.items()}, flush=True)
    kinds = by_kind(subjects).items()
    means = {kind: mean_of([rows[s.name] for s in of_kind]) for kind, of_kind in kinds}
    scores = {"means": means, "subjects": rows}
    print(json.dumps(means, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        draw(figure, scorer.views[:3])
    return scores


def mean_of(rows: Sequence[Row]) -> Row:
    """Mean of each score where it is defined.

    Examples
    --------
    >>> mean_of([{"dice": 0.5, "mae": None}, {"dice": 1.0, "mae": None}])
    {'dice': 0.75, 'mae': None}
    """
    out: Row = {}
    for key in rows[0]:
        defined = [value for row in rows if (value := row[key]) is not None]
        out[key] = float(np.mean(defined)) if defined else None
    return out


def _title(subject: Subject, scores: FlairScores) -> str:
    return (
        f"{subject.name}: Dice {scores.dice:.2f}, FPR {scores.fpr:.2f}, FNR {scores.fnr:.2f}, "
        f"MAE {scores.mae:.2f}, PSNR {scores.psnr:.1f} dB"
    )


def draw(path: Path, views: Sequence[View]) -> None:
    """Draw T1w, real and synthetic FLAIR, the true lesions in red and the segmented ones in blue.

    Parameters
    ----------
    path : Path
        Of the image file.
    views : sequence of (str, sequence of array)
        Title, and slices of both images, the synthetic FLAIR, and the true and the segmented lesions.
    """
    for axes, (_, (t1w, flair, synthetic, truth, segmented)) in zip(
        panels(path, [title for title, _ in views]), views, strict=True
    ):
        images = {"T1w": t1w, "FLAIR": flair, "synthetic FLAIR": synthetic, "lesions": t1w}
        for axis, (name, view) in zip(axes, images.items(), strict=True):
            top = 2 if "FLAIR" in name else 1.4
            axis.imshow(view, cmap="gray", vmin=0, vmax=top, origin="lower")
            axis.set_title(name, fontsize=9)
        for mask, colour in ((truth, "red"), (segmented, "deepskyblue")):
            if mask.any():
                axes[3].contour(mask, [0.5], colors=colour, linewidths=0.7)
