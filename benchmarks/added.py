"""A visit that is added to finished ones, compared with all visits processed together.

    python benchmarks/repeats.py CACHE LESIONS BIDS ds002748_sub-35 ds002748_sub-36 --visits 3
    bids_inpaint BIDS TOGETHER participant --longitudinal
    bids_inpaint BIDS ADDED participant --longitudinal --session-label 1 2
    bids_inpaint BIDS ADDED participant --longitudinal
    python benchmarks/added.py BIDS TOGETHER ADDED

Both output folders have a row for each person: the volumes of the lesion map and of white matter at all
visits (on the voxels of the T1w), and for the last visit, which was added, Dice with the painted lesions and
what became of lesions since the visit before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bids_inpaint.dataset.courses import read_course
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images
from bids_inpaint.space import Grid
from bids_inpaint.training.paint import MASKS

STEPS = ("new", "enlarging", "shrinking", "resolved")
LESIONS, WHITE = "label-L_desc-inpaint_mask", "label-WM_probseg"


def main() -> None:
    """Print the rows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bids", "together", "added"):
        p.add_argument(name, type=Path)
    args = p.parse_args()
    print(f"{'':<10}{'lesions ml':>24}{'white ml':>24}    Dice" + "".join(f"{step:>10}" for step in STEPS))
    for folder in sorted(args.together.glob("sub-*/anat")):
        subject = folder.parent.name.removeprefix("sub-")
        course = read_course(args.together, subject)
        if course is None:
            continue
        print(f"sub-{subject}")
        painted = [volume_of(args.bids / MASKS, visit, "label-lesion_mask") for visit in course.visits]
        print(f"  {'painted':<8}" + "".join(f"{volume:8.2f}" for volume in painted))
        for kind, out_dir in (("together", args.together), ("added", args.added)):
            print(row(kind, args.bids, out_dir, subject), flush=True)


def read(root: Path, visit: str, suffix: str) -> tuple[np.ndarray, Grid]:
    """An image of a visit on the voxels of its T1w."""
    subject, session = visit.split("_")[:2]
    return images.read(root / subject / session / "anat" / f"{visit}_{suffix}.nii.gz")


def volume_of(root: Path, visit: str, suffix: str) -> float:
    """Volume of a map of a visit, in ml."""
    values, grid = read(root, visit, suffix)
    return float(values.sum(dtype=np.float64)) * grid.voxel_volume / 1000


def row(kind: str, bids: Path, out_dir: Path, subject: str) -> str:
    """Volumes of all visits, and Dice and changes of the last one."""
    course = read_course(out_dir, subject)
    assert course is not None
    lesions, white = ([volume_of(out_dir, v, suffix) for v in course.visits] for suffix in (LESIONS, WHITE))
    last = course.visits[-1]
    painted, found = read(bids / MASKS, last, "label-lesion_mask")[0], read(out_dir, last, LESIONS)[0]
    counts = course.steps(len(course.visits) - 1)
    cells = [*(f"{v:8.2f}" for v in lesions), *(f"{v:8.1f}" for v in white)]
    return f"  {kind:<8}{''.join(cells)}{dice(found > 0, painted > 0):8.3f}" + "".join(
        f"{counts[step]:10d}" for step in STEPS
    )


if __name__ == "__main__":
    main()
