"""The export level: finished results in; a raw dataset for the next tool out."""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bids_inpaint.dataset import bids, description
from bids_inpaint.dataset.matching import listed
from bids_inpaint.dataset.scan import participants_in
from bids_inpaint.errors import InputError, printable
from bids_inpaint.export.plan import Plan, Scope, plan
from bids_inpaint.export.results import Result, result_of
from bids_inpaint.export.writing import LOCK, Export
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")

#: Sentences on single files of the dataset that are shown.
_SHOWN = 10


def run_export(settings: Settings) -> int:
    """Write the raw dataset with the inpainted T1w images.

    Returns
    -------
    int
        0 if every image asked for is in it, and every other file; 1 if some are left out, which are named.

    Raises
    ------
    InputError
        If nothing can be exported, or the folder holds something else.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    log.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    root = settings.export_dir
    assert root is not None
    if not description.check(settings):
        raise InputError(
            f"{settings.output_dir} has no results of the participant level: name the folder that it wrote."
        )
    results, left_out = _results(settings)
    origin = {"dataset": str(settings.bids_dir), "--unzipped": settings.unzipped}
    with _alone(root):
        export = Export(root, origin)
        # who is no longer in the dataset leaves the export
        known = {f.split("/")[0].removeprefix("sub-") for f in export.files if f.startswith("sub-")}
        everybody = known.union(participants_in(settings.bids_dir))
        scope = Scope(settings.participant_label or everybody, settings.session_label)
        others = {f for f in export.files if f.startswith("sub-") and not scope.holds(f)}
        options = {"unzipped": settings.unzipped, "lesion_rois": settings.lesion_rois}
        planned = plan(settings.bids_dir, results, scope, others, options)
        if not results and not others:
            raise InputError(
                f"No T1w of {settings.bids_dir} can be exported; see the messages above."
                if left_out
                else f"{settings.output_dir} has no results of {settings.bids_dir}."
            )
        _check_strangers(root, {*planned.items, *export.files})
        export.check(planned.items, settings.export_files)
        gone = sorted({*export.files} - {*planned.items, *others})
        try:
            changed, unreadable = export.write(planned.items, settings.export_files, gone)
        except OSError as error:
            raise InputError(
                f"{error.filename or root} can't be written ({error.strerror}), and {root} is not a whole "
                "dataset: check its permissions and the space on its disk, and run the same command again."
            ) from None
    if export.copied:
        log.warning("%s is on another disk than the data, so files are copied, not linked.", root)
    problems = _report(planned, unreadable, left_out)
    log.info("%d T1w images exported to %s; %d files were written or removed", len(results), root, changed)
    return 1 if problems or left_out else 0


def _results(settings: Settings) -> tuple[list[Result], set[str]]:
    """The images to export; those that are left out are reported, and returned by their paths or names."""
    # what was given to the participant level is in its results
    plain = replace(settings, derivatives={}, lesion_masks=None)
    collected = bids.collect(plain, processing=False)
    for warning in collected.warnings:
        log.warning("%s", warning)
    left_out: set[str] = set()
    for refused in collected.refused:
        log.error("%s is left out: %s", refused.name, refused.reason)
        left_out.update(refused.paths or (refused.name,))
    results = []
    for image in collected.images:
        result = result_of(image, settings)
        if isinstance(result, str):
            log.error("%s is left out: %s", image.prefix, printable(result))
            left_out.add(image.uri.removeprefix("bids:raw:"))
        else:
            results.append(result)
    return results, left_out


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other exports out of a folder, as far as its file system has locks."""
    with (root / LOCK).open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"Another run exports to {root}: wait for it, or name another folder.") from None
        except OSError as error:
            log.debug("%s is not locked: %s", root, error)
        yield


def _check_strangers(root: Path, known: Iterable[str]) -> None:
    """Raise `InputError` if somebody put a T1w into the export: originals would be among the inpainted."""
    pattern = re.compile(r"(?i).*_T1w\.nii(\.gz)?")
    there = (p for p in root.glob("sub-*/**/*") if pattern.fullmatch(p.name) and not p.name.startswith("."))
    strangers = sorted({p.relative_to(root).as_posix() for p in there} - set(known))
    if strangers:
        raise InputError(
            f"{root} has T1w images that are not of this export ({listed(strangers)}): move them elsewhere."
        )


def _report(planned: Plan, unreadable: dict[str, str], known: set[str]) -> int:
    """Say which other files are left out; return how many are."""
    for note in planned.notes:
        log.warning("%s", printable(note))
    reasons = {f: r for f, r in {**planned.left_out, **unreadable}.items() if f not in known}
    for reason in list(reasons.values())[:_SHOWN]:
        log.error("Left out: %s", printable(reason))
    if len(reasons) > _SHOWN:
        log.error("%d more files are left out.", len(reasons) - _SHOWN)
    return len(reasons)
