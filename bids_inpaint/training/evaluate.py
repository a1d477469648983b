"""Scores of a network on painted lesions of subjects kept apart, where the truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bids_inpaint import inference, lesions, models, template
from bids_inpaint.brain import largest_component
from bids_inpaint.images import read
from bids_inpaint.intensity import Scale
from bids_inpaint.metrics import dice, filling_scores, lesion_scores, psnr
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, subjects
from bids_inpaint.training.extraction import load_heads
from bids_inpaint.training.heads import draw_head, make_head
from bids_inpaint.training.synthesis import draw_patient, paint

THRESHOLDS = (0.05, 0.07, 0.1, 0.12, 0.15, 0.2)


def painted(subject: Subject, shapes: Lesions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A subject's whole volume with the lesions of one patient, and the lesion support.

    The same seed gives the same lesions.
    """
    rng = np.random.default_rng([seed, int.from_bytes(subject.name.encode(), "little") % 2**32])
    drawn = draw_patient(rng, shapes)
    healthy = torch.from_numpy(np.asarray(subject.image, np.float32))
    image, support = paint(healthy, subject.grey_level, drawn, (0, 0, 0), seed)
    return image.numpy(), support.numpy()


def evaluate(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    model_name: str,
    split: str,
    threads: int,
    output: Path | None,
    figure: Path | None = None,
) -> dict:
    """Score a network and print a table.

    Every subject is shown once with painted lesions and once as it is; a non-blind network gets the mask
    of the lesions. The patients that lend their lesions are those the configuration
    leaves out of training.

    Parameters
    ----------
    config : Config
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    split : {'train', 'validation', 'test'}
    threads : int
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file for the three subjects with the largest error.

    Returns
    -------
    dict
        Mean and standard deviation of each score, the λ sweep of a blind network, and the subjects.
    """
    model = models.find(model_name)
    runtime = inference.Runtime(threads=threads)
    shapes = Lesions.load(shapes_folder, only=config.data.leave_out_patients)
    # the standard space, for the intensity scale
    files = template.prepare(template.DEFAULT, cache / "template")
    white_prior, grey_prior = (read(files.priors[tissue])[0] for tissue in ("WM", "GM"))
    rows: list[dict[str, float]] = []
    views: list[tuple[float, str, Sequence[np.ndarray]]] = []
    sweep: dict[float, list[dict[str, float]]] = {t: [] for t in THRESHOLDS if model.blind}
    for subject in subjects(cache, getattr(config.data, split)):
        healthy = np.asarray(subject.image, np.float32)
        mask = healthy > 0
        white = healthy > subject.grey_level + 0.5 * (1 - subject.grey_level)
        lesioned, support = painted(subject, shapes, config.seed)
        truth = support > 0.5
        scale = Scale.measure(lesioned, mask, white_prior, grey_prior)
        filled = inference.inpaint(model, lesioned, mask, scale, truth, runtime)
        clean_scale = Scale.measure(healthy, mask, white_prior, grey_prior)
        clean = inference.inpaint(model, healthy, mask, clean_scale, np.zeros_like(mask), runtime)
        peak = float(healthy.max())
        row = filling_scores(filled, healthy, lesioned, truth).as_dict()
        row |= {
            "volume_ml": float(truth.sum() / 1000),
            "whole_psnr": psnr(filled[mask], healthy[mask], peak),
            "voided_psnr": psnr(np.where(inference.to_fill(truth), 0, healthy)[mask], healthy[mask], peak),
            "whole_correlation": float(np.corrcoef(filled[mask], healthy[mask])[0, 1]),
            "healthy_psnr": psnr(clean[mask], healthy[mask], peak),
        }
        for threshold, values in sweep.items():
            region = lesions.search_region(white, white_prior, WORKING_GRID)
            found = _found(scale.apply(lesioned), scale.apply(filled), white, region, threshold)
            false = _found(clean_scale.apply(healthy), clean_scale.apply(clean), white, region, threshold)
            reached = lesion_scores(found, truth & white, WORKING_GRID.voxel_volume)
            values.append(
                {
                    "dice": reached.dice,
                    "lesion_f1": reached.lesion_f1,
                    "volume_error_ml": abs(reached.volume - reached.reference_volume),
                    "false_ml": float(false.sum() / 1000),
                }
            )
        rows.append(row)
        title = f"{subject.name}: RMSE {row['rmse']:.3f}, gain {row['gain']:.1f} dB, SSIM {row['ssim']:.2f}"
        views.append((row["rmse"], title, worst_slice(healthy, lesioned, filled, truth)))
        print(subject.name, {k: round(v, 3) for k, v in row.items()}, flush=True)
    scores = {
        "split": split,
        "subjects": getattr(config.data, split),
        **{k: _spread([r[k] for r in rows]) for k in rows[0]},
        "threshold_sweep": {
            str(t): {k: _spread([v[k] for v in values]) for k in values[0]} for t, values in sweep.items()
        },
    }
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        worst = sorted(views, key=lambda view: -view[0])[:3]
        draw_slices(figure, [(title, slices) for _, title, slices in worst])
    return scores


def worst_slice(
    healthy: np.ndarray, lesioned: np.ndarray, filled: np.ndarray, lesion: np.ndarray
) -> list[np.ndarray]:
    """The axial slice with the most squared error in the lesions, of the three images and the lesions."""
    z = int(((filled - healthy) ** 2 * lesion).sum((0, 1)).argmax())
    return [v[::-1, :, z].T.copy() for v in (healthy, lesioned, filled, lesion)]


def draw_slices(path: Path, cases: list[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Draw a row of pictures for each case: truth, input, output, and what is left in the lesions.

    Parameters
    ----------
    path : Path
        Of the image file.
    cases : list of (str, list of array)
        Title, and slices of :func:`worst_slice` with white matter at 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 4.2 * len(cases)), layout="constrained")
    FigureCanvasAgg(fig)
    rows = fig.subfigures(len(cases), 1, squeeze=False)[:, 0]
    for row, (title, (healthy, lesioned, filled, lesion)) in zip(rows, cases, strict=True):
        row.suptitle(title)
        axes = row.subplots(1, 4)
        for axis, name, view in zip(
            axes, ("healthy", "with lesions", "inpainted"), (healthy, lesioned, filled), strict=False
        ):
            axis.imshow(view, cmap="gray", vmin=0, vmax=1.4, origin="lower")
            axis.set_title(name, fontsize=9)
        left = np.where(lesion, filled - healthy, 0)
        axes[3].imshow(left, cmap="RdBu_r", vmin=-0.3, vmax=0.3, origin="lower")
        axes[3].set_title("error in the lesions (±0.3)", fontsize=9)
        for axis in axes:
            axis.set_axis_off()
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


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values))}


def _found(
    image: np.ndarray, filled: np.ndarray, white: np.ndarray, region: np.ndarray, threshold: float
) -> np.ndarray:
    dark = lesions.darkening(image, filled, white.astype(np.float32))
    smallest = int(np.ceil(10 / WORKING_GRID.voxel_volume))
    return lesions.lesion_map(lesions.probability(dark, region, threshold), smallest)
