"""Dice of the tissues that the app found with those of a rater: ``python benchmarks/tissues.py OUT LABELS``.

OUT is an output folder of the participant level. LABELS is a BIDS derivative whose ``dseg`` are on the voxels
of the T1w images, with 1 for cerebrospinal fluid, 2 for grey and 3 for white matter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images

#: The tissues by their values in the app's labels and in those of the rater.
TISSUES = {"GM": (1, 2), "WM": (2, 3), "CSF": (3, 1)}


def main() -> None:
    """Print the Dice of each participant, and their means and standard deviations."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("output_dir", type=Path)
    p.add_argument("labels", type=Path)
    args = p.parse_args()
    rows = []
    for path in sorted(args.labels.glob("sub-*/anat/*_dseg.nii.gz")):
        found, grid = images.read(str(args.output_dir / path.relative_to(args.labels)))
        truth, other = images.read(str(path))
        if not grid.same_as(other):
            raise SystemExit(f"{path} is not on the voxels of the T1w image.")
        rows.append([dice(found == own, truth == rater) for own, rater in TISSUES.values()])
        show(path.name.split("_")[0], rows[-1])
    show("mean", np.mean(rows, axis=0))
    show("sd", np.std(rows, axis=0, ddof=1))


def show(name: str, values: np.ndarray | list[float]) -> None:
    """Print a row."""
    print(f"{name:<12}", *(f"{t} {v:.3f}" for t, v in zip(TISSUES, values, strict=True)), sep="  ")


if __name__ == "__main__":
    main()
