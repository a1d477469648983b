"""The crash files of a run, and one sentence on each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bids_inpaint.dataset.outputs import crash_folder, image_of
from bids_inpaint.errors import FilterFailed, InputError, WorkerKilled
from bids_inpaint.resources import NO_PROCESS
from bids_inpaint.settings import Settings


@dataclass(frozen=True)
class Crash:
    """A step that failed: its crash file, one sentence on it, the file's text, and the image's workflow."""

    path: Path
    sentence: str
    text: str
    workflow: str


def read_crashes(subject: str, settings: Settings, run_uuid: str) -> list[Crash]:
    """The crash files of a participant's run."""
    crashes = []
    for path in sorted(crash_folder(settings.output_dir, subject, run_uuid).glob("crash*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        node = re.search(r"^Node: (\S+\.\S+)", text)
        crashes.append(Crash(path, explain(text, settings), text, image_of(node.group(1)) if node else ""))
    return crashes


def explain(crash: str, settings: Settings) -> str:
    """One sentence on a crash for the user, from the text of its file."""
    if known := re.findall(rf"{InputError.__name__}: (.+)", crash):
        return known[-1].strip()
    step = re.search(r"^Node: (\S+)", crash)
    failed = f"Step {step.group(1).split('.', 1)[-1]}" if step else "A step"
    if "No space left on device" in crash or "Disk quota exceeded" in crash:
        return (
            f"{failed} found no space on the disk of {settings.work_dir} or {settings.output_dir}: "
            "free some and run the same command again."
        )
    if re.search(rf"{WorkerKilled.__name__}|MemoryError|bad_alloc|Failed to allocate memory", crash):
        return f"{failed} was killed or had too little memory: run again with a smaller --nprocs."
    if re.search("BlockingIOError|can't start new thread|Resource temporarily unavailable", crash):
        return f"{failed} could start no process: {NO_PROCESS}"
    if FilterFailed.__name__ in crash or "Registration failed with error code" in crash:
        return (
            f"{failed} failed in ANTs, as it does with too little memory: run again with a smaller --nprocs, "
            "or else please report it with its crash file."
        )
    missing = f"FileNotFoundError: [Errno 2] No such file or directory: '{settings.work_dir}"
    if "the results file corresponding" in crash or missing in crash:
        return (
            f"{failed} did not find its files in {settings.work_dir}: nothing else may clear that folder "
            "during a run; run the same command again."
        )
    last = [line.strip() for line in crash.splitlines() if line.strip()][-1:]
    return f"{failed} failed ({''.join(last)}): please report it with its crash file."
