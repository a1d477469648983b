"""The group level: finished participants in; tables, a lesion probability map and a page out."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint import bids, images
from bids_inpaint.bids import Image
from bids_inpaint.images import InputError
from bids_inpaint.metrics import dice, hausdorff95, lesion_scores
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid, bounding_box
from bids_inpaint.statistics import agree, compare

log = logging.getLogger("bids_inpaint")

#: Labels of the tissue maps that are compared.
TISSUES = {"gm": 1, "wm": 2}
MEASURES = (*TISSUES, "average")
#: Column -> description and unit
Columns = dict[str, tuple[str, str | None]]
VOLUMES: Columns = {
    "lesion_volume": ("Volume of the lesion map", "mL"),
    "lesion_count": ("Lesions: components of the lesion map that share faces or edges", None),
    "gm_volume": ("Volume of grey matter in the inpainted image: sum of its probability", "mL"),
    "wm_volume": ("Volume of white matter in the inpainted image: sum of its probability", "mL"),
    "csf_volume": ("Volume of cerebrospinal fluid in the brain mask: sum of its probability", "mL"),
}
LESIONS: Columns = {
    "dice": ("Dice coefficient of the voxels", None),
    "sensitivity": ("Share of the voxels of the reference that are in the lesion map", None),
    "precision": ("Share of the voxels of the lesion map that are in the reference", None),
    "lesion_f1": (
        "F1 score of lesions (components that share faces or edges); a lesion is hit if the other map "
        "shares at least one voxel with it",
        None,
    ),
    "volume": ("Volume of the lesion map", "mL"),
    "reference_volume": ("Volume of the reference", "mL"),
    "absolute_volume_difference": ("Absolute difference of both volumes", "mL"),
    "hausdorff95": ("95th percentile of the distances of both surfaces, the larger of two directions", "mm"),
}
_NAMES = {"gm": "grey matter", "wm": "white matter", "average": "their mean"}
TISSUE_DICE: Columns = {
    f"{measure}_{image}": (f"Dice coefficient of {_NAMES[measure]}, {image} against reference image", None)
    for image in ("original", "inpainted")
    for measure in MEASURES
}


@dataclass
class Measured:
    """What is known of one finished image.

    Attributes
    ----------
    image : Image
    volumes, tissue_dice, lesions : dict of float
        Columns of `VOLUMES`, `TISSUE_DICE` and `LESIONS`; empty where there is nothing to compare with.
    voxels : array of int
        Flat indices of the lesion voxels on the working grid.
    problem : str
        What was wrong with its reference mask.
    """

    image: Image
    volumes: dict[str, float] = field(default_factory=dict)
    tissue_dice: dict[str, float] = field(default_factory=dict)
    lesions: dict[str, float] = field(default_factory=dict)
    voxels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    problem: str = ""


@dataclass
class Group:
    """Everything the page shows.

    Attributes
    ----------
    measured : list of Measured
    missing : list of str
        Images without finished results.
    participants : dict of dict
        Columns of ``participants.tsv`` by participant.
    statistics : dict
        By table: ``tissue_dice``, ``lesion_dice``.
    lesion_map : Path
        Lesion probability on the working grid.
    """

    measured: list[Measured]
    missing: list[str]
    participants: dict[str, dict[str, str]]
    statistics: dict[str, Any]
    lesion_map: Path


def run_group(settings: Settings) -> int:
    """Make the tables and the page of all finished participants.

    Returns
    -------
    int
        0, or 1 if a given lesion mask could not be used (everything else is done).

    Raises
    ------
    InputError
        If no participant is finished.
    """
    from bids_inpaint import template
    from bids_inpaint.group_report import write_page
    from bids_inpaint.workflows.outputs import Products, expected

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    found = bids.collect(settings, masks_needed=False)
    out_dir = settings.output_dir
    least = Products(())
    finished = [
        i for i in found if all((out_dir / n).exists() for n in expected(i, settings.template, least))
    ]
    missing = [i.prefix for i in found if i not in finished]
    for name in missing:
        log.warning("%s is not finished and is left out: run the participant level for it.", name)
    if not finished:
        raise InputError(
            f"{out_dir} has no finished participant of {settings.bids_dir}: run the participant level first."
        )
    tasks = [(image, str(out_dir), settings.template) for image in finished]
    if settings.nprocs > 1 and len(tasks) > 1:
        with ProcessPoolExecutor(settings.nprocs, mp_context=get_context("forkserver")) as pool:
            measured = list(pool.map(_measure, tasks, chunksize=min(8, len(tasks) // settings.nprocs + 1)))
    else:
        measured = [_measure(task) for task in tasks]
    for one in measured:
        if one.problem:
            log.error("%s", one.problem)
    statistics = {
        "tissue_dice": tissue_statistics(measured),
        "lesion_dice": lesion_statistics(measured),
    }
    participants = _participants(settings.bids_dir)
    files = template.prepare(settings.template, settings.work_dir)
    group = Group(
        measured, missing, participants, statistics, _write_lesion_map(measured, out_dir, settings.template)
    )
    write_table(out_dir, "volumes", VOLUMES, measured, "volumes", participants=participants)
    for name, columns, table in (
        ("tissue_dice", TISSUE_DICE, "tissue_dice"),
        ("lesion_dice", LESIONS, "lesions"),
    ):
        if rows := [m for m in measured if getattr(m, table)]:
            write_table(out_dir, name, columns, rows, table, statistics[name])
    page = write_page(group, settings, files.t1w)
    log.info("Tables, map and page of %d images: %s", len(measured), page)
    return 1 if any(m.problem for m in measured) else 0


def _measure(task: tuple[Image, str, str]) -> Measured:
    """Read the results of one image."""
    from bids_inpaint.workflows.outputs import prefix

    image, out_dir, template_name = task
    native = f"{out_dir}/{prefix(image)}_"
    standard = f"{native}space-{template_name}_res-1_"
    out = Measured(image)
    with open(f"{native}desc-lesions_dseg.tsv") as file:
        volumes = [float(row["volume"]) for row in csv.DictReader(file, delimiter="\t")]
    out.volumes = {"lesion_volume": sum(volumes) / 1000, "lesion_count": len(volumes)}
    sidecar = Path(f"{native}dseg.json")
    if sidecar.exists():
        tissues = json.loads(sidecar.read_text()).get("TissueVolumes", {})
        out.volumes |= {f"{t.lower()}_volume": v / 1000 for t, v in tissues.items()}
    mask = _labels(f"{standard}label-L_desc-inpaint_mask.nii.gz")[0] > 0
    out.voxels = np.flatnonzero(mask)
    try:
        out.lesions = _compare_lesions(image, native, standard)
    except InputError as error:
        out.problem = str(error)
    segmented = [f"{standard}{d}dseg.nii.gz" for d in ("desc-original_", "", "desc-reference_")]
    if all(Path(path).exists() for path in segmented):
        original, inpainted, reference = (_labels(path)[0] for path in segmented)
        out.tissue_dice = {
            f"{measure}_{name}": value
            for name, labels in (("original", original), ("inpainted", inpainted))
            for measure, value in tissue_dice(labels, reference).items()
        }
    return out


def tissue_dice(labels: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Dice of grey matter, of white matter and their mean (Manjón 2020, table 1).

    Parameters
    ----------
    labels, reference : array of int
        1 GM, 2 WM.

    Examples
    --------
    >>> tissue_dice(np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2]))["wm"]
    0.8
    """
    values = {name: dice(labels == value, reference == value) for name, value in TISSUES.items()}
    return values | {"average": float(np.mean(list(values.values())))}


