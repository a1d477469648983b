"""One run at a time for an image in a work folder."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import IO

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import GRAPH, image_wf_name
from bids_inpaint.dataset.people import people
from bids_inpaint.errors import InputError
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")


def _lock(lock: IO, name: str) -> bool:
    """Lock a workflow until the file is closed, or this process ends, if no other run has it.

    Each has a byte of the one file, by its name: a process may open fewer files than a run has images.
    """
    place = int.from_bytes(sha256(name.encode()).digest()[:7], "big")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # some file systems have no locks
        log.debug("%s is not locked: %s", name, error)
    return True


def claim(images: Sequence[Image], settings: Settings, held: ExitStack) -> IO:
    """Lock the images in the work folder until the stack is closed.

    Two runs that work on an image in the same folder would delete each other's files.
    """
    # closing the file elsewhere in this process would end the locks
    path = settings.work_dir / ".bids_inpaint.lock"
    try:
        lock = held.enter_context(path.open("a"))
    except OSError as error:
        raise InputError(
            f"{path} can't be opened ({error.strerror}): name another work folder with -w."
        ) from None
    names = {image_wf_name(image): image.prefix for image in images}
    names |= {person.workflow: f"sub-{person.subject}" for person in people(images)}
    busy = [name for workflow, name in names.items() if not _lock(lock, workflow)]
    if busy:
        raise InputError(
            f"Another run works on {', '.join(busy[:5])}{' and others' if len(busy) > 5 else ''} in "
            f"{settings.work_dir}: wait for it, or name another folder with -w."
        )
    return lock


def clean(work_dir: Path, lock: IO) -> None:
    """Remove what earlier runs left in the work folder, and nothing of the user's or of other runs."""
    folders = [folder for folder in work_dir.glob(f"{GRAPH}/*") if folder.is_dir()]
    left = [folder for folder in folders if not _lock(lock, folder.name)]
    whole = [] if left else [*work_dir.glob(GRAPH), *work_dir.glob("tpl-*")]
    for folder in [*folders, *whole]:
        if folder not in left:
            shutil.rmtree(folder)
