"""What became of an image, and in which run, in a file of the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import status_file
from bids_inpaint.errors import printable
from bids_inpaint.io.files import read_sidecar, write_json

#: Parts of a run that may fail without harm to the inpainted image and its lesion map.
OPTIONAL = frozenset({"reference", "flair", "original"})


def saved_file(path: Path, run_uuid: str, part: str) -> Path:
    """The file whose existence says that a run has saved a part of an image; it is gone when the run ends."""
    return path.parent / run_uuid / path.name.replace("_status.json", f"_{part}.saved")


def is_held(path: Path, run_uuid: str) -> bool:
    """Whether a run that has begun to save an image is the last that did, and has met no other one."""
    content = read_sidecar(path)
    return content.get("RunUUID") == run_uuid and content.get("Status") != "failed"


def write_status(path: Path, run_uuid: str, status: str, **more: Any) -> None:
    """Say what became of an image: "done", "failed" or "unfinished", in which run, and what else there is."""
    content = {"Status": status, "SoftwareVersion": __version__, "RunUUID": run_uuid}
    write_json(path, content | more)


def last_run(image: Image, out_dir: Path) -> tuple[str, frozenset[str]]:
    """What became of an image in the last run of the participant level that began it.

    Parameters
    ----------
    image : Image
    out_dir : Path

    Returns
    -------
    reason : str
        Why its results can't be used; empty if they can.
    parts : frozenset of str
        Which of the `OPTIONAL` parts it made; all that did not fail if an earlier version wrote the status.
    """
    path = status_file(out_dir, image)
    # those of 0.1.0 have none
    if not path.exists():
        return "", OPTIONAL
    content = read_sidecar(path)
    status = content.get("Status")
    listed = content.get("Parts")
    parts = OPTIONAL.intersection(map(str, listed)) if isinstance(listed, list) else OPTIONAL
    if status == "done":
        return "", parts
    if status == "unfinished":
        return "its last run did not end, so its results may be those of several runs", frozenset()
    if status != "failed":
        return f"{path} can't be read", frozenset()
    failed = content.get("Failed")
    lost = frozenset(map(str, failed)) if isinstance(failed, list) else frozenset()
    if lost and lost <= OPTIONAL:
        return "", parts - lost
    error = content.get("Error")
    reason = f" ({printable(str(error)).rstrip('.')})" if error else ""
    then = ", so its results are of an earlier one" if content.get("EarlierResults") is True else ""
    return f"its last run failed{reason}{then}", frozenset()
