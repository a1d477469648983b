"""Visits that are added later: the finished ones stay as they are, and speak to the new ones."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import contents, write_dataset, write_nifti

from bids_inpaint.dataset.courses import read_course
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.people import pictures_of
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io.transforms import read_xfm

#: Of the finished visits; that which is found later is older than both, and another follows on them. There,
#: the first lesion has resolved, and the last one is new.
FINISHED, OLDER, NEWER = ("1", "2"), "0", "3"
LATER = ((26.0, -8.0, 34.0), 5.0)
PAINTED = {"0": LESIONS[:3], "1": LESIONS[:3], "2": LESIONS[:3], "3": (*LESIONS[1:3], LATER)}
TIMES = "".join(f"ses-{s}\t19{10 + int(s)}-05-01T10:00:00\n" for s in PAINTED)


def image_of(session: str) -> Image:
    name = f"sub-01_ses-{session}"
    return Image(f"sub-01/ses-{session}/anat/{name}_T1w.nii.gz", "", {"sub": "01", "ses": session})


def run(root: Path, *options: str, out: str = "out") -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / out), "participant",
            "-w", str(root / "work"), "--sloppy", "--nprocs", "2", "--skip-bids-validation",
            "--segmentation", "none", *options,
        ],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def scan(root: Path, session: str) -> None:
    number = int(session)
    grid = tilted((150, 180, 150), (1.25, 1.25, 1.25), degrees=(3, 4, -7, -2)[number])
    data, mask = acquire(grid, PAINTED[session], seed=number)
    write_nifti(root / "bids" / image_of(session).path, data, grid.matrix)
    np.save(root / f"painted{session}.npy", mask)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A person with two finished visits, whose work folder is gone."""
    root = tmp_path_factory.mktemp("added")
    bids = write_dataset(root / "bids")
    for session in FINISHED:
        scan(root, session)
    (bids / "sub-01/sub-01_sessions.tsv").write_text(f"session_id\tacq_time\n{TIMES}")
    done = run(root, "--longitudinal")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root / "work")
    shutil.copytree(root / "out", root / "before")
    return root


@pytest.fixture(scope="module")
def added(root) -> subprocess.CompletedProcess:
    """Two visits that are added at once."""
    for session in (OLDER, NEWER):
        scan(root, session)
    done = run(root, "--longitudinal")
    assert done.returncode == 0, done.stderr
    return done


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file that runs write for good, but for reports and logs."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.glob("sub-*/**/*")
        if path.is_file() and path.suffix != ".html"
    }


def of_person(root: Path, suffix: str) -> Path:
    return root / "out/sub-01/anat" / f"sub-01_{suffix}"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sub-01/anat/sub-01_desc-lesionchange_dseg.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def standard(root: Path, session: str, suffix: str) -> np.ndarray:
    image = image_of(session)
    path = root / "out" / image.folder / f"{image.prefix}_space-{DEFAULT}_res-1_{suffix}.nii.gz"
    return np.asanyarray(nib.load(path).dataobj)


def sidecar(root: Path, session: str) -> dict:
    image = image_of(session)
    return json.loads((root / "out" / image.folder / f"{image.prefix}_desc-inpainted_T1w.json").read_text())


def test_what_is_finished_stays_to_the_byte_and_is_not_run_again(root, added):
    before, after = state(root / "before"), state(root / "out")
    # the pictures of the person's report outline the lesions of all visits
    remade = {name for s in FINISHED for name in pictures_of("01", image_of(s).prefix).values()}
    remade |= {f"sub-01/anat/sub-01_desc-lesionchange_dseg.{kind}" for kind in ("tsv", "json", "nii.gz")}
    space = f"sub-01/anat/sub-01_space-{DEFAULT}_res-1_desc-lesionchange_dseg"
    remade |= {f"{space}.{kind}" for kind in ("json", "nii.gz")}
    remade |= {"sub-01/anat/sub-01_desc-longitudinal_T1w.json", "sub-01/log/sub-01_longitudinal_status.json"}
    assert before.keys() <= after.keys()
    assert {name for name in before if before[name] != after[name]} <= remade
    template = "sub-01/anat/sub-01_desc-longitudinal_T1w.nii.gz"
    assert before[template] == after[template]
    for session in FINISHED:
        assert f"sub_01_ses_{session}_wf" not in added.stderr
        assert not list((root / "work").rglob(f"*ses_{session}_wf"))
    assert "sub-01_ses-0, sub-01_ses-3 are added to the finished visits sub-01_ses-1, sub-01_ses-2" in (
        added.stderr
    )
    assert "4 of 4 images done" in added.stderr


def test_the_table_has_more_columns_by_time_and_lesions_keep_their_numbers(root, added):
    old, new = rows(root / "before"), rows(root / "out")
    columns = [name for name in new[0] if name.startswith("volume_")]
    assert columns == [f"volume_ses-{session}" for session in "0123"]
    kept = [row for row in new if float(row["volume_ses-1"]) > 0]
    assert [row["index"] for row in kept] == [row["index"] for row in old]
    for row, before in zip(kept, old, strict=True):
        for name in ("volume_ses-1", "volume_ses-2", "change_ses-2"):
            assert row[name] == before[name]
        assert row["change_ses-1"] == "stable"
    (appeared,) = [row for row in new if float(row["volume_ses-1"]) == 0]
    assert (appeared["change"], appeared["change_ses-3"]) == ("new", "new")
    assert int(appeared["index"]) > len(old)
    assert np.linalg.norm([float(appeared[axis]) for axis in "xyz"] - np.array(LATER[0])) < 4
    (gone,) = [row for row in kept if row["change"] == "resolved"]
    assert np.linalg.norm([float(gone[axis]) for axis in "xyz"] - np.array(LESIONS[0][0])) < 4


