"""The BIDS validator on what a run is about."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from bids_inpaint.files import printable
from bids_inpaint.images import InputError
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")

#: Folders in each other that a dataset may have.
DEEPEST = 100


def validate(settings: Settings, known: Collection[str] = ()) -> None:
    """Run the BIDS validator on the participants asked for, if it is installed.

    Parameters
    ----------
    settings : Settings
    known : collection of str
        Files and folders of the dataset, by their paths in it, whose errors count no more: they are left out.

    Raises
    ------
    InputError
        If it finds errors.
    """
    beside = Path(sys.executable).with_name("bids-validator-deno")
    command = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if command is None:
        log.warning("bids-validator-deno is not installed: the dataset is not validated.")
        return
    with tempfile.TemporaryDirectory() as view:
        _link_participants(settings, Path(view), known)
        if link := circle(Path(view)):
            place = printable(str(settings.bids_dir / link.relative_to(view)))
            log.warning(
                "%s is a link to a folder that leads to it again, of which the BIDS validator may find no "
                "end: the dataset is not validated.", place,
            )  # fmt: skip
            return
        result = subprocess.run(
            [command, view, "--format", "json", "--ignoreWarnings", "--ignoreNiftiHeaders"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    try:
        issues = json.loads(result.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        log.warning("bids-validator-deno gave no answer: the dataset is not validated.")
        return
    errors = [i for i in issues if i.get("severity") == "error" and not _is_within(i, known)]
    if errors:
        shown = "; ".join(
            dict.fromkeys(f"{i.get('code')} {i.get('location', '')}".strip() for i in errors[:5])
        )
        raise InputError(
            f"{settings.bids_dir} is not valid BIDS ({len(errors)} errors: {shown}): "
            "correct it, or use --skip-bids-validation."
        )


def _is_within(issue: dict, known: Collection[str]) -> bool:
    place = str(issue.get("location", "")).lstrip("/")
    return any(place == path or place.startswith(f"{path}/") for path in known)


def _link_participants(settings: Settings, view: Path, known: Collection[str]) -> None:
    """Make a view of the dataset without other participants and what isn't BIDS.

    The validator takes minutes for thousands.
    """
    wanted = {f"sub-{label}" for label in settings.participant_label}
    for path in settings.bids_dir.iterdir():
        other = wanted and path.name.startswith("sub-") and path.name not in wanted
        if not other and path.name not in ("derivatives", "sourcedata", "code", *known):
            (view / path.name).symlink_to(path)


def circle(root: Path) -> Path | None:
    """Find a link to a folder that leads, maybe by other links, to that link again.

    Parameters
    ----------
    root : path
        Where to begin; each folder below it is read once, however many links lead there, and hidden ones
        are not.
    """
    done: set[str] = set()

    def search(folder: Path, around: frozenset[str]) -> Path | None:
        here = os.path.realpath(folder)
        if here in around or len(around) > DEEPEST:
            return folder
        if here in done:
            return None
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError:
            names = []
        for path in (folder / name for name in names):
            if os.path.isdir(path) and (found := search(path, around | {here})):
                return found
        done.add(here)
        return None

    return search(root, frozenset())
