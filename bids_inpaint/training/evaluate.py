"""Scores of a network on painted lesions of subjects kept apart, where the truth is known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_inpaint import inference, lesions, models, options
from bids_inpaint.brain import largest_component
from bids_inpaint.intensity import Scale
from bids_inpaint.metrics import dice, filling_scores, lesion_scores, psnr
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.extraction import load_heads
from bids_inpaint.training.heads import draw_head, make_head
from bids_inpaint.training.synthesis import draw_patient, paint

THRESHOLDS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2)
#: A lesion voxel that is not darker than this fraction of white matter, at standard contrast, is not visible.
VISIBLE = 0.9
SMALLEST_MM3 = options.LESION_MIN_VOLUME


#: Lesions in a healthy image may sum up to so much on average (ml).
FALSE_ML = 0.3


def painted(subject: Subject, shapes: Lesions) -> tuple[np.ndarray, np.ndarray]:
    """A subject's whole volume with the lesions of one patient, and the lesion support.

    They depend on the name of the subject alone, so that networks can be compared.
    """
    seed = zlib.crc32(subject.name.encode())
    drawn = draw_patient(np.random.default_rng(seed), shapes)
    healthy = torch.from_numpy(np.asarray(subject.image, np.float32))
    image, support = paint(healthy, subject.grey_level, drawn, (0, 0, 0), seed)
    return image.numpy(), support.numpy()


def evaluate(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    model_name: str,
    names: Sequence[str],
    threads: int,
    output: Path | None = None,
    figure: Path | None = None,
    second_pass: str = "none",
) -> dict:
    """Score a network and print a table.

    Every healthy subject is shown once with painted lesions and once as it is; the patients that lend
    their lesions are those the configuration leaves out of training. Of patients with a lesion mask the
    lesion map is scored. A non-blind network gets the mask, and has no lesion map.

    Parameters
    ----------
    config : Config
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    names : sequence of str
        Subjects of the cache.
    threads : int
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file for the three painted subjects with the largest error.
    second_pass : str
        Shipped name or ONNX file of the non-blind network that fills again what a blind one found.

    Returns
    -------
    dict
        Mean and standard deviation of each score, the λ sweep of a blind network and the λ it suggests
        (:func:`calibrate`), and the subjects; those of the patients under ``patients``.

    Raises
    ------
    ValueError
        If a subject is not in the cache.
    """
    chosen = find_subjects(cache, list(names))
    scorer = _Scorer(config, cache, shapes_folder, model_name, threads, second_pass)
    healthy = [s for s in chosen if not s.patient]
    scores = _table(healthy, [scorer.painted(s) for s in healthy])
    if scorer.model.blind:
        scores["calibrated_threshold"] = calibrate(scores["threshold_sweep"])
    if patients := [s for s in chosen if s.patient and scorer.model.blind]:
        scores["patients"] = _table(patients, [scorer.patient(s) for s in patients])
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        worst = sorted(scorer.views, key=lambda view: -view[0])[:3]
        draw_slices(figure, [(title, slices) for _, title, slices in worst])
    return scores


def calibrate(sweep: dict[str, dict[str, dict]]) -> float | None:
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


Sweep = dict[float, dict[str, float]]


class _Scorer:
    """A network, and what is needed to score it."""

    def __init__(
        self,
        config: Config,
        cache: Path,
        shapes_folder: Path,
        model_name: str,
        threads: int,
        second_pass: str = "none",
    ):
        self.model = models.find(model_name)
        self.second = models.find(second_pass) if self.model.blind and second_pass != "none" else None
        self.runtime = inference.Runtime(threads=threads)
        self.shapes = Lesions.load(shapes_folder, only=config.data.leave_out_patients)
        # the standard space, for the intensity scale
        self.priors = template_priors(cache)
        #: Error, title and slices of each painted subject.
        self.views: list[tuple[float, str, Sequence[np.ndarray]]] = []

    def fill(self, image: np.ndarray, lesion: np.ndarray) -> tuple[np.ndarray, Scale]:
        mask = image > 0
        scale = Scale.measure(image, mask, *self.priors)
        out = inference.inpaint(self.model, image, mask, scale, lesion, self.runtime, self.priors)
        if self.second:
            found = self.found(image, out, scale)
            out = inference.fill_again(self.second, out, found, mask, scale, self.runtime, self.priors)
        return out, scale

    def found(self, image: np.ndarray, filled: np.ndarray, scale: Scale) -> np.ndarray:
        threshold = float(self.model.card["lesion_threshold"])
        return lesions.find_unsegmented(
            image, filled, scale, self.priors[0], threshold, SMALLEST_MM3, WORKING_GRID
        )

    def painted(self, subject: Subject) -> tuple[dict[str, float], Sweep]:
        """Scores inside painted lesions and of the healthy image, and those of lesion maps by λ."""
        healthy = np.asarray(subject.image, np.float32)
        mask = healthy > 0
        lesioned, support = painted(subject, self.shapes)
        truth = support > 0.5
        filled, scale = self.fill(lesioned, truth)
        peak = float(healthy.max())
        voided = np.where(inference.to_fill(truth), 0, healthy)
        row = filling_scores(filled, healthy, lesioned, truth).as_dict()
        row |= {
            "volume_ml": float(truth.sum() / 1000),
            "whole_psnr": psnr(filled[mask], healthy[mask], peak),
            "lesioned_psnr": psnr(lesioned[mask], healthy[mask], peak),
            "voided_psnr": psnr(voided[mask], healthy[mask], peak),
            "whole_correlation": float(np.corrcoef(filled[mask], healthy[mask])[0, 1]),
        }
        title = f"{subject.name}: RMSE {row['rmse']:.3f}, gain {row['gain']:.1f} dB, SSIM {row['ssim']:.2f}"
        self.views.append((row["rmse"], title, worst_slice(healthy, lesioned, filled, truth)))
        if not self.model.blind:
            return row, {}
        confined = lesions.confine(lesioned, filled, self.found(lesioned, filled, scale), WORKING_GRID)
        row["confined_psnr"] = psnr(confined[mask], healthy[mask], peak)
        clean, clean_scale = self.fill(healthy, np.zeros_like(mask))
        row["healthy_psnr"] = psnr(clean[mask], healthy[mask], peak)
        # as in the app, lesions are looked for where the inpainted image is white matter
        sweep = self.lesion_maps(
            lesioned,
            filled,
            scale,
            white_by_intensity(filled, subject),
            truth & white_by_intensity(healthy, subject),
        )
        false = self.lesion_maps(
            healthy, clean, clean_scale, white_by_intensity(clean, subject), np.zeros_like(mask)
        )
        return row, {t: values | {"false_ml": false[t]["volume_error_ml"]} for t, values in sweep.items()}

    def patient(self, subject: Subject) -> tuple[dict[str, float], Sweep]:
        """Scores of lesion maps by λ, and what of the lesions can be seen at all."""
        image, lesion = np.asarray(subject.image, np.float32), np.asarray(subject.lesions)
        filled, scale = self.fill(image, lesion)
        white = white_by_intensity(filled, subject)
        standard = scale.apply(image)
        level = np.median(standard[white & ~lesion])
        visible = float((standard[lesion] < VISIBLE * level).mean())
        row = {
            "volume_ml": float(lesion.sum() / 1000),
            "visible_share": visible,
            "dice_ceiling": 2 * visible / (1 + visible),
        }
        return row, self.lesion_maps(image, filled, scale, white, lesion)

    def lesion_maps(
        self, image: np.ndarray, filled: np.ndarray, scale: Scale, white: np.ndarray, truth: np.ndarray
    ) -> Sweep:
        region = lesions.search_region(white, self.priors[0], WORKING_GRID)
        dark = lesions.darkening(scale.apply(image), scale.apply(filled), white.astype(np.float32))
        smallest = int(np.ceil(SMALLEST_MM3 / WORKING_GRID.voxel_volume))
        out = {}
        for threshold in THRESHOLDS:
            found = lesions.lesion_map(lesions.probability(dark, region, threshold), smallest)
            reached = lesion_scores(found, truth, WORKING_GRID.voxel_volume)
            out[threshold] = {
                "dice": reached.dice,
                "sensitivity": reached.sensitivity,
                "precision": reached.precision,
                "lesion_f1": reached.lesion_f1,
                "volume_error_ml": reached.volume_error,
            }
        return out


def white_by_intensity(image: np.ndarray, subject: Subject) -> np.ndarray:
    """White matter by its intensity."""
    return image > subject.grey_level + 0.5 * (1 - subject.grey_level)


def _table(chosen: Sequence[Subject], rows: Sequence[tuple[dict[str, float], Sweep]]) -> dict:
    for subject, (row, sweep) in zip(chosen, rows, strict=True):
        dices = {f"dice at {t}": values["dice"] for t, values in sweep.items()}
        print(subject.name, {k: round(v, 3) for k, v in (row | dices).items()}, flush=True)
    sweeps = [sweep for _, sweep in rows]
    return {
        "subjects": [s.name for s in chosen],
        **{k: _spread([row[k] for row, _ in rows]) for k in (rows[0][0] if rows else ())},
        "threshold_sweep": {
            str(t): {k: _spread([sweep[t][k] for sweep in sweeps]) for k in values}
            for t, values in (sweeps[0] if sweeps else {}).items()
        },
    }


def worst_slice(
    healthy: np.ndarray, lesioned: np.ndarray, filled: np.ndarray, lesion: np.ndarray
) -> list[np.ndarray]:
    """The axial slice with the most squared error in the lesions, of the three images and the lesions."""
    z = int(((filled - healthy) ** 2 * lesion).sum((0, 1)).argmax())
    return axial((healthy, lesioned, filled, lesion), z)


def axial(volumes: Sequence[np.ndarray], z: int) -> list[np.ndarray]:
    """An axial slice of each volume, for :func:`draw_slices`."""
    return [v[::-1, :, z].T.copy() for v in volumes]


def draw_slices(path: Path, cases: list[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Draw a row of pictures for each case: truth, input, output, and what is left in the lesions.

    Parameters
    ----------
    path : Path
        Of the image file.
    cases : list of (str, list of array)
        Title, and slices of :func:`worst_slice` with white matter at 1.
    """
    for axes, (_, (healthy, lesioned, filled, lesion)) in zip(
        panels(path, [title for title, _ in cases]), cases, strict=True
    ):
        shown = (("healthy", healthy), ("with lesions", lesioned), ("inpainted", filled))
        for axis, (name, view) in zip(axes, shown, strict=False):
            axis.imshow(view, cmap="gray", vmin=0, vmax=1.4, origin="lower")
            axis.set_title(name, fontsize=9)
        left = np.where(lesion, filled - healthy, 0)
        axes[3].imshow(left, cmap="RdBu_r", vmin=-0.3, vmax=0.3, origin="lower")
        axes[3].set_title("error in the lesions (±0.3)", fontsize=9)


