"""All networks that fill a given hole and three classical ways, on the same holes in the same brains."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bids_inpaint.imaging.fidelity import HoleScores, hole_scores
from bids_inpaint.networks import card, registry, session
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.holes import Holes, make_case
from bids_inpaint.training.pictures import draw_grid
from bids_inpaint.training.ways import Case, Fill, ways_of, worker

#: Scores of each kind of holes that the table shows, with their titles.
SHOWN = {
    "ssim": "SSIM",
    "psnr": "PSNR",
    "seams": "seams",
    "fine": "fine",
    "seconds": "s",
    "processor": "CPU s",
}
#: What a way takes, with its titles.
COSTS = {"parameters": "parameters", "file_mb": "file MB", "memory_mb": "memory MB"}
#: Edge in voxels of what pictures show of a slice, and how many people they show.
VIEW, VIEWED = 120, 3

#: Numbers by name; None for one that is not defined.
Row = dict[str, float | None]


@dataclass
class Comparison:
    """What all ways of filling reach on the same holes.

    Attributes
    ----------
    subjects : list of str
    scores : dict
        Means over the subjects of :class:`bids_inpaint.imaging.fidelity.HoleScores`, and the median of the
        seconds that a volume took by the clock and of the processors, by kind of hole and way of filling.
    costs : dict
        Parameters and size of the file of a network, and the largest memory of the process that filled, by
        way of filling.
    pictures : dict
        By kind of hole, a list for each of the first subjects of slices by title.
    """

    subjects: list[str]
    scores: dict[str, dict[str, Row]] = field(default_factory=dict)
    costs: dict[str, Row] = field(default_factory=dict)
    pictures: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)

    def table(self) -> str:
        """The scores as text, a line for each way of filling."""
        columns = [
            (f"{kind} {title}", {way: row.get(key) for way, row in rows.items()})
            for kind, rows in self.scores.items()
            for key, title in SHOWN.items()
        ]
        columns += [
            (title, {way: row[key] for way, row in self.costs.items()}) for key, title in COSTS.items()
        ]
        lines = ["| | " + " | ".join(title for title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for way in self.costs:
            cells = [_written(values.get(way)) for _, values in columns]
            lines.append(f"| {Path(way).stem} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the scores as JSON."""
        content = {"subjects": self.subjects, "scores": self.scores, "costs": self.costs}
        path.write_text(json.dumps(content, indent=1) + "\n")

    def draw(self, folder: Path) -> None:
        """Draw the first subjects into an image file for each kind of hole."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind, rows in self.pictures.items():
            draw_grid(folder / f"filled-{kind}.png", rows)


def _written(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def compare(
    config: Config,
    cache: Path,
    shapes_folder: Path,
    names: Sequence[str],
    engines: Sequence[str],
    kinds: Sequence[Holes],
    runtime: session.Runtime,
) -> Comparison:
    """Fill the same holes with every network and classical way, and print the scores of each subject.

    Images are cut off at the top 0.1 % of the brain and scaled to 0-1 first, as in Durrer 2023. Blind
    networks get painted lesions in place of holes; with other holes they are left out. Each way fills the
    holes of a kind in a process of its own.

    Parameters
    ----------
    config : Config
        Names the patients whose lesions were not trained with.
    cache, shapes_folder : Path
    names : sequence of str
        Subjects of the cache.
    engines : sequence of str
        Networks by name or ONNX file.
    kinds : sequence of {'lesions', 'blobs', 'squares'}
    runtime : Runtime

    Raises
    ------
    ValueError
        If there is no such subject or network.
    """
    shapes = Lesions.load(shapes_folder, only=config.data.lenders)
    priors = template_priors(cache)
    networks = {name: registry.find(name) for name in engines}
    people = find_subjects(cache, list(names))
    out = Comparison(list(names))
    ways = ways_of(networks, runtime, priors)
    out.costs = {way: _size(networks.get(way)) for way in ways}
    for kind in kinds:
        blind = {name for name, model in networks.items() if kind != "lesions" and model.blind}
        with tempfile.TemporaryDirectory() as folder:
            cases = []
            for number, subject in enumerate(people):
                case = make_case(subject, kind, shapes, priors)
                case.save(Path(folder) / str(number))
                cases.append(Path(folder) / str(number))
                if number < VIEWED:
                    view = {"truth": _view(case, case.healthy), "hole": _view(case, case.voided)}
                    out.pictures.setdefault(kind, []).append(view)
            out.scores[kind] = {
                way: _fill_all(out, kind, way, fill, cases) for way, fill in ways.items() if way not in blind
            }
    return out


def _size(model: card.Model | None) -> Row:
    if model is None:
        return {"parameters": None, "file_mb": None, "memory_mb": None}
    file_mb = model.path.stat().st_size / 1e6
    return {"parameters": model.card.more.get("parameters"), "file_mb": file_mb, "memory_mb": None}


def _fill_all(out: Comparison, kind: str, way: str, fill: Fill, folders: Sequence[Path]) -> Row:
    """Fill the cases in folders one way, print the main scores, and return their means."""
    rows: list[HoleScores] = []
    seconds: list[float] = []
    processor: list[float] = []
    with worker(way, fill) as process:
        for number, folder in enumerate(folders):
            content, took, worked = process.run(folder)
            case = Case.load(folder)
            filled = np.where(case.hole, np.clip(content, 0, 1), case.healthy)
            rows.append(hole_scores(filled, case.healthy, np.asarray(case.hole)))
            seconds.append(took)
            processor.append(worked)
            if number < VIEWED:
                out.pictures[kind][number][Path(way).stem] = _view(case, filled)
            quality = f"SSIM {rows[-1].ssim:.3f}, PSNR {rows[-1].psnr:.1f} dB"
            print(f"{kind}, {way}, {case.name}: {quality}, {took:.1f} s", flush=True)
        out.costs[way]["memory_mb"] = max(out.costs[way]["memory_mb"] or 0.0, process.peak())
    means: Row = {key: _mean([asdict(row)[key] for row in rows]) for key in asdict(rows[0])}
    return means | {"seconds": median(seconds), "processor": median(processor)}


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the values that are defined."""
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else None


def _view(case: Case, volume: np.ndarray) -> np.ndarray:
    """The surroundings of the largest hole in a slice of a case, upright and as in radiology."""
    z = int(case.hole.sum((0, 1)).argmax())
    middle = np.argwhere(case.hole[..., z]).mean(0)
    box = []
    for centre, width in zip(middle, case.hole.shape, strict=False):
        first = int(np.clip(round(centre) - VIEW // 2, 0, width - VIEW))
        box.append(slice(first, first + VIEW))
    return np.array(volume[box[0], box[1], z])[::-1].T[::-1]
