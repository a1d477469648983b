"""SPM by a stand-in, which fails in each way SPM can; the real one where a folder is named."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import TESTS

from bids_inpaint import errors
from bids_inpaint.dataset import template
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.interfaces.spm import SegmentSPM
from bids_inpaint.io import images
from bids_inpaint.space import Grid
from bids_inpaint.spm import job, program

STANDIN = TESTS / "spm_standin.py"


@pytest.fixture
def brain(tmp_path, monkeypatch):
    """A brain of three shells, and the priors of its tissues, in the current folder."""
    monkeypatch.chdir(tmp_path)
    grid = Grid.of((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    data = np.zeros((20, 20, 20), np.float32)
    data[2:18, 2:18, 2:18] = 0.2
    data[3:17, 3:17, 3:17] = 0.7
    data[5:15, 5:15, 5:15] = 1.0
    images.save("brain.nii.gz", data, grid)
    images.save("mask.nii.gz", data > 0, grid, np.uint8)
    for tissue, value in (("CSF", 0.2), ("GM", 0.7), ("WM", 1.0)):
        images.save(f"{tissue}.nii.gz", 0.9 * (data == np.float32(value)), grid)
    return data


def write_program(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN}" "$@"\n')
    path.chmod(0o755)
    return path


def spm_folder(root: Path, version: str = "Version 7771 (SPM12) 13-Jan-20") -> Path:
    folder = root / "spm 12"
    for name in ("spm.m", "spm_jobman.m", "spm_add.mex", "tpm/TPM.nii"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "Contents.m").write_text(f"% Statistical Parametric Mapping\n% {version}\n")
    return folder


@pytest.fixture(params=["standalone", "matlab", "octave"])
def installed(request, tmp_path, monkeypatch):
    """An SPM of each kind."""
    folder = spm_folder(tmp_path)
    monkeypatch.delenv(program.VARIABLE, raising=False)
    monkeypatch.delenv("SPMMCRCMD", raising=False)
    if request.param == "standalone":
        monkeypatch.setenv(
            "SPMMCRCMD", f"{write_program(tmp_path / 'bin', 'run_spm12.sh')} {tmp_path} script"
        )
        return program.find(None)
    monkeypatch.delenv("MATLABCMD", raising=False)
    write_program(tmp_path / "bin", "matlab" if request.param == "matlab" else "octave-cli")
    # no MATLAB or Octave of this machine
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return program.find(folder)


def node(found: program.Spm, **inputs) -> SegmentSPM:
    folder = {"folder": found.folder} if found.folder else {}
    files = {
        "in_file": "brain.nii.gz", "mask_file": "mask.nii.gz",
        "priors": [f"{t}.nii.gz" for t in template.TISSUES],
    }  # fmt: skip
    return SegmentSPM(command=list(found.command), kind=found.kind, **folder, **files | inputs)


def segment(found: program.Spm, cwd: Path):
    return node(found).run(cwd=str(cwd)).outputs


@pytest.mark.parametrize("mode", ["works", "crashes at exit", "nan once"])
def test_three_of_six_classes_are_kept(brain, installed, tmp_path, monkeypatch, mode):
    monkeypatch.setenv("SPM_STANDIN", mode)
    monkeypatch.setenv("SPM_STANDIN_LOG", str(tmp_path / "job.m"))
    out = segment(installed, tmp_path)
    labels = images.read(out.dseg)[0]
    assert (labels[brain == 1] == 2).all()
    assert (labels[brain == np.float32(0.7)] == 1).all()
    assert (labels[brain == np.float32(0.2)] == 3).all()
    assert not labels[brain == 0].any()
    assert images.read(out.wm)[0].max() == pytest.approx(1)
    job = (tmp_path / "job.m").read_text()
    runs = 2 if mode == "nan once" else 1
    assert job.count(".tpm = ") == 6 * runs
    assert job.count(".native = [1 0];") == 3 * runs
    assert not (tmp_path / "spm").exists()
    assert out.method == "SPM12 (release 7771)"


def test_solver_gets_axes_of_equally_many_halvings(brain, installed, tmp_path, monkeypatch):
    """A slab, which SPM sees at 7 x 2 x 7 samples as it is."""
    mask = images.read("mask.nii.gz")[0] > 0
    mask[:, 4:] = False
    images.save("mask.nii.gz", mask, images.read("mask.nii.gz")[1], np.uint8)
    monkeypatch.setattr("bids_inpaint.imaging.tissues.check", lambda *args: None)
    shapes = []
    write = images.save
    monkeypatch.setattr(
        images,
        "save",
        lambda path, data, *args, **kw: shapes.append(data.shape) or write(path, data, *args, **kw),
    )
    out = segment(installed, tmp_path)
    counts = [-(-n // 2) for n in shapes[0]]
    assert len({(n - 1).bit_length() for n in counts}) == 1
    assert (images.read(out.dseg)[0][mask] > 0).all()


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("dead", "SPM could not be started by .*cannot open shared object file"),
        ("old", r"has SPM8 \(release 5236\), but SPM12 or SPM25 is needed"),
        ("killed", r"SPM12 failed to segment .*ended by SIGKILL, perhaps for want of memory"),
        ("fails", r'SPM12 failed to segment .*\(it said: File "brain.nii" does not exist\.\)'),
        ("unknown", "SPM12 failed to segment .*Undefined function 'spm_jobman'"),
        ("silent", "SPM12 failed to segment .*Running 'Segment'"),
        ("nan", r"did not notice \(its fit has no likelihood with samples every 3 mm; .*every 4 mm\)"),
        ("swapped", "did not notice .*grey matter"),
    ],
)
def test_every_failure_is_noticed(brain, installed, tmp_path, monkeypatch, mode, reason):
    monkeypatch.setenv("SPM_STANDIN", mode)
    stale = tmp_path / "spm"
    stale.mkdir()
    for i in (1, 2, 3):
        shutil.copy("brain.nii.gz", stale / f"c{i}brain.nii")
    with pytest.raises(errors.InputError, match=reason):
        segment(installed, tmp_path)


def test_what_spm_said_is_in_the_crash(brain, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("SPM_STANDIN", "fails")
    result = node(installed).run(cwd=str(tmp_path), ignore_exception=True)
    assert "spm_vol_hdr" in result.runtime.stdout
    assert "Segmentation fault" in result.runtime.stderr
    assert "bids_inpaint_job" in result.runtime.cmdline


def test_spm_ends_with_the_process_that_wanted_it(brain, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("SPM_STANDIN", "sleeps")
    monkeypatch.setenv("SPM_STANDIN_LOG", str(tmp_path / "log"))
    worker = os.fork()
    if worker == 0:
        try:
            segment(installed, tmp_path)
        finally:
            os._exit(0)
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(worker, 9)
    os.waitpid(worker, 0)
    alive = Path(f"/proc/{pid.read_text()}")
    while alive.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive.exists()


def test_names_of_folders_are_no_code(tmp_path):
    text = job.code(program.Spm(("octave",), "octave", "/o'brien/spm"), 3)
    assert "addpath('/o''brien/spm');" in text


@pytest.mark.parametrize("version", ["Version 7771 (SPM12) 13-Jan-20", "Version 25.01.02 (SPM25) 25-Jan-25"])
def test_releases_that_are_known(tmp_path, monkeypatch, version):
    monkeypatch.setenv("MATLABCMD", "true")
    assert program.find(spm_folder(tmp_path, version)).kind == "matlab"


@pytest.mark.parametrize(
    ("version", "reason"),
    [("Version 6313 (SPM8) 01-Jan-14", r"SPM8 \(release 6313\)"), ("My toolbox", "no version that it tells")],
)
def test_others_are_refused_before_any_work(tmp_path, version, reason):
    with pytest.raises(errors.InputError, match=f"{reason}.*SPM12 or SPM25 is needed"):
        program.find(spm_folder(tmp_path, version))


def test_missing_spm_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(program.VARIABLE, raising=False)
    monkeypatch.delenv("SPMMCRCMD", raising=False)
    with pytest.raises(errors.InputError, match=r"finds no SPM12: get SPM12 from .*--spm12.*SPMMCRCMD"):
        program.find(None)
    monkeypatch.setenv("SPMMCRCMD", "/nowhere/run_spm12.sh /mcr script")
    with pytest.raises(errors.InputError, match=r"/nowhere/run_spm12\.sh, which is not a program"):
        program.find(None)
    monkeypatch.setenv("SPMMCRCMD", f"true {tmp_path}")
    with pytest.raises(errors.InputError, match="and the word 'script'"):
        program.find(None)
    with pytest.raises(errors.InputError, match=r"is not a folder of SPM12, as it has no spm\.m"):
        program.find(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = spm_folder(tmp_path)
    with pytest.raises(errors.InputError, match="install GNU Octave"):
        program.find(folder)
    write_program(tmp_path, "octave-cli")
    for path in folder.glob("*.mex"):
        path.unlink()
    with pytest.raises(errors.InputError, match="not compiled for Octave: run 'make PLATFORM=octave'"):
        program.find(folder)


def test_the_real_one(tmp_path):
    """At 1 mm, in a folder whose name MATLAB code and shells would take apart."""
    if not os.environ.get(program.VARIABLE):
        pytest.skip(f"{program.VARIABLE} names no SPM")
    files = template.prepare(template.DEFAULT, tmp_path)
    work = tmp_path / "it's a, [b] 50% c"
    work.mkdir()
    out = (
        node(
            program.find(None),
            in_file=files.t1w,
            mask_file=files.mask,
            priors=[files.priors[t] for t in template.TISSUES],
        )
        .run(cwd=str(work))
        .outputs
    )
    for tissue, values in (("GM", out.gm), ("WM", out.wm), ("CSF", out.csf)):
        least = {"GM": 0.8, "WM": 0.8, "CSF": 0.6}[tissue]
        assert dice(images.read(values)[0] > 0.5, images.read(files.priors[tissue])[0] > 0.5) > least