def _compare_lesions(image: Image, native: str, standard: str) -> dict[str, float]:
    """Scores of the lesion map against the given mask, or the one the participant level was given."""
    own = f"{native}label-L_desc-reference_mask.nii.gz"
    if image.lesion_mask:
        space = native if image.lesion_space == "T1w" else standard
        found, grid = _labels(f"{space}label-L_desc-inpaint_mask.nii.gz")
        reference = images.read_lesions(image.lesion_mask, grid, image.path)
    elif Path(own).exists():
        found, grid = _labels(f"{native}label-L_desc-inpaint_mask.nii.gz")
        reference = _labels(own)[0] > 0
    else:
        return {}
    found = found > 0
    either = found | reference
    box = bounding_box(either, margin=1) if either.any() else (slice(0, 2),) * 3
    found, reference = found[box], reference[box]
    scores = lesion_scores(found, reference, grid.voxel_volume).as_dict()
    scores["absolute_volume_difference"] = abs(scores["volume"] - scores["reference_volume"])
    scores["hausdorff95"] = hausdorff95(found, reference, tuple(grid.voxel_sizes))
    return {column: scores[column] for column in LESIONS}


def _labels(path: str) -> tuple[np.ndarray, Grid]:
    image = images.load(path)
    return np.asanyarray(image.dataobj), Grid.of(image.shape, image.affine)


