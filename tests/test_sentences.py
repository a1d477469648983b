"""Messages name what is wrong and what helps, and nothing that is wrong passes in silence."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset, write_finished, write_nifti

from bids_inpaint import bids, cli, fill, images, run, spm
from bids_inpaint.images import InputError
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID

NOTHING = np.zeros(WORKING_GRID.shape, bool)


@pytest.fixture
def root(tmp_path) -> Path:
    """A dataset of two participants, each with an image that is too small for a head."""
    names = (f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2))
    return write_dataset(tmp_path / "bids", *names, data=np.ones((9, 9, 9), np.int16))


def main(root: Path, *options: str, level: str = "participant") -> int:
    out, work = root.parent / "out", root.parent / "w"
    return cli.main(
        [str(root), str(out), level, "-w", str(work), "--nprocs", "1", "--skip-bids-validation", *options]
    )


def settings(root: Path, **options) -> Settings:
    return Settings(
        **({"bids_dir": root, "output_dir": root.parent / "out", "work_dir": root.parent / "w"} | options)
    )


def statuses(out: Path) -> dict[str, dict]:
    paths = out.glob("sub-*/log/*_status.json")
    return {path.name.removesuffix("_status.json"): json.loads(path.read_text()) for path in paths}


# options


def seen(root: Path, monkeypatch, *options: str) -> Settings:
    """The settings that a command line leads to."""
    found: list[Settings] = []
    monkeypatch.setattr(run, "run_participants", lambda settings: found.append(settings) or 0)
    assert main(root, *options) == 0
    return found[0]


def test_options_with_several_values_may_be_given_again(root, monkeypatch, tmp_path):
    for name in "xyz":
        (tmp_path / name).mkdir()
    found = seen(
        root, monkeypatch, "-d", f"a={tmp_path / 'x'}", f"b={tmp_path / 'y'}", "-d", f"c={tmp_path / 'z'}",
        "--participant-label", "01", "--participant-label", "sub-02", "01", "--session-label", "A",
        "--session-label", "B",
    )  # fmt: skip
    assert found.derivatives == {"a": tmp_path / "x", "b": tmp_path / "y", "c": tmp_path / "z"}
    assert (found.participant_label, found.session_label) == (("01", "02"), ("A", "B"))
    assert seen(root, monkeypatch).derivatives == {}


@pytest.mark.parametrize("again", [(), ("-d",)])
def test_one_name_for_two_derivatives(root, capsys, tmp_path, again):
    assert main(root, "-d", f"a={tmp_path / 'x'}", *again, f"a={tmp_path / 'y'}") == 2
    assert f"-d names two folders a ({tmp_path / 'x'} and {tmp_path / 'y'})" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--lesion-min-volume", "--mem-gb", "--lesion-threshold"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_numbers_that_are_none(root, capsys, option, value):
    assert main(root, option, value) == 2
    assert re.search(rf"error: {option} .*{float(value)}", capsys.readouterr().err)


@pytest.mark.parametrize("variable", ["SPMMCRCMD", "MATLABCMD"])
def test_commands_of_spm_that_no_shell_would_take(tmp_path, monkeypatch, variable):
    for name in ("spm.m", "spm_jobman.m", "tpm/TPM.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (spm.VARIABLE, "SPMMCRCMD", "MATLABCMD"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path if variable == "MATLABCMD" else None
    monkeypatch.setenv(variable, "/opt/run.sh '/opt/mcr")
    with pytest.raises(InputError, match=rf"{variable} is '/opt/run\.sh '/opt/mcr'.*correct its quotes"):
        spm.find(folder)
    # blank is as if it weren't set
    monkeypatch.setenv(variable, "  ")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="Nothing runs the SPM12" if folder else "finds no SPM12"):
        spm.find(folder)


# filling of volumes


def test_filling_says_what_the_machine_lacks(monkeypatch, capsys, tmp_path):
    def settle():
        raise OSError(2, "no folder for temporary files (x): mount a writable /tmp.")

    monkeypatch.setattr(fill, "settle", settle)
    assert fill.main([*map(str, (tmp_path / "a.nii", tmp_path / "b.nii", tmp_path / "c.nii"))]) == 2
    told = capsys.readouterr().err
    assert told == "bids_inpaint.fill: error: no folder for temporary files (x): mount a writable /tmp.\n"


def test_filling_needs_a_file_that_can_be_written(monkeypatch, capsys, tmp_path):
    data = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64)
    volume = write_nifti(tmp_path / "a.nii", data, np.eye(4))
    mask = write_nifti(tmp_path / "b.nii", np.ones(data.shape, np.uint8), np.eye(4))
    monkeypatch.setattr(fill, "fill", lambda data, *_: data)
    assert fill.main([str(volume), str(mask), str(tmp_path / "none/c.nii.gz")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/none/c.nii.gz can't be written (No such file or directory)" in told
    assert fill.main([str(volume), str(mask), str(tmp_path / "c.txt")]) == 2
    assert "c.txt is not the name of a NIfTI file" in capsys.readouterr().err
    assert fill.main([str(volume), str(mask), str(tmp_path / "c.nii")]) == 0
    assert (images.read(tmp_path / "c.nii")[0] == data).all()


# refused images


def test_every_refused_image_has_a_status(root, monkeypatch):
    """So that a batch script finds it; a participant without images has none."""
    for name in ("sub-02_T1w", "sub-02_acq-mp-rage_T1w", "sub-02_echo-2_acq-x_T1w", "sub-02_T1W"):
        path = root / f"sub-02/anat/{name}.nii.gz"
        path.unlink(missing_ok=True)
        path.symlink_to("/nonexistent")
    (root / "sub-03").symlink_to("/nonexistent")
    (root / "sub-04/anat").mkdir(parents=True)
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root) == 1
    found = statuses(root.parent / "out")
    assert found.keys() == {"sub-01", "sub-02", "sub-02_acq-mp-rage", "sub-02_acq-x"}
    assert {status["Status"] for status in found.values()} == {"failed"}
    assert "does not exist here" in found["sub-02"]["Error"]
    # its outputs would not keep the echo
    assert "sub-02_echo-2_acq-x_T1w.nii.gz is a link to" in found["sub-02_acq-x"]["Error"]
    assert "is not named as BIDS asks" in found["sub-02_acq-mp-rage"]["Error"]
    assert not any("EarlierResults" in status for status in found.values())


def test_the_status_of_an_image_is_not_that_of_a_refused_one_with_its_name(root, monkeypatch):
    """The files of both are there: a name with the wrong case, and the right one."""
    (root / "sub-01/anat/sub-01_T1W.nii.gz").write_bytes(b"")
    write_finished(root.parent / "out", bids.Image("", "", {"sub": "01"}), NOTHING)
    monkeypatch.setattr(run, "_execute", lambda *_: RuntimeError("the queue is closed"))
    assert main(root, "--participant-label", "01") == 1
    assert statuses(root.parent / "out")["sub-01"]["Error"].endswith("the queue is closed")


def test_results_of_all_runs_of_a_refused_session_are_old(root, monkeypatch):
    out = root.parent / "out"
    for entities in ({"ses": "1", "run": "1"}, {"ses": "1", "run": "2"}, {"ses": "2"}, {}):
        write_finished(out, bids.Image("", "", {"sub": "01"} | entities), NOTHING)
    (root / "sub-01/ses-1").symlink_to("/nonexistent")
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root, "--participant-label", "01") == 1
    old = {name for name, status in statuses(out).items() if "/nonexistent" in status["Error"]}
    assert old == {"sub-01_ses-1_run-1", "sub-01_ses-1_run-2"}
    assert statuses(out)["sub-01_ses-1_run-1"]["EarlierResults"] is True


def test_the_group_says_of_results_alone_that_they_are_old(root, caplog):
    out = root.parent / "out"
    for label in ("01", "02"):
        write_finished(out, bids.Image("", "", {"sub": label}), NOTHING)
    for label, more in (("01", {"EarlierResults": True}), ("02", {})):
        folder = out / f"sub-{label}/log"
        folder.mkdir()
        status = {"Status": "failed", "Failed": ["inpainted"], "Error": "it is bad."} | more
        (folder / f"sub-{label}_status.json").write_text(json.dumps(status))
    assert main(root, level="group") == 2
    assert "sub-01 is left out, as its last run failed (it is bad), so its results are of an" in caplog.text
    assert "sub-02 is left out, as its last run failed (it is bad): run the" in caplog.text
