"""In which order the images of a person were acquired, and how many years lie between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from bids_inpaint.dataset.image import Image, prefix_of
from bids_inpaint.dataset.tables import NOTHING, read_table
from bids_inpaint.errors import printable

_DAY, _YEAR = 1.0, 365.25
#: Nobody is followed for longer (years): some dates are shifted to hide them, and others are not.
_LONGEST = 90.0


@dataclass(frozen=True)
class Timeline:
    """The images of a person in the order in which they were acquired.

    Attributes
    ----------
    images : list of Image
    years : list of float or None
        Between the first image whose time is known and each; None where the time of an image is unknown.
    warnings : list of str
        Sentences on tables that are wrong, and at most one on times that are missing or contradict.
    times : list of datetime or None
        When each image was acquired, without zone (UTC where the table names one), as the table has it: it
        may be shifted.
    """

    images: list[Image]
    years: list[float | None]
    warnings: list[str]
    times: list[datetime | None] = field(default_factory=list)


def timeline(images: Sequence[Image]) -> Timeline:
    """Order the images of a person by time.

    The times are the ``acq_time`` of ``sub-X[_ses-Y]_scans.tsv``, or of ``sub-X_sessions.tsv`` if those are
    not all there. If neither has all of them, the order is that of the labels, of which 2 comes before 10.

    Parameters
    ----------
    images : sequence of Image
        Of one person, in any order.

    Notes
    -----
    BIDS asks for ISO 8601, and lets dates be shifted to before 1925, by as many days for all sessions of a
    person. The intervals between them are true then, and no more is used here. The times of the two tables
    are never mixed, as they may be shifted differently.
    """
    images = sorted(images, key=_label)
    warnings: list[str] = []
    tables = {
        name: look(images, warnings) for name, look in (("scans", _of_scans), ("sessions", _of_sessions))
    }
    times = max(tables.values(), key=lambda found: sum(time is not None for time in found))
    ordered, doubt = _in_order(images, times, tables)
    if doubt and len(images) > 1:
        warnings.append(f"sub-{images[0].subject} {doubt}")
    known = {id(image): time for image, time in zip(images, times, strict=True)}
    if ordered is None:
        unknown: list[None] = [None] * len(images)
        return Timeline(images, [*unknown], [printable(text) for text in warnings], [*unknown])
    first = min((time for time in times if time is not None), default=None)
    times = [known[id(image)] for image in ordered]
    years = [None if first is None or time is None else _days(first, time) / _YEAR for time in times]
    return Timeline(ordered, years, [printable(text) for text in warnings], times)


def _in_order(
    images: list[Image], times: list[datetime | None], tables: dict[str, list[datetime | None]]
) -> tuple[list[Image] | None, str]:
    """The images by time, or by label if not all times are known; None if the times are of no use.

    Beside it stands what the times leave in doubt, as a predicate, or nothing.
    """
    by_label = f"the order is that of the labels ({_listed(images)})"
    missing = [image for image, time in zip(images, times, strict=True) if time is None]
    if len(missing) == len(images):
        return images, (
            f"has no acquisition times, so that {by_label} and rates per year are not known: write acq_time "
            "into its sessions.tsv."
        )
    known = sorted((time, i) for i, time in enumerate(times) if time is not None)
    for (before, i), (after, k) in pairwise(known):
        if _days(before, after) > _LONGEST * _YEAR:
            return None, (
                f"has acquisition times {_days(before, after) / _YEAR:.0f} years apart, which are not used, "
                f"so that {by_label}: shift the dates of all its sessions by the same number of days."
            )
        if before == after and images[i].entities.get("ses") != images[k].entities.get("ses"):
            return None, (
                f"has the same acquisition time in {_listed([images[i], images[k]])}, so that its times are "
                f"not used and {by_label}: correct acq_time."
            )
    if missing:
        return images, (
            f"has no acquisition time of {_listed(missing)}, so that {by_label}: add its acq_time to the "
            "table that has the others."
        )
    ordered = [images[i] for _, i in known]
    shifts = [
        _days(scan, session)
        for scan, session in zip(tables["scans"], tables["sessions"], strict=True)
        if scan and session
    ]
    if shifts and max(shifts) - min(shifts) > _DAY:
        return ordered, (
            f"has intervals between its sessions that differ by {max(shifts) - min(shifts):.0f} days between "
            "its scans.tsv and its sessions.tsv, of which the former are used: correct acq_time in one of "
            "them."
        )
    if ordered != images:
        return ordered, (
            f"has acquisition times in another order than its labels, and the times are used "
            f"({_listed(ordered)}): correct acq_time if that is wrong."
        )
    return ordered, ""


def _of_scans(images: list[Image], warnings: list[str]) -> list[datetime | None]:
    """Times of images by the tables of scans that lie beside their folders."""
    tables: dict[Path, dict[str, str]] = {}
    times = []
    for image in images:
        path = Path(image.path)
        person_and_session: dict[str, str] = {
            k: image.entities[k] for k in ("sub", "ses") if k in image.entities
        }
        table = path.parents[1] / f"{prefix_of(person_and_session)}_scans.tsv"
        if table not in tables:
            cells = _cells(table, "filename", warnings)
            tables[table] = {_stem(name): cell for name, cell in cells.items()}
        times.append(_time(tables[table].get(_stem(f"{path.parent.name}/{path.name}")), table, warnings))
    return times


def _of_sessions(images: list[Image], warnings: list[str]) -> list[datetime | None]:
    """Times of images by the table of the person's sessions, of which each has one image at a time."""
    first = images[0]
    if "ses" not in first.entities:
        return [None] * len(images)
    table = Path(first.path).parents[2] / f"sub-{first.subject}_sessions.tsv"
    cells = _cells(table, "session_id", warnings)
    return [_time(cells.get(image.entities.get("ses", "")), table, warnings) for image in images]


