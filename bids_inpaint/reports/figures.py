"""Pictures of the report: slices of a volume side by side as PNG, and outlines on the same slices as SVG.

Each layer of a view is a file of its own, so that the page can switch it on and off. All layers of a view are
on one grid and have the same slices. The right of a person is at the right of each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_inpaint.io import images
from bids_inpaint.io.files import replacing, write_text
from bids_inpaint.space import Grid, bounding_box

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray
Box = tuple[slice, ...]
#: Indices of slices along x, y and z of a volume that is turned to the right, to the front and upwards.
Cuts = tuple[list[int], list[int], list[int]]
_SLICES = 7
#: Rows from top to bottom: the axis that is cut, and those that run to the right and upwards in a slice.
ROWS = ((2, 0, 1), (0, 1, 2), (1, 0, 2))
#: Between slices, in mm, and the width of an outline in pixels of the screen.
_GAP, _STROKE = 8.0, 1.7
#: Colours that people with any colour vision tell apart (Okabe and Ito 2008): orange, sky blue, yellow.
LESION, OTHER, THIRD = "#ff9f1a", "#56b4e9", "#f0e442"
#: What is darker than it would be without lesions, and what is brighter: near zero, and at the limit.
_WARM, _COLD = ((255, 214, 140), (213, 94, 0)), ((180, 220, 250), (0, 90, 170))


def view_box(mask: Array, grid: Grid, margin: float = 12.0) -> Box:
    """The box around a brain mask with a margin in mm."""
    return bounding_box(mask, int(np.ceil(margin / grid.voxel_sizes.min())))


def cuts_through(brain: str, box: Box | None = None, mask: str | None = None, count: int = _SLICES) -> Cuts:
    """Choose slices that show a mask best.

    Along each axis the slices with most of the mask are taken, at least 5 mm apart; if there are too few,
    evenly spaced slices of the brain fill up.

    Parameters
    ----------
    brain, mask : str
        Binary images on one grid; without a mask, the slices are spaced evenly.
    box : tuple of slice, optional
        Part of the grid to show.
    count : int
        Slices along each axis.
    """
    volume = Volume.read(brain, box)
    shown = Volume.read(mask, box).data > 0.5 if mask else np.zeros(volume.data.shape, bool)
    cuts = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        apart = max(round(5 / volume.sizes[axis]), 1)
        chosen = peaks(shown.sum(others), count, apart)
        cuts.append(fill_up(chosen, (volume.data > 0.5).sum(others), count, apart))
    return cuts[0], cuts[1], cuts[2]


def fill_up(chosen: Sequence[int], area: Array, count: int, apart: int) -> list[int]:
    """Add evenly spaced slices of a brain to those that are chosen, in order.

    Parameters
    ----------
    chosen : sequence of int
    area : array of int
        Voxels of the brain in each slice.
    count : int
        How many there are to be.
    apart : int
        How far the added ones are from all others, at least.
    """
    out = list(chosen)
    extent = np.flatnonzero(area > 0.2 * area.max()) if area.any() else np.array([0, area.size - 1])
    for index in np.linspace(extent[0], extent[-1], count + 2)[1:-1].round().astype(int):
        if len(out) < count and all(abs(index - c) >= apart for c in out):
            out.append(int(index))
    return sorted(out)


def peaks(profile: Array, count: int, apart: int) -> list[int]:
    profile = profile.astype(float).copy()
    chosen: list[int] = []
    while len(chosen) < count and profile.max() > 0:
        best = int(profile.argmax())
        chosen.append(best)
        profile[max(best - apart + 1, 0) : best + apart] = 0
    return chosen


def grey(
    image: str,
    out_file: str,
    cuts: Cuts,
    box: Box | None = None,
    limits: tuple[float, float] | None = None,
) -> str:
    """Draw slices of an image in grey.

    Parameters
    ----------
    image, out_file : str
        Volume to read, and PNG to write.
    cuts : Cuts
    box : tuple of slice, optional
        Part of the grid to show.
    limits : tuple of float, optional
        Intensities that are black and white; the image's own by default.
    """
    from PIL import Image

    volume = Volume.read(image, box)
    layout = Layout(volume, cuts)
    canvas = Image.new("L", layout.size)
    shown = limits or volume.limits()
    for picture, corner in layout.pictures(volume.data, lambda view: _shades(view, shown)):
        canvas.paste(picture, corner)
    layout.annotate(canvas, volume)
    return _write(canvas, out_file)


def tint(values: str, out_file: str, cuts: Cuts, limit: float, box: Box | None = None) -> str:
    """Draw signed values in colour, to lay over slices; those below a tenth of the limit are transparent.

    Parameters
    ----------
    values, out_file : str
        Volume to read, and PNG to write.
    cuts : Cuts
    limit : float
        Values beyond it have the last colour: positive ones are orange, negative ones blue.
    box : tuple of slice, optional
        Part of the grid to show.
    """
    from PIL import Image

    volume = Volume.read(values, box)
    layout = Layout(volume, cuts)
    canvas = Image.new("RGBA", layout.size)
    for picture, corner in layout.pictures(volume.data / limit, _signed):
        canvas.paste(picture, corner)
    return _write(canvas, out_file)


def _signed(view: Array) -> Array:
    """Colours and opacity of values from -1 to 1."""
    strength = np.clip(np.abs(view), 0, 1)[..., None]
    warm, cold = (np.array(low) + np.subtract(high, low) * strength for low, high in (_WARM, _COLD))
    colours = np.where(view[..., None] > 0, warm, cold)
    return np.concatenate([colours, np.where(strength < 0.1, 0, 220)], -1).astype(np.uint8)


def outlines(
    masks: Sequence[str],
    colours: Sequence[str],
    out_file: str,
    cuts: Cuts,
    box: Box | None = None,
    classes: Sequence[str] = (),
) -> str:
    """Draw outlines of masks, the first on top, to lay over slices.

    Parameters
    ----------
    masks, colours : list of str
        Images of 0 to 1, whose outline is at 0.5.
    out_file : str
        SVG to write.
    cuts : Cuts
    box : tuple of slice, optional
        Part of the grid to show.
    classes : sequence of str, optional
        Of each outline, for a page that holds the SVG in itself and chooses what is seen of it.
    """
    paths: list[str] = []
    stem = f"{Path(out_file).stem}-" if classes else "m"
    for mask, colour in reversed(list(zip(masks, colours, strict=True))):
        volume = Volume.read(mask, box)
        layout = Layout(volume, cuts)
        paths.append(outline(f"{stem}{len(paths)}", "".join(layout.outline(volume)), colour))
    if classes:
        named = zip(reversed(classes), paths, strict=True)
        paths = [f'<g class="{kind}">\n{path}</g>\n' for kind, path in named]
    # in tenths of a millimetre, so that whole numbers do
    size = f"{10 * layout.width:.0f} {10 * layout.height:.0f}"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" fill="none">\n'
    write_text(Path(out_file), start + "".join(paths) + "</svg>\n")
    return out_file


def outline(name: str, shape: str, colour: str) -> str:
    """An SVG path as a line of a colour, with a dark edge that shows it on white too."""
    path = f'<defs><path id="{name}" d="{shape}" vector-effect="non-scaling-stroke"/></defs>\n'
    edge = f'<use href="#{name}" stroke="#000" stroke-opacity="0.5" stroke-width="{_STROKE + 1.4:.1f}"/>\n'
    return f'{path}{edge}<use href="#{name}" stroke="{colour}" stroke-width="{_STROKE:.1f}"/>\n'


def thumbnail(image: str, brain: str, mask: str, out_file: str, box: Box | None = None) -> str:
    """Draw the axial, the sagittal and the coronal slice with most of a mask, which is filled with colour."""
    from PIL import Image

    volume, lesions = Volume.read(image, box), Volume.read(mask, box)
    cuts = cuts_through(brain, box, mask, count=1)
    shades = _shades(volume.data, volume.limits()).astype(np.float32)
    # lesions of a voxel are seen at this size too
    seen = np.where(lesions.data > 0.5, 0.75, 0)[..., None]
    colour = np.array([int(LESION[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
    coloured = (shades[..., None] * (1 - seen) + colour * seen).astype(np.uint8)
    pictures = []
    for axis, across, up in ROWS:
        size = (volume.sizes[across] * volume.data.shape[across], volume.sizes[up] * volume.data.shape[up])
        view = np.moveaxis(coloured, axis, 0)[cuts[axis][0]].swapaxes(0, 1)[::-1]
        pictures.append(Image.fromarray(view).resize((round(size[0] * 0.6), round(size[1] * 0.6))))
    canvas = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)))
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, (canvas.height - picture.height) // 2))
        left += picture.width
    return _write(canvas.quantize(64), out_file)


def _write(canvas: Image, out_file: str) -> str:
    with replacing(out_file) as part:
        canvas.save(part, optimize=True)
    return out_file


def _shades(data: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return (np.clip((data - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Volume:
    """A volume whose axes run to the right, to the front and upwards, as nearly as its voxels allow."""

    data: Array
    matrix: Array

    @classmethod
    def read(cls, path: str, box: Box | None = None) -> Volume:
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

    def position(self, axis: int, index: int) -> float:
        """World coordinate of the middle of a slice."""
        middle = (np.array(self.data.shape) - 1) / 2
        middle[axis] = index
        return float(self.matrix[axis, :3] @ middle + self.matrix[axis, 3])


class Layout:
    """Where the slices of a view are: in millimetres from its upper left corner.

    Parameters
    ----------
    volume : Volume
        Gives the sizes.
    cuts : Cuts
    """

    def __init__(self, volume: Volume, cuts: Cuts):
        self.cuts, self.sizes, self.shape = cuts, volume.sizes, volume.data.shape
        self.extent = volume.sizes * volume.data.shape
        self.place = float(max(self.extent[across] for _, across, _ in ROWS)) + _GAP
        heights = [float(self.extent[up]) + _GAP for _, _, up in ROWS]
        self.tops = [sum(heights[:i]) + _GAP / 2 for i in range(len(heights))]
        self.width, self.height = self.place * max(map(len, cuts)), sum(heights)
        #: Pixels in a millimetre.
        self.scale = float(np.clip(1 / volume.sizes.min(), 1, 1.5))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return round(self.width * self.scale), round(self.height * self.scale)

    def corners(self) -> Iterator[tuple[int, int, int, int, float, float]]:
        """Each slice: the axes that are cut, to the right and upwards, its index and upper left corner."""
        for (axis, across, up), top in zip(ROWS, self.tops, strict=True):
            for i, index in enumerate(self.cuts[axis]):
                yield axis, across, up, index, i * self.place + (self.place - self.extent[across]) / 2, top

    def pictures(
        self, data: Array, shade: Callable[[Array], Array]
    ) -> Iterator[tuple[Image, tuple[int, int]]]:
        """Each slice, in the colours that `shade` gives its values, and its upper left corner in pixels."""
        from PIL import Image

        for axis, across, up, index, left, top in self.corners():
            view = shade(np.moveaxis(data, axis, 0)[index].T[::-1])
            wide, high = (round(float(self.extent[i]) * self.scale) for i in (across, up))
            picture = Image.fromarray(np.ascontiguousarray(view))
            if picture.size != (wide, high):
                picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
            yield picture, (round(left * self.scale), round(top * self.scale))

    def annotate(self, canvas: Image, volume: Volume) -> None:
        """Write the coordinate of each slice, and which side is which."""
        from PIL import ImageDraw, ImageFont

        draw = ImageDraw.Draw(canvas)
        font = ImageFont.load_default(size=round(10 * self.scale))
        for axis, across, up, index, left, top in self.corners():
            x, y = left * self.scale, (top + self.extent[up]) * self.scale
            name = f"{'xyz'[axis]} = {round(volume.position(axis, index))}"
            draw.text((x, y), name, 190, font, "lb")
            if across == 0:
                right = x + self.extent[across] * self.scale
                for side, at, anchor in (("L", x, "lt"), ("R", right, "rt")):
                    draw.text((at, top * self.scale), side, 190, font, anchor)

    def outline(self, volume: Volume) -> Iterator[str]:
        """The outlines of a mask at 0.5 on all slices, as parts of an SVG path in tenths of a millimetre."""
        from contourpy import contour_generator

        for axis, across, up, index, left, top in self.corners():
            view = np.pad(np.moveaxis(volume.data, axis, 0)[index].T, 1)
            if not (view > 0.5).any():
                continue
            for line in map(np.asarray, contour_generator(z=view).lines(0.5)):
                # the first voxel is padded, and coordinates are those of the middles of voxels
                x = left + (line[:, 0] - 0.5) * self.sizes[across]
                y = top + self.extent[up] - (line[:, 1] - 0.5) * self.sizes[up]
                points = np.rint(10 * np.stack([x, y], 1)).astype(int)
                steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0))
                yield f"M{points[0, 0]} {points[0, 1]}l{steps}"
