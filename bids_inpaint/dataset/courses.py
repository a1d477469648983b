"""What the output folder says of the lesions of a person over time."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.people import CHANGE_MAP, Before, status_file, stem_of
from bids_inpaint.errors import printable
from bids_inpaint.imaging.history import CHANGES, LesionHistory
from bids_inpaint.io.files import read_json, read_sidecar


@dataclass(frozen=True)
class Course:
    """The lesions of a person over time.

    Attributes
    ----------
    subject : str
        Participant label.
    visits : tuple of str
        Prefixes of the images, in the order of time.
    years : tuple of float or None
        Between the first visit whose time is known and each.
    volumes : tuple of float
        Of all lesions of each visit, in mm³ of the person's own brain.
    lesions : tuple of LesionHistory
        The largest first.
    likeness : dict of float
        Correlation after their alignment, by the prefixes of two visits, or of one that was added and that of
        the person, which stands for the template.
    stages : tuple of tuple of str
        Prefixes of the visits that were processed together first, and of those that each later run added.
    limits : dict
        When a lesion counts as changed, as the sidecar says it.
    doubt : str
        Why these are not the results of the last run; empty if they are.
    """

    subject: str
    visits: tuple[str, ...]
    years: tuple[float | None, ...]
    volumes: tuple[float, ...]
    lesions: tuple[LesionHistory, ...]
    likeness: dict[tuple[str, str], float] = field(default_factory=dict)
    stages: tuple[tuple[str, ...], ...] = ()
    limits: dict[str, Any] | None = None
    doubt: str = ""

    @property
    def sessions(self) -> tuple[str, ...]:
        """Labels of the visits, as ``ses-1``."""
        return tuple(map(session_of, self.visits))

    @property
    def added(self) -> list[str]:
        """Prefixes of the visits that were added to finished ones."""
        later = {visit for stage in self.stages[1:] for visit in stage}
        return [visit for visit in self.visits if visit in later]

    def known_to(self, visit: str) -> list[str]:
        """Prefixes of the visits that were there when a visit was processed, by time."""
        there: set[str] = set()
        for stage in self.stages:
            there |= set(stage)
            if visit in stage:
                break
        return [one for one in self.visits if one in there]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many lesions are there at each visit."""
        return tuple(sum(one.volumes[i] > 0 for one in self.lesions) for i in range(len(self.visits)))

    @property
    def changes(self) -> dict[str, int]:
        """How many lesions changed in which way from the first visit to the last."""
        return _counted([lesion.change for lesion in self.lesions])

    def steps(self, visit: int) -> dict[str, int]:
        """How many lesions that are there changed in which way since the visit before that of this number."""
        seen = [one for one in self.lesions if one.volumes[visit - 1] > 0 or one.volumes[visit] > 0]
        return _counted([lesion.steps[visit - 1] for lesion in seen])


def _counted(kinds: Sequence[str]) -> dict[str, int]:
    found = Counter(kinds)
    return {change: found[change] for change in CHANGES}


def session_of(visit: str) -> str:
    """The session in the prefix of an image.

    Examples
    --------
    >>> session_of("sub-01_ses-2_run-1")
    'ses-2'
    """
    found = re.search(r"_(ses-[^_]+)", visit)
    return found[1] if found else visit


def read_course(out_dir: Path, subject: str) -> Course | None:
    """Read the lesions of a person over time; None if there are no such results.

    Parameters
    ----------
    out_dir : Path
    subject : str
        Participant label.

    Raises
    ------
    OSError, ValueError, LookupError, TypeError
        If the results are broken.
    """
    stem = out_dir / stem_of(subject)
    table = Path(f"{stem}_{CHANGE_MAP}.tsv")
    if not table.exists():
        return None
    sidecar = read_json(Path(f"{stem}_{CHANGE_MAP}.json"))
    visits = tuple(map(str, sidecar["Visits"]))
    volumes = sidecar["LesionVolumes"]
    years = tuple(None if year is None else float(year) for year in sidecar["Years"])
    if len(years) != len(visits):
        raise ValueError(f"{table.name} has other visits than years")
    before = Before.read(out_dir, subject)
    stages = before.stages_of(visits) if before else [list(visits)]
    return Course(
        subject,
        visits,
        years,
        tuple(float(volumes[session_of(visit)]) for visit in visits),
        tuple(read_histories(table, [session_of(visit) for visit in visits])),
        _likeness(before.sidecar, stages[0], f"sub-{subject}") if before else {},
        tuple(map(tuple, stages)),
        sidecar.get("Limits"),
        why_old(out_dir, subject),
    )


def _likeness(sidecar: dict[str, Any], first: Sequence[str], person: str) -> dict[tuple[str, str], float]:
    """How alike visits are, by the sidecar of the template that the first of them made."""
    rows = sidecar.get("Likeness", [])
    out = {(first[j], first[i]): float(row[j]) for i, row in enumerate(rows) for j in range(i)}
    added = sidecar.get("LikenessToTemplate", {})
    return out | {(person, str(visit)): float(like) for visit, like in added.items()}


def read_histories(path: Path, sessions: Sequence[str]) -> list[LesionHistory]:
    """The table of lesions over time.

    Parameters
    ----------
    path : Path
    sessions : sequence of str
        As ``ses-1``, in the order of time.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        LesionHistory(
            int(row["index"]),
            tuple(float(row[f"volume_{name}"]) for name in sessions),
            _change(row["change"]),
            tuple(_change(row[f"change_{name}"]) for name in sessions[1:]),
            (float(row["x"]), float(row["y"]), float(row["z"])),
        )
        for row in rows
    ]


def _change(text: str) -> Any:
    if text not in CHANGES:
        raise ValueError(f"{text[:40]!a} is no change of a lesion")
    return text


def why_old(out_dir: Path, subject: str) -> str:
    """Why the longitudinal results of a person are not those of the last run, by its status; empty if so."""
    path = status_file(out_dir, subject)
    if not path.exists():
        return ""
    content = read_sidecar(path)
    if content.get("Status") == "done":
        return ""
    if content.get("Status") == "unfinished":
        return f"The last run of sub-{subject} did not end: run all of its visits with --longitudinal."
    return printable(str(content.get("Error") or f"{path} can't be read."))
