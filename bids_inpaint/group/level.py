"""The group level: finished participants in; tables, a lesion probability map and a page out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.dataset import bids
from bids_inpaint.dataset.participants import people
from bids_inpaint.environment import keep_memory
from bids_inpaint.errors import InputError, printable
from bids_inpaint.group.measure import MADE_WITH, Measured, Task, last_run, measure
from bids_inpaint.group.statistics import agree, compare
from bids_inpaint.group.tables import (
    LESIONS,
    MEASURES,
    TISSUE_DICE,
    VOLUMES,
    counted,
    join,
    some,
    write_table,
)
from bids_inpaint.io import images
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID

log = logging.getLogger("bids_inpaint")


@dataclass
class Group:
    """Everything the page shows.

    Attributes
    ----------
    measured : list of Measured
    missing : list of str
        Images without finished results.
    left_out : dict of str
        Why the results of an image, by its prefix, are not those of its last run.
    warnings : list of str
        Sentences on the group as a whole.
    problems : list of str
        What could not be read.
    statistics : dict
        By table: ``tissue_dice``, ``lesion_dice``.
    lesion_map : Path
        Lesion probability on the working grid.
    """

    measured: list[Measured]
    missing: list[str]
    left_out: dict[str, str]
    warnings: list[str]
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
    from bids_inpaint.dataset import description, template
    from bids_inpaint.dataset.outputs import Products, is_finished
    from bids_inpaint.group.page import write_page

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    description.check(settings)
    collected = bids.collect(settings, processing=False)
    found = collected.images
    narrowed = settings.participant_label or settings.session_label or settings.bids_filter_file
    tables = people(settings.bids_dir)
    covariates = join(tables, found, not narrowed)
    out_dir = settings.output_dir
    least = Products(())
    tasks: list[Task] = []
    missing: list[str] = []
    left_out: dict[str, str] = {}
    for refused in collected.refused:
        left_out[refused.name] = refused.reason
        log.error("%s is left out: %s", refused.name, refused.reason)
    for warning in collected.warnings:
        log.warning("%s", warning)
    for image in found:
        reason, made = last_run(image, out_dir)
        if reason:
            left_out[image.prefix] = reason
            log.warning("%s is left out, as %s: run the participant level for it.", image.prefix, reason)
        elif is_finished(image, settings, least):
            given = settings.lesion_masks is not None
            tasks.append(Task(image, str(out_dir), settings.template, given, made))
        else:
            missing.append(image.prefix)
            log.warning("%s is not finished and is left out: run the participant level for it.", image.prefix)
    if not tasks:
        raise InputError(
            f"{out_dir} has no finished participant of {settings.bids_dir}: run the participant level first."
        )
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
    warnings = [*covariates.warnings, *_not_compared(measured, settings), *mixed(measured)]
    for text in warnings:
        log.warning("%s", text)
    warnings = [*tables.warnings, *warnings]
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
        left_out=left_out,
        warnings=warnings,
        problems=[m.problem for m in every if m.problem],
        statistics=statistics,
        lesion_map=_write_lesion_map(measured, out_dir, settings.template),
    )
    write_table(out_dir, "volumes", VOLUMES, measured, "volumes", covariates=covariates)
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


def _not_compared(measured: Sequence[Measured], settings: Settings) -> Iterator[str]:
    """Sentences on images that tables lack, which others are in."""
    without = [m.image.prefix for m in measured if not m.referenced]
    if without and (settings.lesion_masks or len(without) < len(measured)):
        yield (
            f"{len(without)} of {len(measured)} images have no given lesion mask, so they are not in the "
            f"tables of lesion and tissue Dice: {printable(', '.join(without))}."
        )
    if any(m.tissue_dice for m in measured):
        untold = [
            m.image.prefix
            for m in measured
            if m.referenced and not m.tissue_dice and not any("tissue maps" in note for note in m.notes)
        ]
        if untold:
            yield (
                f"{len(untold)} images have no tissue maps of original, inpainted and reference image, so "
                f"they are not in the table of tissue Dice: {printable(', '.join(untold))}."
            )


def made_alike(measured: Sequence[Measured]) -> dict[str, dict[str, list[str]]]:
    """What the results were made with: label to value to the images that have it, the most common first.

    Of options, those that differ.
    """
    values: dict[str, list[str]] = {label: [m.made_with[label] for m in measured] for label in MADE_WITH}
    for name in sorted({name for m in measured for name in m.options}):
        column = [m.options.get(name, "none") if m.options else "unknown" for m in measured]
        if len(set(column)) > 1:
            values[f"Option {name}"] = column
    out: dict[str, dict[str, list[str]]] = {}
    for label, column in values.items():
        if set(column) == {MADE_WITH.get(label, ("",))[-1]}:
            continue
        images_of: dict[str, list[str]] = {}
        for one, value in zip(measured, column, strict=True):
            images_of.setdefault(value, []).append(one.image.prefix)
        out[label] = dict(sorted(images_of.items(), key=lambda item: -len(item[1])))
    return out


def mixed(measured: Sequence[Measured]) -> list[str]:
    """A sentence if the results were not all made by the same version with the same options."""
    differing = []
    for label, images_of in made_alike(measured).items():
        if len(images_of) > 1:
            (most, those), *others = images_of.items()
            rest = (f"{value} in {some(names)}" for value, names in others)
            differing.append(f"{label} is {most} in {counted(len(those), 'image')}, {', '.join(rest)}")
    if not differing:
        return []
    return [
        "The results were not made alike, so tables and map compare what can't be compared: "
        + printable("; ".join(differing))
        + ". Run the participant level again with one version and the same options."
    ]


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
    from bids_inpaint.dataset.outputs import standard_space
    from bids_inpaint.io.files import write_json

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
