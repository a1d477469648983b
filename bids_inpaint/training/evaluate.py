"""Scores of an inpainting network on painted lesions of subjects kept apart, where the truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint import options
from bids_inpaint.imaging import feathering, lesions
from bids_inpaint.imaging.fidelity import filling_scores, psnr
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.metrics import lesion_scores
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.networks.card import Filled
from bids_inpaint.networks.selection import rule_of
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, template_priors
from bids_inpaint.training.painted import painted
from bids_inpaint.training.pictures import View, draw_slices, worst_slice

#: λ that lesion maps are scored at.
THRESHOLDS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2)
#: A lesion voxel that is not darker than this fraction of white matter, at standard contrast, is not visible.
VISIBLE = 0.9
#: Smaller lesions are not mapped, as in the app.
SMALLEST_MM3 = options.LESION_MIN_VOLUME
#: Lesions in a healthy image may sum up to so much on average (ml).
FALSE_ML = 0.3


def evaluate(
    scorer: Scorer, subjects: Sequence[Subject], output: Path | None = None, figure: Path | None = None
) -> dict[str, Any]:
    """Score a network and print a table.

    Every healthy subject is scored once with painted lesions and once as it is. Of patients with a lesion
    mask the lesion map is scored. A non-blind network gets the mask, and has no lesion map.

    Parameters
    ----------
    scorer : Scorer
    subjects : sequence of Subject
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file for the three painted subjects with the largest error.

    Returns
    -------
    dict
        Mean and standard deviation of each score, the λ sweep of a blind network and the λ it suggests
        (:func:`calibrate`), and the subjects; those of the patients under ``patients``.
    """
    healthy = [s for s in subjects if not s.patient]
    scores = _table(healthy, [scorer.painted(s) for s in healthy])
    if scorer.model.blind:
        scores["calibrated_threshold"] = calibrate(scores["threshold_sweep"])
    if patients := [s for s in subjects if s.patient and scorer.model.blind]:
        scores["patients"] = _table(patients, [scorer.patient(s) for s in patients])
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        worst = sorted(scorer.views, key=lambda view: -view[0])[:3]
        draw_slices(figure, [view for _, view in worst])
    return scores


def calibrate(sweep: dict[str, dict[str, dict[str, float]]]) -> float | None:
    """λ with the best Dice coefficient among those that map too little of healthy images to matter.

    It is for the subjects of the training: those of the test would be judged by what they chose.

    Parameters
    ----------
    sweep : dict
        ``threshold_sweep`` of :func:`evaluate`.

    Returns
    -------
    float, optional
        None if every λ maps too much.

    Examples
    --------
    >>> def row(dice, false):
    ...     return {"dice": {"mean": dice}, "false_ml": {"mean": false}}
    >>> calibrate({"0.05": row(0.8, 0.9), "0.1": row(0.7, 0.2), "0.2": row(0.5, 0.0)})
    0.1
    """
    allowed = {t: row["dice"]["mean"] for t, row in sweep.items() if row["false_ml"]["mean"] < FALSE_ML}
    return float(max(allowed, key=lambda t: allowed[t])) if allowed else None


#: Scores by λ and name.
Sweep = dict[float, dict[str, float]]


class Scorer:
    """A network, and what is needed to score it.

    Parameters
    ----------
    config : Config
        Names the patients that lend their lesions: those that nobody learned from.
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    threads : int
        Of the CPU.
    second_pass : str
        Shipped name or ONNX file of the non-blind network that fills again what a blind one maps as lesions.

    Attributes
    ----------
    views : list of (float, View)
        Error and picture of each painted subject.
    """

    def __init__(
        self,
        config: Config,
        cache: Path,
        shapes_folder: Path,
        model_name: str,
        threads: int,
        second_pass: str = "none",
    ):
        self.model = registry.find(model_name)
        self.second = registry.find(second_pass) if self.model.blind and second_pass != "none" else None
        self.runtime = session.Runtime(threads=threads)
        self.shapes = Lesions.load(shapes_folder, only=config.data.lenders)
        # the standard space, for the intensity scale
        self.priors = template_priors(cache)
        self.views: list[tuple[float, View]] = []

    def fill(self, image: np.ndarray, lesion: np.ndarray) -> tuple[Filled, Scale]:
        """What became of the image (by a non-blind network, in the lesions), and the intensity scale."""
        mask = image > 0
        scale = Scale.measure(image, mask, *self.priors)
        out = inpainting.inpaint(self.model, image, mask, scale, lesion, self.runtime, self.priors)
        if self.second:
            lesion_map = self.lesion_map(image, out, scale)
            out = inpainting.fill_again(self.second, out, lesion_map, mask, scale, self.runtime, self.priors)
        return out, scale

    def lesion_map(self, image: np.ndarray, filled: Filled, scale: Scale) -> np.ndarray:
        """The lesion map of a blind network by the limits of its card, bool."""
        rule = rule_of(self.model.card, SMALLEST_MM3)
        return inpainting.found(filled, image, scale, self.priors[0], rule, WORKING_GRID)

    def painted(self, subject: Subject) -> tuple[dict[str, float], Sweep]:
        """Scores inside painted lesions and of the healthy image, and those of lesion maps by λ."""
        healthy = np.asarray(subject.image, np.float32)
        mask = healthy > 0
        lesioned, support = painted(subject, self.shapes)
        truth = support > 0.5
        made, scale = self.fill(lesioned, truth)
        filled = made.image
        peak = float(healthy.max())
        voided = np.where(inpainting.to_fill(truth), 0, healthy)
        row = asdict(filling_scores(filled, healthy, lesioned, truth))
        row |= {
            "volume_ml": float(truth.sum() / 1000),
            "whole_psnr": psnr(filled[mask], healthy[mask], peak),
            "lesioned_psnr": psnr(lesioned[mask], healthy[mask], peak),
            "voided_psnr": psnr(voided[mask], healthy[mask], peak),
            "whole_correlation": float(np.corrcoef(filled[mask], healthy[mask])[0, 1]),
        }
        title = f"{subject.name}: RMSE {row['rmse']:.3f}, gain {row['gain']:.1f} dB, SSIM {row['ssim']:.2f}"
        self.views.append((row["rmse"], (title, worst_slice(healthy, lesioned, filled, truth))))
        if not self.model.blind:
            return row, {}
        confined = feathering.confine(lesioned, filled, self.lesion_map(lesioned, made, scale), WORKING_GRID)
        row["confined_psnr"] = psnr(confined[mask], healthy[mask], peak)
        unchanged, clean_scale = self.fill(healthy, np.zeros_like(mask))
        clean = unchanged.image
        row["healthy_psnr"] = psnr(clean[mask], healthy[mask], peak)
        # as in the app, lesions are looked for where the inpainted image is white matter
        visible = truth & white_by_intensity(healthy, subject)
        sweep = self.sweep(lesioned, filled, scale, white_by_intensity(filled, subject), visible)
        nothing = np.zeros_like(mask)
        false = self.sweep(healthy, clean, clean_scale, white_by_intensity(clean, subject), nothing)
        return row, {t: values | {"false_ml": false[t]["volume_error_ml"]} for t, values in sweep.items()}

    def patient(self, subject: Subject) -> tuple[dict[str, float], Sweep]:
        """Scores of lesion maps by λ, and what of the lesions can be seen at all."""
        image, lesion = np.asarray(subject.image, np.float32), np.asarray(subject.lesions)
        made, scale = self.fill(image, lesion)
        filled = made.image
        white = white_by_intensity(filled, subject)
        standard = scale.apply(image)
        level = np.median(standard[white & ~lesion])
        visible = float((standard[lesion] < VISIBLE * level).mean())
        row = {
            "volume_ml": float(lesion.sum() / 1000),
            "visible_share": visible,
            "dice_ceiling": 2 * visible / (1 + visible),
        }
        return row, self.sweep(image, filled, scale, white, lesion)

    def sweep(
        self, image: np.ndarray, filled: np.ndarray, scale: Scale, white: np.ndarray, truth: np.ndarray
    ) -> Sweep:
        """Scores of the lesion map at each λ.

        Parameters
        ----------
        image, filled : array
            What the network got and what it made of it, white matter 1.
        scale : Scale
            Of `image`.
        white, truth : array of bool
            White matter of `filled`, and the lesions.
        """
        region = lesions.search_region(white, self.priors[0], WORKING_GRID)
        dark = lesions.darkening(scale.apply(image), scale.apply(filled), white.astype(np.float32))
        smallest = int(np.ceil(SMALLEST_MM3 / WORKING_GRID.voxel_volume))
        out = {}
        for threshold in THRESHOLDS:
            lesion_map = lesions.lesion_map(lesions.probability(dark, region, threshold), smallest)
            scores = lesion_scores(lesion_map, truth, WORKING_GRID.voxel_volume)
            out[threshold] = {
                "dice": scores.dice,
                "sensitivity": scores.sensitivity,
                "precision": scores.precision,
                "lesion_f1": scores.lesion_f1,
                "volume_error_ml": scores.volume_error,
            }
        return out


def white_by_intensity(image: np.ndarray, subject: Subject) -> np.ndarray:
    """White matter of an image (white matter 1) by its intensity, bool."""
    return image > subject.grey_level + 0.5 * (1 - subject.grey_level)


def _table(subjects: Sequence[Subject], rows: Sequence[tuple[dict[str, float], Sweep]]) -> dict[str, Any]:
    """Print the scores of each subject, and summarise them."""
    for subject, (row, sweep) in zip(subjects, rows, strict=True):
        dices = {f"dice at {t}": values["dice"] for t, values in sweep.items()}
        print(subject.name, {k: round(v, 3) for k, v in (row | dices).items()}, flush=True)
    sweeps = [sweep for _, sweep in rows]
    return {
        "subjects": [s.name for s in subjects],
        **{k: _spread([row[k] for row, _ in rows]) for k in (rows[0][0] if rows else ())},
        "threshold_sweep": {
            str(t): {k: _spread([sweep[t][k] for sweep in sweeps]) for k in values}
            for t, values in (sweeps[0] if sweeps else {}).items()
        },
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation of those that are defined."""
    defined = [v for v in values if not np.isnan(v)]
    if not defined:
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(defined)), "sd": float(np.std(defined))}
