"""People whose visits are processed together: which images run together, and what became of each person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import image_wf_name
from bids_inpaint.dataset.people import PART, Before, Person, people, status_file, together
from bids_inpaint.dataset.status import is_held, saved_file, write_status
from bids_inpaint.participant.keeping import listed
from bids_inpaint.participant.outcomes import Run
from bids_inpaint.participant.progress import Progress, tell


def example(images: Sequence[Image]) -> list[Image]:
    """What the graph of one image needs to be whole: the image, which is the first, and the others."""
    found = people(images)
    if found:
        return [*found[0].processed, *found[0].kept]
    return [replace(min(images, key=lambda image: image.kept), kept=False)]


def batches(images: Sequence[Image], size: int) -> Iterator[list[Image]]:
    """The images in parts of about so many, none of which ends amid a person with several visits.

    Those of which nothing is run are in none, but for visits that others are added to.
    """
    batch: list[Image] = []
    run = [image for image in images if image.visits or not image.kept]
    # images that are processed by themselves are groups of one
    for _, group in groupby(run, key=lambda image: image.subject if image.visits else image.prefix):
        more = list(group)
        if batch and len(batch) + len(more) > size:
            yield batch
            batch = []
        batch += more
    if batch:
        yield batch


def without_failed(images: Sequence[Image], run: Run, progress: Progress) -> list[Image]:
    """The images to run once more, as they waited for a visit of their person that failed.

    Those of a person that are left are processed together, or by themselves if one alone is left, or if what
    failed is the step that all have in common.

    Parameters
    ----------
    images : sequence of Image
        Those of the graph that has run.
    run : Run
    progress : Progress
        What the plugin said of the steps.
    """
    out = []
    for person in people(images):
        failed = [image for image in person.images if image_wf_name(image) in progress.failed]
        common = person.workflow in progress.failed
        if is_saved(person.subject, run) or not (failed or common):
            continue
        left = [image for image in person.processed if image not in failed]
        lost = listed([image.prefix for image in failed])
        if common or len([*person.kept, *left]) < 2:
            shared = "that adds visits" if person.kept else "that all visits share"
            why = f"{lost} failed" if failed else f"the step {shared} failed"
            what = "was processed by itself, and has no longitudinal results"
            again = [replace(image, visits=(), added_to=()) for image in left]
        else:
            why, what = f"{lost} failed", "was processed together with the other visits alone"
            again = together([replace(image, visits=()) for image in (*person.kept, *left)] if left else [])
        if left:
            tell(f"note: sub-{person.subject}: as {why}, {_others(person, common)}.")
        warning = f"it {what}, as {why}: see the error, and run the same command again."
        out += [
            image if image.kept else replace(image, warnings=(*image.warnings, warning)) for image in again
        ]
    return sorted(out, key=lambda image: image.prefix)


def _others(person: Person, common: bool) -> str:
    """What becomes of the visits that did not fail."""
    if person.kept and common:
        names = listed([image.prefix for image in person.processed])
        return f"{names} {'are' if person.processed[1:] else 'is'} processed as without --longitudinal"
    return "its other visits are processed without it"


def is_saved(subject: str, run: Run) -> bool:
    """Whether the run has saved the longitudinal results of a person."""
    return saved_file(status_file(run.settings.output_dir, subject), run.uuid, PART).exists()


def record(run: Run) -> int:
    """Write and report what became of the longitudinal results of each person.

    Results of an earlier run are no longer those of the images that this run has replaced.

    Returns
    -------
    int
        How many people have none though they were to have some, or have a status that can't be written.
    """
    wanted: dict[str, Person] = {person.subject: person for person in people(run.images)}
    lacking = 0
    for subject in sorted({image.subject for image in run.images if image.visits or not image.kept}):
        status = status_file(run.settings.output_dir, subject)
        if is_saved(subject, run):
            note = saved_file(status, run.uuid, PART)
            note.unlink(missing_ok=True)
            with suppress(OSError):
                # others are of its images, or crash files
                note.parent.rmdir()
            continue
        if subject not in wanted and not status.exists():
            continue
        if untouched := _untouched(subject, run):
            if subject in wanted:
                lacking += 1
                new = listed([image.prefix for image in wanted[subject].processed])
                tell(
                    f"error: {new} could not be added to the longitudinal results of sub-{subject}, which "
                    f"are still those of {listed(untouched)}: see the errors."
                )
            continue
        old = " those in the output folder are of an earlier run" if status.exists() else ""
        reason = (
            f"sub-{subject} has no longitudinal results of this run{';' if old else ''}{old}: run all of its "
            "visits with --longitudinal."
        )
        if subject in wanted:
            lacking += 1
            reason = reason.replace("run all of its visits with --longitudinal", "see the errors")
        tell(f"{'error' if subject in wanted else 'note'}: {reason}")
        try:
            write_status(status, run.uuid, "failed", Error=reason)
        except OSError as error:
            lacking += subject not in wanted
            tell(
                f"error: the status of sub-{subject} can't be written ({error.strerror}): take it as failed."
            )
    return lacking


def _untouched(subject: str, run: Run) -> Sequence[str]:
    """The visits in the longitudinal results of a person, if the run has replaced nothing of them."""
    before = Before.read(run.settings.output_dir, subject)
    made = {image.prefix for image in run.images if not image.kept}
    if before is None or made.intersection(before.visits):
        return ()
    return () if is_held(status_file(run.settings.output_dir, subject), run.uuid) else before.visits
