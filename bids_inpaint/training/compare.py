"""All engines and three classical ways of filling, on the same holes in the same healthy brains."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bids_inpaint.imaging.fidelity import hole_scores
from bids_inpaint.networks import card, inpainting, registry, session
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.holes import Case, Holes, make_case
from bids_inpaint.training.pictures import View, axial, draw_slices


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
        local = values[box][source[box]]
        out[tuple(voxel)] = rng.choice(local if local.size else every)
    return out


CLASSICAL: dict[str, Callable[[Case], np.ndarray]] = {
    "biharmonic": biharmonic,
    "white-matter median": white_matter_median,
    "local histogram": local_histogram,
}


def by_network(
    case: Case, model: card.Model, runtime: session.Runtime, priors: Sequence[np.ndarray]
) -> np.ndarray:
    """What a network makes of the hole, or of the lesions if it is blind."""
    image = case.lesioned if model.blind else case.voided
    mask = case.healthy > 0
    return inpainting.inpaint(model, image, mask, case.scale, case.hole, runtime, priors, exact=True).image


@dataclass
class Comparison:
    """What all ways of filling reach on the same holes.

    Attributes
    ----------
    holes : {'lesions', 'blobs', 'squares'}
    subjects : list of str
    scores : dict
        Means of the scores over the subjects, seconds a volume and parameters, by the way of filling.
    views : dict
        A picture of each subject, by the way of filling.
    """

    holes: Holes
    subjects: list[str]
    scores: dict[str, dict[str, float]]
    views: dict[str, list[View]]

    def table(self) -> str:
        """The scores as text, a line for each way of filling."""
        lines = [f"{'':<22}" + "".join(f"{key:>12}" for key in next(iter(self.scores.values())))]
        for name, row in self.scores.items():
            lines.append(f"{name:<22}" + "".join(f"{value:>12.4g}" for value in row.values()))
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the scores as JSON."""
        content = {"holes": self.holes, "subjects": self.subjects, "scores": self.scores}
        path.write_text(json.dumps(content, indent=1) + "\n")

    def draw(self, folder: Path) -> None:
        """Draw the first three subjects into an image file for each way of filling."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, views in self.views.items():
            draw_slices(folder / f"{Path(name).stem.replace(' ', '-')}.png", views[:3])


def compare(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    names: Sequence[str],
    engines: Sequence[str],
    holes: Holes,
    runtime: session.Runtime,
) -> Comparison:
    """Fill the same holes with every network and classical way, and print the scores of each subject.

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

    Raises
    ------
    ValueError
        If there is no such subject or network.
    """
    shapes = Lesions.load(shapes_folder, only=config.data.lenders)
    priors = template_priors(cache)
    networks = {name: registry.find(name) for name in engines}
    usable = {name: model for name, model in networks.items() if holes == "lesions" or not model.blind}
    ways = dict(CLASSICAL)
    for name, model in usable.items():
        ways[name] = partial(by_network, model=model, runtime=runtime, priors=priors)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    views: dict[str, list[View]] = {name: [] for name in ways}
    for subject in find_subjects(cache, list(names)):
        case = make_case(subject, holes, shapes, priors)
        for name, fill in ways.items():
            row, view = fill_and_score(case, name, fill)
            rows[name].append(row)
            views[name].append(view)
    means = {}
    for name, of_name in rows.items():
        means[name] = {key: float(np.mean([row[key] for row in of_name])) for key in of_name[0]}
        means[name]["seconds"] = float(np.median([row["seconds"] for row in of_name]))
        means[name]["parameters"] = int(usable[name].card.more.get("parameters", 0)) if name in usable else 0
    return Comparison(holes, list(names), means, views)


def fill_and_score(
    case: Case, name: str, fill: Callable[[Case], np.ndarray]
) -> tuple[dict[str, float], View]:
    """Fill the hole of a case one way, and print the main scores.

    Returns
    -------
    dict
        The scores of :func:`bids_inpaint.imaging.fidelity.hole_scores`, and the seconds that it took.
    View
        The slice with the largest hole: truth, input, output and hole.
    """
    start = time.perf_counter()
    filled = np.where(case.hole, np.clip(fill(case), 0, 1), case.healthy)
    seconds = time.perf_counter() - start
    scores = hole_scores(filled, case.healthy, case.hole)
    title = f"{name}, {case.name}: SSIM {scores.ssim:.3f}, PSNR {scores.psnr:.1f} dB"
    print(f"{title}, {seconds:.1f} s", flush=True)
    z = int(case.hole.sum((0, 1)).argmax())
    slices = axial((case.healthy, case.voided, filled, case.hole), z)
    return {**asdict(scores), "seconds": seconds}, (title, slices)
