"""SPM12 by a stand-in, which fails in each way SPM can; the real one where a folder is named."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bids_inpaint import images, spm, template
from bids_inpaint.interfaces.spm import SegmentSPM
from bids_inpaint.metrics import dice
from bids_inpaint.space import Grid

STANDIN = Path(__file__).with_name("spm_standin.py")


@pytest.fixture
def brain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = Grid.of((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    data = np.zeros((20, 20, 20), np.float32)
    data[2:18, 2:18, 2:18] = 0.2
    data[4:16, 4:16, 4:16] = 0.7
    data[7:13, 7:13, 7:13] = 1.0
    images.save("brain.nii.gz", data, grid)
    images.save("mask.nii.gz", data > 0, grid, np.uint8)
    return data


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN}" "$@"\n')
    path.chmod(0o755)
    return path


def spm_folder(root: Path) -> Path:
    folder = root / "spm 12"
    for name in ("spm.m", "spm_jobman.m", "spm_add.mex", "tpm/TPM.nii"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    images.save(str(folder / "tpm" / "TPM.nii"), np.ones((4, 4, 4)), Grid.of((4, 4, 4), np.eye(4)))
    return folder


@pytest.fixture(params=["standalone", "matlab", "octave"])
def installed(request, tmp_path, monkeypatch):
    """An SPM12 of each kind."""
    folder = spm_folder(tmp_path)
    monkeypatch.delenv(spm.VARIABLE, raising=False)
    monkeypatch.delenv("SPMMCRCMD", raising=False)
    monkeypatch.setenv("SPM_STANDIN_HOME", str(folder))
    if request.param == "standalone":
        monkeypatch.setenv("SPMMCRCMD", f"{program(tmp_path / 'bin', 'run_spm12.sh')} {tmp_path} script")
        return spm.find(None)
    # MATLAB is not the standalone version, also where Nipype was told to use that
    monkeypatch.setenv("FORCE_SPMMCR", "1")
    monkeypatch.delenv("MATLABCMD", raising=False)
    program(tmp_path / "bin", "matlab" if request.param == "matlab" else "octave-cli")
    # no MATLAB or Octave of this machine
    for tool in ("sh", "env", "stty"):
        if where := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(where)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return spm.find(folder)


def segment(found: spm.Spm, cwd: Path):
    folder = {"folder": found.folder} if found.folder else {}
    node = SegmentSPM(
        in_file="brain.nii.gz", mask_file="mask.nii.gz", command=found.command,
        standalone=found.standalone, **folder,
    )  # fmt: skip
    return node.run(cwd=str(cwd)).outputs


def test_three_of_six_classes_are_kept(brain, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("SPM_STANDIN_LOG", str(tmp_path / "job.m"))
    out = segment(installed, tmp_path)
    labels = images.read(out.dseg)[0]
    assert (labels[brain == 1] == 2).all()
    assert (labels[brain == np.float32(0.7)] == 1).all()
    assert (labels[brain == np.float32(0.2)] == 3).all()
    assert not labels[brain == 0].any()
    assert images.read(out.wm)[0].max() == pytest.approx(1)
    job = (tmp_path / "job.m").read_text()
    assert job.count(".tpm = ") == 6
    assert job.count(".native(1) = 1;") == 3
    assert not (tmp_path / "spm").exists()
    assert out.method == "SPM12 (release 7771)"


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("dead", "SPM12 could not be started by"),
        ("old", r"starts SPM8 \(release 5236\), but SPM12 is needed"),
        ("crashes", "SPM12 failed to segment .*Segmentation violation"),
        ("complains", "SPM12 failed to segment .*Job execution failed"),
        ("silent", "SPM12 failed to segment"),
    ],
)
def test_every_failure_is_noticed(brain, installed, tmp_path, monkeypatch, mode, reason):
    monkeypatch.setenv("SPM_STANDIN", mode)
    stale = tmp_path / "spm"
    stale.mkdir()
    for i in (1, 2, 3):
        shutil.copy("brain.nii.gz", stale / f"c{i}brain.nii")
    with pytest.raises(images.InputError, match=reason):
        segment(installed, tmp_path)


def test_missing_spm_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(spm.VARIABLE, raising=False)
    monkeypatch.delenv("SPMMCRCMD", raising=False)
    with pytest.raises(images.InputError, match=r"finds no SPM12: get SPM12 from .*--spm12.*SPMMCRCMD"):
        spm.find(None)
    monkeypatch.setenv("SPMMCRCMD", "/nowhere/run_spm12.sh /mcr script")
    with pytest.raises(images.InputError, match=r"/nowhere/run_spm12\.sh, which is not a program"):
        spm.find(None)
    monkeypatch.setenv("SPMMCRCMD", f"true {tmp_path}")
    with pytest.raises(images.InputError, match="and the word 'script'"):
        spm.find(None)
    with pytest.raises(images.InputError, match=r"is not a folder of SPM12, as it has no spm\.m"):
        spm.find(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = spm_folder(tmp_path)
    with pytest.raises(images.InputError, match="install GNU Octave"):
        spm.find(folder)
    program(tmp_path, "octave-cli")
    for path in folder.glob("*.mex"):
        path.unlink()
    with pytest.raises(images.InputError, match="not compiled for Octave: run 'make PLATFORM=octave'"):
        spm.find(folder)


def test_the_real_one(tmp_path):
    if not os.environ.get(spm.VARIABLE):
        pytest.skip(f"{spm.VARIABLE} names no SPM12")
    files = template.prepare(template.DEFAULT, tmp_path)
    found = spm.find(None)
    node = SegmentSPM(
        in_file=files.t1w, mask_file=files.mask, command=found.command, standalone=found.standalone,
        **({"folder": found.folder} if found.folder else {}),
    )  # fmt: skip
    white = images.read(node.run(cwd=str(tmp_path)).outputs.wm)[0] > 0.5
    assert dice(white, images.read(files.priors["WM"])[0] > 0.5) > 0.8
