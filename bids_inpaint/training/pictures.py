"""Pictures of what networks do to slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Title of a row of pictures, and its slices.
View = tuple[str, Sequence[np.ndarray]]


def worst_slice(
    healthy: np.ndarray, lesioned: np.ndarray, filled: np.ndarray, lesion: np.ndarray
) -> list[np.ndarray]:
    """The axial slice with the most squared error in the lesions, of the three images and the lesion mask."""
    z = int(((filled - healthy) ** 2 * lesion).sum((0, 1)).argmax())
    return axial((healthy, lesioned, filled, lesion), z)


def axial(volumes: Sequence[np.ndarray], z: int) -> list[np.ndarray]:
    """Slice `z` of each volume, (X, Y, Z), upright and as in radiology, for :func:`draw_slices`."""
    return [v[::-1, :, z].T.copy() for v in volumes]


def draw_slices(path: Path, views: Sequence[View]) -> None:
    """Draw a row of pictures for each view: truth, input, output, and what is left in the lesions.

    Parameters
    ----------
    path : Path
        Of the image file.
    views : sequence of (str, sequence of array)
        Title, and slices of :func:`worst_slice` with white matter at 1.
    """
    for axes, (_, (healthy, lesioned, filled, lesion)) in zip(
        panels(path, [title for title, _ in views]), views, strict=True
    ):
        images = (("healthy", healthy), ("with lesions", lesioned), ("inpainted", filled))
        for axis, (name, view) in zip(axes[:3], images, strict=True):
            axis.imshow(view, cmap="gray", vmin=0, vmax=1.4, origin="lower")
            axis.set_title(name, fontsize=9)
        error = np.where(lesion, filled - healthy, 0)
        axes[3].imshow(error, cmap="RdBu_r", vmin=-0.3, vmax=0.3, origin="lower")
        axes[3].set_title("error in the lesions (±0.3)", fontsize=9)


def panels(path: Path, titles: Sequence[str]) -> Iterator[Any]:
    """Four axes for each title, to draw into; the image file is written after the last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 4.2 * len(titles)), layout="constrained")
    FigureCanvasAgg(fig)
    rows = fig.subfigures(len(titles), 1, squeeze=False)[:, 0]
    for row, title in zip(rows, titles, strict=True):
        row.suptitle(title)
        axes = row.subplots(1, 4)
        for axis in axes:
            axis.set_axis_off()
        yield axes
    fig.savefig(path, dpi=80)


def draw_grid(path: Path, rows: Sequence[Mapping[str, np.ndarray]], width: int = 1300) -> None:
    """Draw a row of slices for each subject, with a title above each column.

    Parameters
    ----------
    path : Path
        Of the PNG file, which has 24 greys.
    rows : sequence of mapping of str to array
        Slices of one size by title, 0-1, drawn from the top.
    width : int
        Of the picture in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    titles = list(rows[0])
    edge = width / len(titles)
    fig = Figure(figsize=(width / 100, (edge * len(rows) + 24) / 100), dpi=100)
    canvas = FigureCanvasAgg(fig)
    axes = fig.subplots(len(rows), len(titles), squeeze=False)
    fig.subplots_adjust(0, 0, 1, edge * len(rows) / (edge * len(rows) + 24), 0.02, 0.02)
    for line, row in zip(axes, rows, strict=True):
        for axis, title in zip(line, titles, strict=True):
            axis.set_axis_off()
            axis.imshow(row[title], cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7, pad=4)
    canvas.draw()
    grey = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L")
    grey.quantize(24).save(path, optimize=True)


def draw_reliability(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw which share of the voxels is in lesions against what was predicted, and how many voxels that are.

    Parameters
    ----------
    path : Path
        Of the image file.
    curves : mapping of str to sequence of mapping
        By name, the bins of :class:`bids_inpaint.training.calibration.Reliability`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5.5, 7), layout="constrained")
    FigureCanvasAgg(fig)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, bins in curves.items():
        filled = [b for b in bins if b["voxels"]]
        x = [b["predicted"] for b in filled]
        upper.plot(x, [b["observed"] for b in filled], marker="o", label=name)
        lower.plot(x, [b["voxels"] for b in filled], marker="o")
    upper.set(ylabel="observed share of lesion", xlim=(0, 1), ylim=(0, 1))
    upper.legend()
    lower.set(xlabel="predicted lesion probability", ylabel="voxels", yscale="log")
    fig.savefig(path, dpi=80)