def panels(path: Path, titles: Sequence[str]) -> Iterator[Any]:
    """Four axes for each title, to draw into; the image file is written after the last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 4.2 * len(titles)), layout="constrained")
    FigureCanvasAgg(fig)
    rows = fig.subfigures(len(titles), 1, squeeze=False)[:, 0]
    for row, title in zip(rows, titles, strict=True):
        row.suptitle(title)
        axes = row.subplots(1, 4)
        for axis in axes:
            axis.set_axis_off()
        yield axes
    fig.savefig(path, dpi=80)


def evaluate_brain(
    config: Config, labels: Path, model_name: str, split: str, threads: int, output: Path | None
) -> dict:
    """Score a brain extractor on pictures of label maps kept apart, and print a table.

    Parameters
    ----------
    config : Config
    labels : Path
        Folder of the label maps.
    model_name : str
        Shipped name or ONNX file.
    split : {'validation', 'test'}
    threads : int
    output : Path, optional
        JSON file for the scores.

    Returns
    -------
    dict
        Mean, standard deviation and minimum of the Dice coefficient over 10 pictures of each map.
    """
    model = models.find(model_name, "brain")
    runtime = inference.Runtime(threads=threads)
    shape = (config.fit.patch,) * 3
    values: dict[str, list[float]] = {}
    for head in load_heads(labels, getattr(config.data, split)):
        for i in range(10):
            image, truth = make_head(head, draw_head(np.random.default_rng([99, i]), head, shape), shape)
            logits = inference.run_on_volume(model, image.numpy(), runtime)
            found = largest_component(logits > 0)
            values.setdefault(head.name, []).append(dice(found, truth.numpy() > 0.5))
        print(head.name, [round(v, 3) for v in values[head.name]], flush=True)
    every = [v for row in values.values() for v in row]
    scores = {
        "split": split,
        "dice": {"mean": float(np.mean(every)), "sd": float(np.std(every)), "min": min(every)},
    }
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    return scores


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation of those that are defined."""
    defined = [v for v in values if not np.isnan(v)]
    if not defined:
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(defined)), "sd": float(np.std(defined))}
