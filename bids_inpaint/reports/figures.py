"""Pictures of the report, as SVG. The plotting itself is nireports' and nilearn's."""

from __future__ import annotations

import functools
import os
import re
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bids_inpaint.io import images
from bids_inpaint.space import Grid, bounding_box

if TYPE_CHECKING:
    import nibabel as nib

Array = np.ndarray
Box = tuple[slice, ...]
AXES: tuple[Literal["z"], Literal["x"], Literal["y"]] = ("z", "x", "y")
_SLICES = 7
#: Pixels per inch of the images in an SVG: two for a voxel of 1 mm.
_DPI = 150
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


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
    from nireports.reportlets.mosaic import plot_registration
    from nireports.reportlets.utils import compose_view

    _set_up_plotting()
    outline = _image(contour, box) if contour and images.read(contour)[0].any() else None
    panels = []
    for path, label in zip((before, after), labels, strict=True):
        limits = dict(zip(("vmin", "vmax"), intensity, strict=True)) if intensity else None
        panels.append(
            plot_registration(
                _image(path, box), "flicker", plot_params=limits, order=AXES, cuts=cuts,
                estimate_brightness=intensity is None, label=label, contour=outline, compress=False,
            )
        )  # fmt: skip
    compose_view(panels[0], panels[1], out_file=out_file)
    return _number_identifiers(out_file)


def contours(
    background: str,
    masks: list[str],
    out_file: str,
    colours: list[str],
    box: Box | None = None,
) -> str:
    """Contours over an image on slices through the whole of the first mask."""
    from nireports.reportlets.mosaic import plot_segs
    from nireports.reportlets.utils import compose_view

    _set_up_plotting()
    panels = plot_segs(
        image_nii=_image(background, box), seg_niis=[_image(m, box) for m in masks],
        bbox_nii=_image(masks[0], box),
        masked=False, colors=colours, levels=[[0.5]] * len(masks), compress=False,
    )  # fmt: skip
    compose_view(panels, [], out_file=out_file)
    return _number_identifiers(out_file)


def overlay(
    background: str, values: str, out_file: str, cuts: dict, limit: float, box: Box | None = None
) -> str:
    """Signed values in colour over an image; those beyond `limit` have the last colour."""
    from nilearn.plotting import plot_stat_map
    from nireports._vendored.svgutils.transform import fromstring
    from nireports.reportlets.utils import compose_view, extract_svg

    _set_up_plotting()
    panels = []
    for axis in AXES:
        with warnings.catch_warnings():
            # no difference at all is a result, too
            warnings.filterwarnings("ignore", message="empty mask")
            display = plot_stat_map(
                _image(values, box), bg_img=_image(background, box), display_mode=axis, cut_coords=cuts[axis],
                threshold=limit / 10, vmax=limit, colorbar=axis == AXES[0], black_bg=True, annotate=True,
            )  # fmt: skip
        panels.append(fromstring(extract_svg(display, _DPI, compress=False)))
        display.close()
    compose_view(panels, [], out_file=out_file)
    return _number_identifiers(out_file)


def view_box(mask: Array, grid: Grid, margin: float = 12.0) -> Box:
    """The box around a brain mask with a margin in mm. Plotting the air of a head takes longest."""
    return bounding_box(mask, int(np.ceil(margin / grid.voxel_sizes.min())))


def _image(path: str, box: Box | None = None) -> nib.Nifti1Image:
    import nibabel as nib

    data, grid = images.read(path)
    if box:
        data, grid = data[box], grid.part(box)
    return nib.Nifti1Image(data, grid.matrix)


def _set_up_plotting() -> None:
    import matplotlib
    from nireports.reportlets import mosaic, utils

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bids_inpaint"
    # matplotlib writes the date into every SVG unless this is set
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    # nireports draws everything at 300 without a choice, which takes four times as long
    mosaic.extract_svg = functools.partial(utils.extract_svg, dpi=_DPI)


def _number_identifiers(path: str) -> str:
    """Replace random identifiers by numbered ones, so that the same run gives the same bytes."""
    known: dict[str, str] = {}

    def number(match: re.Match) -> str:
        text = match.group()
        return known.setdefault(
            text, str(uuid.uuid5(uuid.NAMESPACE_URL, f"bids_inpaint:{Path(path).name}:{len(known)}"))
        )

    file = Path(path)
    file.write_text(_UUID.sub(number, file.read_text(encoding="utf-8")), encoding="utf-8")
    return path
