"""The end of a run: what became of each image is written down, told and reported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from bids_inpaint import outcomes
from bids_inpaint.bids import Image
from bids_inpaint.crashes import Crash, read_crashes
from bids_inpaint.images import InputError
from bids_inpaint.models import Model
from bids_inpaint.outcomes import Before, Outcome, Refused
from bids_inpaint.progress import Progress, tell
from bids_inpaint.report import write_report
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.outputs import Products

log = logging.getLogger("bids_inpaint")


def finish(
    found: list[Image],
    error: Exception | None,
    settings: Settings,
    model: Model,
    made: dict[str, Any],
    run_uuid: str,
    progress: Progress,
    before: dict[str, Before],
    refused: Sequence[Refused] = (),
) -> int:
    """Say what became of each image, here and in its status file, write the reports and sum up.

    Parameters
    ----------
    found : list of Image
        Those that were run.
    error : Exception, optional
        What the plugin ended with, if not well.
    settings : Settings
    model : Model
    made : dict
        :func:`bids_inpaint.workflows.outputs.provenance` of the run.
    run_uuid : str
    progress : Progress
        What the plugin said of the steps.
    before : dict of Before
        What was in the output folder before, by the prefix of the image; not needed with --reports-only.
    refused : sequence of Refused
        What was not run, and why; that has been told before.

    Returns
    -------
    int
        The exit code: 0 if every image is done, and has no warnings if these count; else 1.
    """
    products = Products.of(settings, model)
    subjects = sorted({image.subject for image in found})
    crashes = {subject: read_crashes(subject, settings, run_uuid) for subject in subjects}
    every = [*chain.from_iterable(crashes.values())]
    for crash in every:
        tell(f"error: {crash.sentence} (details: {crash.path})")
    halted = "an earlier image failed" if error and settings.stop_on_first_crash else ""
    if error and not every:
        # no step crashed: the plugin did
        halted = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        tell(f"error: {halted}")
    if settings.reports_only:
        results = [outcomes.recall(image, settings, products) for image in found]
    else:
        judge = partial(outcomes.judge, settings=settings, products=products, run_uuid=run_uuid)
        results = [
            judge(
                image,
                crashes=crashes[image.subject],
                progress=progress,
                halted=halted,
                before=before[image.prefix],
            )
            for image in found
        ]
    unwritten = 0
    if not settings.reports_only:
        unwritten = _record(results, settings, products, run_uuid)
        unwritten += _record_refused(refused, found, settings, run_uuid)
    _tell_failures(results)
    unreported = _write_reports(results, crashes, settings, model, made, refused)
    warned = 0
    for result in results:
        sentences = list(result.image.warnings)
        # what an earlier run left is not warned of
        if result.core:
            sentences += outcomes.warnings_of(result.image, settings)
            sentences += outcomes.differences(result.image, settings, made) if settings.reports_only else []
        sentences = list(dict.fromkeys(sentences))
        warned += bool(sentences)
        for sentence in sentences:
            tell(f"warning: {result.image.prefix}: {sentence}")
    done = sum(result.done for result in results)
    also = f", {warned} with warnings" if warned else ""
    total = len(found) + len(refused)
    tell(f"{done} of {total} images done{also}; results in {settings.output_dir}")
    strict = settings.strict and warned
    if strict:
        tell(f"{warned} of {total} images have warnings (--strict)")
    return 1 if done < total or error or unwritten or unreported or strict else 0


def _record(results: list[Outcome], settings: Settings, products: Products, run_uuid: str) -> int:
    """Write the status files of what failed; return how many can't be written."""
    unwritten = 0
    for result in results:
        try:
            outcomes.record(result, settings, products, run_uuid)
        except OSError as reason:
            unwritten += 1
            tell(
                f"error: the status of {result.image.prefix} can't be written into {settings.output_dir} "
                f"({reason.strerror}): take it as failed, and run the same command again."
            )
    return unwritten


def _record_refused(
    refused: Sequence[Refused], found: Sequence[Image], settings: Settings, run_uuid: str
) -> int:
    """Write and tell that the results of refused images are old; return how many can't be written."""
    unwritten = 0
    for one in refused:
        try:
            left = outcomes.record_refused(one, found, settings, run_uuid)
        except OSError as reason:
            unwritten += 1
            tell(f"error: the status of {one.name} can't be written ({reason.strerror}): take it as failed.")
            continue
        if left:
            tell(f"{_listed(left)} failed: the files in the output folder are of an earlier run.")
    return unwritten


def _tell_failures(results: list[Outcome]) -> None:
    """Name what failed without a crash of its own, or has files of an earlier run.

    As they may be thousands, those of one kind share a line.
    """
    failed = [result for result in results if not result.done]
    others: dict[str, list[str]] = {}
    for result in failed:
        if result.earlier or (result.crashed and result.core):
            tell(f"{result.image.prefix} {result.summary()}.")
        if not result.crashed:
            others.setdefault(result.error, []).append(result.image.prefix)
    for reason, names in others.items():
        tell(f"{_listed(names)} failed: {reason}")
    if unasked := [result.image.prefix for result in results if result.unasked]:
        tell(f"note: {_listed(unasked)}: {outcomes.UNASKED}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _write_reports(
    results: list[Outcome],
    crashes: dict[str, list[Crash]],
    settings: Settings,
    model: Model,
    made: dict[str, Any],
    refused: Sequence[Refused],
) -> int:
    """Write the report of each participant; return how many can't be written."""
    unwritten = 0
    # the report of an earlier run does not stay as if nothing had been refused
    old = [one.subject for one in refused if (settings.output_dir / f"sub-{one.subject}").is_dir()]
    by_subject: dict[str, list[Outcome]] = {subject: [] for subject in old}
    for result in results:
        by_subject.setdefault(result.image.subject, []).append(result)
    for subject, own in by_subject.items():
        try:
            reasons = [f"{one.name}: {one.reason}" for one in refused if one.subject == subject]
            report = write_report(subject, own, settings, model, made, crashes.get(subject, []), reasons)
        except Exception as reason:
            # the others have theirs
            unwritten += 1
            log.debug("the report failed", exc_info=True)
            tell(
                f"error: the report of sub-{subject} could not be written ({type(reason).__name__}: "
                f"{reason}); the images are not affected: run again with --reports-only."
            )
            continue
        log.info("Report: %s", report)
    return unwritten
