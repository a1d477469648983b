"""The report of a person with several visits, from what they left in the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from bids_inpaint.dataset.courses import Course, read_course, session_of, why_old
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import prefix
from bids_inpaint.dataset.people import page_of, pictures_of, stem_of
from bids_inpaint.dataset.results import lesion_rows, quality_of, volumes_of
from bids_inpaint.imaging.person import SAME_PERSON
from bids_inpaint.imaging.rates import per_year
from bids_inpaint.io.files import read_sidecar, write_text
from bids_inpaint.reports.changes import ALL, COLOURS, SIGNS, ranked, spark, timeline
from bids_inpaint.reports.folder import HEALTHY
from bids_inpaint.reports.templates import render
from bids_inpaint.reports.versions import versions

#: What can become of a lesion between two visits, as columns of the table of visits.
_STEPS = ("new", "enlarging", "shrinking", "resolved")
#: Lesions in the table of the page.
_MOST_LESIONS = 60


def of_person(out_dir: Path, subject: str) -> tuple[Course | None, str]:
    """The lesions of a person over time, if there are any, and why they can't be read or used."""
    try:
        course = read_course(out_dir, subject)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return None, (
            f"The longitudinal results of sub-{subject} can't be read ({error}): remove them and run all of "
            "its visits with --longitudinal."
        )
    return course, course.doubt if course else ""


def write_course(out_dir: Path, subject: str) -> Path | None:
    """Write ``sub-LABEL_desc-longitudinal_T1w.html``, if the person has longitudinal results; else, it goes.

    Parameters
    ----------
    out_dir : Path
    subject : str
        Participant label.
    """
    course, _ = of_person(out_dir, subject)
    final = out_dir / page_of(subject)
    if course is None:
        final.unlink(missing_ok=True)
        return None
    visits = _visits(course, out_dir)
    shared, warnings = _warnings(course, [visit.pop("said") for visit in visits])
    for visit, own in zip(visits, warnings, strict=True):
        visit["warnings"] = own
    doubts = [course.doubt] if course.doubt else []
    text = render(
        "longitudinal.html.j2",
        name=f"sub-{subject}",
        verdict="failed" if doubts else "look" if shared or any(warnings) else "good",
        sentence=sentence(course),
        warnings=[*doubts, *shared],
        facts=_facts(course),
        visits=visits,
        pictured=all("before" in visit for visit in visits),
        steps=_STEPS,
        tissues=any("wm" in visit for visit in visits),
        chart=Markup(
            timeline(course.volumes, course.lesions, course.years, list(map(_short, course.visits)))
        ),
        colours=COLOURS,
        signs=SIGNS,
        changes={change: course.changes[change] for change in COLOURS},
        lesions=[_row(lesion, course) for lesion in ranked(course.lesions)[:_MOST_LESIONS]],
        number=len(course.lesions),
        added=[_short(visit) for visit in course.added],
        first=[_short(visit) for visit in course.visits if visit not in course.added],
        healthy=HEALTHY,
        limits=course.limits or {},
        stem=stem_of(subject),
        versions=versions(),
        page={"name": f"sub-{subject}", "report": f"sub-{quote(subject)}.html"},
    )
    # names of files are any bytes
    write_text(final, text.encode("utf-8", errors="backslashreplace").decode("utf-8"))
    return final


