"""What a run says about itself: what is done, what failed, what is of an earlier run, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import contents, write_dataset, write_finished, write_nifti
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import (
    EVERYTHING,
    PARTS,
    Products,
    expected,
    status_file,
)
from bids_inpaint.dataset.scan import Refused
from bids_inpaint.dataset.sidecars import given_files, provenance
from bids_inpaint.dataset.status import last_run, saved_file, write_status
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.demo import LESIONS, acquire
from bids_inpaint.errors import InputError
from bids_inpaint.imaging import feathering, lesion_table, lesions, quality
from bids_inpaint.interfaces import derivatives
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.lesions import MapLesions
from bids_inpaint.interfaces.native import BackToNative, write_table
from bids_inpaint.io import files, images
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant import outcomes, run
from bids_inpaint.participant.ending import finish
from bids_inpaint.participant.outcomes import Run
from bids_inpaint.participant.progress import Progress
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid

NOTHING = np.zeros(WORKING_GRID.shape, bool)
SESSIONS = ("a", "b", "c")


def status_of(out: Path, prefix: str) -> dict:
    return json.loads((out / prefix.split("_")[0] / "log" / f"{prefix}_status.json").read_text())


def arguments(root: Path, *options: str) -> list[str]:
    return [
        str(root / "bids"), str(root / "out"), "participant", "-w", str(root / "work"),
        "--nprocs", "1", "--skip-bids-validation", *options,
    ]  # fmt: skip


@pytest.fixture
def small(tmp_path) -> Path:
    """Three images of one participant, each too small for a head: every run on them fails."""
    names = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz" for s in SESSIONS]
    write_dataset(tmp_path / "bids", *names, data=np.ones((9, 9, 9), np.int16))
    return tmp_path


def image_of(session: str) -> Image:
    return Image("", "", {"sub": "01", "ses": session})


def finish_before(root: Path, *sessions: str) -> None:
    """Whole results of an earlier run, as 0.1.0 left them."""
    ones = np.ones(WORKING_GRID.shape, np.uint8)
    for session in sessions:
        write_finished(root / "out", image_of(session), NOTHING, tissues={"inpainted": ones})


def test_files_of_an_earlier_run_do_not_make_a_failed_image_done(small, capsys):
    finish_before(small, "a")
    before = contents(small / "out")
    assert cli.main(arguments(small)) == 1
    told = capsys.readouterr().err
    assert "0 of 3 images done" in told
    assert "sub-01_ses-a failed; its files in the output folder are of an earlier run" in told
    assert "sub-01_ses-b failed; its files" not in told
    page = (small / "out/sub-01.html").read_text()
    assert "sub-01_ses-a failed; its files in the output folder are of an earlier run" in page
    assert "No errors to report" not in page
    for session in SESSIONS:
        status = status_of(small / "out", f"sub-01_ses-{session}")
        assert status["Status"] == "failed"
        assert status["Failed"] == ["inpainted"]
        assert "covers only 36×36×36 mm" in status["Error"]
        assert f"ses-{session}_T1w.nii.gz" in status["Error"]
        assert status.get("EarlierResults", False) is (session == "a")
    # they stay as they are
    assert {name: data for name, data in contents(small / "out").items() if name in before} == before
    # and the report says so as well when it is written again
    assert cli.main(arguments(small, "--reports-only")) == 1
    assert "0 of 3 images done" in capsys.readouterr().err
    assert "are of an earlier run" in (small / "out/sub-01.html").read_text()


def test_images_that_a_crash_kept_from_being_run_say_so(small, capsys, monkeypatch):
    monkeypatch.setattr(run, "BATCH", 1)
    assert cli.main(arguments(small, "--stop-on-first-crash")) == 1
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert "sub-01_ses-b, sub-01_ses-c failed: not run: an earlier image failed" in told
    assert "covers only" in status_of(small / "out", "sub-01_ses-a")["Error"]
    for session in "bc":
        status = status_of(small / "out", f"sub-01_ses-{session}")
        assert (status["Status"], status["Error"]) == ("failed", "not run: an earlier image failed")
    page = (small / "out/sub-01.html").read_text()
    assert "sub-01_ses-c failed. Reason: not run: an earlier image failed" in page


def test_a_scheduler_that_gives_up_fails_every_image(small, capsys, monkeypatch):
    """Without a crash file or a word from the plugin, and with whole files of an earlier run."""
    finish_before(small, *SESSIONS)
    monkeypatch.setattr(run, "_execute", lambda *_: RuntimeError("the queue is closed"))
    assert cli.main(arguments(small)) == 1
    told = capsys.readouterr().err
    assert "0 of 3 images done" in told
    assert told.count("error: RuntimeError: the queue is closed") == 1
    assert status_of(small / "out", "sub-01_ses-b")["Error"].endswith("the queue is closed")
    # a plugin that ends well and has run nothing does not make them done either
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert cli.main(arguments(small)) == 1
    assert "0 of 3 images done" in capsys.readouterr().err


def test_results_that_a_run_was_not_asked_for_are_named(small, capsys):
    """They stand in the report beside what the run made."""
    finish_before(small, "a")
    flair = small / "out/sub-01/ses-b/anat/sub-01_ses-b_desc-synth_FLAIR.nii.gz"
    flair.parent.mkdir(parents=True, exist_ok=True)
    flair.touch()
    assert cli.main(arguments(small)) == 1
    told = capsys.readouterr().err
    assert "note: sub-01_ses-b: files of an earlier run, which this one was not asked for, are still" in told
    assert "sub-01_ses-b: files of an earlier run, which" in (small / "out/sub-01.html").read_text()
    assert "EarlierResults" not in status_of(small / "out", "sub-01_ses-b")


def test_results_of_refused_images_are_not_those_of_the_run(small, capsys):
    finish_before(small, *SESSIONS)
    settings = Settings(small / "bids", small / "out", small / "work")
    networks = Networks.of(settings)

    def end(name: str, whole: bool = False) -> set[str]:
        """Images that the status files say failed, once one of this name was refused."""
        refused = Refused(name, "01", "it is a link to nowhere.", whole=whole)
        assert finish(Run(settings, networks, "x", [], [refused]), None, Progress(1), {}) == 1
        return {p.name.removesuffix("_status.json") for p in (small / "out/sub-01/log").glob("*.json")}

    assert end("sub-02", whole=True) == set()
    assert end("sub-01_ses-b") == {"sub-01_ses-b"}
    told = capsys.readouterr().err
    assert "sub-01_ses-b failed: the files in the output folder are of an earlier run" in told
    assert "0 of 1 images done" in told
    status = status_of(small / "out", "sub-01_ses-b")
    assert (status["Status"], status["EarlierResults"]) == ("failed", True)
    assert "sub-01_ses-b: it is a link to nowhere." in (small / "out/sub-01.html").read_text()
    assert end("sub-01", whole=True) == {f"sub-01_ses-{session}" for session in SESSIONS}


def warn(root: Path, session: str, **sidecar) -> None:
    path = root / f"out/sub-01/ses-{session}/anat/sub-01_ses-{session}_desc-inpainted_T1w.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | sidecar))


def made_now(root: Path) -> dict:
    settings = Settings(root / "bids", root / "out", root / "work")
    return provenance(settings, Networks.of(settings))


def test_strict_makes_warnings_count(small, capsys):
    finish_before(small, *SESSIONS)
    for session in SESSIONS:
        warn(small, session, QualityWarnings=["too dark."] if session == "b" else [], **made_now(small))
    assert cli.main(arguments(small, "--reports-only")) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert "3 of 3 images done, 1 with warnings; results in" in last
    assert cli.main(arguments(small, "--reports-only", "--strict")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "bids_inpaint: 1 of 3 images have warnings (--strict)"
    warn(small, "b", QualityWarnings=[])
    assert cli.main(arguments(small, "--reports-only", "--strict")) == 0
    assert "3 of 3 images done; results in" in capsys.readouterr().err.splitlines()[-1]


def test_reports_of_what_another_version_or_other_options_made(small, capsys):
    finish_before(small, *SESSIONS)
    now = made_now(small)
    warn(small, "a", **now)
    warn(small, "b", **now | {"SoftwareVersion": "9.9"})
    warn(small, "c", **now | {"Options": now["Options"] | {"Fill": "full"}})
    assert cli.main(arguments(small, "--reports-only")) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "were made with" in line]
    assert len(told) == 2
    assert "ses-b: These results were made with version 9.9, not" in told[0]
    assert "ses-c: These results were made with Fill full, not lesions" in told[1]
    page = (small / "out/sub-01.html").read_text()
    assert page.count("These results were made with") == 2
    with_mask = replace(image_of("a"), brain_mask="mask.nii")
    settings = Settings(small / "bids", small / "out", small / "work")
    assert outcomes.differences(image_of("a"), settings, now) == []
    assert "GivenFiles unknown, not brain mask" in outcomes.differences(with_mask, settings, now)[0]
    warn(small, "a", Options=now["Options"] | given_files(with_mask))
    assert outcomes.differences(with_mask, settings, now) == []
    assert "GivenFiles brain mask, not the default" in outcomes.differences(image_of("a"), settings, now)[0]
    assert str(small) not in json.dumps(now)


def test_reports_of_interrupted_and_partly_failed_images(small, capsys):
    finish_before(small, *SESSIONS)
    for session in SESSIONS:
        warn(small, session, **made_now(small))
    log = small / "out/sub-01/log"
    log.mkdir()
    (log / "sub-01_ses-a_status.json").write_text('{"Status": "unfinished"}')
    # what failed is not asked for now
    (log / "sub-01_ses-b_status.json").write_text('{"Status": "failed", "Failed": ["reference"]}')
    (log / "sub-01_ses-c_status.json").write_text("[" * 9)
    assert cli.main(arguments(small, "--reports-only")) == 1
    told = capsys.readouterr().err
    assert "2 of 3 images done" in told
    assert "sub-01_ses-a failed: the last run was interrupted" in told


def test_steps_that_fail_in_the_process_of_the_run_do_not_end_well():
    """Nipype says of them that they ended, too."""
    from io import StringIO
    from types import SimpleNamespace

    out = StringIO()
    progress = Progress(1, out)
    progress.expect({"sub_01_wf": 1})
    for status in ("start", "exception", "end"):
        progress(SimpleNamespace(fullname="bids_inpaint_wf.sub_01_wf.outputs_wf.save"), status)
    assert progress.failed == {"sub_01_wf"}
    assert "save failed" in out.getvalue()
    assert "finished" not in out.getvalue()


def test_every_file_belongs_to_one_part():
    image = image_of("a")
    parts = {part: set(expected(image, DEFAULT, EVERYTHING, (part,))) for part in PARTS}
    whole = expected(image, DEFAULT, EVERYTHING)
    assert sorted(name for names in parts.values() for name in names) == whole
    for part, words in (
        ("original", ("desc-original",)),
        ("reference", ("desc-reference",)),
        ("flair", ("joint", "both", "FLAIR")),
    ):
        assert all(any(word in name for word in words) for name in parts[part])
    assert parts["inpainted"] == set(expected(image, DEFAULT))


def save(root: Path, part: str, text: str, run_uuid: str = "x"):
    (root / "in.txt").write_text(text)
    node = SaveDerivatives(
        keys=[part], out_dir=str(root), names={part: f"sub-1/anat/{part}.nii.gz"}, part=part,
        parts=["inpainted", "flair"], run_uuid=run_uuid,
        status_file=str(root / "sub-1/log/sub-1_status.json"),
    )  # fmt: skip
    setattr(node.inputs, part, str(root / "in.txt"))
    return node


def test_results_that_were_not_made_are_no_longer_passed_over(tmp_path, monkeypatch):
    """An earlier run's file would stand for them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("one")
    node = SaveDerivatives(keys=["a", "b"], out_dir=str(tmp_path), names={"a": "a", "b": "b"})
    node.inputs.a = str(tmp_path / "in.txt")
    with pytest.raises(ValueError, match="b was not made"):
        node.run()


