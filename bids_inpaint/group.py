"""The group level: finished participants in; tables, a lesion probability map and a page out."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint import bids, images
from bids_inpaint.environment import keep_memory
from bids_inpaint.files import read_sidecar
from bids_inpaint.group_measure import Measured, Task, measure
from bids_inpaint.images import InputError
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.statistics import agree, compare

log = logging.getLogger("bids_inpaint")

MEASURES = ("gm", "wm", "average")
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
    "volume_error": ("Absolute difference of both volumes", "mL"),
    "hausdorff95": ("95th percentile of the distances of both surfaces, the larger of two directions", "mm"),
}
_IDENTITY = {"sub": "participant_id", "ses": "session_id"}
_ENTITY = {
    "sub": "Participant",
    "ses": "Session",
    "acq": "Acquisition",
    "ce": "Contrast agent",
    "rec": "Reconstruction",
    "run": "Run",
}
_NAMES = {"gm": "grey matter", "wm": "white matter", "average": "their mean"}
TISSUE_DICE: Columns = {
    f"{measure}_{image}": (f"Dice coefficient of {_NAMES[measure]}, {image} against reference image", None)
    for image in ("original", "inpainted")
    for measure in MEASURES
}


@dataclass
class Group:
    """Everything the page shows.

    Attributes
    ----------
    measured : list of Measured
    missing : list of str
        Images without finished results.
    problems : list of str
        What could not be read.
    statistics : dict
        By table: ``tissue_dice``, ``lesion_dice``.
    lesion_map : Path
        Lesion probability on the working grid.
    """

    measured: list[Measured]
    missing: list[str]
    problems: list[str]
    statistics: dict[str, Any]
    lesion_map: Path


def run_group(settings: Settings) -> int:
    """Make the tables and the page of all finished participants.

    Returns
    -------
    int
        0, or 1 if a file of an image or a given mask could not be used (everything else is done).

    Raises
    ------
    InputError
        If no participant is finished.
    """
    from bids_inpaint import template
    from bids_inpaint.group_report import write_page
    from bids_inpaint.workflows.outputs import Products, is_finished

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    collected = bids.collect(settings, processing=False)
    participants = _participants(settings.bids_dir)
    out_dir = settings.output_dir
    least = Products(())
    finished: list[bids.Image] = []
    missing: list[str] = []
    for left in collected.refused:
        missing.append(left.name)
        log.error("%s is left out: %s", left.name, left.reason)
    for warning in collected.warnings:
        log.warning("%s", warning)
    for image in collected.images:
        if is_finished(image, settings, least):
            finished.append(image)
        else:
            missing.append(image.prefix)
            log.warning("%s is not finished and is left out: run the participant level for it.", image.prefix)
    if not finished:
        raise InputError(
            f"{out_dir} has no finished participant of {settings.bids_dir}: run the participant level first."
        )
    given = settings.lesion_masks is not None
    tasks = [Task(image, str(out_dir), settings.template, given) for image in finished]
    if settings.nprocs > 1 and len(tasks) > 1:
        context = get_context("forkserver")
        with ProcessPoolExecutor(settings.nprocs, context, initializer=keep_memory) as pool:
            every = list(pool.map(measure, tasks, chunksize=min(8, len(tasks) // settings.nprocs + 1)))
    else:
        every = [measure(task) for task in tasks]
    for one in every:
        if one.problem:
            log.error("%s", one.problem)
        for note in one.notes:
            log.warning("%s: %s.", one.image.prefix, note)
    measured = [m for m in every if not m.problem]
    if not measured:
        raise InputError(f"No results in {out_dir} can be read; see the messages above.")
    statistics = {
        "tissue_dice": tissue_statistics(measured),
        "lesion_dice": lesion_statistics(measured),
    }
    files = template.prepare(settings.template, settings.work_dir)
    group = Group(
        measured=measured,
        missing=missing,
        problems=[m.problem for m in every if m.problem],
        statistics=statistics,
        lesion_map=_write_lesion_map(measured, out_dir, settings.template),
    )
    write_table(
        out_dir, "volumes", VOLUMES, measured, "volumes",
        participants=participants, explained=read_sidecar(settings.bids_dir / "participants.json"),
    )  # fmt: skip
    for name, columns, table in (
        ("tissue_dice", TISSUE_DICE, "tissue_dice"),
        ("lesion_dice", LESIONS, "lesions"),
    ):
        if rows := [m for m in measured if getattr(m, table)]:
            write_table(out_dir, name, columns, rows, table, statistics[name])
        else:
            # those of an earlier run would pass for this one's
            for suffix in ("tsv", "json"):
                (out_dir / f"group_desc-{name}.{suffix}").unlink(missing_ok=True)
    page = write_page(group, settings, files.t1w)
    log.info("Tables, map and page of %d images: %s", len(measured), page)
    return 1 if group.problems else 0


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


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Number, mean and standard deviation (n - 1) of values; None where undefined."""
    return {
        "Participants": len(values),
        "Mean": float(np.mean(values)) if values else None,
        "StandardDeviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def tissue_statistics(measured: Sequence[Measured]) -> dict[str, Any]:
    """Table 1 of Manjón 2020, with its tests: the original against the inpainted image, by tissue.

    Images without lesions are left out: their original is the reference.
    """
    rows = [m for m in measured if m.tissue_dice and not m.lesion_free]
    out: dict[str, Any] = {}
    for column in MEASURES if rows else ():
        before, after = (
            by_participant(rows, "tissue_dice", f"{column}_{name}") for name in ("original", "inpainted")
        )
        test = compare(before, after)
        out[column] = {
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
    """Mean scores of the lesion maps, and how their volumes agree with those of the references.

    Scores are over images whose reference has lesions; of the others, the volume of what was mapped.
    """
    scored = [m for m in measured if m.lesions]
    if not scored:
        return {}
    rows = [m for m in scored if not m.lesion_free]
    out: dict[str, Any] = {
        "Scores": {column: spread(by_participant(rows, "lesions", column)) for column in LESIONS},
        "FalseVolumeWithoutLesions": spread(
            by_participant([m for m in scored if m.lesion_free], "lesions", "volume")
        ),
    }
    volume, reference = (by_participant(scored, "lesions", c) for c in ("volume", "reference_volume"))
    agreement = agree(volume, reference)
    return out | {
        "Participants": len(volume),
        "VolumeCorrelation": _defined([agreement.correlation])[0],
        "VolumeBias": agreement.bias,
        "VolumeLimitsOfAgreement": _defined([agreement.low, agreement.high]),
    }


def _defined(values: Sequence[float]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _write_lesion_map(measured: Sequence[Measured], out_dir: Path, template_name: str) -> Path:
    """Share of the participants with a lesion at each voxel; images of one count as their mean."""
    from bids_inpaint.interfaces.derivatives import write_json
    from bids_inpaint.workflows.outputs import standard_space

    counts: dict[str, int] = {}
    for one in measured:
        counts[one.image.subject] = counts.get(one.image.subject, 0) + 1
    total = np.zeros(np.prod(WORKING_GRID.shape), np.float64)
    for one in measured:
        total[one.voxels] += 1 / counts[one.image.subject]
    path = out_dir / f"group_space-{template_name}_res-1_label-L_probseg.nii.gz"
    share = (total / len(counts)).reshape(WORKING_GRID.shape, order="F")
    images.save(path, share, WORKING_GRID, np.float32, space_code=4)
    write_json(
        out_dir / path.name.replace(".nii.gz", ".json"),
        {
            "Description": "Share of the participants whose lesion map has the voxel",
            "Participants": len(counts),
            **standard_space(template_name),
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
    explained: dict[str, Any] | None = None,
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
    explained : dict, optional
        What they mean: the content of ``participants.json``.
    """
    from bids_inpaint.interfaces.derivatives import write_json, write_text

    explained = explained or {}
    entities = identifying(measured)
    more = list(dict.fromkeys(c for row in (participants or {}).values() for c in row))
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
    described: dict[str, Any] = {c: {"Description": _ENTITY[e]} for e, c in entities.items()}
    described |= {
        c: {"Description": d, **({"Units": unit} if unit else {})} for c, (d, unit) in columns.items()
    }
    for c in more:
        known = explained.get(c.removeprefix("participants_"))
        described[c] = known or {"Description": "From participants.tsv of the dataset"}
    if statistics:
        described["Statistics"] = statistics
    write_json(out_dir / f"group_desc-{name}.json", described)


def identifying(measured: Sequence[Measured]) -> dict[str, str]:
    """Entities that tell the images apart, and their columns."""
    used = [k for k in bids.ENTITIES.values() if any(k in m.image.entities for m in measured)]
    return {k: _IDENTITY.get(k, k) for k in used}


def identity(one: Measured, entities: Iterable[str]) -> list[str]:
    """An image's values of entities."""
    own = one.image.entities
    return [(f"{k}-{own[k]}" if k in ("sub", "ses") else own[k]) if k in own else "n/a" for k in entities]


def shown(value: float | None) -> str:
    """A number for a table."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.6g}"


def _participants(bids_dir: Path) -> dict[str, dict[str, str]]:
    """Columns of ``participants.tsv`` by participant; names that are ours get a prefix."""
    rows = bids.participants(bids_dir)
    ours = {*VOLUMES, *_IDENTITY.values(), *bids.ENTITIES.values()}
    return {
        row.pop("participant_id"): {
            (f"participants_{k}" if k in ours else k): v or "n/a" for k, v in row.items() if k
        }
        for row in rows
    }
