"""Writing files that are whole or not there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_unfinished: set[Path] = set()


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes that name when the block ends without an error.

    The temporary name keeps the extensions, by which writers choose their format. Whatever happens, it
    is gone afterwards.

    Parameters
    ----------
    path : path
        Of a file. An existing one is replaced.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "table.tsv"
    >>> with replacing(target) as part:
    ...     _ = part.write_text("whole")
    >>> [p.name for p in target.parent.iterdir()]
    ['table.tsv']
    """
    target = Path(path).absolute()
    stem, dot, extensions = target.name.partition(".")
    # processes of different containers and machines have the same number
    part = target.with_name(f".{stem}.{uuid.uuid4().hex}.part{dot}{extensions}")
    _unfinished.add(part)
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
        _unfinished.discard(part)


def read_json(path: str | os.PathLike) -> Any:
    """Content of a JSON file that anybody may have written.

    Raises
    ------
    OSError
        If it can't be read, or is no file: a pipe would be waited for.
    ValueError
        If it holds no JSON.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is not a regular file")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_sidecar(path: str | os.PathLike) -> dict[str, Any]:
    """Content of a JSON file that a run can do without: empty if it is missing, damaged or no object."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def first_line(error: Exception, longest: int = 160) -> str:
    """What an error says, short enough to stand in a sentence; its type if it says nothing.

    Examples
    --------
    >>> first_line(ValueError("no such table\\n[SQL: …]")), first_line(KeyError())
    ('no such table', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0][:longest] or type(error).__name__


def unreadable(error: OSError) -> str:
    """That a file can't be read and why, as the end of a sentence.

    Examples
    --------
    >>> unreadable(PermissionError(13, "Permission denied", "/x"))
    "can't be read (Permission denied): check the path and its permissions."
    """
    return f"can't be read ({error.strerror or error}): check the path and its permissions."


def printable(text: str) -> str:
    """Escape what a terminal would not print: names of files hold anything.

    Examples
    --------
    >>> printable("sub-" + chr(27) + "[2J") == r"sub-\\x1b[2J"
    True
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_utf8(name: str) -> bool:
    r"""Whether the name of a file is UTF-8: on Linux it is any bytes, and most libraries can't take others.

    Examples
    --------
    >>> is_utf8("Müller"), is_utf8(os.fsdecode(b"M\xfcller"))
    (True, False)
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def discard_unfinished() -> None:
    """Delete what this process is writing: it is about to end at once."""
    for part in list(_unfinished):
        with suppress(OSError):
            part.unlink(missing_ok=True)
