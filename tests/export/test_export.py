"""The export level: a raw dataset in which each T1w is the inpainted one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import write_dataset

from bids_inpaint import cli
from bids_inpaint.dataset.status import write_status
from bids_inpaint.export.contents import keep_rows

T1W = {
    "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz": 1,
    "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-2_T1w.nii.gz": 2,
    "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz": 3,
    "sub-02/anat/sub-02_T1w.nii": 4,
    "sub-03/anat/sub-03_T1w.nii.gz": 5,
}
SHAPE = (20, 20, 20)
AFFINE = np.diag([9.0, 9, 9, 1])


def image(path: Path, value: int, shape=SHAPE, zooms=None) -> Path:
    data = np.full(shape, value, np.int16)
    data[3:9, 3:9, 3:9] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    new = nib.Nifti1Image(data, AFFINE)
    if zooms:
        new.header.set_zooms(zooms)
    new.header.set_xyzt_units("mm", "sec")
    new.to_filename(path)
    return path


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def finish(out: Path, relative: str, warnings=(), status="done") -> None:
    """What the participant level leaves of an image: it adds 1000 to the T1w, and has one lesion."""
    t1w = nib.load(out.parent / "bids" / relative)
    folder = out / Path(relative).parent
    folder.mkdir(parents=True, exist_ok=True)
    prefix = Path(relative).name.split("_T1w")[0]
    stem = f"{folder}/{prefix}_"
    nib.Nifti1Image((np.asarray(t1w.dataobj) + 1000).astype(np.int16), t1w.affine).to_filename(
        f"{stem}desc-inpainted_T1w.nii.gz"
    )
    lesions = np.zeros(t1w.shape, np.uint8)
    lesions[4:6, 4, 4] = 1
    nib.Nifti1Image(lesions, t1w.affine).to_filename(f"{stem}label-L_desc-inpaint_mask.nii.gz")
    said = {"SoftwareVersion": "0.2.0", "Model": "blind-unet", "QualityWarnings": list(warnings)}
    write(Path(f"{stem}desc-inpainted_T1w.json"), said)
    Path(f"{stem}desc-lesions_dseg.tsv").write_text(
        "index\tname\tvolume\tx\ty\tz\tcontrast\n1\tlesion 1\t1458.00\t0\t0\t0\t0.2\n"
    )
    subject = relative.split("/")[0]
    write_status(out / subject / "log" / f"{prefix}_status.json", "u", status, Parts=["inpainted"])


@pytest.fixture
def data(tmp_path) -> Path:
    """A dataset with sessions, runs, func, dwi, fmap, FLAIR, tables and what it takes to be valid."""
    bids = write_dataset(tmp_path / "bids")
    write(
        bids / "dataset_description.json",
        {
            "Name": "Study",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "DatasetDOI": "doi:10.0/abc",
            "License": "CC0",
            "Authors": ["A", "B"],
        },
    )
    write(bids / "README", "A study of some people whose brains have lesions; this text is long enough. " * 3)
    for relative, value in T1W.items():
        image(bids / relative, value)
    write(bids / "T1w.json", {"Manufacturer": "Any"})
    write(bids / "sub-01/ses-b/anat/sub-01_ses-b_T1w.json", {"EchoTime": 0.003})
    image(bids / "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz", 7)
    bold = "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold"
    image(bids / f"{bold}.nii.gz", 8, (*SHAPE, 3), (9, 9, 9, 2))
    write(bids / "task-rest_bold.json", {"RepetitionTime": 2.0, "TaskName": "rest"})
    write(bids / "sub-01/ses-a/func/sub-01_ses-a_task-rest_events.tsv", "onset\tduration\n0\t1\n")
    dwi = "sub-01/ses-a/dwi/sub-01_ses-a_dwi"
    image(bids / f"{dwi}.nii.gz", 9, (*SHAPE, 2), (9, 9, 9, 2))
    write(bids / f"{dwi}.bval", "0 1000\n")
    write(bids / f"{dwi}.bvec", "0 1\n0 0\n0 0\n")
    fmap = "sub-01/ses-a/fmap/sub-01_ses-a_dir-AP_epi"
    image(bids / f"{fmap}.nii.gz", 10)
    write(
        bids / f"{fmap}.json",
        {
            "PhaseEncodingDirection": "j",
            "TotalReadoutTime": 0.1,
            "IntendedFor": ["ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz", f"bids::{dwi}.nii.gz"],
        },
    )
    write(bids / "participants.tsv", "participant_id\tage\nsub-01\t40\nsub-02\t50\nsub-03\t60\n")
    write(bids / "sub-01/sub-01_sessions.tsv", "session_id\tacq_time\nses-a\tn/a\nses-b\tn/a\n")
    write(
        bids / "sub-01/ses-a/sub-01_ses-a_scans.tsv",
        "filename\tquality\n"
        "anat/sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz\tgood\n"
        "anat/sub-01_ses-a_acq-mprage_run-2_T1w.nii.gz\tgood\n"
        "func/sub-01_ses-a_task-rest_bold.nii.gz\tbad\n",
    )
    write(bids / ".bidsignore", "*.secret\n")
    write(bids / "sub-02/note.secret", "x")
    write(bids / "derivatives/other/dataset_description.json", {"Name": "o", "BIDSVersion": "1.10.0"})
    out = tmp_path / "out"
    write(
        out / "dataset_description.json",
        {"Name": "r", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "bids_inpaint"}]},
    )
    for relative in T1W:
        finish(out, relative)
    return tmp_path


def export(data: Path, *options: str, to: str = "raw") -> int:
    return cli.main(
        [str(data / "bids"), str(data / "out"), "export", "--export-dir", str(data / to), *options]
    )


def files(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith(".bids_inpaint")
    }


def values(path: Path) -> np.ndarray:
    return np.unique(nib.load(path).dataobj)


def errors(root: Path) -> list[dict]:
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed")
    run = subprocess.run(
        [validator, root, "--format", "json", "--ignoreWarnings"], capture_output=True, text=True, check=False
    )
    return [i for i in json.loads(run.stdout)["issues"]["issues"] if i["severity"] == "error"]


@pytest.mark.parametrize("options", [(), ("--unzipped", "--lesion-rois")])
def test_export_is_valid_bids(data, options):
    assert errors(data / "bids") == []
    assert export(data, *options) == 0
    assert errors(data / "raw") == []


def test_each_t1w_is_the_inpainted_one_and_all_else_is_the_original(data):
    assert export(data) == 0
    before, after = files(data / "bids"), files(data / "raw")
    assert set(after) - set(before) == {p.split(".nii")[0] + ".json" for p in T1W} - set(before)
    assert {n for n in set(before) - set(after) if not n.startswith("derivatives/")} == set()
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {*T1W, "dataset_description.json", "sub-01/ses-b/anat/sub-01_ses-b_T1w.json"}
    for relative, value in T1W.items():
        assert values(data / "raw" / relative).tolist() == [value + 1000, value + 1100]


def test_sidecars_keep_what_they_said_and_say_what_was_inpainted(data):
    export(data)
    said = json.loads((data / "raw/sub-01/ses-b/anat/sub-01_ses-b_T1w.json").read_text())
    assert said["EchoTime"] == 0.003
    made = said["Inpainting"]
    assert (made["SoftwareName"], made["SoftwareVersion"], made["Model"]) == (
        "bids_inpaint",
        "0.2.0",
        "blind-unet",
    )
    assert (made["LesionVolume"], made["LesionCount"]) == (1458.0, 1)
    whole = json.loads((data / "raw/dataset_description.json").read_text())
    assert whole["DatasetType"] == "raw"
    assert "DatasetDOI" not in whole
    assert whole["SourceDatasets"] == [{"URL": (data / "bids").as_uri(), "DOI": "doi:10.0/abc"}]
    assert whole["GeneratedBy"][0]["Name"] == "bids_inpaint"


def test_unzipped_images_have_their_names_everywhere(data):
    assert export(data, "--unzipped", "--lesion-rois") == 0
    raw = data / "raw"
    assert not list(raw.rglob("*.nii.gz"))
    assert values(raw / "sub-03/anat/sub-03_T1w.nii").tolist() == [1005, 1105]
    assert values(raw / "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii").tolist() == [8, 108]
    fmap = json.loads((raw / "sub-01/ses-a/fmap/sub-01_ses-a_dir-AP_epi.json").read_text())
    assert fmap["IntendedFor"] == [
        "ses-a/func/sub-01_ses-a_task-rest_bold.nii",
        "bids::sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii",
    ]
    scans = (raw / "sub-01/ses-a/sub-01_ses-a_scans.tsv").read_text()
    assert ".nii.gz" not in scans
    assert "func/sub-01_ses-a_task-rest_bold.nii\tbad\n" in scans
    roi = nib.load(raw / "sub-03/anat/sub-03_T1w_label-lesion_roi.nii")
    assert np.asarray(roi.dataobj).sum() == 2


def test_images_that_are_not_finished_are_left_out_and_never_replaced_by_originals(data, caplog):
    run2 = "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-2_T1w.nii.gz"
    finish(data / "out", run2, status="unfinished")
    finish(data / "out", "sub-03/anat/sub-03_T1w.nii.gz", warnings=["It is blurred."])
    (data / "out/sub-02/anat/sub-02_desc-inpainted_T1w.nii.gz").unlink()
    assert export(data) == 1
    assert errors(data / "raw") == []
    raw = data / "raw"
    assert {p.relative_to(raw).as_posix() for p in raw.rglob("*_T1w.nii*")} == {
        "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
    }
    assert "run-2" not in (raw / "sub-01/ses-a/sub-01_ses-a_scans.tsv").read_text()
    assert (raw / "participants.tsv").read_text() == "participant_id\tage\nsub-01\t40\n"
    assert not (raw / "sub-02").exists()
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [line.split(" is left out")[0] for line in said] == [
        "sub-01_ses-a_acq-mprage_run-2",
        "sub-02",
        "sub-03",
    ]
    assert "did not end" in said[0]
    assert "sub-02_desc-inpainted_T1w.nii.gz is missing" in said[1]
    assert "It is blurred." in said[2]
    assert export(data, "--include-warned") == 1
    assert (raw / "sub-03/anat/sub-03_T1w.nii.gz").exists()
    assert "sub-03\t60\n" in (raw / "participants.tsv").read_text()


def test_an_image_that_is_no_longer_finished_leaves_the_export(data):
    export(data)
    finish(data / "out", "sub-03/anat/sub-03_T1w.nii.gz", status="failed")
    assert export(data) == 1
    assert not (data / "raw/sub-03").exists()
    assert errors(data / "raw") == []


def test_who_is_no_longer_in_the_dataset_leaves_the_export(data):
    export(data)
    shutil.rmtree(data / "bids/sub-03")
    assert export(data) == 0
    assert not (data / "raw/sub-03").exists()


def test_rerun_writes_what_changed_alone(data):
    export(data)
    times = {name: (data / "raw" / name).stat().st_mtime_ns for name in files(data / "raw")}
    assert export(data) == 0
    assert {name: (data / "raw" / name).stat().st_mtime_ns for name in files(data / "raw")} == times
    image(data / "bids/sub-03/anat/sub-03_T1w.nii.gz", 50)
    finish(data / "out", "sub-03/anat/sub-03_T1w.nii.gz")
    assert export(data) == 0
    now = {name: (data / "raw" / name).stat().st_mtime_ns for name in files(data / "raw")}
    assert {name for name in now if now[name] != times[name]} == {
        "sub-03/anat/sub-03_T1w.nii.gz",
        "dataset_description.json",
    }
    assert values(data / "raw/sub-03/anat/sub-03_T1w.nii.gz").tolist() == [1050, 1150]


def test_people_and_sessions_are_added_to_an_export(data):
    assert export(data, "--participant-label", "03") == 0
    raw = data / "raw"
    assert sorted(p.name for p in raw.glob("sub-*")) == ["sub-03"]
    assert export(data, "--participant-label", "sub-01", "--session-label", "a") == 0
    assert sorted(p.name for p in raw.glob("sub-*")) == ["sub-01", "sub-03"]
    assert sorted(p.name for p in (raw / "sub-01").glob("ses-*")) == ["ses-a"]
    assert (raw / "participants.tsv").read_text() == "participant_id\tage\nsub-01\t40\nsub-03\t60\n"
    assert (raw / "sub-01/sub-01_sessions.tsv").read_text() == "session_id\tacq_time\nses-a\tn/a\n"
    assert errors(raw) == []


def test_files_of_others_are_never_overwritten(data, capsys):
    (data / "raw").mkdir()
    (data / "raw/thesis.txt").write_text("mine")
    assert export(data) == 2
    assert "is not empty and no export" in capsys.readouterr().err
    assert export(data, to="new") == 0
    (data / "new/participants.tsv").write_text("participant_id\tgroup\nsub-01\t1\n")
    shutil.copy(data / "bids/participants.tsv", data / "newer.tsv")
    write(data / "bids/participants.tsv", "participant_id\tage\nsub-01\t41\nsub-02\t50\nsub-03\t60\n")
    assert export(data, to="new") == 2
    assert "new/participants.tsv would be replaced" in capsys.readouterr().err
    assert (data / "new/participants.tsv").read_text().startswith("participant_id\tgroup")
    assert (data / "new/dataset_description.json").exists()


def test_an_original_that_somebody_put_there_stops_the_export(data, capsys):
    assert export(data, "--participant-label", "03") == 0
    target = data / "raw/sub-99/anat/sub-99_T1w.nii.gz"
    target.parent.mkdir(parents=True)
    shutil.copy(data / "bids/sub-03/anat/sub-03_T1w.nii.gz", target)
    assert export(data) == 2
    assert "T1w images that are not of this export (sub-99/anat/sub-99_T1w.nii.gz)" in capsys.readouterr().err


def test_an_interrupted_export_is_no_dataset_and_is_finished_by_the_next(data, monkeypatch):
    from bids_inpaint.export import writing

    copied = []

    def fail(source, part):
        copied.append(source)
        if len(copied) == 5:
            raise OSError(28, "No space left on device", str(part))
        return copyfile(source, part)

    copyfile = shutil.copyfile
    monkeypatch.setattr(writing.shutil, "copyfile", fail)
    assert export(data) == 2
    assert not (data / "raw/dataset_description.json").exists()
    assert not list((data / "raw").rglob("*.part*"))
    monkeypatch.undo()
    # as after a kill, what was written is not noted
    (data / "raw" / writing.MANIFEST).write_text(
        json.dumps(
            {"Origin": json.loads((data / "raw" / writing.MANIFEST).read_text())["Origin"], "Files": {}}
        )
    )
    assert export(data) == 0
    assert export(data, to="fresh") == 0
    assert files(data / "raw") == files(data / "fresh")


def test_links(data):
    assert export(data, "--export-files", "hardlink", to="hard") == 0
    bold = "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    assert os.path.samefile(data / "hard" / bold, data / "bids" / bold)
    assert export(data, "--export-files", "symlink", to="soft") == 0
    assert os.readlink(data / "soft" / bold) == str(data / "bids" / bold)
    for relative in T1W:
        for name in ("hard", "soft"):
            path = data / name / relative
            assert not path.is_symlink()
            assert path.stat().st_nlink == 1
    assert errors(data / "soft") == []
    assert export(data, "--export-files", "hardlink", to="hard") == 0


def test_what_cannot_be_read_is_named_and_left_out_with_all_that_refers_to_it(data, caplog):
    bold = data / "bids/sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    bold.unlink()
    bold.symlink_to("../../../.git/annex/objects/x/y/z.nii.gz")
    write(bold.with_name("sub-01_ses-a_task-rest_bold.json"), {"EchoTime": 0.03})
    assert export(data) == 1
    assert any("fetch it with 'datalad get" in record.getMessage() for record in caplog.records)
    raw = data / "raw"
    assert not list(raw.rglob("*_bold.nii*"))
    assert not (raw / "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.json").exists()
    fmap = json.loads((raw / "sub-01/ses-a/fmap/sub-01_ses-a_dir-AP_epi.json").read_text())
    assert fmap["IntendedFor"] == ["bids::sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz"]
    assert "bold" not in (raw / "sub-01/ses-a/sub-01_ses-a_scans.tsv").read_text()
    assert errors(raw) == []


def test_a_damaged_image_is_named_and_no_part_of_it_is_left(data, caplog):
    dwi = data / "bids/sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz"
    dwi.write_bytes(dwi.read_bytes()[:-30])
    assert export(data, "--unzipped") == 1
    assert any("sub-01_ses-a_dwi.nii.gz is truncated or corrupt" in r.getMessage() for r in caplog.records)
    assert not list((data / "raw").rglob("*dwi.nii*"))


def test_an_image_that_was_replaced_after_the_run_is_left_out(data, caplog):
    image(data / "bids/sub-03/anat/sub-03_T1w.nii.gz", 5, (22, 20, 20))
    assert export(data) == 1
    assert any("which is another image now" in record.getMessage() for record in caplog.records)
    assert not (data / "raw/sub-03").exists()


def test_t1w_images_that_the_app_does_not_inpaint_are_left_out(data, caplog):
    image(data / "bids/sub-03/anat/sub-03_part-phase_T1w.nii.gz", 6)
    assert export(data) == 1
    assert any(
        "part-phase_T1w.nii.gz is a T1w that was not inpainted" in r.getMessage() for r in caplog.records
    )
    assert not list((data / "raw").rglob("*phase*"))


@pytest.mark.parametrize("folder", ["bids/x", "out/x", "bids", "out", "."])
def test_export_into_the_dataset_or_the_results_is_refused(data, folder, capsys):
    assert export(data, to=folder) == 2
    assert "choose one beside them" in capsys.readouterr().err


def test_export_needs_its_folder_and_has_no_options_of_the_participant_level(data, capsys):
    assert cli.main([str(data / "bids"), str(data / "out"), "export"]) == 2
    assert "name a new one with --export-dir" in capsys.readouterr().err
    assert export(data, "--model", "unet") == 2
    assert "The export level has no --model" in capsys.readouterr().err
    assert cli.main([str(data / "bids"), str(data / "out"), "participant", "--unzipped"]) == 2
    assert "The participant level has no --unzipped" in capsys.readouterr().err


def test_the_app_knows_an_inpainted_image_again(data):
    from bids_inpaint.dataset.bids import collect
    from bids_inpaint.settings import Settings

    export(data)
    images = collect(Settings(data / "raw", data / "again")).images
    assert len(images) == len(T1W)
    assert all("were inpainted already" in " ".join(image.notes) for image in images)


def test_rows_keep_their_bytes():
    table = b"\xef\xbb\xbfparticipant_id\tname\r\nsub-01\tJos\xe9\r\nsub-02\tB\r\n"
    assert keep_rows(table, "participant_id", lambda v: v if v == "sub-01" else None) == table[:-10]
    assert keep_rows(table, "filename", lambda v: None) == table
