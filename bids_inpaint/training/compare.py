"""All engines and three classical ways of filling, on the same holes in the same healthy brains."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.fidelity import HoleScores, hole_scores
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import card, inpainting, registry, session
from bids_inpaint.networks.slices import upper_limit
from bids_inpaint.training.adversarial import DEPTH
from bids_inpaint.training.adversarial import HOLE as SQUARE
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects, template_priors
from bids_inpaint.training.evaluate import axial, draw_slices, painted, white_by_intensity
from bids_inpaint.training.slices import draw_blob

HOLES = ("lesions", "blobs", "squares")


@dataclass(frozen=True)
class Case:
    """A healthy brain, scaled to 0-1, and what is missing of it.

    Attributes
    ----------
    name : str
    healthy, lesioned, voided : array
        The truth; with painted lesions, if these are the hole; with 0 in the hole.
    hole, white : array of bool
        White matter is told by its intensity.
    scale : Scale
        Of what is known.
    """

    name: str
    healthy: np.ndarray
    lesioned: np.ndarray
    voided: np.ndarray
    hole: np.ndarray
    white: np.ndarray
    scale: Scale


def biharmonic(case: Case) -> np.ndarray:
    """The smoothest continuation of the surroundings, by scikit-image, slice by slice."""
    from skimage.restoration import inpaint_biharmonic

    out = case.voided.copy()
    for z in np.flatnonzero(case.hole.any((0, 1))):
        out[..., z] = inpaint_biharmonic(case.voided[..., z], case.hole[..., z], split_into_regions=True)
    return out


def white_matter_median(case: Case) -> np.ndarray:
    """The median of white matter."""
    return np.where(case.hole, np.median(case.voided[case.white]), case.voided)


def local_histogram(case: Case) -> np.ndarray:
    """Each voxel is drawn from the white matter within 10 mm, as lesion filling by local histograms does."""
    reach = 10
    rng = np.random.default_rng(0)
    out = case.voided.copy()
    source, values = (np.pad(v, reach) for v in (case.white, case.voided))
    every = case.voided[case.white]
    for voxel in np.argwhere(case.hole):
        box = tuple(slice(i, i + 2 * reach + 1) for i in voxel)
        near = values[box][source[box]]
        out[tuple(voxel)] = rng.choice(near if near.size else every)
    return out


CLASSICAL: dict[str, Callable[[Case], np.ndarray]] = {
    "biharmonic": biharmonic,
    "white-matter median": white_matter_median,
    "local histogram": local_histogram,
}


def draw_holes(subject: Subject, kind: str, shapes: Lesions) -> np.ndarray:
    """What is missing of a subject's brain, by the name of the subject alone.

    Parameters
    ----------
    subject : Subject
    kind : {'lesions', 'blobs', 'squares'}
        The lesions of a patient and single ones, dilated as for filling; five blobs, some of the size of
        tumours; or a square of 64 voxels on some slices, as in Armanious 2019.
    shapes : Lesions
    """
    image = np.asarray(subject.image, np.float32)
    if kind == "lesions":
        return inpainting.to_fill(painted(subject, shapes)[1] > 0.5) & (image > 0)
    rng = np.random.default_rng(zlib.crc32(subject.name.encode()))
    hole = np.zeros(image.shape, bool)
    brain = np.argwhere(ndimage.binary_erosion(image > 0, iterations=12))
    blobs = kind == "blobs"
    for _ in range(5 if blobs else 1):
        x, y, z = brain[rng.integers(len(brain))]
        inwards = np.ones((SQUARE, SQUARE))
        if blobs:
            inwards = ndimage.distance_transform_edt(draw_blob(rng, SQUARE))
        x, y = (
            int(np.clip(c - SQUARE // 2, 0, n - SQUARE)) for c, n in zip((x, y), image.shape, strict=False)
        )
        for k in range(max(z - DEPTH // 2, 0), min(z + DEPTH // 2, image.shape[2])):
            # a blob is an ellipsoid along the slices
            narrowing = ((k - z) / (DEPTH / 2)) ** 2 if blobs else 0
            hole[x : x + SQUARE, y : y + SQUARE, k] |= inwards > narrowing * inwards.max()
    return hole & (image > 0)


def make_case(subject: Subject, holes: str, shapes: Lesions, priors: Sequence[np.ndarray]) -> Case:
    """Scale a subject's brain, and take something of it away."""
    healthy = np.asarray(subject.image, np.float32)
    limit = upper_limit(healthy)
    lesioned = painted(subject, shapes)[0] if holes == "lesions" else healthy
    healthy, lesioned = (np.minimum(v / limit, 1) for v in (healthy, lesioned))
    hole = draw_holes(subject, holes, shapes)
    voided = np.where(hole, 0, healthy)
    scale = Scale.measure(voided, (healthy > 0) & ~hole, *priors)
    white = white_by_intensity(voided / scale.white, subject)
    return Case(subject.name, healthy, lesioned, voided, hole, white, scale)


