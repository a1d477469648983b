"""Lesions over time as pages show them: colours, slices that show changes, and charts of volumes (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from bids_inpaint.imaging.history import LesionHistory
from bids_inpaint.io.files import write_text
from bids_inpaint.reports.figures import Cuts, Layout, Volume, fill_up

Array = np.ndarray

#: Of each change: told apart with any colour vision, on white and on a brain (after Okabe and Ito 2008).
#: Warm is more lesion, cold is less.
COLOURS = {
    "new": "#d55e00",
    "enlarging": "#e69f00",
    "shrinking": "#56b4e9",
    "resolved": "#2f7fd0",
    "transient": "#cc79a7",
    "stable": "#98a2ad",
}
#: Of all lesions together.
ALL = "#1d2530"
#: The same without colour: what marks the last visit in a chart.
SIGNS = {
    "new": "+", "enlarging": "▲", "shrinking": "▼", "resolved": "○", "transient": "◇", "stable": "=",
}  # fmt: skip
#: Slices along each axis: as many as the lesions need, between these.
_SLICES = (4, 7)
#: Share of its largest area from which a lesion is seen on a slice.
_SEEN = 0.5


def ranked(lesions: Sequence[LesionHistory]) -> list[LesionHistory]:
    """Lesions that changed first, each kind by how far the volume moved."""

    def key(lesion: LesionHistory) -> tuple[bool, float, int]:
        moved = max(lesion.volumes) - min(lesion.volumes)
        steady = lesion.change == "stable" and set(lesion.steps) <= {"stable"}
        return steady, -moved, lesion.label

    return sorted(lesions, key=key)


def cuts_through_lesions(labels: Array, order: Sequence[int], brain: Array, sizes: Array) -> Cuts:
    """Choose slices on which as many lesions as possible are seen, the first ones before all others.

    A lesion is seen on a slice that has half of its largest area along the axis. Each slice that is taken
    shows the first lesion that is not yet seen, and as much of the others as is possible then. If few slices
    show all lesions, evenly spaced slices of the brain fill up.

    Parameters
    ----------
    labels : array of int
        One integer a lesion; axes to the right, to the front and upwards.
    order : sequence of int
        Labels, the most interesting lesion first.
    brain : array of bool
    sizes : array of float, shape (3,)
        Edge lengths of a voxel (mm).
    """
    where = np.argwhere(labels > 0)
    values = labels[tuple(where.T)]
    chosen = [_greedily(values, where[:, axis], order, labels.shape[axis]) for axis in range(3)]
    count = max(_SLICES[0], *map(len, chosen))
    cuts = []
    for axis, some in enumerate(chosen):
        area = brain.sum(tuple(i for i in range(3) if i != axis))
        cuts.append(fill_up(some, area, count, max(round(5 / sizes[axis]), 1)))
    return cuts[0], cuts[1], cuts[2]


def _greedily(values: Array, places: Array, order: Sequence[int], length: int) -> list[int]:
    """Slices along an axis, from the label and the slice of each lesion voxel."""
    areas = np.zeros((int(values.max(initial=0)) + 1, length))
    np.add.at(areas, (values, places), 1)
    shares = areas / np.maximum(areas.max(1, keepdims=True), 1)
    waiting = [label for label in order if label < len(areas) and areas[label].any()]
    chosen: list[int] = []
    while waiting and len(chosen) < _SLICES[1]:
        seen = shares[waiting] >= _SEEN
        best = int(np.where(seen[0], shares[waiting].sum(0), -1).argmax())
        chosen.append(best)
        waiting = [label for label, there in zip(waiting, seen[:, best], strict=True) if not there]
    return chosen


def name_lesions(
    svg: str, labels: Array, matrix: Array, lesions: Sequence[LesionHistory], cuts: Cuts
) -> None:
    """Write the number of each lesion beside it, on the slice along each axis where there is most of it.

    Parameters
    ----------
    svg : str
        File of outlines on the same slices, which gets a group for each change: its name and ``names``.
    labels : array of int
        One integer a lesion; axes to the right, to the front and upwards.
    matrix : array, shape (4, 4)
        From voxels to mm.
    lesions : sequence of LesionHistory
    cuts : Cuts
    """
    layout = Layout(Volume(labels, matrix), cuts)
    change_of = {lesion.label: lesion.change for lesion in lesions}
    best: dict[tuple[int, int], tuple[int, float, float]] = {}
    for axis, across, up, index, left, top in layout.corners():
        view = np.moveaxis(labels, axis, 0)[index]
        for label in np.unique(view[view > 0]).tolist():
            i, j = np.nonzero(view == label)
            if i.size > best.get((axis, label), (0,))[0]:
                x = left + (i.max() + 1) * layout.sizes[across] + 1
                y = top + layout.extent[up] - (j.mean() + 0.5) * layout.sizes[up]
                best[axis, label] = i.size, x, y
    groups: dict[str, list[str]] = {}
    for (_, label), (_, x, y) in best.items():
        text = f'<text x="{10 * x:.0f}" y="{10 * y:.0f}">{label}</text>'
        groups.setdefault(change_of[label], []).append(text)
    named = "".join(f'<g class="{change} names">{"".join(texts)}</g>\n' for change, texts in groups.items())
    path = Path(svg)
    write_text(path, path.read_text(encoding="utf-8").replace("</svg>\n", f"{named}</svg>\n"))


@dataclass(frozen=True)
class Chart:
    """Where the points of a chart of volumes over time are, in pixels.

    Attributes
    ----------
    x : tuple of float
        Of each visit: by its time, or evenly if a time is unknown.
    top, bottom : float
        Of the largest value and of 0.
    largest : float
    """

    x: tuple[float, ...]
    top: float
    bottom: float
    largest: float

    @classmethod
    def of(
        cls,
        years: Sequence[float | None],
        largest: float,
        left: float,
        right: float,
        top: float,
        bottom: float,
    ) -> Chart:
        """Lay visits out between the left and the right, and values between the bottom and the top."""
        known = [year for year in years if year is not None]
        times = known if len(known) == len(years) else list(map(float, range(len(years))))
        span = (times[-1] - times[0]) or 1.0
        x = tuple(left + (right - left) * (time - times[0]) / span for time in times)
        return cls(x, top, bottom, largest or 1.0)

    def y(self, value: float) -> float:
        """Where a value is."""
        return self.bottom - (self.bottom - self.top) * value / self.largest

    def line(self, values: Sequence[float], colour: str, width: float) -> str:
        """A line through the values of all visits."""
        points = " ".join(f"{x:.1f},{self.y(value):.1f}" for x, value in zip(self.x, values, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def dots(self, values: Sequence[float], colour: str, radius: float) -> str:
        """A dot at each visit, hollow where the value is 0."""
        return "".join(
            f'<circle cx="{x:.1f}" cy="{self.y(value):.1f}" r="{radius}" stroke="{ALL}" stroke-width="0.8" '
            f'fill="{colour if value else "#fff"}"/>'
            for x, value in zip(self.x, values, strict=True)
        )


def spark(
    name: str, volumes: Sequence[float], colour: str, years: Sequence[float | None], sessions: Sequence[str]
) -> str:
    """Draw volumes over time (mm³) as a small SVG, which says in words what it shows."""
    width, height = 150, 34
    chart = Chart.of(years, max(volumes), 6, width - 6, 6, height - 6)
    pairs = zip(sessions, volumes, strict=True)
    label = f"{name}: " + ", ".join(f"{session} {volume:.0f} mm³" for session, volume in pairs)
    return _svg(
        width,
        height,
        label,
        f'<line x1="4" x2="{width - 4}" y1="{chart.bottom}" y2="{chart.bottom}" stroke="#d8dee5"/>'
        + chart.line(volumes, colour, 2)
        + chart.dots(volumes, colour, 3.2),
    )


def timeline(
    volumes: Sequence[float],
    lesions: Sequence[LesionHistory],
    years: Sequence[float | None],
    sessions: Sequence[str],
) -> str:
    """Draw the volume of all lesions over time (ml), and below it that of each in the colour of its change.

    Parameters
    ----------
    volumes : sequence of float
        Of all lesions of each visit, in mm³.
    lesions : sequence of LesionHistory
    years : sequence of float or None
    sessions : sequence of str
        Names of the visits.
    """
    width, bottom = 760, 228
    total = [volume / 1000 for volume in volumes]
    ticks = nice_ticks(max(total))
    chart = Chart.of(years, ticks[-1], 70, width - 60, 26, bottom)
    rows = _rows(chart.x)
    parts = [
        f'<line x1="52" x2="{width - 20}" y1="{chart.y(tick):.1f}" y2="{chart.y(tick):.1f}" '
        f'stroke="#e3e8ee"/><text x="46" y="{chart.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    ]
    parts.append('<text x="4" y="14">Lesion volume (ml)</text>')
    for lesion in reversed(ranked(lesions)):
        parts.append(chart.line([v / 1000 for v in lesion.volumes], COLOURS[lesion.change], 1.6))
    parts += [chart.line(total, ALL, 2.6), chart.dots(total, ALL, 4.5)]
    parts += [
        f'<text x="{x:.1f}" y="{chart.y(value) - 10:.1f}" text-anchor="middle" font-weight="600">'
        f"{value:.2f}</text>"
        for x, value in zip(chart.x, total, strict=True)
    ]
    parts += _names(chart, rows, years, sessions)
    pairs = zip(sessions, total, strict=True)
    label = "Volume of all lesions: " + ", ".join(f"{name} {value:.2f} ml" for name, value in pairs)
    return _svg(width, bottom + 36 + 30 * max(rows), label, "".join(parts))


def _rows(places: Sequence[float]) -> list[int]:
    """In which row the name of each visit stands: a second one holds what would lie on another."""
    rows = [0]
    for before, after in pairwise(places):
        rows.append(1 - rows[-1] if after - before < 90 else 0)
    return rows


def _names(
    chart: Chart, rows: Sequence[int], years: Sequence[float | None], sessions: Sequence[str]
) -> list[str]:
    """The name and the time of each visit below a chart."""
    out = []
    for x, row, name, year in zip(chart.x, rows, sessions, years, strict=True):
        y = chart.bottom + 18 + 30 * row
        time = "" if year is None else f"{year:.2f} years"
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{chart.bottom}" y2="{y - 12:.1f}" stroke="#aab4bf"/>'
        )
        short = name if len(name) <= 18 else name[:17] + "…"
        out.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(short)}'
            f'<tspan x="{x:.1f}" dy="13" fill="#5b6673">{time}</tspan></text>'
        )
    return out


def nice_ticks(largest: float) -> list[float]:
    """Round numbers from 0 to at least the largest value.

    Examples
    --------
    >>> nice_ticks(4.2), nice_ticks(0.35), nice_ticks(0)
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 1.0])
    """
    if largest <= 0:
        return [0.0, 0.5, 1.0]
    power = 10.0 ** np.floor(np.log10(largest))
    step = next(s * power for s in (0.1, 0.2, 0.5, 1, 2) if largest / (s * power) <= 5)
    return [round(float(step * i), 10) for i in range(int(np.ceil(largest / step - 1e-9)) + 1)]


def _svg(width: float, height: float, label: str, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )
