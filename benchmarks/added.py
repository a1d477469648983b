"""A visit that is added to finished ones, compared with all visits processed together.

    python benchmarks/repeats.py CACHE LESIONS BIDS ds002748_sub-35 ds002748_sub-36 --visits 3
    bids_inpaint BIDS TOGETHER participant --longitudinal
    bids_inpaint BIDS ADDED participant --longitudinal --session-label 1 2
    bids_inpaint BIDS ADDED participant --longitudinal
    python benchmarks/added.py BIDS TOGETHER ADDED

For the last visit of each person, a row has the true volume of the painted lesions, the volumes of the lesion
map and of white matter in both output folders (on the voxels of the T1w), Dice with the painted lesions, and
what became of lesions since the visit before.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from bids_inpaint.dataset.courses import read_course
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images
from bids_inpaint.training.paint import MASKS

STEPS = ("new", "enlarging", "shrinking", "resolved")


def main() -> None:
    """Print the rows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bids", "together", "added"):
        p.add_argument(name, type=Path)
    args = p.parse_args()
    print(f"{'':<22}lesions ml  white ml    Dice   " + " ".join(f"{step:>9}" for step in STEPS))
    for folder in sorted(args.together.glob("sub-*/anat")):
        subject = folder.parent.name.removeprefix("sub-")
        course = read_course(args.together, subject)
        if course is None:
            continue
        *_, visit = course.visits
        name = f"sub-{subject}/{course.sessions[-1]}/anat/{visit}"
        painted, grid = images.read(args.bids / MASKS / f"{name}_label-lesion_mask.nii.gz")
        print(f"{visit} painted{painted.sum() * grid.voxel_volume / 1000:11.2f}")
        for kind, out_dir in (("together", args.together), ("added", args.added)):
            print(row(kind, out_dir, subject, name, painted > 0), flush=True)


def row(kind: str, out_dir: Path, subject: str, name: str, painted: np.ndarray) -> str:
    """Volumes, Dice and changes of the last visit."""
    mask, grid = images.read(out_dir / f"{name}_label-L_desc-inpaint_mask.nii.gz")
    white = images.read(out_dir / f"{name}_label-WM_probseg.nii.gz")[0]
    lesion, matter = (v.sum(dtype=np.float64) * grid.voxel_volume / 1000 for v in (mask, white))
    course = read_course(out_dir, subject)
    assert course is not None
    found = Counter(course.steps(len(course.visits) - 1))
    counts = " ".join(f"{found[step]:9d}" for step in STEPS)
    return f"  {kind:<20}{lesion:10.2f}{matter:10.1f}{dice(mask > 0, painted):8.3f}   {counts}"


if __name__ == "__main__":
    main()
