"""Draws the picture of networks.md about a FLAIR: ``python docs/flair.py BIDS OUT/sub-X ...``.

BIDS is a dataset of people with T1w, FLAIR and an expert's lesion mask in ``derivatives/experts``. Each OUT
is an output folder of the participant level with ``--flair``, of a person that no network of it learned from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bids_inpaint.io import images
from bids_inpaint.space import bounding_box

FILE = Path(__file__).parent / "images" / "real-flair.png"
FOUND, MISSED, WRONG = "#ffe020", "#40d040", "#ff4030"


def main(bids: Path, people: list[Path]) -> None:
    """Draw the axial slice with most lesions of each person, with the map by the T1w and that by both."""
    fig = Figure(figsize=(10, 2.8 * len(people)), layout="constrained", facecolor="black")
    FigureCanvasAgg(fig)
    rows = fig.subplots(len(people), 4, squeeze=False)
    titles = ("T1w", "FLAIR on the T1w", "by the T1w alone", "by both")
    for axes, person in zip(rows, people, strict=True):
        (expert,) = (bids / "derivatives" / "experts" / person.name / "anat").glob("*_mask.nii.gz")
        names = ("space-T1w_FLAIR", "label-L_desc-inpaint_mask", "label-L_desc-joint_mask")
        made = [person / "anat" / f"{person.name}_{name}.nii.gz" for name in names]
        t1w = bids / person.name / "anat" / f"{person.name}_T1w.nii.gz"
        volumes = [images.read(path)[0] for path in (t1w, *made, expert)]
        z = int(volumes[-1].sum((0, 1)).argmax())
        brain, flair, alone, both, lesions = (volume[::-1, :, z].T for volume in volumes)
        box = bounding_box(brain > 0, 4)
        for axis, view, title in zip(axes, (brain, flair, flair, flair), titles, strict=True):
            axis.imshow(
                view[box], cmap="gray", vmin=0, vmax=np.percentile(view[brain > 0], 99.7), origin="lower"
            )
            axis.set_title(title, color="white", fontsize=10)
            axis.set_axis_off()
        for axis, mapped in zip(axes[2:], (alone, both), strict=True):
            mapped, true = mapped[box] > 0, lesions[box] > 0
            for colour, mask in ((FOUND, mapped & true), (MISSED, true & ~mapped), (WRONG, mapped & ~true)):
                shade = np.zeros((*mask.shape, 4))
                shade[mask] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [0.8]
                axis.imshow(shade, origin="lower", interpolation="none")
    legend = {FOUND: "found", MISSED: "missed", WRONG: "found by mistake"}
    fig.legend(
        handles=[Patch(color=colour, label=label) for colour, label in legend.items()],
        loc="outside lower right", ncols=3, frameon=False, labelcolor="white", fontsize=9,
    )  # fmt: skip
    fig.savefig(FILE, dpi=48)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
