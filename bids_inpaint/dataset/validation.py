"""The BIDS validator on what a run is about."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from bids_inpaint.errors import InputError, printable
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")

#: Folders in each other that a dataset may have.
DEEPEST = 100
#: Participants whose errors are shown.
_MOST = 20


def validate(settings: Settings, known: Collection[str] = ()) -> None:
    """Run the BIDS validator on the participants asked for, if it is installed.

    There is a warning of participants whose own files have errors, as the images of the others can be used,
    and maybe theirs too. Links to nothing, as to content that was not fetched, are no more than that: images
    behind such links are refused, each with its remedy, when images are collected.

    Parameters
    ----------
    settings : Settings
    known : collection of str
        Files and folders of the dataset, by their paths in it, whose errors count no more: they are left out.

    Raises
    ------
    InputError
        If it finds errors of the dataset as a whole, or of all participants asked for.
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
                "%s is a link that leads back to itself, so that the validator may never end: the dataset is "
                "not validated.", place,
            )  # fmt: skip
            return
        result = subprocess.run(
            [command, view, "--format", "json", "--ignoreWarnings", "--ignoreNiftiHeaders"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    try:
        answer = json.loads(result.stdout)["issues"]
        issues, meanings = answer["issues"], answer.get("codeMessages") or {}
    except (ValueError, KeyError, TypeError):
        log.warning("bids-validator-deno gave no answer: the dataset is not validated.")
        return
    errors = [
        {"issueMessage": meanings.get(issue.get("code")), **issue}
        for issue in issues
        if issue.get("severity") == "error" and not _is_within(issue, known)
    ]
    by_participant: dict[str, list[dict]] = {}
    for error in errors:
        by_participant.setdefault(_participant(error), []).append(error)
    whole = by_participant.pop("", [])
    invalid = {
        p for p, of_one in by_participant.items() if any(i.get("code") != "SYMLINK_BROKEN" for i in of_one)
    }
    if whole or (invalid and invalid >= _participants(settings)):
        raise InputError(
            f"{settings.bids_dir} is not valid BIDS ({_counted(errors)}: {_shown(whole or errors)}): "
            "correct it, or use --skip-bids-validation."
        )
    for participant, of_one in sorted(by_participant.items())[:_MOST]:
        log.warning(
            "%s is not valid BIDS (%s: %s).", printable(participant), _counted(of_one), _shown(of_one)
        )
    if others := sorted(by_participant)[_MOST:]:
        log.warning("These participants are not valid BIDS either: %s.", printable(", ".join(others)))


def _participants(settings: Settings) -> set[str]:
    asked = {f"sub-{label}" for label in settings.participant_label}
    return asked or {path.name for path in settings.bids_dir.glob("sub-*") if path.is_dir()}


def _participant(issue: dict) -> str:
    """The folder of a participant that an issue is about; empty if it is about more than one of them."""
    match = re.match(r"/(sub-[0-9a-zA-Z+]+)(?:/|$)", str(issue.get("location") or ""))
    return match[1] if match else ""


def _counted(errors: list[dict]) -> str:
    return "1 error" if len(errors) == 1 else f"{len(errors)} errors"


def _shown(errors: list[dict], most: int = 3, longest: int = 100) -> str:
    """Some issues of the validator in one line: place, code and what it says of it."""

    def sentence(issue: dict) -> str:
        code = " ".join(str(issue[key]) for key in ("code", "subCode") if issue.get(key))
        line = f" line {issue['line']}" if issue.get("line") else ""
        message = " ".join(str(issue.get("issueMessage") or "").split())
        message = message if len(message) <= longest else message[: longest - 1] + "…"
        return " ".join(part for part in (f"{issue.get('location', '')}{line}", code, message) if part)

    each = list(dict.fromkeys(printable(sentence(issue)) for issue in errors))
    return "; ".join(each[:most]) + ("; …" if len(each) > most else "")


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
            if os.path.isdir(path) and (match := search(path, around | {here})):
                return match
        done.add(here)
        return None

    return search(root, frozenset())