def test_an_image_is_unfinished_while_it_is_saved(tmp_path, monkeypatch):
    def status() -> str:
        return status_of(tmp_path, "sub-1")["Status"]

    monkeypatch.chdir(tmp_path)
    save(tmp_path, "flair", "one").run()
    assert status() == "unfinished"
    save(tmp_path, "inpainted", "one").run()
    assert status() == "done"
    assert status_of(tmp_path, "sub-1")["Parts"] == ["inpainted", "flair"]
    # a run that is killed while it replaces a file
    seen = []

    def killed(*_):
        seen.append(status())
        raise KeyboardInterrupt

    monkeypatch.setattr(derivatives, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "inpainted", "two", "y").run()
    assert seen == ["unfinished"]
    assert status() == "unfinished"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    # what an earlier run saved does not count
    save(tmp_path, "inpainted", "two", "z").run()
    assert status() == "unfinished"
    save(tmp_path, "flair", "two", "z").run()
    assert (status(), status_of(tmp_path, "sub-1")["RunUUID"]) == ("done", "z")


def test_two_runs_that_save_an_image_at_the_same_time_fail(tmp_path, monkeypatch):
    """Whatever the order, no mixture of both passes for the results of one run."""

    def status() -> tuple:
        content = status_of(tmp_path, "sub-1")
        return content["Status"], content["RunUUID"], content.get("Failed")

    def content() -> list[str]:
        return [(tmp_path / f"sub-1/anat/{part}.nii.gz").read_text() for part in ("inpainted", "flair")]

    both, image = ["inpainted", "flair"], Image("", "", {"sub": "1"})
    monkeypatch.chdir(tmp_path)
    save(tmp_path, "inpainted", "of a", "a").run()
    save(tmp_path, "inpainted", "of b", "b").run()
    save(tmp_path, "flair", "of b", "b").run()
    assert (status(), content()) == (("done", "b", None), ["of b", "of b"])
    with pytest.raises(InputError, match="has results of sub-1 that two runs wrote at the same time"):
        save(tmp_path, "flair", "of a", "a").run()
    assert (status(), content()) == (("failed", "a", both), ["of b", "of b"])
    assert "two runs wrote at the same time" in last_run(image, tmp_path)[0]
    # a later run is kept away by nothing, and stands for itself
    for part in both:
        save(tmp_path, part, "of c", "c").run()
    assert (status(), content()) == (("done", "c", None), ["of c", "of c"])
    assert last_run(image, tmp_path)[0] == ""

    # one begins while the other one writes
    written = files.publish

    def write(source, target):
        written(source, target)
        monkeypatch.setattr(derivatives, "publish", written)
        other = save(tmp_path, "inpainted", "of e", "e")
        other.run()
        assert status() == ("unfinished", "e", None)

    monkeypatch.setattr(derivatives, "publish", write)
    with pytest.raises(InputError, match="at the same time"):
        save(tmp_path, "inpainted", "of d", "d").run()
    assert status() == ("failed", "d", both)
    with pytest.raises(InputError, match="at the same time"):
        save(tmp_path, "flair", "of e", "e").run()
    assert status() == ("failed", "e", both)


