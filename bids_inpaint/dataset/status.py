"""What became of an image, and in which run, in a file of the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.io.files import read_sidecar, write_json


def saved_file(status_file: Path, run_uuid: str, part: str) -> Path:
    """The file whose existence says that a run has saved a part of an image; it is gone when the run ends."""
    return status_file.parent / run_uuid / status_file.name.replace("_status.json", f"_{part}.saved")


def is_held(status_file: Path, run_uuid: str) -> bool:
    """Whether a run that has begun to save an image is the last that did, and has met no other one."""
    content = read_sidecar(status_file)
    return content.get("RunUUID") == run_uuid and content.get("Status") != "failed"


def write_status(status_file: Path, run_uuid: str, status: str, **more: Any) -> None:
    """Say what became of an image: "done", "failed" or "unfinished", in which run, and what else there is."""
    content = {"Status": status, "SoftwareVersion": __version__, "RunUUID": run_uuid}
    write_json(status_file, content | more)
