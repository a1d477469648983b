"""Runs that are killed, starved, or in each other's way: what is finished is whole, a rerun does the rest.

One random kill; ``BIDS_INPAINT_NIGHTLY=1`` tries 30.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import contents, small_disk, write_dataset, write_nifti

from bids_inpaint.demo import LESIONS, acquire
from bids_inpaint.space import Grid

KILLS = 30 if os.environ.get("BIDS_INPAINT_NIGHTLY") else 1
WAYS = ("kill the run", "terminate the run", "kill a worker")


def begin(
    root: Path, out: Path, work: Path, nprocs: int = 2, wrapper: Sequence[str] = ()
) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *wrapper,
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(out), "participant",
            "-w", str(work), "--sloppy", "--nprocs", str(nprocs), "--skip-bids-validation",
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    """What a run tells until its end."""
    return process.communicate(timeout=1200)[1]


def whole_run(*args, **options) -> tuple[int, str]:
    process = begin(*args, **options)
    told = finish(process)
    return process.returncode, told


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.05)
    assert process.poll() is None, "the run ended too early"


def assert_whole(out: Path, reference: dict[str, bytes]) -> None:
    """What is there is as it should be, and nothing else is."""
    found = contents(out)
    assert set(found) <= set(reference)
    assert [name for name in found if found[name] != reference[name]] == []


def assert_complete(out: Path, reference: dict[str, bytes]) -> None:
    """Everything is there as it should be."""
    assert_whole(out, reference)
    assert set(contents(out)) == set(reference)


def assert_finishes(root: Path, out: Path, work: Path, reference: dict[str, bytes], *args, **options) -> None:
    """A run to the end gives what an undisturbed one gives."""
    code, told = whole_run(root, out, work, *args, **options)
    assert code == 0, told
    assert_complete(out, reference)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    bids = write_dataset(root / "bids")
    affine = np.array([[-1, 0, 0, 90], [0, -1, 0, 90], [0, 0, 3, -72], [0, 0, 0, 1.0]])
    data, _ = acquire(Grid.of((182, 218, 60), affine), LESIONS)
    write_nifti(bids / "sub-01/anat/sub-01_T1w.nii.gz", data, affine)
    return root


@pytest.fixture(scope="module")
def seconds(root) -> float:
    """What an undisturbed run takes; its output is in ``out``."""
    start = time.monotonic()
    code, told = whole_run(root, root / "out", root / "work")
    assert code == 0, told
    return time.monotonic() - start


@pytest.fixture(scope="module")
def reference(root, seconds) -> dict[str, bytes]:
    return contents(root / "out")


@pytest.mark.parametrize("trial", range(KILLS))
def test_killed_at_any_moment(root, seconds, reference, tmp_path, trial):
    rng = np.random.default_rng([trial, 8])
    out, work = tmp_path / "out", tmp_path / "work"
    process = begin(root, out, work)
    time.sleep(rng.uniform(0, seconds))
    workers = workers_of(process)
    way = WAYS[trial % len(WAYS)]
    if way == "kill a worker" and workers:
        workers[rng.integers(len(workers))].kill()
        finish(process)
    else:
        process.send_signal(signal.SIGTERM if way == "terminate the run" else signal.SIGKILL)
        finish(process)
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    finished = (out / "sub-01.html").exists() and set(contents(out)) == set(reference)
    assert (process.returncode == 0) <= finished
    assert_whole(out, reference)
    assert_finishes(root, out, work, reference)


def test_schedulers_that_end_a_run_are_obeyed_at_once(root, reference, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    process = begin(root, out, work)
    wait_for(lambda: any(work.rglob("correct_bias")), process)
    workers = workers_of(process)
    start = time.monotonic()
    process.terminate()
    told = finish(process)
    assert time.monotonic() - start < 10
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: what is finished stays; run the same command again" in told
    assert "Traceback" not in told
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert_whole(out, reference)


@pytest.mark.parametrize("full", ["out", "work"])
def test_full_disk(root, reference, tmp_path, full):
    folders = {name: tmp_path / name for name in ("out", "work")}
    with small_disk(folders[full], {"out": "2m", "work": "30m"}[full]):
        code, told = whole_run(root, folders["out"], folders["work"])
        assert code == 1
        assert "no space on the disk" in told
        assert "Traceback" not in told
        assert_whole(folders["out"], reference)
        subprocess.run(["mount", "-o", "remount,size=2g", folders[full]], check=True)
        assert_finishes(root, folders["out"], folders["work"], reference)


def test_read_only_work_folder(root, tmp_path):
    with small_disk(tmp_path / "work", "10m") as work:
        subprocess.run(["mount", "-o", "remount,ro", work], check=True)
        code, told = whole_run(root, tmp_path / "out", work)
    assert code == 2
    assert f"Work folder {work} can't be written" in told


def test_work_folder_vanishes(root, reference, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    process = begin(root, out, work)
    wait_for(lambda: any(work.rglob("correct_bias")), process)
    shutil.rmtree(work, ignore_errors=True)
    told = finish(process)
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert f"did not find its files in {work}" in told
    assert (out / "sub-01.html").exists()
    assert_whole(out, reference)
    assert_finishes(root, out, work, reference)


@pytest.mark.parametrize("step", ["denoise", "inpaint"])
def test_workers_that_get_no_more_memory(root, reference, tmp_path, step):
    out, work = tmp_path / "out", tmp_path / "work"
    process = begin(root, out, work)
    wait_for(lambda: any(work.rglob(step)), process)
    for worker in workers_of(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            had = worker.memory_info().vms + 2**24
            worker.rlimit(psutil.RLIMIT_AS, (had, had))
    told = finish(process)
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert "too little memory: run again with a smaller --nprocs" in told
    assert_whole(out, reference)
    assert_finishes(root, out, work, reference)


def test_two_runs_at_once(root, reference, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    first = begin(root, out, work)
    wait_for(lambda: any(work.rglob("conform")), first)
    code, told = whole_run(root, out, work)
    assert code == 2
    assert f"Another run works on sub-01 in {work}: wait for it" in told
    # with a work folder of its own it may work beside the first, but not save at the same moment
    wait_for(lambda: any(work.rglob("inpaint")), first)
    processes = [first, begin(root, out, tmp_path / "other")]
    told_by_both = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told_by_both
    assert_complete(out, reference)


@pytest.mark.parametrize("nprocs", [1, 4] if os.environ.get("BIDS_INPAINT_NIGHTLY") else [4])
def test_processors_are_no_part_of_the_result(root, reference, tmp_path, nprocs):
    assert_finishes(root, tmp_path / "out", tmp_path / "work", reference, nprocs)


def test_the_clock_is_set_back_by_a_year(root, reference, tmp_path):
    """A run that was killed goes on before its own past."""
    if not shutil.which("faketime"):
        pytest.skip("needs the command faketime")
    out, work = tmp_path / "out", tmp_path / "work"
    process = begin(root, out, work)
    wait_for(lambda: any(work.rglob("register")), process)
    process.kill()
    finish(process)
    assert_finishes(root, out, work, reference, wrapper=("faketime", "-f", "-1y"))


def test_the_clock_was_changed(root, reference):
    """A rerun finds what a run left in the future, and makes nothing else of it."""
    ahead = time.time() + 3e7
    for path in (root / "work").rglob("*"):
        os.utime(path, (ahead, ahead), follow_symlinks=False)
    assert_finishes(root, root / "out", root / "work", reference)
