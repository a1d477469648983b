"""Writing files that are whole or not there, and reading JSON that anybody may have written."""

from __future__ import annotations

import filecmp
import json
import math
import os
import shutil
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


def discard_unfinished() -> None:
    """Delete what this process is writing: it is about to end at once."""
    for part in list(_unfinished):
        with suppress(OSError):
            part.unlink(missing_ok=True)


def publish(source: str | os.PathLike, target: Path) -> None:
    """Copy under a temporary name and rename, unless the target has that content already."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    with replacing(target) as part:
        shutil.copyfile(source, part)


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically, unless it is there already; numbers that JSON doesn't have become null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically, unless it has that content already."""
    # names of files are any bytes
    content = text.encode("utf-8", errors="backslashreplace")
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(content)


def to_toml(value: Any) -> str:
    r"""A value in TOML.

    Examples
    --------
    >>> print(to_toml(["01", 2.5, True]), to_toml({"a b": Path('/x "y"')}))
    ["01", 2.5, true] {"a b" = "/x \"y\""}
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(key)} = {to_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    # strings, numbers and truth values are those of JSON, which leaves this character as it is
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace(
        "\x7f", r"\u007f"
    )
