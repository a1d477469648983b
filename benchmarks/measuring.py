"""Time, processor time and memory of the participant level, of this code or of another revision."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
#: Orphans of a process become children of the one that says so (linux/prctl.h).
_SET_CHILD_SUBREAPER = 36
#: Seconds between two looks at the memory: to count the pages of a process stops it.
_LOOK = 1.0


@dataclass(frozen=True)
class Spent:
    """What a command took.

    Attributes
    ----------
    seconds : float
        By the clock.
    cpu : float
        Of all its processes, in seconds of one processor.
    peak : float
        Largest proportional memory of all its processes at once, in GB.
    text : str
        What it printed.
    steps : dict
        Seconds by the name of the step.
    """

    seconds: float
    cpu: float
    peak: float
    text: str
    steps: dict[str, float] = field(default_factory=dict)


def write_dataset(scratch: Path, t1w: Path, count: int = 1) -> None:
    """A BIDS dataset, ``bids``, of participants who all have this image: sub-0001, sub-0002 and so on."""
    suffix = ".nii.gz" if t1w.name.endswith(".gz") else ".nii"
    (scratch / "bids").mkdir(parents=True)
    first = shutil.copy(t1w, scratch / f"image{suffix}")
    for i in range(1, count + 1):
        anat = scratch / "bids" / f"sub-{i:04d}" / "anat"
        anat.mkdir(parents=True)
        os.link(first, anat / f"sub-{i:04d}_T1w{suffix}")
    description = {"Name": "benchmark", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (scratch / "bids" / "dataset_description.json").write_text(json.dumps(description))


def time_app(scratch: Path, processes: int, code: Path = ROOT, options: tuple[str, ...] = ()) -> Spent:
    """What the participant level takes on ``bids`` in a folder; its outputs go into ``out`` there.

    Parameters
    ----------
    scratch : Path
    processes : int
    code : Path, optional
        Folder that holds the package.
    options : tuple of str
        More of the command line.
    """
    command = [
        sys.executable, "-m", "bids_inpaint", str(scratch / "bids"), str(scratch / "out"), "participant",
        "-w", str(scratch / "work"), "--nprocs", str(processes), "--skip-bids-validation",
        *options,
    ]  # fmt: skip
    for name in ("out", "work"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    # the current folder comes before all others in Python's path
    spent = measure(command, {"PYTHONPATH": str(code)}, str(scratch))
    return Spent(spent.seconds, spent.cpu, spent.peak, spent.text, read_steps(scratch / "work"))


def read_steps(work: Path) -> dict[str, float]:
    """Seconds of each step by ``WORKFLOW.NODE``, from Nipype's reports in a work folder."""
    steps: dict[str, float] = {}
    for report in work.glob("bids_inpaint_wf/*/**/_report/report.rst"):
        if took := re.search(r"^\* duration : (.+)$", report.read_text(), re.MULTILINE):
            *_, workflow, node = report.parts[:-2]
            name = f"{workflow.removesuffix('_wf')}.{node}"
            steps[name] = steps.get(name, 0.0) + float(took[1])
    return steps


def measure(command: list[str], environment: dict[str, str], folder: str) -> Spent:
    """Run a command and all that it starts.

    Raises
    ------
    SystemExit
        If it fails; with what it printed.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = _used_by_children(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as messages:
        process = psutil.Popen(
            command, stdout=messages, stderr=messages, env=os.environ | environment, cwd=folder
        )
        peak = 0.0
        try:
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                peak = max(peak, tree_memory(process))
                with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                    process.wait(_LOOK)
        finally:
            # nothing goes on once the benchmark is stopped
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
            process.wait()
        seconds = time.perf_counter() - start
        messages.seek(0)
        text = messages.read()
    if process.returncode:
        sys.exit(text)
    # the processes that it left behind end by themselves, and their time counts once they are waited for
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Spent(seconds, _used_by_children() - before, peak, text)


def _used_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_memory(process: psutil.Process) -> float:
    """Proportional memory (GB, as Nipype counts them) of a process and everything it started."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for p in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += p.memory_full_info().pss
    return total / 1024**3


@contextlib.contextmanager
def revision(name: str, folder: Path) -> Iterator[Path]:
    """The code of a git revision, compiled, in a worktree of its own until the block ends."""
    target = folder / "other"
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(target), name], check=True)
    try:
        yield _compiled(target)
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(target)], check=True)


def todays(folder: Path) -> Path:
    """A compiled copy of the code as it is in this tree."""
    target = folder / "today"
    for name in ("bids_inpaint", "workflows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignored)
    return _compiled(target)


def _compiled(code: Path) -> Path:
    """Neither side pays for what an installation does once."""
    command = [sys.executable, "-m", "compileall", "-q", "bids_inpaint", "workflows"]
    subprocess.run(command, cwd=code, check=True)
    return code
