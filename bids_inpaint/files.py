"""Writing files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


def discard_unfinished() -> None:
    """Delete what this process is writing: it is about to end at once."""
    for part in list(_unfinished):
        with suppress(OSError):
            part.unlink(missing_ok=True)
