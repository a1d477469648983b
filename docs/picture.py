"""Draws the README's picture from the results of a participant: ``python docs/picture.py OUT/sub-X/anat``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bids_inpaint import images

FILE = Path(__file__).parent / "images" / "before-after.png"


def main(anat: Path) -> None:
    """Draw the axial slice with most lesion voxels: T1w, inpainted, lesion map."""
    names = ("desc-preproc_T1w", "desc-inpainted_T1w", "label-L_desc-inpaint_mask")
    before, after, lesions = (images.read(next(anat.glob(f"*space-*_{n}.nii.gz")))[0] for n in names)
    z = int(lesions.sum((0, 1)).argmax())
    before, after, lesions = (v[::-1, :, z].T for v in (before, after, lesions))
    top = np.percentile(before[before > 0], 99.5)
    fig = Figure(figsize=(9, 3.8), layout="constrained", facecolor="black")
    FigureCanvasAgg(fig)
    titles = ("T1w", "inpainted", "lesion map")
    for axis, title, view in zip(fig.subplots(1, 3), titles, (before, after, before), strict=True):
        axis.imshow(view, cmap="gray", vmin=0, vmax=top, origin="lower")
        axis.set_title(title, color="white")
        axis.set_axis_off()
    axis.imshow(
        np.ma.masked_equal(lesions, 0), cmap="autumn", origin="lower", alpha=0.8, interpolation="none"
    )
    fig.savefig(FILE, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