@pytest.mark.parametrize(("owner", "failed"), [("x", ("flair",)), ("y", ("inpainted", "flair"))])
def test_what_a_run_has_saved_does_not_count_once_another_one_has_begun(small, owner, failed):
    image, products = image_of("a"), Products(("inpainted",), flair=True)
    finish_before(small, "a")
    settings = Settings(small / "bids", small / "out", small / "work")
    status = status_file(small / "out", image)
    files.write_text(saved_file(status, "x", "inpainted"), "")
    write_status(status, owner, "unfinished")
    found = outcomes.judge(image, settings, products, "x", [], Progress(1), "", outcomes.Before())
    assert found.failed == failed


def test_the_smallest_lesion_holds_on_the_voxels_of_the_t1w(tmp_path, monkeypatch):
    """Of two lesions, of 27 and 8 mm³."""
    corner = np.eye(4)
    corner[:3, 3] = 60, 80, 60
    own = Grid.of((40, 40, 40), WORKING_GRID.matrix @ corner)
    box = np.s_[60:100, 80:120, 60:100]
    inside = np.zeros(WORKING_GRID.shape, np.float32)
    inside[box] = 1
    mask = NOTHING.copy()
    mask[70:73, 90:93, 70:73] = True
    mask[85:87, 105:107, 85:87] = True
    preproc = 100 * inside - 30 * mask
    (tmp_path / "in").mkdir()
    t1w = images.save(tmp_path / "in/t1w.nii.gz", preproc[box], own, np.int16)
    brain = images.save(tmp_path / "in/brain.nii.gz", np.ones(own.shape, np.uint8), own)
    identity = tmp_path / "xfm.txt"
    ITKLinearTransform.from_ras(np.eye(4)).to_filename(identity)
    volumes = {
        "preproc": preproc, "inpainted": 100 * inside, "bias": np.ones(WORKING_GRID.shape, np.float32),
        "weight": feathering.feather(mask, WORKING_GRID), "probability": mask.astype(np.float32),
        "lesion_mask": mask.astype(np.uint8), "darkening": 0.3 * mask,
    }  # fmt: skip
    files = {
        name: images.save(tmp_path / f"in/{name}.nii.gz", data, WORKING_GRID)
        for name, data in volumes.items()
    }

    def work(folder: str, **options):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        return BackToNative(
            t1w=t1w, brain_mask=brain, denoised=t1w, scale=1.0, inverse_xfm=str(identity), **files, **options
        ).run().outputs  # fmt: skip

    found = work("found", min_volume=10.0)
    rows = Path(found.table).read_text().splitlines()[1:]
    assert [row.split("\t")[2] for row in rows] == ["27.00"]
    assert images.read(found.lesion_mask)[0].sum() == 27
    assert images.read(found.labels)[0].max() == 1
    filled = images.read(found.inpainted)[0]
    assert (filled[10:13, 10:13, 10:13] == 100).all()
    # what is in no map isn't filled either
    assert (filled[25:27, 25:27, 25:27] == 70).all()
    # given lesions are kept
    assert images.read(work("given").lesion_mask)[0].sum() == 35


