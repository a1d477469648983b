"""Runs on more images than one graph, or one process's open files, may hold; and what is refused before."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_dataset

from bids_inpaint import cli
from bids_inpaint.dataset import validation
from bids_inpaint.dataset.image import Image
from bids_inpaint.participant import crashes, outcomes, run
from bids_inpaint.participant.locks import claim
from bids_inpaint.participant.progress import tell

NAMES = [f"sub-{label}/ses-{session}" for label in ("01", "02") for session in ("a", "b", "c")]


@pytest.fixture
def small(tmp_path) -> Path:
    """Six images of two participants, each too small for a head."""
    names = [f"{name}/anat/{name.replace('/', '_')}_T1w.nii.gz" for name in NAMES]
    write_dataset(tmp_path / "bids", *names, data=np.ones((9, 9, 9), np.int16))
    return tmp_path


def test_reports_show_names_and_run_none_of_them(small, capsys):
    root = small / "it's <img src=x onerror=alert(1)> {0}"
    root.mkdir()
    (small / "bids").rename(root / "bids")
    refused(root, capsys)
    pages = [path.read_text() for path in (root / "out").glob("*.html")]
    assert len(pages) == 2
    for page in pages:
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "<img src=x" not in page
        assert page.count("covers only 36×36×36 mm") > 2
        # the methods are there
        assert "Each T1-weighted (T1w) image was preprocessed" in page


def refused(root: Path, capsys, *options: str) -> list[str]:
    arguments = [str(root / "bids"), str(root / "out"), "participant", "-w", str(root / "work"), *options]
    assert cli.main([*arguments, "--nprocs", "1", "--skip-bids-validation"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    return [line for line in lines if "error:" in line]


def test_each_image_is_told_of_once_however_many_fit_a_graph(small, capsys, monkeypatch):
    monkeypatch.setattr(run, "BATCH", 2)
    told = refused(small, capsys)
    assert [sum(f"{name.replace('/', '_')}_T1w" in line for line in told) for name in NAMES] == [1] * 6
    assert (small / "out/sub-01.html").exists()


def test_no_image_is_begun_after_a_crash_that_ends_the_run(small, capsys, monkeypatch):
    monkeypatch.setattr(run, "BATCH", 2)
    assert 1 <= len(refused(small, capsys, "--stop-on-first-crash")) <= 2


def test_more_images_than_files_may_be_open(tmp_path):
    images = [Image("", "", {"sub": f"{i:04}"}) for i in range(300)]
    settings = SimpleNamespace(work_dir=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with ExitStack() as held:
            claim(images, settings, held)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_names_that_leave_no_room_for_those_of_the_outputs(tmp_path, capsys):
    label = "a" * 180
    write_dataset(tmp_path / "bids", f"sub-{label}/anat/sub-{label}_T1w.nii.gz")
    arguments = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
    assert cli.main([*arguments, "--skip-bids-validation"]) == 2
    told = capsys.readouterr().err
    assert "has so long a name" in told
    assert not list((tmp_path / "out").glob("sub-*"))


@pytest.mark.parametrize("longest", [0, -1])
def test_file_systems_that_do_not_know_how_long_names_may_be(small, capsys, monkeypatch, longest):
    monkeypatch.setattr(os, "pathconf", lambda *_: longest)
    assert len(refused(small, capsys)) == 6


def test_what_others_wrote_is_no_escape_sequence(tmp_path, capsys):
    """Neither the text of a crash file nor a warning in a sidecar of results."""
    image, settings = Image("", "", {"sub": "01"}), SimpleNamespace(output_dir=tmp_path, work_dir=tmp_path)

    def tell_crashes() -> str:
        for crash in crashes.read_crashes("01", settings, "x"):
            tell(f"error: {crash.sentence}")
        return capsys.readouterr().err

    crash = tmp_path / "sub-01/log/x/crash.txt"
    crash.parent.mkdir(parents=True)
    crash.write_text("Node: a.b\nRuntimeError: in \x1b[2J node\n")
    assert "RuntimeError: in \\x1b[2J node" in tell_crashes()
    sidecar = tmp_path / "sub-01/anat/sub-01_desc-inpainted_T1w.json"
    sidecar.parent.mkdir()
    for content, warnings in (
        ("[]", []), ("[" * 100_000, []), ('{"QualityWarnings": 5}', []),
        ('{"QualityWarnings": ["x"]}', ["x"]),
    ):  # fmt: skip
        sidecar.write_text(content)
        assert outcomes.warnings_of(image, settings, ("inpainted",)) == warnings
    crash.write_text("")
    assert tell_crashes().count("error: ") == 1


def test_links_in_circles_are_found(tmp_path):
    beside = tmp_path / "beside"
    (beside / "anat").mkdir(parents=True)
    root = tmp_path / "bids"
    (root / "sub-01/anat").mkdir(parents=True)
    (root / "sub-02").symlink_to(beside)
    (root / "sub-03").symlink_to(beside)
    (root / "sub-01/anat/nowhere").symlink_to("nowhere")
    (root / "sub-01/anat/itself").symlink_to("itself")
    (root / ".hidden").symlink_to(root)
    assert validation.circle(root) is None
    # back by two links, each harmless without the other
    (beside / "anat/other").symlink_to(root / "sub-01")
    assert validation.circle(root) is None
    (root / "sub-01/anat/over").symlink_to(beside)
    assert validation.circle(root) is not None
    (root / "sub-01/anat/over").unlink()
    (root / "/".join("a" * 150)).mkdir(parents=True)
    assert validation.circle(root) is not None


def test_validation_ends_before_links_in_circles(small, capsys, caplog):
    if not Path(sys.executable).with_name("bids-validator-deno").exists():
        pytest.skip("bids-validator-deno is not installed")
    for name, target in (("a", "."), ("b", ".."), ("c", "../../..")):
        (small / "bids/sub-01/ses-a/anat" / name).symlink_to(target)
    arguments = [str(small / "bids"), str(small / "out"), "participant", "-w", str(small / "work")]
    assert cli.main([*arguments, "--boilerplate-only"]) == 0
    assert "sub-01/ses-a/anat/a is a link that leads back to itself" in caplog.text
