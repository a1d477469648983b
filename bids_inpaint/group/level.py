"""The group level: finished participants in; tables, a lesion probability map and a page out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bids_inpaint.dataset import bids, description, template
from bids_inpaint.dataset.outputs import has_results
from bids_inpaint.dataset.participants import people
from bids_inpaint.dataset.sidecars import standard_space
from bids_inpaint.dataset.status import last_run
from bids_inpaint.environment import keep_memory
from bids_inpaint.errors import InputError, printable
from bids_inpaint.group.associations import associate
from bids_inpaint.group.comparisons import lesion_statistics, tissue_statistics
from bids_inpaint.group.longitudinal import follow, write_longitudinal
from bids_inpaint.group.measure import Measured, Task, compare_provenance, measure
from bids_inpaint.group.page import Group, write_page
from bids_inpaint.group.rated import rate, write_ratings
from bids_inpaint.group.tables import (
    LESIONS,
    QUALITY,
    TISSUE_DICE,
    VOLUMES,
    Covariates,
    counted,
    join,
    some,
    write_table,
)
from bids_inpaint.io import images
from bids_inpaint.io.files import write_json
from bids_inpaint.reports.folder import link_pages
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID

log = logging.getLogger("bids_inpaint")


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
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    log.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    description.check(settings)
    collected = bids.collect(settings, processing=False)
    for warning in collected.warnings:
        log.warning("%s", warning)
    tables = people(settings.bids_dir)
    narrowed = settings.participant_label or settings.session_label or settings.bids_filter_file
    covariates = join(tables, collected.images, not narrowed)
    tasks, missing, left_out = _choose(collected, settings)
    if not tasks:
        raise InputError(
            f"{settings.output_dir} has no finished participant of {settings.bids_dir}: run the participant "
            "level first."
        )
    # nothing is written before it is known to be there
    background = template.prepare(settings.template, settings.work_dir).t1w
    settings.save("group", str(uuid.uuid4()))
    results = _measure(tasks, settings.nprocs)
    measured = [m for m in results if not m.problem]
    unused = rate(measured, settings)
    # statistics are of what nobody excludes
    kept = [m for m in measured if not m.verdict.excluded]
    followed, without = follow(measured, settings.output_dir)
    warnings = [*covariates.warnings, *unused, *without, *_not_compared(kept, settings), *mixed(kept)]
    for warning in warnings:
        log.warning("%s", warning)
    if not measured:
        raise InputError(f"No results in {settings.output_dir} can be read; see the messages above.")
    if not kept:
        raise InputError(
            "All images are excluded by their ratings: rate them again, or leave the ratings out."
        )
    group = Group(
        measured=measured,
        kept=kept,
        covariates=covariates,
        missing=missing,
        left_out=left_out,
        warnings=[*tables.warnings, *warnings],
        problems=[m.problem for m in results if m.problem],
        tissues=tissue_statistics(kept),
        lesions=lesion_statistics(kept),
        followed=followed,
        associations=associate(kept, covariates),
        lesion_map=_write_lesion_map(kept, settings.output_dir, settings.template),
    )
    _write_tables(group, covariates, settings.output_dir)
    page = write_page(group, settings, background)
    link_pages(settings.output_dir)
    log.info("Tables, map and page of %d images: %s", len(measured), page)
    return 1 if group.problems else 0


def _choose(collected: bids.Collection, settings: Settings) -> tuple[list[Task], list[str], dict[str, str]]:
    """The images to measure, those that are not finished, and why others are left out, by prefix."""
    tasks: list[Task] = []
    missing: list[str] = []
    left_out: dict[str, str] = {}
    for refused in collected.refused:
        left_out[refused.name] = refused.reason
        log.error("%s is left out: %s", refused.name, refused.reason)
    for image in collected.images:
        reason, parts = last_run(image, settings.output_dir)
        if reason:
            left_out[image.prefix] = reason
            log.warning("%s is left out, as %s: run the participant level for it.", image.prefix, reason)
        elif has_results(image, settings):
            external_masks = settings.lesion_masks is not None
            tasks.append(Task(image, str(settings.output_dir), settings.template, external_masks, parts))
        else:
            missing.append(image.prefix)
            log.warning("%s is not finished and is left out: run the participant level for it.", image.prefix)
    return tasks, missing, left_out


def _measure(tasks: Sequence[Task], nprocs: int) -> list[Measured]:
    """Measure the images in parallel, and log what is unusual about each."""
    if nprocs > 1 and len(tasks) > 1:
        context = get_context("forkserver")
        with ProcessPoolExecutor(nprocs, context, initializer=keep_memory) as pool:
            results = list(pool.map(measure, tasks, chunksize=min(8, len(tasks) // nprocs + 1)))
    else:
        results = [measure(task) for task in tasks]
    for one in results:
        log.debug("%s: %s", one.image.prefix, one.volumes | one.tissue_dice | one.lesions)
        if one.problem:
            log.error("%s", one.problem)
        for note in one.notes:
            log.warning("%s: %s.", one.image.prefix, note)
    return results


def _write_tables(group: Group, covariates: Covariates, out_dir: Path) -> None:
    tests = group.associations.as_json()
    write_table(out_dir, "volumes", VOLUMES, group.measured, "volumes", tests, covariates)
    write_table(out_dir, "quality", QUALITY, group.measured, "measures")
    write_ratings(group.measured, out_dir)
    write_longitudinal(group.followed, out_dir)
    tissues = {tissue: comparison.as_json() for tissue, comparison in group.tissues.items()}
    lesions = group.lesions.as_json() if group.lesions else {}
    for name, columns, table, statistics in (
        ("tissue_dice", TISSUE_DICE, "tissue_dice", tissues),
        ("lesion_dice", LESIONS, "lesions", lesions),
    ):
        if rows := [m for m in group.measured if getattr(m, table)]:
            write_table(out_dir, name, columns, rows, table, statistics)
        else:
            # those of an earlier run would pass for this one's
            for suffix in ("tsv", "json"):
                (out_dir / f"group_desc-{name}.{suffix}").unlink(missing_ok=True)


def _not_compared(measured: Sequence[Measured], settings: Settings) -> Iterator[str]:
    """Sentences on images that tables lack, which others are in."""
    unreferenced = [m.image.prefix for m in measured if not m.referenced]
    if unreferenced and (settings.lesion_masks or len(unreferenced) < len(measured)):
        yield (
            f"{len(unreferenced)} of {len(measured)} images have no given lesion mask, so they are not in "
            f"the tables of lesion and tissue Dice: {printable(', '.join(unreferenced))}."
        )
    if any(m.tissue_dice for m in measured):
        without_tissues = [
            m.image.prefix
            for m in measured
            if m.referenced and not m.tissue_dice and not any("tissue maps" in note for note in m.notes)
        ]
        if without_tissues:
            yield (
                f"{len(without_tissues)} images have no tissue maps of original, inpainted and reference "
                "image, so they are not in the table of tissue Dice: "
                f"{printable(', '.join(without_tissues))}."
            )


def mixed(measured: Sequence[Measured]) -> list[str]:
    """A sentence if the results were not all made by the same version with the same options."""
    differing = []
    for label, images_of in compare_provenance(measured).items():
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


def _write_lesion_map(measured: Sequence[Measured], out_dir: Path, template_name: str) -> Path:
    """Share of the participants with a lesion at each voxel; images of one count as their mean."""
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