def test_rounded_affines_drop_no_lesion():
    matrix = np.diag([0.999999, 1, 1, 1.0])
    assert lesions.least_voxels(10, Grid.of((9, 9, 9), matrix)) == 10
    assert lesions.least_voxels(10, Grid.of((9, 9, 9), np.diag([0.9, 0.9, 0.9, 1]))) == 14


def test_the_table_has_the_contrast_of_the_threshold(tmp_path, monkeypatch):
    """Of a flat image a lesion that passes the threshold has more contrast than that in the table."""
    monkeypatch.chdir(tmp_path)
    white = np.zeros(WORKING_GRID.shape, np.float32)
    white[60:120, 80:140, 60:120] = 1
    lesion = NOTHING.copy()
    lesion[80:90, 100:110, 80:90] = True
    volumes = {"preproc": 200 * white - 10 * lesion, "inpainted": 200 * white, "wm": white, "wm_prior": white}
    files = {
        name: images.save(tmp_path / f"{name}.nii.gz", data, WORKING_GRID) for name, data in volumes.items()
    }
    found = (
        MapLesions(
            white=200.0, exponent=3.0, lesion_map="difference", threshold=0.1, min_volume=10.0, **files
        )
        .run()
        .outputs
    )
    mask = images.read(found.mask)[0] > 0
    assert mask[84, 104, 84]
    # 0.95 ** 3, where the image itself is darker by 0.05 alone
    assert images.read(found.darkening)[0][84, 104, 84] == pytest.approx(1 - 0.95**3, abs=0.002)


