"""Which finished visits are kept if others are added, and why not."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_finished, write_followed

from bids_inpaint.dataset import checksums
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.people import PART, Before, people, status_file, together
from bids_inpaint.dataset.sidecars import own_options, provenance
from bids_inpaint.dataset.status import saved_file, write_status
from bids_inpaint.io.files import read_json, write_json, write_text
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant import keeping, visits
from bids_inpaint.participant.outcomes import Run
from bids_inpaint.participant.progress import Progress
from bids_inpaint.settings import Settings
from bids_inpaint.space import Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        tmp_path / "bids", tmp_path / "out", tmp_path / "w", segmentation="none", longitudinal="keep"
    )


@pytest.fixture
def image(settings) -> Callable[..., Image]:
    """Makes a T1w of a session."""

    def make(session: str, **entities: str) -> Image:
        whole = {"sub": "01", "ses": session} | entities
        out = Image("", f"bids:raw:{session}", whole)
        path = settings.bids_dir / out.folder / f"{out.prefix}_T1w.nii.gz"
        write_text(path, f"voxels of {out.prefix}")
        return replace(out, path=str(path))

    return make


@pytest.fixture
def finished(settings, image) -> list[Image]:
    """Two visits that were processed together, as the run leaves them."""
    images = together([image("1"), image("2")])
    lesions = np.zeros((182, 218, 182), bool)
    for one in images:
        write_finished(settings.output_dir, one, lesions, native=NATIVE)
    write_followed(settings.output_dir, images, [[100, 110]], Likeness=[[1, 0.97], [0.97, 1]])
    note(settings, images)
    return images


def note(settings: Settings, images: list[Image], **facts: object) -> None:
    """Write what makes visits of results in the output folder that others can be added to."""
    out = settings.output_dir
    made_by = provenance(settings, Networks.of(settings))
    for one in images:
        path = out / f"{one.folder}/{one.prefix}_desc-inpainted_T1w.json"
        options = {"Options": made_by["Options"] | own_options(one)}
        write_json(path, read_json(path) | made_by | options)
    (person,) = people(images)
    names = person.names(settings.template)
    for key, name in names.items():
        if key not in ("table", "changes") and not (out / name).exists():
            write_text(out / name, key)
    results = {one.prefix: checksums.results_of(one, out, settings.template) for one in images}
    results["template"] = [out / names[key] for key in checksums.SHARED]
    sums = {
        "Results": {name: checksums.checksum(paths) for name, paths in results.items()},
        "Inputs": {one.prefix: checksums.checksum(checksums.inputs_of(one)) for one in images},
    }
    path = out / names["template"].replace(".nii.gz", ".json")
    visits_now = {"Visits": [one.prefix for one in person.images]}
    write_json(path, read_json(path) | visits_now | {"SHA256": sums} | facts)


def gather(images: list[Image], settings: Settings):
    plain = [replace(one, visits=(), kept=False, added_to=()) for one in images]
    return keeping.gather(plain, settings, Networks.of(settings))


def kept(images: list[Image]) -> list[str]:
    return [one.entities["ses"] for one in images if one.kept]


def test_finished_visits_are_kept_if_one_is_added(settings, image, finished, capsys):
    images, refused = gather([*finished, image("3")], settings)
    assert not refused
    assert kept(images) == ["1", "2"]
    assert {one.visits for one in images} == {("sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-3")}
    assert [one.added_to for one in images] == [(), (), ("sub-01_ses-1", "sub-01_ses-2")]
    said = capsys.readouterr().err
    assert "sub-01_ses-3 is added to the finished visits sub-01_ses-1, sub-01_ses-2, which stay" in said
    (person,) = people(images)
    assert [one.prefix for one in person.processed] == ["sub-01_ses-3"]
    assert visits.example(images)[0].prefix == "sub-01_ses-3"
    assert [len(batch) for batch in visits.batches(images, 1)] == [3]


def test_the_same_visits_are_processed_as_ever(settings, finished, capsys):
    images, _ = gather(finished, settings)
    assert images == finished
    assert capsys.readouterr().err == ""


def test_a_rerun_repeats_the_last_addition(settings, image, finished, capsys):
    more = together([*(replace(one, visits=()) for one in finished), image("3"), image("4")])
    for one in more[2:]:
        write_finished(settings.output_dir, one, np.zeros((182, 218, 182), bool), native=NATIVE)
    write_followed(settings.output_dir, more, [[100, 110, 0, 0]])
    for one in more[:2]:
        visits_then = {"Visits": ["sub-01_ses-1", "sub-01_ses-2"]}
        path = settings.output_dir / f"{one.folder}/{one.prefix}_desc-inpainted_T1w.json"
        write_json(path, read_json(path) | visits_then)
    note(settings, more, AddedVisits=[["sub-01_ses-3"], ["sub-01_ses-4"]])
    images, _ = gather(more, settings)
    assert kept(images) == ["1", "2", "3"]
    assert capsys.readouterr().err == ""
    before = Before.read(settings.output_dir, "01")
    assert before is not None
    assert before.stages_of([one.prefix for one in images if one.kept]) == [
        ["sub-01_ses-1", "sub-01_ses-2"],
        ["sub-01_ses-3"],
    ]


def test_all_are_processed_anew_if_that_is_asked_for(settings, image, finished, capsys):
    images, refused = gather([*finished, image("3")], replace(settings, longitudinal="anew"))
    assert not kept(images)
    assert not refused
    assert len(images[0].visits) == 3
    assert "all visits of this run (sub-01_ses-1, sub-01_ses-2, sub-01_ses-3) are" in capsys.readouterr().err


def _template(settings: Settings) -> Path:
    return settings.output_dir / "sub-01/anat/sub-01_desc-longitudinal_T1w.nii.gz"


def _remove_transform(settings, images):
    (settings.output_dir / "sub-01/anat/sub-01_from-ses2_to-template_mode-image_xfm.txt").unlink()


def _edit_map(settings, images):
    path = checksums.results_of(images[1], settings.output_dir, settings.template)[3]
    Path(path).write_bytes(b"another map")


def _lose_map(settings, images):
    Path(checksums.results_of(images[0], settings.output_dir, settings.template)[2]).unlink()


def _old_version(settings, images):
    path = settings.output_dir / f"{images[0].folder}/{images[0].prefix}_desc-inpainted_T1w.json"
    write_json(path, read_json(path) | {"SoftwareVersion": "0.0.1"})


def _fail(settings, images):
    write_status(settings.output_dir / "sub-01/log/sub-01_ses-2_status.json", "x", "unfinished")


def _without_sums(settings, images):
    path = _template(settings).with_name("sub-01_desc-longitudinal_T1w.json")
    write_json(path, {k: v for k, v in read_json(path).items() if k != "SHA256"})


def _break_sidecar(settings, images):
    _template(settings).with_name("sub-01_desc-longitudinal_T1w.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda s, i: _template(s).unlink(), "desc-longitudinal_T1w.nii.gz can't be read .No such file"),
        (
            lambda s, i: _template(s).write_bytes(b"?"),
            "the template of sub-01 in .* is not the one that was saved",
        ),
        (_remove_transform, "from-ses2_to-template_mode-image_xfm.txt is missing"),
        (_edit_map, "files of sub-01_ses-2 in .* are not those that were saved"),
        (_lose_map, "files of sub-01_ses-1 are missing in"),
        (_old_version, "sub-01_ses-1 was made with version 0.0.1, not"),
        (_fail, "the results of sub-01_ses-2 can't be used .its last run did not end"),
        (_without_sums, "the sidecar of the template does not say which visits and files it was made of"),
        (_break_sidecar, "desc-longitudinal_T1w.json is missing or can't be read"),
        (
            lambda s, i: write_text(Path(i[0].path), "x"),
            "the T1w of sub-01_ses-1, or a mask given for it, is",
        ),
    ],
)
def test_all_are_processed_anew_if_something_is_missing_or_changed(
    settings, image, finished, capsys, harm, reason
):
    harm(settings, finished)
    images, refused = gather([*finished, image("3")], settings)
    assert not kept(images)
    assert not refused
    assert {one.visits for one in images} == {("sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-3")}
    said = capsys.readouterr().err
    assert said.startswith("bids_inpaint: note: all visits of sub-01 are processed together anew, as ")
    assert said.count("\n") == 1
    assert re.search(reason, said), said


def test_other_options_process_all_anew(settings, image, finished, capsys):
    images, _ = gather([*finished, image("3")], replace(settings, lesion_min_volume=20.0))
    assert not kept(images)
    assert "sub-01_ses-1 was made with LesionMinVolume 10.0, not 20.0" in capsys.readouterr().err


@pytest.mark.parametrize("sessions", [["3"], ["1", "3"], ["1"]])
def test_if_a_finished_visit_is_left_out_the_others_stay_and_none_is_added(
    settings, image, finished, capsys, sessions
):
    here = [one for one in (*finished, image("3")) if one.entities["ses"] in sessions]
    images, refused = gather(here, settings)
    assert kept(images) == [session for session in sessions if session != "3"]
    assert all(one.visits == () for one in images)
    assert [one.name for one in refused] == ["sub-01_ses-3"] * ("3" in sessions)
    assert all("sub-01_ses-3 can't be added" in one.reason for one in refused)
    assert all("as this run leaves out sub-01_ses-" in one.reason for one in refused)
    said = capsys.readouterr().err
    assert ("sub-01_ses-1 stays as it is" in said) == ("1" in sessions)
    assert list(visits.batches(images, 9)) == []


def test_another_image_of_a_finished_session_is_processed_by_itself(settings, image, finished):
    others = [image(session, acq="high") for session in "123"]
    images, refused = gather(sorted([*finished, *others], key=lambda one: one.prefix), settings)
    assert not refused
    assert [one.prefix for one in images if one.kept] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert [one.prefix for one in images if one.added_to] == ["sub-01_ses-3_acq-high"]
    assert [one.visits for one in images if one.prefix.endswith(("1_acq-high", "2_acq-high"))] == [(), ()]


def test_a_person_with_results_of_one_visit_has_nothing_to_be_added_to(settings, image, capsys):
    images, _ = gather([image("1"), image("2")], settings)
    assert not kept(images)
    assert len(images[0].visits) == 2
    assert capsys.readouterr().err == ""


@pytest.fixture
def adding(settings, image, finished) -> Run:
    images, _ = gather([*finished, image("3"), image("4")], settings)
    return Run(settings, SimpleNamespace(), "now", images)


def after(*failed: str) -> Progress:
    progress = Progress(2)
    progress.failed |= set(failed)
    return progress


def test_visits_that_can_not_be_added_are_processed_by_themselves(adding, capsys):
    again = visits.without_failed(adding.images, adding, after("person_01"))
    assert [(one.prefix, one.visits, one.added_to) for one in again] == [
        ("sub-01_ses-3", (), ()),
        ("sub-01_ses-4", (), ()),
    ]
    assert all("as the step that adds visits failed" in one.warnings[-1] for one in again)
    assert "failed, sub-01_ses-3, sub-01_ses-4 are processed as without" in capsys.readouterr().err


def test_without_one_that_failed_the_other_is_added(adding):
    again = visits.without_failed(adding.images, adding, after("sub_01_ses_3_wf"))
    assert [one.prefix for one in again if one.kept] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert [one.prefix for one in again if one.added_to] == ["sub-01_ses-4"]
    assert {one.visits for one in again} == {("sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-4")}
    assert not any("failed" in text for one in again if one.kept for text in one.warnings)
    both = after("sub_01_ses_3_wf", "sub_01_ses_4_wf")
    assert visits.without_failed(adding.images, adding, both) == []


def test_the_results_of_finished_visits_are_valid_if_none_could_be_added(adding, capsys):
    status = status_file(adding.settings.output_dir, "01")
    before = status.read_bytes()
    assert visits.record(adding) == 1
    assert "sub-01_ses-3, sub-01_ses-4 could not be added to the longitudinal results of sub-01, which" in (
        capsys.readouterr().err
    )
    assert status.read_bytes() == before
    # but not if the run had begun to replace them
    write_status(status, "now", "unfinished")
    assert visits.record(adding) == 1
    assert json.loads(status.read_text())["Status"] == "failed"


def test_once_they_are_added_nothing_is_said(adding, capsys):
    capsys.readouterr()
    write_text(saved_file(status_file(adding.settings.output_dir, "01"), "now", PART), "")
    assert visits.record(adding) == 0
    assert capsys.readouterr().err == ""


def test_processing_another_visit_by_itself_leaves_the_results_valid(settings, image, finished):
    alone = Run(settings, SimpleNamespace(), "now", [image("3")])
    assert visits.record(alone) == 0
    status = json.loads(status_file(settings.output_dir, "01").read_text())
    assert status["Status"] == "done"
    alone = Run(settings, SimpleNamespace(), "now", [replace(finished[0], visits=())])
    assert visits.record(alone) == 0
    assert json.loads(status_file(settings.output_dir, "01").read_text())["Status"] == "failed"
