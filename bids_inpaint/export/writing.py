"""Writing the files of an export: whole or not at all, what changed alone, and over nothing of others."""

from __future__ import annotations

import errno
import filecmp
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.description import DESCRIPTION
from bids_inpaint.errors import InputError
from bids_inpaint.export.plan import Item
from bids_inpaint.io.files import read_json, replacing, write_json

#: What an export notes of itself, so that it knows its files again.
MANIFEST = ".bids_inpaint_export.json"
#: Of which one export at a time has the lock.
LOCK = ".bids_inpaint_export.lock"


class Export:
    """A folder with an export, and what it notes of the files that are there.

    Parameters
    ----------
    root : Path
        The folder; it may be empty.
    origin : dict
        What all of the export comes from and how it is made: an export of something else is refused.

    Raises
    ------
    InputError
        If the folder holds something else.
    """

    def __init__(self, root: Path, origin: dict[str, Any]):
        self.root, self.origin = root, origin
        self.files: dict[str, dict[str, Any]] = {}
        #: Whether hard links were asked for and could not be made.
        self.copied = False
        names = {name for name in os.listdir(root) if name != LOCK}
        if MANIFEST not in names:
            if names:
                raise InputError(
                    f"{root} is not empty and no export of bids_inpaint (it holds {min(names)}): name a new "
                    "folder with --export-dir."
                )
            return
        try:
            noted = read_json(root / MANIFEST)
            self.files = {str(k): dict(v) for k, v in noted["Files"].items()}
            was = noted["Origin"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{root / MANIFEST} can't be read, so it is not known which files are of the export: delete "
                f"{root}, or name another folder with --export-dir."
            ) from None
        if was != origin:
            name = next(key for key in origin if was.get(key) != origin[key])
            raise InputError(
                f"{root} is an export with {name} {was.get(name)}, not {origin[name]}: name another folder "
                "with --export-dir, or delete this one."
            )

    def is_ours(self, relative: str) -> bool:
        """Whether a file is there as it was written."""
        noted = self.files.get(relative)
        return noted is not None and noted.get("Is") == _state(self.root / relative)

    def check(self, items: Mapping[str, Item], mode: str) -> None:
        """Raise `InputError` if a file to write or to remove was changed by others, or is theirs."""
        strangers = []
        for relative in sorted({*items, *self.files}):
            path = self.root / relative
            if not os.path.lexists(path) or self.is_ours(relative):
                continue
            if relative not in items or not _same(path, items[relative], mode):
                strangers.append(path)
        if strangers:
            more = f" and {len(strangers) - 1} other files" if strangers[1:] else ""
            raise InputError(
                f"{strangers[0]}{more} would be replaced, but not by this program: somebody changed or put "
                "it there; move it elsewhere, or name another folder with --export-dir."
            )

    def write(self, items: Mapping[str, Item], mode: str, gone: list[str]) -> tuple[int, dict[str, str]]:
        """Write what is new or has changed, and remove what is gone.

        The description of the dataset is removed before and written last: no tool takes what an interrupted
        export leaves for a dataset.

        Parameters
        ----------
        items : mapping of Item
            By path; all are in the export then.
        mode : {'copy', 'hardlink', 'symlink'}
        gone : list of str
            Files of the export that are no longer in it.

        Returns
        -------
        changed : int
            Number of files that were written or removed.
        unreadable : dict of str
            Sentences on files whose content could not be read, by their path.
        """
        made = {relative: _made(item, mode) for relative, item in items.items()}
        new = [
            relative
            for relative in items
            if not (self.is_ours(relative) and self.files[relative].get("From") == made[relative])
        ]
        unreadable: dict[str, str] = {}
        if not new and not gone:
            return 0, unreadable
        (self.root / DESCRIPTION).unlink(missing_ok=True)
        self.files.pop(DESCRIPTION, None)
        try:
            for relative in gone:
                self._remove(relative)
            for relative in new:
                if relative == DESCRIPTION:
                    continue
                try:
                    self._write(relative, items[relative], mode, made[relative])
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    self._remove(relative)
                    source = items[relative].source
                    unreadable[relative] = f"{source} is truncated or corrupt ({error}): copy it again."
        finally:
            self._note()
        self._write(DESCRIPTION, items[DESCRIPTION], mode, made[DESCRIPTION])
        self._note()
        return len({*new, *gone} - {DESCRIPTION}), unreadable

    def _write(self, relative: str, item: Item, mode: str, made: str) -> None:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            self._make(item, mode, part)
        self.files[relative] = {"From": made, "Is": _state(path)}

    def _make(self, item: Item, mode: str, part: Path) -> None:
        if item.content is not None:
            part.write_bytes(item.content)
            return
        assert item.source is not None
        if item.unzip:
            with gzip.open(item.source) as packed, part.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        elif item.link and mode == "symlink":
            part.symlink_to(item.source)
        elif not (item.link and mode == "hardlink" and self._linked(item.source, part)):
            shutil.copyfile(item.source, part)

    def _linked(self, source: Path, part: Path) -> bool:
        """Whether a hard link to the content of a file could be made."""
        try:
            os.link(os.path.realpath(source), part)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise
            self.copied = True
            return False
        return True

    def _remove(self, relative: str) -> None:
        path = self.root / relative
        path.unlink(missing_ok=True)
        self.files.pop(relative, None)
        for folder in path.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def _note(self) -> None:
        files = dict(sorted(self.files.items()))
        write_json(self.root / MANIFEST, {"Origin": self.origin, "Files": files})


def _state(path: Path) -> list[Any] | None:
    """By which it is seen whether a file was changed."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if os.path.islink(path):
        return ["link", os.readlink(path)]
    return [status.st_size, status.st_mtime_ns]


def _made(item: Item, mode: str) -> str:
    """From what and how a file is made: if that is the same, so is the file."""
    if item.content is not None:
        return f"sha256:{hashlib.sha256(item.content).hexdigest()}"
    assert item.source is not None
    status = os.stat(item.source)
    how = "unzip" if item.unzip else mode if item.link else "copy"
    return f"{how}:{os.path.realpath(item.source)}:{status.st_size}:{status.st_mtime_ns}"


def _same(path: Path, item: Item, mode: str) -> bool:
    """Whether a file that is there is what would be written."""
    if item.content is not None:
        return path.is_file() and path.read_bytes() == item.content
    assert item.source is not None
    if path.is_symlink():
        return item.link and mode == "symlink" and os.readlink(path) == os.fspath(item.source)
    if not path.is_file():
        return False
    if not item.unzip:
        return filecmp.cmp(path, item.source, shallow=False)
    try:
        with gzip.open(item.source) as packed, path.open("rb") as plain:
            while one := packed.read(1 << 20):
                if plain.read(len(one)) != one:
                    return False
            return not plain.read(1)
    except (OSError, EOFError, zlib.error):
        return False
