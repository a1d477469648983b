"""What a dataset's tables say of its participants and of their sessions."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.tables import NOTHING, Row, Table, label_of, read_table
from bids_inpaint.errors import printable
from bids_inpaint.io.files import read_sidecar

log = logging.getLogger("bids_inpaint")

#: Those below are children.
ADULT = 18.0
#: More years than anybody has lived.
_OLDEST = 130.0
_A_YEAR = {
    **dict.fromkeys(("year", "years", "yr", "yrs", "y"), 1.0),
    **dict.fromkeys(("month", "months", "mo", "mos"), 12.0),
    **dict.fromkeys(("week", "weeks", "wk", "wks", "w"), 365.25 / 7),
    **dict.fromkeys(("day", "days", "d"), 365.25),
}
_UNITS = "years?|yrs?|months?|mos?|weeks?|wks?|days?"
#: Places of a description where a word is the unit: "in months", "(months)", "months of age", "age, months".
_UNIT = re.compile(
    rf"\bin (?:\w+ )?(years|months|weeks|days)\b|[(\[]({_UNITS})[)\]]|\b({_UNITS}) (?:of age|old)\b"
    rf"|(?:^|[,;:/=-])\s*({_UNITS})\.?$",
    re.MULTILINE,
)
_NUMBER = r"(\d+(?:\.\d+)?|\d+,\d{1,2})"


class People:
    """``participants.tsv`` and the ``sub-X/sub-X_sessions.tsv`` of a dataset.

    Each warning is logged once.

    Parameters
    ----------
    root : Path
        Of the dataset.

    Attributes
    ----------
    columns : list of str
        Columns of ``participants.tsv`` but for the keys.
    warnings : list of str
        What was logged so far.
    """

    def __init__(self, root: Path):
        self._root = root
        self.warnings: list[str] = []
        self._table = self._read(root / "participants.tsv", "participant_id")
        self._rows: dict[str, list[Row]] = {}
        for row in self._table.rows:
            self._rows.setdefault(row["participant_id"], []).append(row)
        self._sessions: dict[str, Table] = {}
        self._explained = read_sidecar(root / "participants.json")
        self._explained_sessions = {"": read_sidecar(root / "sessions.json")}
        self.columns = self._table.columns

    @property
    def used(self) -> bool:
        """Whether there is a ``participants.tsv`` that can be used."""
        return self._table.used

    @property
    def keys(self) -> set[tuple[str, str]]:
        """Participant and session labels of the rows of ``participants.tsv``; the latter may be empty."""
        return {(row["participant_id"], row.get("session_id", "")) for row in self._table.rows}

    def row(self, subject: str, session: str | None) -> Row | None:
        """The row of ``participants.tsv`` that is about an image, by column.

        That of another session is none; a participant's only row counts for all sessions if it names none,
        in a column of whatever name.
        """
        rows = self._rows.get(subject, [])
        matching = [row for row in rows if row.get("session_id", "") == (session or "")]
        if not matching and all(not row.get("session_id") for row in rows):
            matching = rows
        if others := [row for row in matching if session and _names_another(row, session, self._table)]:
            matching = [row for row in matching if row not in others]
            self._warn(
                f"{self._root / 'participants.tsv'} has a column {self._table.like_sessions[0]}, which is "
                "taken for session_id, so that a row counts for the session that it names alone: rename the "
                "column as BIDS asks, or otherwise if it names no session."
            )
        different = [row for i, row in enumerate(matching) if row not in matching[:i]]
        if len(different) > 1:
            which = f"ses-{session} of " if session and self._table.sessions else ""
            remedy = (
                "remove all but one" if self._table.sessions else "tell them apart by a column session_id"
            )
            self._warn(
                f"{self._root / 'participants.tsv'} has {len(different)} different rows of "
                f"{which}sub-{subject}, of which none is used: {remedy}."
            )
            return None
        return different[0] if different else None

    def of(self, subject: str, session: str | None) -> Row:
        """All columns that the tables have of an image; what its session's table has goes first."""
        row = self.row(subject, session) or {}
        out = {name: row.get(name, NOTHING) for name in self.columns}
        if session is None:
            return out
        table = self._of_sessions(subject)
        rows = [row for row in table.rows if row["session_id"] == session]
        if any(row != rows[0] for row in rows):
            self._warn(
                f"{self._path(subject)} has {len(rows)} different rows of ses-{session}, of "
                "which none is used: remove all but one."
            )
            rows = []
        # the participant's value would be that of another time
        return out | {name: rows[0][name] if rows else NOTHING for name in table.columns}

    def lacks(self, subject: str, session: str | None) -> bool:
        """Whether a participant has a table of sessions without a row of this one."""
        if session is None:
            return False
        table = self._of_sessions(subject)
        return table.used and all(row["session_id"] != session for row in table.rows)

    def explained(self, column: str) -> dict[str, Any] | None:
        """What the dataset says of a column."""
        for content in (self._explained, *self._explained_sessions.values()):
            if isinstance(known := content.get(column), dict) and known:
                return known
        return None

    def age(self, subject: str, session: str | None) -> float | None:
        """Age in years at an image; None if it is unknown."""
        low, high = self._age_between(subject, session)
        return None if low is None else low if high is None else (low + high) / 2

    def child(self, subject: str, session: str | None) -> bool:
        """Whether the tables say that a participant is younger than 18 years at an image."""
        low, high = self._age_between(subject, session)
        return low is not None and high is not None and low < ADULT and high <= ADULT

    def _age_between(self, subject: str, session: str | None) -> tuple[float | None, float | None]:
        """Bounds of the age in years; neither if it is unknown, no upper one for ``89+``."""
        row = self.of(subject, session)
        column = next((name for name in row if name.lower() == "age"), None)
        if column is None:
            return None, None
        from_session = session is not None and column in self._of_sessions(subject).columns
        per_year = self._per_year(column, subject if from_session else None)
        low, high = _bounds(row[column])
        if per_year is None or low is None:
            return None, None
        low, high = low / per_year, None if high is None else high / per_year
        if (high or low) > _OLDEST:
            self._warn(
                f"Tables of {self._root} have ages of over {_OLDEST:.0f} years, which are "
                'not used: name their unit in the JSON beside the table, such as {"age": {"Units": "month"}}.'
            )
            return None, None
        return low, high

    def _per_year(self, column: str, subject: str | None) -> float | None:
        """How many of the unit of an age are a year; None if the unit is not known."""
        content = self._explained if subject is None else self._explained_sessions[subject]
        entry = content.get(column)
        entry = entry if isinstance(entry, dict) else {}
        unit = str(entry.get("Units") or "").strip().lower() or _described_unit(entry)
        word = re.match("[a-z]*", unit)
        known = _A_YEAR.get(word[0] if word else "")
        if known is None:
            self._warn(
                f"The unit {unit[:40]!a} of ages in {self._root} is not known, so ages are "
                "not used: write year, month, week or day as its Units."
            )
        return known

    def _path(self, subject: str) -> Path:
        return self._root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"

    def _of_sessions(self, subject: str) -> Table:
        if subject not in self._sessions:
            path = self._path(subject)
            self._sessions[subject] = self._read(path, "session_id")
            if self._sessions[subject].used:
                sidecar = read_sidecar(path.with_suffix(".json"))
                self._explained_sessions[subject] = self._explained_sessions[""] | sidecar
        return self._sessions[subject]

    def _read(self, path: Path, key: str) -> Table:
        table = read_table(path, key)
        for text in table.warnings:
            self._warn(text)
        return table

    def _warn(self, text: str) -> None:
        text = printable(text)
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s", text)


