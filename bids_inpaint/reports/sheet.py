"""A picture for a paper: axial slices of a T1w at its lesions, without and with outlines, and inpainted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.io.files import replacing
from bids_inpaint.reports.figures import LESION, fill_up, peaks
from bids_inpaint.reports.sections import contours, plane
from bids_inpaint.reports.zoom import Head

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

Array = np.ndarray
#: Pixels of an inch, and the width of two columns of a journal (mm).
DPI, WIDTH = 300, 180.0
#: Slices, how far they are apart at least (mm), and the margin around the brain (mm).
_SLICES, _APART, _MARGIN = 6, 5, 4.0
#: Length of the scale bar (mm).
_RULER = 50
ROWS = ("Original", "Lesions outlined", "Inpainted")
#: Outlines are drawn so many times larger, and made smaller again, to be smooth.
_SMOOTH = 3


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels.

    Attributes
    ----------
    slices : list of float
        World coordinates along z (mm).
    middle : array, shape (3,)
        Of the brain, in mm.
    size : tuple of float
        Width and height of a slice (mm).
    step : float
        Edge of a pixel in the head (mm).
    letters : int
        Height of letters.
    """

    slices: list[float]
    middle: Array
    size: tuple[float, float]
    step: float
    letters: int

    @classmethod
    def of(cls, head: Head) -> _Layout:
        # every 2 mm are enough, and a brain of small voxels is large
        places = _world(head, head.brain, [max(int(2 / size), 1) for size in head.grid.voxel_sizes])
        low, high = places.min(0) - _MARGIN, places.max(0) + _MARGIN
        letters = round(8 / 72 * DPI)
        width = WIDTH / 25.4 * DPI - 2 * letters
        size = (float(high[0] - low[0]), float(high[1] - low[1]))
        return cls(_slices(head, places), (low + high) / 2, size, _SLICES * size[0] / width, letters)

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height of a slice."""
        return max(round(self.size[0] / self.step), 1), max(round(self.size[1] / self.step), 1)

    @property
    def whole(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        left, top = self.corner(len(ROWS), len(self.slices))
        return left, top + 2 * self.letters

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The upper left corner of a slice."""
        wide, high = self.picture
        return 2 * self.letters + column * wide, 2 * self.letters + row * (high + self.letters // 2)


def draw(head: Head, out_file: str) -> None:
    """Draw a sheet of 180 mm width at 300 dots per inch, on black.

    The slices are axial in the world of the T1w, where it has most lesions; in a brain without lesions they
    are evenly spaced. What is no brain is left out. Each slice names its z, the left of the person is at the
    left, and the bar has its length in the person's own head.

    Parameters
    ----------
    head : Head
    out_file : str
        PNG to write.
    """
    from PIL import Image, ImageFont

    layout = _Layout.of(head)
    sheet = Image.new("RGB", layout.whole)
    font = ImageFont.load_default(size=layout.letters)
    low, high = np.percentile(head.original[::2, ::2, ::2][head.brain[::2, ::2, ::2]], (1, 99.5))
    lesions = (head.labels > 0).astype(np.float32)
    brain = head.brain.astype(np.float32)
    for column, z in enumerate(layout.slices):
        centre = np.array([*layout.middle[:2], z])

        def section(volume: Array, centre: Array = centre) -> Array:
            return plane(volume, head.grid, 2, centre, layout.size, layout.step)

        inside = section(brain) > 0.5
        outline = _outline(section(lesions), layout)
        for row, volume in enumerate((head.original, head.original, head.inpainted)):
            shades = np.clip((section(volume) - low) / max(high - low, 1e-6), 0, 1) * inside
            picture = Image.fromarray((255 * shades).astype(np.uint8)).convert("RGB")
            if row == 1:
                picture.paste(outline, mask=outline)
            sheet.paste(picture, layout.corner(row, column))
    _annotate(sheet, layout, font)
    with replacing(out_file) as part:
        sheet.save(part, format="png", dpi=(DPI, DPI))


def _world(head: Head, mask: Array, steps: Sequence[int] = (1, 1, 1)) -> Array:
    """World coordinates of the voxels of a mask, one a row, or of every so many along each axis."""
    voxels = np.argwhere(mask[tuple(slice(None, None, step) for step in steps)]) * np.array(steps)
    return voxels @ head.grid.matrix[:3, :3].T + head.grid.matrix[:3, 3]


def _slices(head: Head, places: Array) -> list[float]:
    """Where most of the lesions are along z, from below; what is left is spaced evenly through the brain."""
    first = int(np.floor(places[:, 2].min()))
    area = np.bincount(np.rint(places[:, 2] - first).astype(int))
    lesions = np.rint(_world(head, head.labels > 0)[:, 2] - first).astype(int)
    held = np.bincount(lesions.clip(0, area.size - 1), minlength=area.size)
    chosen = peaks(held, _SLICES, _APART)
    return [float(first + index) for index in fill_up(chosen, area, _SLICES, _APART)]


def _outline(view: Array, layout: _Layout) -> Image:
    """The outlines of lesions on a slice, on nothing."""
    from PIL import Image, ImageDraw

    wide, high = layout.picture
    large = Image.new("RGBA", (_SMOOTH * wide, _SMOOTH * high), (*_rgb(LESION), 0))
    pen = ImageDraw.Draw(large)
    for line in contours(view):
        pen.line([(x, y) for x, y in (_SMOOTH * line).tolist()], LESION, _SMOOTH * 3, joint="curve")
    return large.resize((wide, high), Image.Resampling.BOX)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def _annotate(sheet: Image, layout: _Layout, font: FreeTypeFont | ImageFont) -> None:
    """Name rows, slices and sides, and draw the scale bar."""
    from PIL import Image, ImageDraw

    pen = ImageDraw.Draw(sheet)
    wide, high = layout.picture
    for row, name in enumerate(ROWS):
        left, top = layout.corner(row, 0)
        title = Image.new("RGB", (high, 2 * layout.letters))
        ImageDraw.Draw(title).text((high / 2, layout.letters), name, "white", font, "mm")
        sheet.paste(title.rotate(90, expand=True), (0, top))
        for side, x, anchor in (("L", left, "lt"), ("R", left + wide, "rt")):
            pen.text((x, top), side, "white", font, anchor)
    for column, z in enumerate(layout.slices):
        left, top = layout.corner(0, column)
        # Pillow's letters have no minus, but a hyphen
        place = left + wide / 2, top - layout.letters // 2
        pen.text(place, f"z = {z:.0f} mm", "white", font, "mb")
    right, bottom = layout.whole[0] - layout.letters, layout.whole[1] - layout.letters
    length = round(_RULER / layout.step)
    pen.rectangle((right - length, bottom - 3, right - 1, bottom + 3), "white")
    pen.text((right - length - layout.letters // 2, bottom), f"{_RULER} mm", "white", font, "rm")