def by_network(
    case: Case, model: card.Model, runtime: session.Runtime, priors: Sequence[np.ndarray]
) -> np.ndarray:
    """What a network makes of the hole, or of the lesions if it is blind."""
    image = case.lesioned if model.blind else case.voided
    mask = case.healthy > 0
    return inpainting.inpaint(model, image, mask, case.scale, case.hole, runtime, priors, exact=True)


def compare(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    names: Sequence[str],
    engines: Sequence[str],
    holes: str,
    runtime: session.Runtime,
    output: Path | None = None,
    figure: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Fill the same holes with every engine and classical way, and print a table.

    Images are cut off at the top 0.1 % of the brain and scaled to 0-1 first, as in Durrer 2023. Blind
    networks get painted lesions in place of holes; with other holes they are left out.

    Parameters
    ----------
    config : Config
        Names the patients whose lesions were not trained with.
    cache, shapes_folder : Path
    names : sequence of str
        Subjects of the cache.
    engines : sequence of str
        Networks by name or ONNX file.
    holes : {'lesions', 'blobs', 'squares'}
    runtime : Runtime
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Folder for the pictures of the first three subjects, an image file for each way of filling.

    Returns
    -------
    dict
        Means of the scores over the subjects, seconds a volume and parameters, by the way of filling.
    """
    shapes = Lesions.load(shapes_folder, only=config.data.leave_out_patients)
    priors = template_priors(cache)
    found = {name: registry.find(name) for name in engines}
    if holes != "lesions":
        found = {name: model for name, model in found.items() if not model.blind}
    ways = dict(CLASSICAL)
    for name, model in found.items():
        ways[name] = partial(by_network, model=model, runtime=runtime, priors=priors)
    table: dict[str, list[tuple[HoleScores, float]]] = {}
    views: dict[str, list] = {}
    for subject in find_subjects(cache, list(names)):
        case = make_case(subject, holes, shapes, priors)
        for name, fill in ways.items():
            start = time.perf_counter()
            filled = np.where(case.hole, np.clip(fill(case), 0, 1), case.healthy)
            seconds = time.perf_counter() - start
            scores = hole_scores(filled, case.healthy, case.hole)
            table.setdefault(name, []).append((scores, seconds))
            z = int(case.hole.sum((0, 1)).argmax())
            parts = (case.healthy, case.voided, filled, case.hole)
            title = f"{name}, {case.name}: SSIM {scores.ssim:.3f}, PSNR {scores.psnr:.1f} dB"
            views.setdefault(name, []).append((title, axial(parts, z)))
            print(f"{title}, {seconds:.1f} s", flush=True)
    summary = {}
    for name, rows in table.items():
        scores_of = [asdict(scores) for scores, _ in rows]
        row = {key: float(np.mean([s[key] for s in scores_of])) for key in scores_of[0]}
        row["seconds"] = float(np.median([seconds for _, seconds in rows]))
        row["parameters"] = int(found[name].card.more.get("parameters", 0)) if name in found else 0
        summary[name] = row
    print(f"\n{'':<22}" + "".join(f"{key:>12}" for key in next(iter(summary.values()))))
    for name, row in summary.items():
        print(f"{name:<22}" + "".join(f"{value:>12.4g}" for value in row.values()))
    if output:
        output.write_text(
            json.dumps({"holes": holes, "subjects": list(names), "scores": summary}, indent=1) + "\n"
        )
    if figure:
        figure.mkdir(parents=True, exist_ok=True)
        for name, cases in views.items():
            draw_slices(figure / f"{Path(name).stem.replace(' ', '-')}.png", cases[:3])
    return summary