def by_participant(measured: Iterable[Measured], table: str, column: str) -> list[float]:
    """A column for each participant: the mean over the images that have it.

    Parameters
    ----------
    measured : iterable of Measured
    table : {'volumes', 'tissue_dice', 'lesions'}
    column : str
    """
    values: dict[str, list[float]] = {}
    for one in measured:
        value = getattr(one, table).get(column, np.nan)
        if np.isfinite(value):
            values.setdefault(one.image.subject, []).append(value)
    return [float(np.mean(v)) for v in values.values()]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1); None where undefined."""
    return {
        "Mean": float(np.mean(values)) if values else None,
        "StandardDeviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def tissue_statistics(measured: Sequence[Measured]) -> dict[str, Any]:
    """Table 1 of Manjón 2020, with its tests: the original against the inpainted image, by tissue."""
    rows = [m for m in measured if m.tissue_dice]
    out: dict[str, Any] = {}
    for measure in MEASURES if rows else ():
        before, after = (
            by_participant(rows, "tissue_dice", f"{measure}_{name}") for name in ("original", "inpainted")
        )
        test = compare(before, after)
        out[measure] = {
            "Participants": test.n,
            "Original": spread(before),
            "Inpainted": spread(after),
            "MeanDifference": test.difference,
            "ConfidenceInterval95": _defined([test.low, test.high]),
            "WilcoxonP": test.p,
            "RankBiserialCorrelation": test.effect,
        }
    return out


def lesion_statistics(measured: Sequence[Measured]) -> dict[str, Any]:
    """Mean scores of the lesion maps, and how their volumes agree with those of the references."""
    rows = [m for m in measured if m.lesions]
    if not rows:
        return {}
    scores = {column: spread(by_participant(rows, "lesions", column)) for column in LESIONS}
    volume, reference = (by_participant(rows, "lesions", c) for c in ("volume", "reference_volume"))
    agreement = {k: _defined([v])[0] for k, v in asdict(agree(volume, reference)).items()}
    return {
        "Participants": len(volume),
        "Scores": scores,
        "VolumeCorrelation": agreement["correlation"],
        "VolumeBias": agreement["bias"],
        "VolumeLimitsOfAgreement": [agreement["low"], agreement["high"]],
    }


def _defined(values: Sequence[float]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _write_lesion_map(measured: Sequence[Measured], out_dir: Path, template_name: str) -> Path:
    """Share of the participants with a lesion at each voxel; images of one count as their mean."""
    from bids_inpaint.interfaces.derivatives import write_json

    counts: dict[str, int] = {}
    for one in measured:
        counts[one.image.subject] = counts.get(one.image.subject, 0) + 1
    total = np.zeros(np.prod(WORKING_GRID.shape), np.float64)
    for one in measured:
        total[one.voxels] += 1 / counts[one.image.subject]
    path = out_dir / f"group_space-{template_name}_res-1_label-L_probseg.nii.gz"
    share = (total / len(counts)).reshape(WORKING_GRID.shape)
    images.save(path, share, WORKING_GRID, np.float32, space_code=4)
    write_json(
        out_dir / path.name.replace(".nii.gz", ".json"),
        {
            "Description": "Share of the participants whose lesion map has the voxel",
            "Participants": len(counts),
            "Resolution": {"1": "1 mm isotropic, 182×218×182 voxels (FSL's MNI152 grid)"},
        },
    )
    return path


def write_table(
    out_dir: Path,
    name: str,
    columns: Columns,
    measured: Sequence[Measured],
    table: str,
    statistics: dict | None = None,
    participants: dict[str, dict[str, str]] | None = None,
) -> None:
    """Write ``group_desc-NAME.tsv`` with a row per image, and what its columns mean.

    Parameters
    ----------
    out_dir : Path
    name : str
        ``volumes``, ``tissue_dice`` or ``lesion_dice``.
    columns : dict
        Column to description and unit.
    measured : sequence of Measured
    table : {'volumes', 'tissue_dice', 'lesions'}
        The attribute that has the columns.
    statistics : dict, optional
        For the sidecar.
    participants : dict of dict, optional
        More columns, by participant.
    """
    from bids_inpaint.interfaces.derivatives import write_json, write_text

    entities = identifying(measured)
    more = list(dict.fromkeys(c for row in (participants or {}).values() for c in row))
    more = [c for c in more if c not in columns]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*entities.values(), *columns, *more])
    for one in measured:
        known = getattr(one, table)
        joined = (participants or {}).get(f"sub-{one.image.subject}", {})
        writer.writerow(
            [
                *identity(one, entities),
                *(shown(known.get(c)) for c in columns),
                *(joined.get(c, "n/a") for c in more),
            ]
        )
    write_text(out_dir / f"group_desc-{name}.tsv", text.getvalue())
    described: dict[str, Any] = {
        c: {"Description": d, **({"Units": unit} if unit else {})} for c, (d, unit) in columns.items()
    }
    for c in more:
        described[c] = {"Description": "From participants.tsv of the dataset"}
    if statistics:
        described["Statistics"] = statistics
    write_json(out_dir / f"group_desc-{name}.json", described)


def identifying(measured: Sequence[Measured]) -> dict[str, str]:
    """Entities that tell the images apart, and their columns."""
    names = {"sub": "participant_id", "ses": "session_id"}
    used = [k for k in bids.ENTITIES.values() if any(k in m.image.entities for m in measured)]
    return {k: names.get(k, k) for k in used}


def identity(one: Measured, entities: Iterable[str]) -> list[str]:
    """An image's values of entities."""
    own = one.image.entities
    return [(f"{k}-{own[k]}" if k in ("sub", "ses") else own[k]) if k in own else "n/a" for k in entities]


def shown(value: float | None) -> str:
    """A number for a table."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.6g}"


def _participants(bids_dir: Path) -> dict[str, dict[str, str]]:
    path = bids_dir / "participants.tsv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if any("participant_id" not in row for row in rows):
        log.warning("%s has no column participant_id: its columns are not joined.", path)
        return {}
    return {row.pop("participant_id"): {k: v or "n/a" for k, v in row.items() if k} for row in rows}
