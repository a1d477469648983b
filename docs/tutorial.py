"""Draws the tutorial's pictures from the demo's results: ``python docs/tutorial.py DEMO [EVERYTHING]``.

DEMO is the folder of ``python -m bids_inpaint.demo DEMO``. EVERYTHING is the output folder of a participant
level on the same dataset with ``--lesion-masks DEMO/bids/derivatives/painted --compare-segmentation
--flair``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

IMAGES = Path(__file__).parent / "images"
SUBJECT = "sub-lesions/anat/sub-lesions"
SPACE = "space-MNI152NLin2009aSym_res-1"
#: A point of the axial slice, in mm. The native slice cuts two of the five painted lesions, the standard
#: one three.
POINT = (0.0, -18.0, 24.0)
#: Grey matter, white matter and cerebrospinal fluid.
TISSUES = ("#e0b030", "#d8d8d8", "#4a90d9")
PAINTED, MAPPED = "#40e0ff", "#ff5030"


def axial(path: Path) -> np.ndarray:
    """The slice through `POINT`, as an array (y, x) whose x grows from left to right of the person."""
    image = nib.as_closest_canonical(nib.load(path))
    voxel = np.linalg.inv(image.affine) @ [*POINT, 1]
    return np.asarray(image.dataobj)[:, :, round(voxel[2])].T


def window(view: np.ndarray, margin: int = 4) -> tuple[slice, slice]:
    """The rows and columns of what is not 0, with a margin in pixels."""
    rows, columns = (np.flatnonzero(view.any(axis)) for axis in (1, 0))
    return tuple(slice(max(0, i[0] - margin), i[-1] + margin + 1) for i in (rows, columns))


class Row:
    """A row of slices on black, with titles and the letters of left and right."""

    def __init__(self, titles: tuple[str, ...], crop: tuple[slice, slice]) -> None:
        tall = 3.2 * (crop[0].stop - crop[0].start) / (crop[1].stop - crop[1].start)
        self.height = tall + 1.0
        self.figure = Figure(figsize=(3.3 * len(titles), self.height), facecolor="black")
        FigureCanvasAgg(self.figure)
        self.figure.subplots_adjust(0.005, 0.7 / self.height, 0.995, 1 - 0.3 / self.height, wspace=0.02)
        self.crop = crop
        self.axes = self.figure.subplots(1, len(titles), squeeze=False)[0]
        for axis, title in zip(self.axes, titles, strict=True):
            axis.set_title(title, color="white", fontsize=11)
            axis.set_axis_off()
            for side, letter in ((0.03, "L"), (0.93, "R")):
                axis.text(side, 0.03, letter, color="#aaaaaa", transform=axis.transAxes)

    def show(self, column: int, view: np.ndarray, **options) -> None:
        """Draw a slice, in grey unless a colour map is given."""
        options = {"cmap": "gray", "vmin": 0} | options
        self.axes[column].imshow(view[self.crop], origin="lower", interpolation="none", **options)

    def labels(self, column: int, view: np.ndarray) -> None:
        """Draw the labels of the tissues."""
        masked = np.ma.masked_equal(view, 0)
        self.show(column, masked, cmap=ListedColormap(TISSUES), vmin=0.5, vmax=3.5)

    def bar(self, column: int, label: str) -> None:
        """Draw the scale of the last slice in a column below it."""
        axis = self.axes[column]
        place = axis.inset_axes((0.15, -0.06, 0.7, 0.03))
        bar = self.figure.colorbar(axis.images[-1], cax=place, orientation="horizontal")
        bar.set_label(label, color="white", fontsize=9, labelpad=2)
        place.tick_params(colors="white", labelsize=8)

    def outline(self, column: int, mask: np.ndarray, colour: str) -> None:
        """Draw the outline of a mask."""
        self.axes[column].contour(mask[self.crop] > 0, levels=[0.5], colors=colour, linewidths=1.3)

    def legend(self, entries: dict[str, str], column: int | None = None) -> None:
        """Name the colours below the row, or below one column."""
        patches = [Patch(color=colour, label=name) for name, colour in entries.items()]
        centre = 0.5 if column is None else (column + 0.5) / len(self.axes)
        self.figure.legend(
            handles=patches, loc="lower center", bbox_to_anchor=(centre, 0.02), ncols=len(patches),
            labelcolor="white", facecolor="black", edgecolor="black", fontsize=10,
        )  # fmt: skip

    def save(self, name: str) -> None:
        """Write the picture, without the channel of transparency."""
        file = IMAGES / f"tutorial-{name}.png"
        self.figure.savefig(file, dpi=270 / len(self.axes))
        with Image.open(file) as picture:
            picture.convert("RGB").save(file, optimize=True)


def brightest(view: np.ndarray) -> float:
    """The upper end of the grey scale of a T1w."""
    return float(np.percentile(view[view > 0], 99.5))


def draw_input(raw: np.ndarray, painted: np.ndarray, out: Path) -> None:
    """Draw the T1w, the painted lesions and the brain mask."""
    row = Row(("sub-lesions, T1w", "painted lesions", "brain mask"), window(raw))
    for column in range(3):
        row.show(column, raw, vmax=brightest(raw))
    row.outline(1, painted, PAINTED)
    row.outline(2, axial(out / f"{SUBJECT}_desc-brain_mask.nii.gz"), "#60d060")
    row.save("input")


def draw_inpainted(raw: np.ndarray, out: Path) -> None:
    """Draw the T1w, the inpainted T1w, and what was changed."""
    inpainted = axial(out / f"{SUBJECT}_desc-inpainted_T1w.nii.gz")
    change = inpainted.astype(float) - raw
    row = Row(("T1w", "inpainted T1w", "inpainted − T1w"), window(raw))
    for column, view in enumerate((raw, inpainted, 0.5 * raw)):
        row.show(column, view, vmax=brightest(raw))
    row.show(2, np.ma.masked_equal(change, 0), cmap="plasma", vmax=change.max())
    row.bar(2, "units of the T1w; unchanged where grey")
    row.save("inpainted")


def draw_lesions(raw: np.ndarray, painted: np.ndarray, out: Path) -> None:
    """Draw the graded map, the binary map with the truth, and the single lesions."""
    names = ("label-L_probseg", "label-L_desc-inpaint_mask", "desc-lesions_dseg")
    graded, mapped, labels = (axial(out / f"{SUBJECT}_{name}.nii.gz") for name in names)
    crop = window(raw)
    row = Row(("label-L_probseg (graded)", *names[1:]), crop)
    for column in range(3):
        row.show(column, raw, vmax=brightest(raw))
    row.show(0, np.ma.masked_less(graded, 0.05), cmap="inferno", vmax=1)
    row.bar(0, "probability of a lesion")
    row.outline(1, painted, PAINTED)
    row.outline(1, mapped, MAPPED)
    row.legend({"painted": PAINTED, "mapped": MAPPED}, column=1)
    row.show(2, np.ma.masked_equal(labels, 0), cmap="tab10", vmax=9)
    for label in np.unique(labels[labels > 0]):
        y, x = np.nonzero(labels[crop] == label)
        row.axes[2].text(x.mean(), y.min() - 3, str(label), color="#c02020", size=11, ha="center", va="top")
    row.save("lesions")


def draw_tissues(raw: np.ndarray, out: Path) -> None:
    """Draw the labels of the tissues and their probabilities."""
    names = ("dseg", *(f"label-{tissue}_probseg" for tissue in ("GM", "WM", "CSF")))
    row = Row(names, window(raw))
    row.labels(0, axial(out / f"{SUBJECT}_dseg.nii.gz"))
    for column, name in enumerate(names[1:], start=1):
        row.show(column, axial(out / f"{SUBJECT}_{name}.nii.gz"), vmax=1)
    row.legend(dict(zip(("1 grey matter", "2 white matter", "3 cerebrospinal fluid"), TISSUES, strict=True)))
    row.save("tissues")


def draw_standard(out: Path) -> None:
    """Draw the brain in standard space, before and after, and the lesion map of the group."""
    names = ("desc-preproc_T1w", "desc-inpainted_T1w", "label-L_desc-inpaint_mask")
    before, after, lesions = (axial(out / f"{SUBJECT}_{SPACE}_{name}.nii.gz") for name in names)
    shared = axial(out / f"group_{SPACE}_label-L_probseg.nii.gz")
    row = Row((*names[:2], "group: label-L_probseg"), window(before))
    for column, view in enumerate((before, after, after)):
        row.show(column, view, vmax=brightest(before))
    row.outline(0, lesions, MAPPED)
    row.show(2, np.ma.masked_equal(shared, 0), cmap="autumn", vmax=1)
    row.bar(2, "share of the two participants")
    row.save("standard")


def draw_everything(raw: np.ndarray, painted: np.ndarray, out: Path) -> None:
    """Draw what more options make: the reference, the FLAIR, and the tissues of original and reference."""
    names = ("desc-reference_T1w", "desc-synth_FLAIR", "desc-original_dseg", "desc-reference_dseg")
    reference, flair, *tissues = (axial(out / f"{SUBJECT}_{name}.nii.gz") for name in names)
    row = Row(names, window(raw))
    row.show(0, reference, vmax=brightest(raw))
    row.outline(0, axial(out / f"{SUBJECT}_label-L_desc-reference_mask.nii.gz"), PAINTED)
    row.show(1, flair, vmax=np.percentile(flair[flair > 0], 99.8))
    row.outline(1, axial(out / f"{SUBJECT}_label-L_desc-joint_mask.nii.gz"), MAPPED)
    for column, view in enumerate(tissues, start=2):
        row.labels(column, view)
        row.outline(column, painted, PAINTED)
    meanings = ("lesion mask", "lesions in T1w and FLAIR", "grey matter", "white matter", "fluid")
    row.legend(dict(zip(meanings, (PAINTED, MAPPED, *TISSUES), strict=True)))
    row.save("everything")


def main(demo: Path, everything: Path | None) -> None:
    """Draw all pictures."""
    raw = axial(demo / "bids" / f"{SUBJECT}_T1w.nii.gz")
    painted = axial(demo / "bids" / "derivatives" / "painted" / f"{SUBJECT}_label-lesion_mask.nii.gz")
    out = demo / "out"
    draw_input(raw, painted, out)
    draw_inpainted(raw, out)
    draw_lesions(raw, painted, out)
    draw_tissues(raw, out)
    draw_standard(out)
    if everything:
        draw_everything(raw, painted, everything)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