def test_the_largest_lesion_is_measured_in_the_persons_own_head():
    rng = np.random.default_rng(0)
    image = np.full(WORKING_GRID.shape, 100.0)
    image += rng.normal(size=image.shape)
    half = NOTHING.copy()
    half[:91] = True
    everywhere = ~NOTHING
    lesion = NOTHING.copy()
    lesion[50:70, 50:70, 50:70] = True
    measures = quality.measure(
        image, everywhere, image, everywhere, half.astype(float), (~half).astype(float),
        np.diag([0.5, 1, 1.5, 1]), lesion,
    )  # fmt: skip
    assert measures["LargestLesion"] == pytest.approx(8 * 0.75)


def test_the_report_says_of_which_space_its_volumes_are(small, capsys):
    finish_before(small, *SESSIONS)
    table = small / "out/sub-01/ses-a/anat/sub-01_ses-a_desc-lesions_dseg.tsv"
    write_table(str(table), [lesion_table.Lesion(1, 1234.0, (1.0, 2.0, 3.0), 0.2)])
    assert cli.main(arguments(small, "--reports-only")) == 0
    text = (small / "out/sub-01.html").read_text()
    assert '<td class="number">1.23</td>' in text
    assert "on the voxels of the T1w image" in text
    assert "0.0 to 1.9 ml in young adults and up to 0.9 ml in older ones" in text


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A thick T1w of the template with lesions."""
    root = tmp_path_factory.mktemp("outcomes")
    write_dataset(root / "bids")
    affine = np.array([[-1, 0, 0, 90], [0, -1, 0, 90], [0, 0, 3, -72], [0, 0, 0, 1.0]])
    data, mask = acquire(Grid.of((182, 218, 60), affine), LESIONS)
    write_nifti(root / "bids/sub-01/anat/sub-01_T1w.nii.gz", data, affine)
    write_dataset(root / "masks")
    write_mask(root, mask)
    # far from the brain
    write_mask(root, np.pad(np.ones((2, 2, 2), np.uint8), [(0, s - 2) for s in mask.shape]))
    np.save(root / "painted.npy", mask)
    return root


def write_mask(root: Path, mask: np.ndarray) -> None:
    affine = images.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz").affine
    write_nifti(root / "masks/sub-01/anat/sub-01_label-lesion_mask.nii.gz", mask.astype(np.uint8), affine)


def whole_run(root: Path, model: Path) -> subprocess.CompletedProcess:
    options = [
        "--lesion-masks",
        str(root / "masks"),
        "--model",
        str(model),
        "--second-pass",
        "none",
        "--sloppy",
    ]
    return subprocess.run(
        [sys.executable, "-m", "bids_inpaint", *arguments(root, *options, "--sloppy")],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def test_a_later_part_that_fails_takes_nothing_away(head, toy_model):
    """A mask that can't be used, then one that can, then a T1w that can't."""
    out = head / "out"
    first = whole_run(head, toy_model)
    assert first.returncode == 1, first.stderr
    assert "0 of 1 images done" in first.stderr
    assert "sub-01 failed in part (reference); the rest is done." in first.stderr
    status = status_of(out, "sub-01")
    assert (status["Status"], status["Failed"]) == ("failed", ["reference"])
    assert status["Parts"] == ["inpainted"]
    assert "EarlierResults" not in status
    image = Image("", "", {"sub": "01"})
    products = Products(("inpainted", "reference"), reference=True)
    core = set(expected(image, DEFAULT, products, ("inpainted",)))
    found = {
        str(p.relative_to(out)) for p in (out / "sub-01").rglob("*") if "log" not in p.parts and p.is_file()
    }
    assert found == core
    page = (out / "sub-01.html").read_text()
    assert "failed in part (reference); the rest is done" in page
    assert "desc-inpainted_T1w.png" in page
    blind = contents(out)

    write_mask(head, np.load(head / "painted.npy"))
    second = whole_run(head, toy_model)
    assert second.returncode == 0, second.stderr
    assert "1 of 1 images done" in second.stderr
    status = status_of(out, "sub-01")
    assert (status["Status"], status["Parts"]) == ("done", ["inpainted", "reference"])
    assert not list((out / "sub-01/log").glob("*/*.saved"))
    good = contents(out)
    assert {name for name in good if name.startswith("sub-01")} == set(expected(image, DEFAULT, products))
    assert {name: data for name, data in good.items() if name in blind and "sub-01" in name} == {
        name: data for name, data in blind.items() if "sub-01" in name
    }

    t1w = head / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    t1w.write_bytes(t1w.read_bytes()[:50_000])
    third = whole_run(head, toy_model)
    assert third.returncode == 1
    assert "0 of 1 images done" in third.stderr
    assert "sub-01 failed; its files in the output folder are of an earlier run." in third.stderr
    status = status_of(out, "sub-01")
    assert (status["Status"], status["EarlierResults"]) == ("failed", True)
    assert (status["Failed"], status["Parts"]) == (["inpainted", "reference"], [])
    assert "truncated or corrupt" in status["Error"]
    assert contents(out) == good
    assert "are of an earlier run" in (out / "sub-01.html").read_text()