def _cells(path: Path, key: str, warnings: list[str]) -> dict[str, str]:
    """The ``acq_time`` of each row of a table; none of rows that contradict."""
    table = read_table(path, key)
    warnings += table.warnings
    column = next((name for name in table.columns if name.lower() == "acq_time"), None)
    out: dict[str, str] = {}
    if column is None:
        return out
    twice = set()
    for row in table.rows:
        if out.setdefault(row[key], row[column]) != row[column]:
            twice.add(row[key])
    if twice:
        warnings.append(
            f"{path} has several acquisition times of {', '.join(sorted(twice))}, of which none is used: "
            "remove all but one."
        )
    return {name: cell for name, cell in out.items() if name not in twice}


def _time(cell: str | None, path: Path, warnings: list[str]) -> datetime | None:
    """A time without its zone; None if it is unknown, with a warning if it can't be read."""
    if cell is None or cell.lower() == NOTHING:
        return None
    try:
        time = datetime.fromisoformat(cell)
    except ValueError:
        text = f"{path} has an acq_time {cell[:40]!a}, which is not used: write it as 2001-12-31T23:59:59."
        if text not in warnings:
            warnings.append(text)
        return None
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _days(before: datetime, after: datetime) -> float:
    return (after - before).total_seconds() / 86400


def _stem(name: str) -> str:
    """A file of a table of scans, without what does not tell it from others."""
    return re.sub(r"\.nii(\.gz)?$", "", name.replace("\\", "/").removeprefix("./"))


def _label(image: Image) -> list[list[str | int]]:
    """What images are ordered by, if not by time.

    Examples
    --------
    >>> images = [Image(label, "", {"sub": "1", "ses": label}) for label in ("10", "2", "M6", "m12")]
    >>> [image.path for image in sorted(images, key=_label)]
    ['2', '10', 'M6', 'm12']
    """
    labels = [label for key, label in image.entities.items() if key != "sub"]
    # the last for those that differ by zeros and capitals alone
    return [*(_natural(label.lower()) for label in labels), [image.path]]


def _natural(label: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", label)]


def _listed(images: Sequence[Image]) -> str:
    names = [image.prefix.partition("_")[2] or image.prefix for image in images]
    return ", ".join([*names[:6], "…"] if names[6:] else names)
