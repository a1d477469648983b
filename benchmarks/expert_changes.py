"""What became of lesions between two visits, by finished output folders and by an expert.

    python benchmarks/expert_changes.py CHANGES BIDS LONG CROSS

CHANGES is ``ms_changes`` of the data: an expert marked what changed between the FLAIR images of both visits,
new lesions and old ones that are gone alike. LONG and CROSS are output folders of the participant level of
BIDS with and without ``--longitudinal``. If CROSS is of ``--flair`` and both visits have a FLAIR, the maps of
both images are compared, too.

All voxels count that are lesion at one visit alone. Where both visits have a FLAIR, the expert's lesions are
divided by whether they became brighter or darker there. The last lines say what of them the T1w shows at all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from longitudinal import LESIONS, WHITE, Run
from scipy import ndimage

from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.imaging.history import Limits
from bids_inpaint.imaging.lesions import CONNECTIVITY, remove_small
from bids_inpaint.imaging.metrics import lesion_scores
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID, Grid, resample

Array = np.ndarray
#: Darker than this fraction of white matter is visible; lesions of patients have 0.65 to 0.80.
DARK = 0.9
VISITS = (1, 2)
RISEN, FALLEN = "new or grown", "gone or shrunken"


@dataclass(frozen=True)
class Expert:
    """What an expert marked, and where it is in the images of both visits.

    Attributes
    ----------
    label : str
        Of the participant.
    truth, brain : array of bool
        What changed, and the brain, in a space that both FLAIR images were brought to.
    grid : Grid
        Of that space.
    flairs, t1ws : list of array, shape (4, 4)
        World of that space to that of the FLAIR and of the T1w of each visit.
    """

    label: str
    truth: Array
    brain: Array
    grid: Grid
    flairs: list[Array]
    t1ws: list[Array]

    @classmethod
    def read(cls, folder: Path, label: str) -> Expert:
        """Read the marks for a participant."""
        stem = f"{folder}/sub-{label}"
        truth, grid = images.read(f"{stem}_gt.nii.gz")
        flairs = [read_xfm(f"{stem}_study{s}_FLAIR_to_common_space.txt") for s in VISITS]
        t1ws = [
            read_xfm(f"{stem}_study{s}_T1W_intrastudy_to_FLAIR.txt") @ flair
            for s, flair in zip(VISITS, flairs, strict=True)
        ]
        brain = images.read(f"{stem}_brainmask_common.nii.gz")[0] > 0
        return cls(label, truth > 0, brain, grid, flairs, t1ws)

    def of_native(self, run: Run, session: int, suffix: str) -> Array:
        """An image on the voxels of the T1w, in the expert's space."""
        values, source = run.native(self.label, session, suffix)
        return resample(values, source, self.grid, self.t1ws[session - 1], order=1)

    def of_standard(self, run: Run, session: int, values: Array) -> Array:
        """An image on the working grid, in the expert's space."""
        world = np.linalg.inv(run.to_native(self.label, session)) @ self.t1ws[session - 1]
        return resample(values, WORKING_GRID, self.grid, world, order=1)

    def brightening(self, bids: Path) -> Array | None:
        """How much brighter the FLAIR became, as a fraction of its median; None if a visit has none."""
        out = []
        for session, world in zip(VISITS, self.flairs, strict=True):
            name = f"sub-{self.label}/ses-{session}/anat/sub-{self.label}_ses-{session}_FLAIR.nii.gz"
            if not (bids / name).exists():
                return None
            data, grid = images.load_t1w(bids / name)
            moved = resample(data, grid, self.grid, world, order=1)
            out.append(moved / np.median(moved[self.brain]))
        return ndimage.gaussian_filter(out[1] - out[0], 0.5)


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("changes", "bids", "long", "cross"):
        p.add_argument(name, type=Path)
    args = p.parse_args()
    long = Run(args.long)
    for label in long.labels():
        compare(Expert.read(args.changes, label), args.bids, long, Run(args.cross))


