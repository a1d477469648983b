"""The end of a run: what became of each image is written down and reported."""

from __future__ import annotations

import logging
from itertools import chain

from bids_inpaint.errors import InputError
from bids_inpaint.participant import outcomes, visits
from bids_inpaint.participant.crashes import Crash, read_crashes
from bids_inpaint.participant.longitudinal import write_course
from bids_inpaint.participant.outcomes import Before, Outcome, Run
from bids_inpaint.participant.progress import Progress, tell
from bids_inpaint.participant.report import write_report
from bids_inpaint.reports.folder import link_pages

log = logging.getLogger("bids_inpaint")


def finish(run: Run, error: Exception | None, progress: Progress, before: dict[str, Before]) -> int:
    """Say what became of each image, here and in its status file, write the reports and sum up.

    Parameters
    ----------
    run : Run
    error : Exception, optional
        What the plugin ended with, if not well.
    progress : Progress
        What the plugin said of the steps.
    before : dict of Before
        What was in the output folder before, by the prefix of the image; not needed with --reports-only.

    Returns
    -------
    int
        The exit code: 0 if every image is done, and has no warnings if these count; else 1.
    """
    settings = run.settings
    subjects = sorted({image.subject for image in run.images})
    crashes = {subject: read_crashes(subject, settings, run.uuid) for subject in subjects}
    results = _judge(run, error, progress, before, crashes)
    unwritten = 0
    if not settings.reports_only:
        unwritten = _record(run, results) + _record_refused(run) + visits.record(run)
    _report_failures(results)
    unreported = _write_reports(run, results, crashes)
    warned = sum(_report_warnings(run, result) for result in results)
    done = sum(result.done for result in results)
    also = f", {warned} with warnings" if warned else ""
    total = len(run.images) + len(run.refused)
    tell(f"{done} of {total} images done{also}; results in {settings.output_dir}")
    strict = settings.strict and warned
    if strict:
        tell(f"{warned} of {total} images have warnings (--strict)")
    return 1 if done < total or error or unwritten or unreported or strict else 0


def _judge(
    run: Run,
    error: Exception | None,
    progress: Progress,
    before: dict[str, Before],
    crashes: dict[str, list[Crash]],
) -> list[Outcome]:
    """What became of each image; crashes, and what ended the run before its time, are reported."""
    settings = run.settings
    every = [*chain.from_iterable(crashes.values())]
    for crash in every:
        tell(f"error: {crash.sentence} (details: {crash.path})")
    halted = "an earlier image failed" if error and settings.stop_on_first_crash else ""
    if error and not every:
        # no step crashed: the plugin did
        halted = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        tell(f"error: {halted}")
    if settings.reports_only:
        return [outcomes.recall(image, settings, run.products) for image in run.images]
    return [
        outcomes.recall(image, settings, run.products)
        if image.kept
        else outcomes.judge(
            image,
            settings,
            run.products,
            run.uuid,
            crashes[image.subject],
            progress,
            halted,
            before[image.prefix],
        )
        for image in run.images
    ]


def _report_warnings(run: Run, result: Outcome) -> bool:
    """Say what is unusual about an image; return whether anything is."""
    sentences = list(result.image.warnings)
    # what an earlier run left is not warned of
    if result.core:
        parts = [part for part in run.products.parts if part not in result.failed]
        sentences += outcomes.warnings_of(result.image, run.settings, parts)
        if run.settings.reports_only:
            sentences += outcomes.differences(result.image, run.settings, run.provenance)
    sentences = list(dict.fromkeys(sentences))
    for sentence in sentences:
        tell(f"warning: {result.image.prefix}: {sentence}")
    return bool(sentences)


def _record(run: Run, results: list[Outcome]) -> int:
    """Write the status files of what failed; return how many can't be written."""
    unwritten = 0
    for result in results:
        try:
            outcomes.record(result, run.settings, run.products, run.uuid)
        except OSError as reason:
            unwritten += 1
            tell(
                f"error: the status of {result.image.prefix} can't be written into {run.settings.output_dir} "
                f"({reason.strerror}): take it as failed, and run the same command again."
            )
    return unwritten


def _record_refused(run: Run) -> int:
    """Write and report that the results of refused images are old; return how many can't be written."""
    unwritten = 0
    for one in run.refused:
        try:
            left = outcomes.record_refused(one, run.images, run.settings, run.uuid)
        except OSError as reason:
            unwritten += 1
            tell(f"error: the status of {one.name} can't be written ({reason.strerror}): take it as failed.")
            continue
        if left:
            tell(f"{_listed(left)} failed: the files in the output folder are of an earlier run.")
    return unwritten


def _report_failures(results: list[Outcome]) -> None:
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


def _write_reports(run: Run, results: list[Outcome], crashes: dict[str, list[Crash]]) -> int:
    """Write the report of each participant; return how many can't be written."""
    settings = run.settings
    unwritten = 0
    # the report of an earlier run does not stay as if nothing had been refused
    old = [one.subject for one in run.refused if (settings.output_dir / f"sub-{one.subject}").is_dir()]
    by_subject: dict[str, list[Outcome]] = {subject: [] for subject in old}
    for result in results:
        by_subject.setdefault(result.image.subject, []).append(result)
    for subject, of_subject in by_subject.items():
        try:
            write_course(settings.output_dir, subject)
            report = write_report(subject, of_subject, run, crashes.get(subject, []))
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
    try:
        link_pages(settings.output_dir)
    except OSError as reason:
        unwritten += 1
        tell(
            f"error: the reports in {settings.output_dir} could not be linked to each other "
            f"({reason.strerror}); the images are not affected: run again with --reports-only."
        )
    return unwritten
