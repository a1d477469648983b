"""Pictures of the report, as SVG: slices of volumes in three rows, with outlines or colours over them.

Each row is one image with one set of outlines. A Matplotlib panel for each slice, as nilearn and nireports
draw them, takes several times as long.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_inpaint.io import images
from bids_inpaint.io.files import write_text
from bids_inpaint.space import Grid, bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Array = np.ndarray
Box = tuple[slice, ...]
_SLICES = 7
#: Rows from top to bottom: the axis that is cut, and those that run to the right and upwards in a slice.
_ROWS = ((2, 0, 1), (0, 1, 2), (1, 0, 2))
#: Width of a picture in inches, and between slices in mm.
_WIDTH, _GAP = 14.0, 8.0
#: The upper of two panels is seen while the pointer rests on it.
_STYLE = """<style type="text/css">
@keyframes flicker { from { opacity: 0; } to { opacity: 1; } }
.foreground-svg { opacity: 0; }
.foreground-svg:hover { animation: 1s ease-in-out 0s alternate infinite flicker; }
</style>
"""


def cuts_through(mask: Array, grid: Grid, fallback: Array, count: int = _SLICES) -> dict[str, list[float]]:
    """World coordinates of slices that show a mask best.

    Along each axis the slices with most of the mask are taken, at least 5 voxels apart; if there are
    too few, evenly spaced slices of `fallback` fill up.

    Parameters
    ----------
    mask, fallback : array of bool
        `fallback` is not empty.
    grid : Grid
        Axis-aligned.
    """
    cuts = {}
    for axis, name in enumerate("xyz"):
        others = tuple(i for i in range(3) if i != axis)
        chosen = _peaks(mask.sum(others), count)
        extent = np.flatnonzero(fallback.sum(others) > 0.2 * fallback.sum(others).max())
        for index in np.linspace(extent[0], extent[-1], count + 2)[1:-1].round().astype(int):
            if len(chosen) < count and all(abs(index - c) >= 5 for c in chosen):
                chosen.append(int(index))
        voxels = np.zeros((len(chosen), 3))
        voxels[:, axis] = chosen
        cuts[name] = sorted((voxels @ grid.matrix[:3, :3].T + grid.matrix[:3, 3])[:, axis].tolist())
    return cuts


def _peaks(profile: Array, count: int) -> list[int]:
    profile = profile.astype(float).copy()
    chosen: list[int] = []
    while len(chosen) < count and profile.max() > 0:
        best = int(profile.argmax())
        chosen.append(best)
        profile[max(best - 4, 0) : best + 5] = 0
    return chosen


def flicker(
    before: str,
    after: str,
    out_file: str,
    labels: tuple[str, str],
    cuts: dict[str, list[float]],
    contour: str | None = None,
    intensity: tuple[float, float] | None = None,
    box: Box | None = None,
) -> str:
    """Two images in one place: the second appears when the pointer rests on it.

    Parameters
    ----------
    before, after : str
        Images on one grid.
    out_file : str
        SVG to write.
    labels : tuple of str
        Their captions.
    cuts : dict of list of float
        World coordinates of the slices along x, y and z.
    contour : str, optional
        Binary image drawn over both.
    intensity : tuple of float, optional
        Display range for both; each image's own by default.
    box : tuple of slice, optional
        Part of the grid to show.
    """
    volumes = [_Volume.read(path, box) for path in (before, after)]
    outlined = [(_Volume.read(contour, box), "red")] if contour else []
    mosaic = _Mosaic(volumes[0], volumes[0].nearest(cuts), above=12)
    for volume, label, layer in zip(volumes, labels, ("background", "foreground"), strict=True):
        mosaic.draw(volume, intensity or volume.limits(), outlined, label, layer)
    return mosaic.save(out_file)


def contours(
    background: str,
    masks: list[str],
    out_file: str,
    colours: list[str],
    box: Box | None = None,
) -> str:
    """Contours over an image on slices through the whole of the first mask."""
    volume, *outlined = (_Volume.read(path, box) for path in (background, *masks))
    mosaic = _Mosaic(volume, outlined[0].evenly())
    mosaic.draw(volume, volume.limits(), list(zip(outlined, colours, strict=True)))
    return mosaic.save(out_file)


def overlay(
    background: str, values: str, out_file: str, cuts: dict, limit: float, box: Box | None = None
) -> str:
    """Signed values in colour over an image; those beyond `limit` have the last colour."""
    volume, coloured = _Volume.read(background, box), _Volume.read(values, box)
    mosaic = _Mosaic(volume, volume.nearest(cuts), beside=50)
    low, high = volume.limits()
    # in half of the brightness, so that the colours are seen
    axes = mosaic.draw(volume, (low, 2 * high - low))
    mosaic.colour(axes, coloured, limit)
    return mosaic.save(out_file)


def view_box(mask: Array, grid: Grid, margin: float = 12.0) -> Box:
    """The box around a brain mask with a margin in mm. Plotting the air of a head takes longest."""
    return bounding_box(mask, int(np.ceil(margin / grid.voxel_sizes.min())))


@dataclass(frozen=True)
class _Volume:
    """A volume whose axes run to the right, to the front and upwards, as nearly as its voxels allow."""

    data: Array
    matrix: Array

    @classmethod
    def read(cls, path: str, box: Box | None = None) -> _Volume:
        import nibabel as nib

        data, grid = images.read(path)
        if box:
            data, grid = data[box], grid.part(box)
        turned: Any = nib.as_closest_canonical(nib.Nifti1Image(data, grid.matrix))
        return cls(np.asarray(turned.dataobj), turned.affine)

    @property
    def sizes(self) -> Array:
        """Edge lengths of a voxel (mm)."""
        return np.linalg.norm(self.matrix[:3, :3], axis=0)

    def limits(self) -> tuple[float, float]:
        """Intensities that are black and white."""
        low, high = np.percentile(self.data, (15, 99.8))
        return float(low), float(max(high, low + 1e-6))

    def nearest(self, cuts: dict[str, list[float]]) -> list[list[int]]:
        """Indices along each axis of the slices that lie at world coordinates."""
        at = [(np.array(cuts[name]) - self.matrix[i, 3]) / self.matrix[i, i] for i, name in enumerate("xyz")]
        shape = self.data.shape
        return [np.clip(np.rint(v), 0, n - 1).astype(int).tolist() for v, n in zip(at, shape, strict=True)]

    def evenly(self) -> list[list[int]]:
        """Indices along each axis of slices through the whole of a mask."""
        chosen = []
        for axis in range(3):
            others = tuple(i for i in range(3) if i != axis)
            area = (self.data > 0.5).sum(others)
            extent = np.flatnonzero(area > 0.2 * area.max()) if area.any() else np.array([0, area.size - 1])
            within = np.linspace(extent[0], extent[-1], _SLICES + 2)[1:-1]
            chosen.append(np.rint(within).astype(int).tolist())
        return chosen

    def position(self, axis: int, index: int) -> float:
        """World coordinate of the middle of a slice."""
        middle = (np.array(self.data.shape) - 1) / 2
        middle[axis] = index
        return float(self.matrix[axis, :3] @ middle + self.matrix[axis, 3])


class _Mosaic:
    """A picture of slices, in millimetres from its lower left corner.

    Parameters
    ----------
    volume : _Volume
        Gives the sizes; all others have its voxels.
    cuts : list of list of int
        Indices of the slices along each axis.
    beside, above : float
        Room at the right for a scale, and at the top for a caption (mm).
    """

    def __init__(self, volume: _Volume, cuts: list[list[int]], beside: float = 0, above: float = 0):
        import matplotlib as mpl
        from matplotlib.figure import Figure

        # the same picture is the same bytes
        mpl.rcParams["svg.hashsalt"] = "bids_inpaint"
        extent = volume.sizes * volume.data.shape
        self.cuts = cuts
        self.place = float(max(extent[across] for _, across, _ in _ROWS)) + _GAP
        heights = [float(extent[up]) + _GAP for _, _, up in _ROWS]
        self.bottoms = [sum(heights[i + 1 :]) for i in range(len(heights))]
        self.width, self.height = self.place * max(map(len, cuts)) + beside, sum(heights) + above
        self.figure = Figure((_WIDTH, _WIDTH * self.height / self.width), facecolor="black")

    def draw(
        self,
        volume: _Volume,
        limits: tuple[float, float],
        outlined: Sequence[tuple[_Volume, str]] = (),
        label: str = "",
        layer: str = "background",
    ) -> Axes:
        """Draw slices of an image over all that was drawn before, and outlines of masks, the first on top."""
        panel = self.figure.add_subfigure(self.figure.add_gridspec(1, 1)[0], facecolor="black")
        panel.set_gid(layer)
        axes = panel.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.text(2, self.height - 2, label, color="white", va="top", size=12)
        for row in range(len(_ROWS)):
            self._show(axes, row, volume, volume.data, cmap="gray", vmin=limits[0], vmax=limits[1])
            for mask, colour in reversed(outlined):
                self._outline(axes, row, mask, colour)
            self._annotate(axes, row, volume)
        axes.set(xlim=(0, self.width), ylim=(0, self.height), aspect="auto")
        return axes

    def colour(self, axes: Axes, volume: _Volume, limit: float) -> None:
        """Draw values over slices; those below a tenth of the limit are left out."""
        seen = np.where(np.abs(volume.data) < limit / 10, np.float32(np.nan), volume.data)
        for row in range(len(_ROWS)):
            drawn = self._show(axes, row, volume, seen, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set(xlim=(0, self.width), ylim=(0, self.height), aspect="auto")
        scale = axes.inset_axes((0.985, 0.7, 0.006, 0.25))
        axes.figure.colorbar(drawn, cax=scale)
        scale.yaxis.set_ticks_position("left")
        scale.tick_params(colors="white", labelsize=9)

    def _show(self, axes: Axes, row: int, volume: _Volume, data: Array, **how: Any) -> AxesImage:
        values, (x, y) = self._laid_out(row, volume, data, np.nan)
        left, right, low, high = x[0], x[-1], y[0], y[-1]
        dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
        extent = (left - dx, right + dx, low - dy, high + dy)
        return axes.imshow(values, extent=extent, origin="lower", interpolation="none", **how)

    def _outline(self, axes: Axes, row: int, mask: _Volume, colour: str) -> None:
        values, places = self._laid_out(row, mask, mask.data, 0)
        if values.max() > 0.5:
            axes.contour(*places, values, levels=[0.5], colors=colour, linewidths=0.5)

    def _annotate(self, axes: Axes, row: int, volume: _Volume) -> None:
        axis, across, up = _ROWS[row]
        for i, index in enumerate(self.cuts[axis]):
            left, low = i * self.place, self.bottoms[row]
            name = f"{'xyz'[axis]}={volume.position(axis, index):.0f}"
            axes.text(left + 2, low + _GAP / 2, name, color="white", size=9)
            if across == 0:
                top = low + volume.sizes[up] * volume.data.shape[up]
                for side, place in (("L", 0.08), ("R", 0.9)):
                    axes.text(left + place * self.place, top - 4, side, color="white", va="top", size=9)

    def _laid_out(
        self, row: int, volume: _Volume, data: Array, around: float
    ) -> tuple[Array, tuple[Array, Array]]:
        """Slices beside each other, each in the middle of its place, and the places of their voxels (mm)."""
        axis, across, up = _ROWS[row]
        size = volume.sizes[across]
        room = int(np.floor(self.place / size))
        n = data.shape[across]
        # a gap of voxels that are a little wider or narrower keeps the places where they are
        values = np.full((data.shape[up], room * len(self.cuts[axis])), around, np.float32)
        for i, index in enumerate(self.cuts[axis]):
            start = i * room + (room - n) // 2
            values[:, start : start + n] = np.moveaxis(data, axis, 0)[index].T
        x = (np.arange(values.shape[1]) + 0.5) * (self.place / room)
        y = self.bottoms[row] + _GAP / 2 + (np.arange(values.shape[0]) + 0.5) * volume.sizes[up]
        return values, (x, y)

    def save(self, out_file: str) -> str:
        """Write the picture."""
        text = io.StringIO()
        self.figure.savefig(text, format="svg", facecolor="black", metadata={"Date": None})
        svg = text.getvalue()
        start = svg.index("<svg")
        end = svg.index(">", start) + 1
        # it takes the width that the page gives it
        tag = re.sub(r' (width|height)="[^"]*"', "", svg[start:end])
        for layer in ("background", "foreground"):
            svg = svg.replace(f'<g id="{layer}">', f'<g class="{layer}-svg">')
        end += svg.index("<svg") - start
        write_text(Path(out_file), tag + "\n" + _STYLE + svg[end:])
        return out_file
