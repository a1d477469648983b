"""Draws the picture of longitudinal.md: ``python docs/longitudinal.py OUT SUBJECT``.

OUT is an output folder of the participant level with ``--longitudinal`` and two sessions, ``ses-1`` and
``ses-2``, of SUBJECT, a label without ``sub-``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bids_inpaint.io import images
from bids_inpaint.space import bounding_box

FILE = Path(__file__).parent / "images" / "longitudinal.png"
SPACE = "space-MNI152NLin2009aSym_res-1"
COLOURS = {"stable": "#4a90d9", "new": "#ff5030", "enlarging": "#ffb020", "shrinking": "#60d060"}


def main(out: Path, label: str) -> None:
    """Draw the axial slice with most of what is new: both visits, both fillings, and the changes."""
    person = out / f"sub-{label}"
    changes = f"{SPACE}_desc-lesionchange_dseg.nii.gz"
    labels = images.read(person / "anat" / f"sub-{label}_{changes}")[0].astype(int)
    with open(person / "anat" / f"sub-{label}_desc-lesionchange_dseg.tsv", encoding="utf-8") as file:
        kinds = {int(row["index"]): row["change"] for row in csv.DictReader(file, delimiter="\t")}
    values = np.zeros(labels.max() + 1, int)
    for index, change in kinds.items():
        values[index] = 1 + list(COLOURS).index(change) if change in COLOURS else 0
    coloured = values[labels]
    interesting = (coloured == 2) * 4 + (coloured == 3) * 2 + (coloured > 0)
    z = int(interesting.sum((0, 1)).argmax())

    def view(session: int, name: str) -> np.ndarray:
        path = (
            person / f"ses-{session}" / "anat" / f"sub-{label}_ses-{session}_{SPACE}_desc-{name}_T1w.nii.gz"
        )
        return images.read(path)[0][::-1, :, z].T

    views = [view(s, name) for name in ("preproc", "inpainted") for s in (1, 2)]
    box = bounding_box(views[0] > 0, 4)
    top = np.percentile(views[0][views[0] > 0], 99.5)
    fig = Figure(figsize=(12, 3.6), layout="constrained", facecolor="black")
    FigureCanvasAgg(fig)
    titles = ("visit 1", "visit 2", "visit 1, filled", "visit 2, filled", "what became of the lesions")
    for axis, title, shown in zip(fig.subplots(1, 5), titles, [*views, views[1]], strict=True):
        axis.imshow(shown[box], cmap="gray", vmin=0, vmax=top, origin="lower")
        axis.set_title(title, color="white", fontsize=10)
        axis.set_axis_off()
    lesions = np.ma.masked_equal(coloured[::-1, :, z].T[box], 0)
    colours = ListedColormap(list(COLOURS.values()))
    axis.imshow(lesions, cmap=colours, vmin=1, vmax=len(COLOURS), origin="lower", interpolation="none")
    seen = [change for i, change in enumerate(COLOURS, 1) if (lesions == i).any()]
    fig.legend(
        handles=[Patch(color=COLOURS[change], label=change) for change in seen],
        loc="outside lower right", ncols=len(seen), frameon=False, labelcolor="white", fontsize=9,
    )  # fmt: skip
    fig.savefig(FILE, dpi=75)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
