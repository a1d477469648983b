"""Pictures of single lesions: a row of three planes for each, all rows in one file of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_inpaint.io import images
from bids_inpaint.io.files import replacing, write_json, write_text
from bids_inpaint.reports.figures import LESION, OTHER, outline
from bids_inpaint.reports.sections import around, contours, plane
from bids_inpaint.space import Grid

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray
#: So many of the largest lesions have pictures, and of the others so many that are least probable.
LARGEST, DOUBTFUL = 30, 10
#: Edges of a plane and of a pixel, and the gap between planes (mm).
FIELD, _STEP, GAP = 50.0, 0.5, 2.0
#: Axes at a right angle to the planes, from the left to the right: axial, sagittal, coronal.
_PLANES = (2, 0, 1)
_SIZE, _SPACE = round(FIELD / _STEP), round(GAP / _STEP)


@dataclass(frozen=True)
class Head:
    """What the pictures are made of, all on the voxels of the T1w.

    Attributes
    ----------
    original, inpainted : array
        The T1w before and after filling, in the same unit.
    brain : array of bool
    labels : array of int
        One integer a lesion, 1 the largest.
    probability : array
        Of lesions, 0-1.
    grid : Grid
    """

    original: Array
    inpainted: Array
    brain: Array
    labels: Array
    probability: Array
    grid: Grid

    @classmethod
    def read(cls, original: str, inpainted: str, brain: str, labels: str, probability: str) -> Head:
        """Read them from files."""
        before, grid = images.read(original)
        after, mask, lesions, graded = (
            images.read(path, dtype)[0]
            for path, dtype in (
                (inpainted, np.float32), (brain, np.uint8), (labels, np.int32), (probability, np.float32),
            )
        )  # fmt: skip
        return cls(np.nan_to_num(before), np.nan_to_num(after), mask > 0, lesions, graded, grid)


def probabilities(head: Head) -> Array:
    """The mean probability of each lesion, the first of label 1."""
    there = head.labels > 0
    labels = head.labels[there]
    sizes = np.bincount(labels)
    return (np.bincount(labels, weights=head.probability[there]) / np.maximum(sizes, 1))[1:]


def choose(likely: Sequence[float]) -> list[int]:
    """Labels of the lesions that have pictures: the largest, and of the others the least probable.

    Parameters
    ----------
    likely : sequence of float
        Mean probability of each lesion, the largest lesion first.

    Examples
    --------
    >>> choose([0.9] * 30 + [0.5, 0.9, 0.4] + [0.6] * 9)[28:]
    [29, 30, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41]
    """
    rest = np.argsort(likely[LARGEST:], kind="stable")[:DOUBTFUL] + LARGEST + 1
    return [*range(1, min(len(likely), LARGEST) + 1), *sorted(rest.tolist())]


def draw(head: Head, first: str, second: str, outlines: str, lesions: str) -> None:
    """Draw the lesions that are chosen.

    Parameters
    ----------
    head : Head
    first, second : str
        PNG to write: before and after filling. Each row is a lesion, seen in an axial, a sagittal and a
        coronal plane through the voxel of it that is nearest to its centre.
    outlines : str
        SVG to write: the lesion, and other lesions around it, on the same planes.
    lesions : str
        JSON to write: the number of the lesion of each row (``Lesions``), its mean probability
        (``Probabilities``), and those of the rows that are there for their doubt (``Doubtful``).
    """
    likely = probabilities(head)
    chosen = choose(likely.tolist())
    size = (3 * _SIZE + 2 * _SPACE, _SIZE * max(len(chosen), 1))
    canvases = [_canvas(size), _canvas(size)]
    shapes: list[str] = []
    boxes = ndimage.find_objects(head.labels)
    for row, label in enumerate(chosen):
        centre = _centre(head, label, boxes[label - 1])
        shapes += _draw_row(head, label, centre, row, canvases)
    for canvas, path in zip(canvases, (first, second), strict=True):
        with replacing(path) as part:
            canvas.save(part, optimize=True)
    view = f"{10 * size[0]} {10 * size[1]}"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {view}" fill="none">\n'
    write_text(Path(outlines), start + "".join(shapes) + "</svg>\n")
    rows = {
        "Description": "Lesions in the rows of the picture, and their mean lesion probabilities",
        "Lesions": chosen,
        "Probabilities": [round(float(likely[label - 1]), 3) for label in chosen],
        "Doubtful": [label for label in chosen if label > LARGEST],
    }
    write_json(Path(lesions), rows)


def _canvas(size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.new("L", size)


def _centre(head: Head, label: int, box: tuple[slice, ...]) -> Array:
    """The world coordinates of the voxel of a lesion that is nearest to its centre."""
    voxels = np.argwhere(head.labels[box] == label) + [s.start for s in box]
    world = voxels @ head.grid.matrix[:3, :3].T + head.grid.matrix[:3, 3]
    return world[np.argmin(((world - world.mean(0)) ** 2).sum(1))]


def _draw_row(head: Head, label: int, centre: Array, row: int, canvases: Sequence[Image]) -> list[str]:
    """Draw a lesion into its row; return its outlines."""
    from PIL import Image

    # a plane has its corners farther away than its edges, and the planes go through the centre
    box = around(head.grid, centre, FIELD / 2)
    grid, near = head.grid.part(box), head.labels[box]
    own = near == label
    masks = [mask.astype(np.float32) for mask in (own, (near > 0) & ~own)]
    volumes = [head.original[box], head.inpainted[box]]
    inside = volumes[0][head.brain[box] | own]
    low, high = np.percentile(inside, (1, 99.5))
    paths = ["", ""]
    for place, axis in enumerate(_PLANES):
        left, top = place * (_SIZE + _SPACE), row * _SIZE
        sample: Any = {"grid": grid, "axis": axis, "centre": centre, "size": (FIELD, FIELD), "step": _STEP}
        for canvas, volume in zip(canvases, volumes, strict=True):
            view = plane(volume, beyond=float(volume.min()), **sample)
            shades = np.clip((view - low) / max(high - low, 1e-6), 0, 1)
            canvas.paste(Image.fromarray((255 * shades).astype(np.uint8)), (left, top))
        for i, mask in enumerate(masks):
            paths[i] += _path(plane(mask, **sample), left, top)
    return [outline(f"m{label}-{i}", paths[i], (LESION, OTHER)[i]) for i in (1, 0) if paths[i]]


def _path(view: Array, left: int, top: int) -> str:
    """The outlines of a mask on a plane, as an SVG path in tenths of a pixel of the pictures."""
    parts = []
    for line in contours(view):
        points = np.rint(10 * (np.clip(line, 0, _SIZE) + np.array([left, top]))).astype(int)
        steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0))
        parts.append(f"M{points[0, 0]} {points[0, 1]}l{steps}")
    return "".join(parts)
