"""Which images run together, and what goes on if a visit fails."""

import json
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import image_wf_name
from bids_inpaint.dataset.people import PART, people, status_file, together
from bids_inpaint.dataset.status import saved_file, write_status
from bids_inpaint.io.files import write_text
from bids_inpaint.participant import visits
from bids_inpaint.participant.outcomes import Run
from bids_inpaint.participant.progress import Progress
from bids_inpaint.settings import Settings


def image(subject: str, session: str) -> Image:
    path = f"/d/sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_T1w.nii.gz"
    return Image(path, "", {"sub": subject, "ses": session})


@pytest.fixture
def run(tmp_path):
    settings = Settings(tmp_path, tmp_path / "out", tmp_path / "work", longitudinal="keep")
    images = together([image("01", s) for s in "123"] + [image("02", s) for s in "12"] + [image("03", "1")])
    return Run(settings, SimpleNamespace(), "now", images)


def after(*failed: str) -> Progress:
    progress = Progress(6, StringIO())
    progress.failed |= set(failed)
    return progress


def saved(run: Run, subject: str) -> None:
    """As the node that saves the results of a person leaves it."""
    status = status_file(run.settings.output_dir, subject)
    write_text(saved_file(status, run.uuid, PART), "")
    write_status(status, run.uuid, "done", Parts=[PART])


def test_no_batch_ends_amid_a_person(run):
    found = [[one.prefix for one in batch] for batch in visits.batches(run.images, 2)]
    assert [len(batch) for batch in found] == [3, 2, 1]
    alone = [replace(one, visits=()) for one in run.images]
    assert [len(batch) for batch in visits.batches(alone, 4)] == [4, 2]


def test_without_failures_nothing_runs_again(run):
    assert visits.without_failed(run.images, run, after()) == []
    # the failure of a part that others don't wait for
    saved(run, "01")
    assert visits.without_failed(run.images, run, after("sub_01_ses_1_wf")) == []


def test_the_visits_that_are_left_are_processed_together(run, capsys):
    again = visits.without_failed(run.images, run, after("sub_01_ses_2_wf"))
    assert [one.prefix for one in again] == ["sub-01_ses-1", "sub-01_ses-3"]
    assert {one.visits for one in again} == {("sub-01_ses-1", "sub-01_ses-3")}
    assert all(
        "together with the other visits alone, as sub-01_ses-2 failed" in i.warnings[-1] for i in again
    )
    assert "as sub-01_ses-2 failed, its other visits are processed without it" in capsys.readouterr().err


def test_one_visit_that_is_left_is_processed_by_itself(run):
    (again,) = visits.without_failed(run.images, run, after("sub_02_ses_1_wf"))
    assert (again.prefix, again.visits) == ("sub-02_ses-2", ())
    assert "it was processed by itself" in again.warnings[-1]


def test_if_the_common_step_fails_all_are_processed_by_themselves(run):
    again = visits.without_failed(run.images, run, after(people(run.images)[0].workflow))
    assert [one.prefix for one in again] == ["sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-3"]
    assert {one.visits for one in again} == {()}
    # which ends, whatever fails then
    failed = after(*(image_wf_name(one) for one in again))
    assert visits.without_failed(again, run, failed) == []


def test_a_person_without_results_is_named_and_old_results_are_not_taken_for_new_ones(run, capsys):
    saved(run, "01")
    write_status(status_file(run.settings.output_dir, "03"), "earlier", "done")
    assert visits.record(run) == 1
    said = capsys.readouterr().err
    assert "error: sub-02 has no longitudinal results of this run: see the errors" in said
    assert "note: sub-03 has no longitudinal results of this run; those in the output folder are of" in said
    found = {
        subject: json.loads(status_file(run.settings.output_dir, subject).read_text())["Status"]
        for subject in ("01", "02", "03")
    }
    assert found == {"01": "done", "02": "failed", "03": "failed"}
    assert not list(run.settings.output_dir.rglob("*.saved"))
