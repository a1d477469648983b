"""Tables of BIDS, as people and their programs write them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

#: What stands for an unknown value.
NOTHING = "n/a"
_KEYS = ("participant_id", "session_id")
_PREFIX = {"participant_id": "sub-", "session_id": "ses-", "filename": ""}
#: Names that people give to a column of sessions.
_SESSION = re.compile(r"(?i)(session|ses|visit|time_?point|wave)([ _-]?(id|label|name|number|no|nr))?")
Row = dict[str, str]


@dataclass
class Table:
    """A table of BIDS, as read from disk.

    Attributes
    ----------
    columns : list of str
        Those that are no keys.
    rows : list of dict
        Cells by column; of the keys, labels without ``sub-`` and ``ses-``, empty where unknown.
    sessions : bool
        Whether it has a column ``session_id``.
    warnings : list of str
        Sentences on what is wrong with it.
    used : bool
        Whether it can be used at all.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sessions: bool = False
    warnings: list[str] = field(default_factory=list)
    used: bool = False

    @property
    def like_sessions(self) -> list[str]:
        """Columns that name a session by another name than ``session_id``, where that is missing."""
        return [] if self.sessions else [name for name in self.columns if _SESSION.fullmatch(name)]


def read_table(path: Path, key: str) -> Table:
    """Read a table as people write it: what is doubtful is not used, and there is a warning of it.

    Parameters
    ----------
    path : Path
    key : {'participant_id', 'session_id', 'filename'}
        The column that it must have.
    """
    table = Table()
    file_name = str(path)
    # a pipe would be waited for
    if not os.path.isfile(path):
        if os.path.lexists(path):
            table.warnings.append(f"{file_name} is a broken link or not a regular file, and is not used.")
        return table
    try:
        text = _decode(path.read_bytes())
    except OSError as error:
        table.warnings.append(f"{file_name} can't be read, and is not used: {error.strerror}.")
        return table
    if "\ufffd" in text:
        table.warnings.append(
            f"{file_name} is not UTF-8: each character that can't be read has become \ufffd."
        )
    lines = [(i, line) for i, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    header = _cells(lines[0][1]) if lines else []
    keys = dict.fromkeys((*_KEYS, key))
    names = [name.lower() if name.lower() in keys else name for name in header]
    if key not in names:
        commas = "\t" not in text and any(mark in ",;" for mark in "".join(header))
        why = "has commas in place of tabs" if commas else f"has no column {key}"
        table.warnings.append(f"{file_name} {why}, and is not used: write it as BIDS asks.")
        return table
    if twice := next((k for k in keys if names.count(k) > 1), None):
        table.warnings.append(f"{file_name} has two columns {twice}, and is not used: remove one.")
        return table
    if wrong := [old for old, new in zip(header, names, strict=True) if old != new]:
        table.warnings.append(
            f"{file_name} has a column {wrong[0]}, which is taken for {wrong[0].lower()}: rename it as BIDS "
            "asks."
        )
    names = _told_apart(names, file_name, table.warnings)
    table.used, table.sessions = True, "session_id" in names
    table.columns = [name for name in names if name and name not in keys]
    odd = []
    for number, line in lines[1:]:
        cells = _cells(line)
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) != len(names):
            odd.append(str(number))
            continue
        row = {name: cell or NOTHING for name, cell in zip(names, cells, strict=True) if name}
        labels = {k: label_of(row[k], _PREFIX[k]) for k in keys if k in row}
        if labels[key]:
            table.rows.append(row | labels)
    if odd:
        table.warnings.append(
            f"{file_name} has a different number of cells in line {', '.join(odd[:5])}"
            f"{', …' if odd[5:] else ''} than in its header: these lines are not used."
        )
    return table


def _decode(content: bytes) -> str:
    # spreadsheets write "Unicode text" so
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def _cells(line: str) -> list[str]:
    """Values of a line, without spaces and without the quotes that other programs put around them."""
    cells = (cell.strip() for cell in line.split("\t"))
    quoted = re.compile(r'"(.*)"', re.DOTALL)
    return [m[1].replace('""', '"').strip() if (m := quoted.fullmatch(c)) else c for c in cells]


def label_of(cell: str, prefix: str) -> str:
    """Label in a cell, without ``sub-`` or ``ses-``; empty if it is unknown."""
    return "" if cell.lower() == NOTHING else cell.removeprefix(prefix)


def _told_apart(names: list[str], file_name: str, warnings: list[str]) -> list[str]:
    """Names of columns of which none is there twice."""
    out: list[str] = []
    for name in names:
        unique, i = name, 1
        while name and (unique in out or (i > 1 and unique in names)):
            i += 1
            unique = f"{name}_{i}"
        if unique != name:
            warnings.append(
                f"{file_name} has several columns {name:.80}: the later one is called {unique:.80}."
            )
        out.append(unique)
    return out