def _names_another(row: Row, session: str, table: Table) -> bool:
    """Whether a row names another session in a column that is not called ``session_id``."""
    named = {label_of(row[name], "ses-") for name in table.like_sessions}
    return not named <= {session, ""}


def _described_unit(entry: dict[str, Any]) -> str:
    """The unit of an age that its description names; all of it if it may mean another one than years.

    Examples
    --------
    >>> _described_unit({"Description": "Age (months)"}), _described_unit({"Description": "Age"})
    ('months', 'years')
    """
    text = "\n".join(str(entry.get(key) or "").strip().lower() for key in ("LongName", "Description"))
    named = {next(filter(None, groups)) for groups in _UNIT.findall(text)}
    if len({_A_YEAR[unit] for unit in named}) == 1:
        return named.pop()
    return text.strip() if named or re.search(r"\b(months|weeks|days)\b", text) else "years"


def _bounds(text: str) -> tuple[float | None, float | None]:
    """Between which numbers an age lies.

    Examples
    --------
    >>> _bounds("30"), _bounds("8,5"), _bounds("20-25"), _bounds("89+"), _bounds(">89"), _bounds("<2")
    ((30.0, 30.0), (8.5, 8.5), (20.0, 25.0), (89.0, None), (89.0, None), (0.0, 2.0))
    >>> _bounds("n/a"), _bounds("-9"), _bounds("1e999")
    ((None, None), (None, None), (None, None))
    """
    match = re.fullmatch(rf"([<>]=?|[≤≥])?\s*{_NUMBER}\s*(?:(\+)|[-–]\s*{_NUMBER})?", text.strip(), re.ASCII)
    if not match:
        return None, None
    sign, first, plus, last = match.groups()
    low = float(first.replace(",", "."))
    if last:
        high = float(last.replace(",", "."))
        return (low, high) if not sign and low <= high else (None, None)
    if plus or (sign and sign[0] in ">≥"):
        return low, None
    return (0.0, low) if sign else (low, low)


def people(root: Path) -> People:
    """The tables of a dataset, read once as long as ``participants.tsv`` stays as it is."""
    stamps: list[tuple[int, int, int] | None] = []
    for name in ("participants.tsv", "participants.json"):
        try:
            state = (root / name).stat()
            stamps.append((state.st_mtime_ns, state.st_size, state.st_ino))
        except OSError:
            stamps.append(None)
    return _people(root, tuple(stamps))


@lru_cache(maxsize=1)
def _people(root: Path, stamps: tuple) -> People:
    return People(root)


def ages(root: Path) -> Callable[[str, str | None], float | None]:
    """A function that gives the age in years by participant and session label; None if it is unknown.

    Parameters
    ----------
    root : Path
        Of the dataset.
    """
    return people(root).age


def children(root: Path) -> Callable[[str, str | None], bool]:
    """A function that tells by participant and session label who is younger than 18 years.

    Parameters
    ----------
    root : Path
        Of the dataset.
    """
    return people(root).child
