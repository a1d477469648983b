"""People with several visits in a group: their lesions over time, and the table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.courses import Course, read_course, session_of, why_old
from bids_inpaint.dataset.outputs import prefix
from bids_inpaint.dataset.tables import NOTHING
from bids_inpaint.dataset.visits import timeline
from bids_inpaint.group.comparisons import Spread
from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import (
    RATED,
    Columns,
    describe,
    format_number,
    identifying,
    identity,
    rated_cells,
)
from bids_inpaint.imaging.rates import per_year
from bids_inpaint.io.files import read_sidecar, write_json, write_text

NAME = "longitudinal"
#: What can become of a lesion from a visit to the next.
STEPS = ("new", "enlarging", "shrinking", "resolved")
#: A day more or less is no other time.
_A_DAY = 1 / 365.25
_SINCE = "since the visit before; n/a at the first visit, and if this visit or that before is excluded"
COLUMNS: Columns = {
    "acq_time": (
        "When the image was acquired, by the tables of the dataset, in UTC where they name a zone; dates may "
        "be shifted",
        None,
    ),
    "years": ("Time since the first visit of the participant whose time is known", "year"),
    "lesion_volume": (
        "Volume of the lesions that all visits of the participant decided together, counted on the 1 mm grid "
        "in the size of the own brain. In group_desc-volumes.tsv it is that on the voxels of the T1w",
        "mL",
    ),
    "lesion_count": ("Lesions of the participant that are there at the visit", None),
    "new": (f"New lesions {_SINCE}", None),
    "enlarging": (f"Lesions that enlarged {_SINCE}", None),
    "shrinking": (f"Lesions that shrank {_SINCE}", None),
    "resolved": (f"Lesions that resolved {_SINCE}", None),
    "gm_volume": ("Volume of grey matter, as in group_desc-volumes.tsv", "mL"),
    "wm_volume": ("Volume of white matter, as in group_desc-volumes.tsv", "mL"),
    "lesion_volume_per_year": (
        "Change of lesion_volume per year, the same at all visits of a participant: the slope of the "
        "least-squares line over the visits that are not excluded and whose time is known, which for two is "
        "their difference over the years between them",
        "mL/year",
    ),
}


@dataclass(frozen=True)
class Visit:
    """A visit of a person, whose image is finished.

    Attributes
    ----------
    measured : Measured
    number : int
        Among the visits of the person.
    year : float or None
        Since the first visit whose time is known.
    time : datetime or None
        By the tables of the dataset.
    volume : float
        Of the lesions, in ml.
    """

    measured: Measured
    number: int
    year: float | None
    time: datetime | None
    volume: float

    @property
    def kept(self) -> bool:
        """Whether no rating excludes it."""
        return not self.measured.verdict.excluded


@dataclass(frozen=True)
class Followed:
    """A person over time.

    Attributes
    ----------
    course : Course
    visits : tuple of Visit
        Those that are finished, in the order of time.
    """

    course: Course
    visits: tuple[Visit, ...]

    @property
    def kept(self) -> list[Visit]:
        """The visits that no rating excludes."""
        return [visit for visit in self.visits if visit.kept]

    @cached_property
    def rate(self) -> float | None:
        """Change of the lesion volume in ml per year."""
        return per_year([visit.year for visit in self.kept], [visit.volume for visit in self.kept])

    def steps(self, visit: Visit) -> dict[str, int]:
        """How many lesions changed since the visit before, if neither is excluded."""
        before = [other for other in self.kept if other.number == visit.number - 1]
        return self.course.steps(visit.number) if before and visit.kept else {}

    @property
    def total(self) -> dict[str, int]:
        """How many changed from any visit to the next."""
        steps = [self.steps(visit) for visit in self.visits]
        return {change: sum(step.get(change, 0) for step in steps) for change in STEPS}


def follow(measured: Sequence[Measured], out_dir: Path) -> tuple[list[Followed], list[str]]:
    """The people among images whose visits were processed together, and warnings on those left out.

    Parameters
    ----------
    measured : sequence of Measured
    out_dir : Path
    """
    out: list[Followed] = []
    warnings = []
    by_subject: dict[str, list[Measured]] = {}
    for one in measured:
        by_subject.setdefault(one.image.subject, []).append(one)
    for subject, images in by_subject.items():
        try:
            course = read_course(out_dir, subject)
            if course and not any(one.image.prefix in course.visits for one in images):
                continue
            reason = why_old(out_dir, subject) or (course and _why_not(course, images, out_dir))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = (
                f"The longitudinal results of sub-{subject} can't be read ({error}): run all of its visits "
                "with --longitudinal."
            )
            course = None
        if reason:
            warnings.append(f"sub-{subject} is left out of the table over time. {reason}")
        elif course:
            out.append(Followed(course, _visits(course, images)))
    return out, warnings


def _why_not(course: Course, measured: Iterable[Measured], out_dir: Path) -> str:
    """Why the images of a person are not those of the results over time; empty if they are."""
    ours = [one for one in measured if one.image.prefix in course.visits]
    for one in ours:
        sidecar = read_sidecar(out_dir / f"{prefix(one.image)}_desc-inpainted_T1w.json")
        if sidecar.get("Visits") != course.known_to(one.image.prefix):
            return (
                f"{one.image.prefix} was processed with other visits since: run all visits of "
                f"sub-{course.subject} with --longitudinal."
            )
    known = dict(zip(course.visits, course.years, strict=True))
    now = timeline([one.image for one in ours])
    if not _alike([known[image.prefix] for image in now.images], now.years):
        return (
            "Its acquisition times are others than when it was processed: run all visits of "
            f"sub-{course.subject} with --longitudinal again."
        )
    return ""


def _alike(then: Sequence[float | None], now: Sequence[float | None]) -> bool:
    """Whether visits have the same times, but for where the years begin."""
    if [year is None for year in then] != [year is None for year in now]:
        return False
    shifts = [a - b for a, b in zip(then, now, strict=True) if a is not None and b is not None]
    return not shifts or max(shifts) - min(shifts) < _A_DAY


def _visits(course: Course, measured: Iterable[Measured]) -> tuple[Visit, ...]:
    ours = {one.image.prefix: one for one in measured if one.image.prefix in course.visits}
    now = timeline([one.image for one in ours.values()])
    times = dict(zip((image.prefix for image in now.images), now.times, strict=True))
    return tuple(
        Visit(ours[name], number, course.years[number], times[name], course.volumes[number] / 1000)
        for number, name in enumerate(course.visits)
        if name in ours
    )


def write_longitudinal(people: Sequence[Followed], out_dir: Path) -> None:
    """Write ``group_desc-longitudinal.tsv`` and its sidecar; without people, those of an earlier run go."""
    path = out_dir / f"group_desc-{NAME}.tsv"
    if not people:
        for old in (path, path.with_suffix(".json")):
            old.unlink(missing_ok=True)
        return
    entities = identifying([visit.measured for person in people for visit in person.visits])
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*entities.values(), *COLUMNS, *RATED])
    for person in people:
        for visit in person.visits:
            cells = _cells(person, visit)
            writer.writerow(
                [
                    *identity(visit.measured, entities),
                    *(cells.get(column, NOTHING) for column in COLUMNS),
                    *rated_cells(visit.measured),
                ]
            )
    write_text(path, text.getvalue())
    statistics = {"LesionVolumePerYear": rates(people).as_json()}
    write_json(path.with_suffix(".json"), describe(entities, COLUMNS | RATED) | {"Statistics": statistics})


def rates(people: Sequence[Followed]) -> Spread:
    """The change of lesion volume per year over people, in ml."""
    return Spread.of([person.rate for person in people if person.rate is not None])


def _cells(person: Followed, visit: Visit) -> dict[str, str]:
    numbers: dict[str, float | None] = {
        "years": visit.year,
        "lesion_volume": visit.volume,
        "lesion_count": person.course.counts[visit.number],
        **{change: count for change, count in person.steps(visit).items() if change in STEPS},
        **{name: visit.measured.volumes.get(name) for name in ("gm_volume", "wm_volume")},
        "lesion_volume_per_year": person.rate,
    }
    time = visit.time.isoformat() if visit.time else NOTHING
    return {"acq_time": time, **{name: format_number(value) for name, value in numbers.items()}}


def summary(person: Followed) -> dict[str, Any]:
    """What the page of the group shows of a person, in ml and years."""
    kept = person.kept
    years = [visit.year for visit in kept if visit.year is not None]
    return {
        "visits": f"{len(kept)} of {len(person.visits)}" if len(kept) < len(person.visits) else len(kept),
        "names": ", ".join(session_of(visit.measured.image.prefix).removeprefix("ses-") for visit in kept),
        "years": f"{years[-1] - years[0]:.2f}" if len(years) > 1 else "n/a",
        "first": f"{kept[0].volume:.2f}" if kept else "n/a",
        "last": f"{kept[-1].volume:.2f}" if kept else "n/a",
        "rate": "n/a" if person.rate is None else f"{person.rate:+.2f}".replace("-", "−"),
        "changes": person.total,
    }
