"""Why a file has no content here: broken links, and pointers of git-annex and Git LFS."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

#: Pointers of git-annex and git-lfs are at most this long (bytes).
_POINTER = 32768


def problem_of(path: Path) -> str | None:
    """Why a file has no content to read, in one sentence, or None.

    Its voxels are not looked at.
    """
    if reason := problem_of_link(path):
        return reason
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path} can't be read ({error.strerror}): check the path and its permissions."
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file: put an image in its place."
    if not status.st_size:
        return f"{path} is empty (0 bytes): copy it again."
    try:
        with path.open("rb") as file:
            start = file.read(64) if status.st_size <= _POINTER else b""
    except OSError as error:
        return f"{path} can't be read ({error.strerror}): check its permissions."
    if start.startswith(b"/annex/objects/") or re.match(rb"(\.\./)*\.git/annex/objects/", start):
        return f"{path} is a pointer of git-annex to content that is not here: {_fetch(path)}."
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of Git LFS to content that is not here: fetch it with 'git lfs pull'."
    return None


def is_broken(path: str | os.PathLike) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def problem_of_link(path: Path) -> str | None:
    """Why a link leads to no content, or None."""
    if not is_broken(path):
        return None
    target = os.readlink(path)
    if "annex/objects/" in target.replace(os.sep, "/"):
        return f"{path} is a link of git-annex to content that is not here: {_fetch(path)}."
    return (
        f"{path} is a link to {target}, which does not exist here: put the target there, or bind it into "
        "the container under the same path."
    )


def _fetch(path: Path) -> str:
    return f"fetch it with 'datalad get {path}' or 'git annex get {path}'"