def test_a_visit_that_is_added_is_in_the_space_of_the_template(root, added):
    common = read_xfm(of_person(root, f"from-template_to-{DEFAULT}_mode-image_xfm.txt"))
    brain = standard(root, "1", "desc-brain_mask") > 0
    for session in (OLDER, NEWER):
        rigid = read_xfm(of_person(root, f"from-ses{session}_to-template_mode-image_xfm.txt"))
        np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-5)
        image = image_of(session)
        own = read_xfm(
            root / "out" / image.folder / f"{image.prefix}_from-T1w_to-{DEFAULT}_mode-image_xfm.txt"
        )
        np.testing.assert_allclose(own, rigid @ common, atol=1e-3)
        assert (standard(root, session, "desc-brain_mask") > 0)[brain].mean() > 0.999
        levels = [
            np.median(standard(root, one, "desc-preproc_T1w")[standard(root, one, "label-L_probseg") < 0.01])
            for one in ("1", session)
        ]
        assert levels[1] == pytest.approx(levels[0], rel=0.02)


def test_its_lesions_are_found_and_filled_as_those_that_are_finished(root, added):
    finished = np.mean([standard(root, s, "desc-inpainted_T1w") for s in FINISHED], axis=0)
    masks = {s: standard(root, s, "label-L_desc-inpaint_mask") > 0 for s in "0123"}
    assert (masks["1"] == masks["2"]).mean() > 0.9999
    for session in (OLDER, NEWER):
        both = masks["1"] & masks["2"] & masks[session]
        assert both.any()
        np.testing.assert_allclose(
            standard(root, session, "desc-inpainted_T1w")[both], finished[both], rtol=1e-5
        )
        image = image_of(session)
        stem = root / "out" / image.folder / image.prefix
        native = np.asanyarray(nib.load(f"{stem}_label-L_desc-inpaint_mask.nii.gz").dataobj) > 0
        painted = np.load(root / f"painted{session}.npy")
        assert dice(native, painted) > 0.5
        raw, filled = (
            np.asanyarray(nib.load(path).dataobj).astype(float)
            for path in (root / "bids" / image.path, f"{stem}_desc-inpainted_T1w.nii.gz")
        )
        assert (filled - raw)[painted].mean() > 80


def test_sidecars_and_the_report_say_which_visits_were_added(root, added):
    names = [f"sub-01_ses-{session}" for session in "0123"]
    for session in (OLDER, NEWER):
        own = sidecar(root, session)
        assert own["Visits"] == names
        assert own["AddedTo"] == names[1:3]
        assert own["QualityWarnings"] == []
    assert sidecar(root, "1")["Visits"] == names[1:3]
    assert "AddedTo" not in sidecar(root, "1")
    template = json.loads(of_person(root, "desc-longitudinal_T1w.json").read_text())
    assert template["Visits"] == names
    assert template["AddedVisits"] == [[names[0], names[3]]]
    assert [Path(source).name for source in template["Sources"]] == [f"{n}_T1w.nii.gz" for n in names[1:3]]
    assert template["Years"] == pytest.approx([0, 1, 2, 3], abs=0.01)
    assert min(template["LikenessToTemplate"].values()) > 0.9
    page = (root / "out/sub-01_desc-longitudinal_T1w.html").read_text()
    assert "ses-0, ses-3 were added to finished visits." in page
    assert '<div class="verdict good">' in page
    assert "added to others of the person" in (root / "out/sub-01.html").read_text()


def test_a_rerun_changes_nothing(root, added):
    before = contents(root / "out")
    again = run(root, "--longitudinal")
    assert again.returncode == 0, again.stderr
    assert contents(root / "out") == before


def test_finished_visits_stay_if_the_run_leaves_some_out(root, added):
    before = state(root / "out")
    none = run(root, "--longitudinal", "--session-label", "1", "2")
    assert none.returncode == 0, none.stderr
    assert "which this run leaves out sub-01_ses-0, sub-01_ses-3" in none.stderr
    assert "sub-01_ses-1, sub-01_ses-2 stay as they are" in none.stderr
    assert "2 of 2 images done" in none.stderr
    shutil.copytree(root / "bids/sub-01/ses-3", root / "bids/sub-01/ses-4")
    anat = root / "bids/sub-01/ses-4/anat"
    (anat / "sub-01_ses-3_T1w.nii.gz").rename(anat / "sub-01_ses-4_T1w.nii.gz")
    try:
        # alone, nothing is left to be done
        for sessions, code in ((("1", "4"), 1), (("4",), 2)):
            done = run(root, "--longitudinal", "--session-label", *sessions)
            assert done.returncode == code, done.stderr
            assert "sub-01_ses-4 can't be added to the longitudinal results of sub-01" in done.stderr
            assert "run all sessions of sub-01" in done.stderr
    finally:
        shutil.rmtree(root / "bids/sub-01/ses-4")
    after = state(root / "out")
    assert {n: v for n, v in after.items() if n in before} == before
    assert not [name for name in after if name not in before and "/log/" not in name]


def test_the_group_has_all_visits(root, added):
    out = root / "out"
    done = subprocess.run(
        [sys.executable, "-m", "bids_inpaint", root / "bids", out, "group", "-w", root / "work-group"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (out / "group_desc-longitudinal.tsv").open() as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [row["session_id"] for row in table] == ["ses-0", "ses-1", "ses-2", "ses-3"]
    course = read_course(out, "01")
    assert course is not None
    assert [float(row["lesion_volume"]) for row in table] == pytest.approx(
        [volume / 1000 for volume in course.volumes], rel=1e-4
    )
