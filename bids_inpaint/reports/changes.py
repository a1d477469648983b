"""Lesions over time as pages show them: colours, the slices that show changes, and charts of volumes (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from bids_inpaint.imaging.history import LesionHistory
from bids_inpaint.reports.figures import Cuts, fill_up

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
#: The same without colour: what marks the last visit in a chart.
SIGNS = {
    "new": "+", "enlarging": "▲", "shrinking": "▼", "resolved": "○", "transient": "◇", "stable": "=",
}  # fmt: skip
_SLICES = 7
#: Share of its largest area from which a lesion is seen on a slice.
_SEEN = 0.5


def ranked(lesions: Sequence[LesionHistory]) -> list[LesionHistory]:
    """Lesions that changed first, each kind by how far the volume moved."""

    def key(lesion: LesionHistory) -> tuple[bool, float, int]:
        moved = max(lesion.volumes) - min(lesion.volumes)
        steady = lesion.change == "stable" and set(lesion.steps) <= {"stable"}
        return steady, -moved, lesion.label

    return sorted(lesions, key=key)


def cuts_through_lesions(
    labels: Array, order: Sequence[int], brain: Array, sizes: Sequence[float], count: int = _SLICES
) -> Cuts:
    """Choose slices on which as many lesions as possible are seen, the first ones before all others.

    A lesion is seen on a slice that has half of its largest area along the axis. Each slice that is taken
    shows the first lesion that is not yet seen, and as much of the others as is possible then. Evenly spaced
    slices of the brain fill up.

    Parameters
    ----------
    labels : array of int
        One integer a lesion; axes to the right, to the front and upwards.
    order : sequence of int
        Labels, the most interesting lesion first.
    brain : array of bool
    sizes : sequence of float
        Edge lengths of a voxel (mm).
    count : int
        Slices along each axis.
    """
    where = np.argwhere(labels > 0)
    values = labels[tuple(where.T)]
    cuts = []
    for axis in range(3):
        shape = (int(values.max(initial=0)) + 1, labels.shape[axis])
        areas = np.zeros(shape)
        np.add.at(areas, (values, where[:, axis]), 1)
        shares = areas / np.maximum(areas.max(1, keepdims=True), 1)
        waiting = [label for label in order if label < shape[0] and areas[label].any()]
        chosen: list[int] = []
        while waiting and len(chosen) < count:
            seen = shares[waiting] >= _SEEN
            best = int(np.where(seen[0], shares[waiting].sum(0), -1).argmax())
            chosen.append(best)
            waiting = [label for label, there in zip(waiting, seen[:, best], strict=True) if not there]
        area = brain.sum(tuple(i for i in range(3) if i != axis))
        cuts.append(fill_up(chosen, area, count, max(round(5 / sizes[axis]), 1)))
    return cuts[0], cuts[1], cuts[2]