def link_of(out_dir: Path, subject: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The row of a person in the list of images of their report, if there is one, and why there is none.

    Neither is there for a person whose visits were never processed together.
    """
    course, problem = of_person(out_dir, subject)
    if course is None:
        reason = problem or why_old(out_dir, subject)
        return None, [reason] if reason else []
    shared, warnings = _warnings(course, [_said(out_dir, visit) for visit in course.visits])
    count = len(shared) + sum(map(len, warnings))
    names = list(map(_short, course.visits))
    word = (
        "not of this run" if problem else f"{count} warning{'' if count == 1 else 's'}" if count else "done"
    )
    row = {
        "link": quote(page_of(subject)),
        "text": sentence(course),
        "verdict": "failed" if problem else "look" if count else "good",
        "word": word,
        "warnings": [problem] if problem else shared,
        "chart": Markup(spark("All lesions", course.volumes, ALL, course.years, names)),
    }
    return row, []


def sentence(course: Course) -> str:
    """What became of the lesions of a person, in a sentence."""
    years = [year for year in course.years if year is not None]
    over = f" over {years[-1] - years[0]:.2f} years" if len(years) == len(course.years) else ""
    if not course.lesions:
        return f"{len(course.visits)} visits{over}. None of them has a lesion."
    first, last = course.volumes[0] / 1000, course.volumes[-1] / 1000
    kinds = [(count, change) for change, count in course.changes.items() if count and change != "stable"]
    told = [f"{count} {change}" for count, change in kinds]
    if kinds:
        told[0] = f"{kinds[0][0]} {'is' if kinds[0][0] == 1 else 'are'} {kinds[0][1]}"
    changed = " and ".join([", ".join(told[:-1]), told[-1]]) if told[1:] else "".join(told)
    number = len(course.lesions)
    return (
        f"{len(course.visits)} visits{over}. The lesions have {first:.2f} ml at the first visit and "
        f"{last:.2f} ml at the last. Of {number} lesion{'' if number == 1 else 's'}, "
        f"{changed or 'none changed'}."
    )


def _short(visit: str) -> str:
    """The label of a visit; a number alone would pass for something else."""
    session = session_of(visit)
    label = session.removeprefix("ses-")
    return session if label.isdecimal() else label


def _facts(course: Course) -> dict[str, str]:
    """What stands at the top of the page, by label."""
    rate = per_year(course.years, [volume / 1000 for volume in course.volumes])
    change = (course.volumes[-1] - course.volumes[0]) / 1000
    return {
        "Visits": str(len(course.visits)),
        "First visit (ml)": f"{course.volumes[0] / 1000:.2f}",
        "Last visit (ml)": f"{course.volumes[-1] / 1000:.2f}",
        "Difference (ml)": _signed(change),
        "Per year (ml)": "n/a" if rate is None else _signed(rate),
    }


def _signed(value: float) -> str:
    """A number with its sign, and a true minus."""
    text = f"{value:+.2f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def _visits(course: Course, out_dir: Path) -> list[dict[str, Any]]:
    """A row of the table of visits, and the pictures, of each."""
    out = []
    for number, visit in enumerate(course.visits):
        row: dict[str, Any] = {
            "prefix": visit,
            "short": _short(visit),
            "link": f"{quote(f'sub-{course.subject}.html')}#{quote(visit)}",
            "year": course.years[number],
            "volume": f"{course.volumes[number] / 1000:.2f}",
            "count": course.counts[number],
            "difference": "",
            "steps": course.steps(number) if number else {},
            "said": _said(out_dir, visit),
            **_tissues(out_dir, visit),
            **_pictures(course.subject, visit, out_dir),
        }
        if number:
            row["difference"] = _signed((course.volumes[number] - course.volumes[number - 1]) / 1000)
        out.append(row)
    return out


def _stem(out_dir: Path, visit: str) -> str:
    entities = dict(part.split("-", 1) for part in visit.split("_"))
    return f"{out_dir / prefix(Image('', '', entities))}_"


def _said(out_dir: Path, visit: str) -> list[str]:
    """The warnings about a visit."""
    return quality_of(read_sidecar(f"{_stem(out_dir, visit)}desc-inpainted_T1w.json"))[1]


def _tissues(out_dir: Path, visit: str) -> dict[str, str]:
    """Volumes of grey and white matter, if they are known."""
    stem = _stem(out_dir, visit)
    try:
        volumes = volumes_of(lesion_rows(stem), read_sidecar(f"{stem}dseg.json"), {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    found = {t: volumes[f"{t}_volume"] for t in ("gm", "wm") if f"{t}_volume" in volumes}
    return {tissue: f"{volume:.0f}" for tissue, volume in found.items()}


def _pictures(subject: str, visit: str, out_dir: Path) -> dict[str, Any]:
    """Links to the pictures of a visit, and its outlines; nothing if one is missing."""
    names = pictures_of(subject, visit)
    if not all((out_dir / name).is_file() for name in names.values()):
        return {}
    # they have to be a part of the page, which shows and hides their groups
    outlines = Markup((out_dir / names["outlines"]).read_text(encoding="utf-8"))
    return {"before": quote(names["before"]), "after": quote(names["after"]), "outlines": outlines}


def _warnings(course: Course, said: Sequence[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Warnings about the person, and those about each visit alone."""
    shared = [text for text in said[0] if all(text in of_visit for of_visit in said)]
    person = f"sub-{course.subject}"
    unlike = [
        f"{other} and the template of {person} are as unlike after their alignment as images of two people "
        f"(their correlation is {like:.2f}): check that it is of {person}."
        if one == person
        else f"{one} and {other} are as unlike after their alignment as images of two people (their "
        f"correlation is {like:.2f}): check that both are of {person}."
        for (one, other), like in course.likeness.items()
        if like < SAME_PERSON
    ]
    own = [
        [text for text in of_visit if text not in shared and "are as unlike after" not in text]
        for of_visit in said
    ]
    return [*unlike, *(text for text in shared if "are as unlike after" not in text)], own


def _row(lesion: Any, course: Course) -> dict[str, Any]:
    """A row of the table of lesions."""
    x, y, z = lesion.centroid
    names = list(map(_short, course.visits))
    return {
        "label": lesion.label,
        "change": lesion.change,
        "chart": Markup(
            spark(f"Lesion {lesion.label}", lesion.volumes, COLOURS[lesion.change], course.years, names)
        ),
        "volumes": [f"{volume:.0f}" for volume in lesion.volumes],
        "steps": ["", *lesion.steps],
        "place": f"{round(x)}, {round(y)}, {round(z)}".replace("-", "−"),
    }
