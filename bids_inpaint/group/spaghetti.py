"""The plots of lesions over time: a line for each participant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_inpaint.dataset.tables import NOTHING
from bids_inpaint.group.longitudinal import Followed
from bids_inpaint.group.plots import FEW, LESION, logarithmic, new_figure, plain, save_figure
from bids_inpaint.group.tables import Covariates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Panels beside each other.
_ACROSS = 4
#: Time (years or number of the visit) and lesion volume (ml) of each visit.
Line = list[tuple[float, float]]


def course_plots(people: Sequence[Followed], covariates: Covariates, out_dir: Path) -> list[tuple[str, str]]:
    """Lesion volume over time, of all and by the columns of the dataset's tables: name of a column, and plot.

    The first plot is of all, and has no name. A column has one if it has a few words, of which each
    participant has the same at all visits.
    """
    lines, label = _lines(people)
    if not lines:
        return []
    figure = new_figure(3.6)
    volume, difference = figure.subplots(1, 2)
    for line in lines.values():
        _draw(volume, line)
        _draw(difference, [(x, y - line[0][1]) for x, y in line])
    volume.set_ylabel("Lesions (ml)")
    logarithmic(volume)
    difference.set_ylabel("Difference from the first visit (ml)")
    difference.axhline(0, color="black", linewidth=0.8)
    for axis in (volume, difference):
        axis.set_xlabel(label)
    out = [("", save_figure(figure, out_dir, "over-time"))]
    for number, column in enumerate(covariates.columns):
        values = {person.course.subject: _shared(person, column, covariates) for person in people}
        levels = sorted({values[subject] for subject in lines} - {NOTHING})
        if 1 < len(levels) <= FEW and column.lower() != "acq_time":
            groups = {level: [lines[s] for s in lines if values[s] == level] for level in levels}
            name = f"over-time-by-{number + 1}"
            out.append((column, _by_level(groups, label, out_dir, name)))
    return out


def _lines(people: Sequence[Followed]) -> tuple[dict[str, Line], str]:
    """The line of each participant with two visits or more, and what its first numbers are."""
    timed = {
        person.course.subject: [(v.year, v.volume) for v in person.kept if v.year is not None]
        for person in people
    }
    timed = {subject: line for subject, line in timed.items() if len(line) > 1}
    several = {person.course.subject: person.kept for person in people if len(person.kept) > 1}
    if timed:
        left = len(several) - len(timed)
        return timed, "Years since the first visit" + (f" ({left} without times left out)" if left else "")
    return {s: [(v.number + 1.0, v.volume) for v in visits] for s, visits in several.items()}, "Visit"


def _shared(person: Followed, column: str, covariates: Covariates) -> str:
    """What a column has at all visits of a participant; nothing if that differs."""
    found = {covariates.value(visit.measured.image.prefix, column) for visit in person.kept}
    return found.pop() if len(found) == 1 else NOTHING


def _draw(axis: Axes, line: Line) -> None:
    x, y = zip(*line, strict=True)
    axis.plot(x, y, "-o", color=LESION, alpha=0.6, markersize=3.5, linewidth=1.2)
    axis.spines[["top", "right"]].set_visible(False)


def _by_level(groups: dict[str, list[Line]], label: str, out_dir: Path, name: str) -> str:
    """A panel for each level of a column, all with the same axes."""
    rows = -(-len(groups) // _ACROSS)
    across = min(len(groups), _ACROSS)
    figure = new_figure(3.4 * rows)
    axes = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for axis, (level, lines) in zip(axes.flat, groups.items(), strict=False):
        for line in lines:
            _draw(axis, line)
        axis.set_title(f"{plain(level)}, n = {len(lines)}", fontsize=10)
    # one for all panels, which may be narrower than it
    figure.supxlabel(label, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("Lesions (ml)")
    logarithmic(axes[0, 0])
    return save_figure(figure, out_dir, name)