def compare(expert: Expert, bids: Path, long: Run, cross: Run) -> None:
    """Print how well changes of lesions agree with those of the expert."""
    label, grid = expert.label, expert.grid
    truths = {"all": expert.truth}
    brighter = expert.brightening(bids)
    if brighter is not None:
        marks, count = ndimage.label(expert.truth, CONNECTIVITY)
        risen = np.append(False, ndimage.mean(brighter, marks, np.arange(1, count + 1)) > 0)[marks]
        truths |= {RISEN: risen, FALLEN: expert.truth & ~risen}
    for name, truth in truths.items():
        count = ndimage.label(truth, CONNECTIVITY)[1]
        volume = truth.sum() * grid.voxel_volume / 1000
        print(f"{label}: {volume:.2f} ml of the expert in {count} lesions, {name}")
    least = int(np.ceil(Limits().least_volume / grid.voxel_volume))
    sources = {"difference of two maps": LESIONS}
    if all(Path(f"{cross.anat(label, s)}_space-T1w_FLAIR.nii.gz").exists() for s in VISITS):
        sources["the same by FLAIR"] = "label-L_desc-joint_mask"
    found = {
        name: [expert.of_native(cross, s, suffix) > 0.5 for s in VISITS] for name, suffix in sources.items()
    }
    found["--longitudinal"] = [expert.of_standard(long, s, changed(long, label, s)) > 0.5 for s in VISITS]
    for name, (before, after) in found.items():
        ways = {
            "all": before ^ after,
            RISEN: after & ~before,
            FALLEN: before & ~after,
        }
        for way, truth in truths.items():
            mapped = remove_small(ways[way] & expert.brain, least)
            print(f"   {name:<24}{way:<28}{agreement(mapped, truth, grid)}")
    seen = [expert.of_standard(long, s, long.standard(label, s, "desc-preproc_T1w")) for s in VISITS]
    white = np.min([expert.of_standard(long, s, long.standard(label, s, WHITE)) for s in VISITS], axis=0)
    visible(seen, white > 0.9, expert.truth & expert.brain)


def changed(long: Run, label: str, session: int) -> Array:
    """The lesions of a visit that are not called stable, on the working grid."""
    lesions = images.read(f"{long.person(label)}_space-{DEFAULT}_res-1_desc-lesionchange_dseg.nii.gz")[0]
    with open(f"{long.person(label)}_desc-lesionchange_dseg.tsv", encoding="utf-8") as file:
        rows = [line.split("\t") for line in file.readlines()[1:]]
    unstable = [int(row[0]) for row in rows if row[2] != "stable"]
    return (np.isin(lesions, unstable) & (long.standard(label, session, LESIONS) > 0)).astype(np.float32)


def agreement(found: Array, truth: Array, grid: Grid) -> str:
    """Scores as a text."""
    scores = lesion_scores(found, truth, grid.voxel_volume)
    return (
        f"{scores.volume:6.2f} ml, Dice {scores.dice:.2f}, sensitivity {scores.sensitivity:.2f}, "
        f"precision {scores.precision:.2f}, lesion-wise F1 {scores.lesion_f1:.2f}"
    )


def visible(visits: list[Array], white: Array, truth: Array) -> None:
    """Print how many of the expert's voxels are dark in the T1w of a visit, and how many changed."""
    away = white & ~ndimage.binary_dilation(truth, iterations=3)
    first, second = (image / float(np.median(image[away])) for image in visits)
    change = np.abs(ndimage.gaussian_filter(second - first, 0.5))
    usual = np.percentile(change[away], 95)
    darkest = np.minimum(first, second)
    print(
        f"   of the expert's voxels {(darkest[truth] < DARK).mean():.0%} are darker than {DARK:g} of white "
        f"matter at one visit at least (of other white matter {(darkest[away] < DARK).mean():.0%}), and "
        f"{(change[truth] > usual).mean():.0%} changed by more than 95 % of white matter did"
    )


if __name__ == "__main__":
    main()
