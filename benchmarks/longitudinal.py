"""How well the visits of a person agree, and what became of their lesions, from finished output folders.

    python benchmarks/longitudinal.py BIDS LONG [--cross CROSS] [--exchanged EXCHANGED]

BIDS is what ``benchmarks/repeats.py`` wrote, with or without ``--unchanged``. LONG and CROSS
are output folders of the participant level with and without ``--longitudinal``, and EXCHANGED is one with
``--longitudinal`` of the same images, whose times in ``sub-X_sessions.tsv`` are exchanged. Two visits of a
person are ``ses-1`` and ``ses-2``.

Of volumes, the coefficient of variation (CV) between the visits is that of the native maps; the last row has
the root of its mean square (Gluer et al. 1995, Osteoporos Int 5:262-270). New lesions of a cross-sectional
run are those of the plain difference: both maps are brought into the space of LONG, where lesions are
followed by the same rule.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.imaging.history import CHANGES, Limits, histories
from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.imaging.person import match, stable_white_matter
from bids_inpaint.io import images
from bids_inpaint.io.files import read_json
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.options import LESION_MIN_VOLUME
from bids_inpaint.space import WORKING_GRID, Grid, resample
from bids_inpaint.training.paint import MASKS

Array = np.ndarray
#: Smoothing that leaves the bias field (mm).
SMOOTH = 6.0
REVERSED = {"new": "resolved", "resolved": "new", "enlarging": "shrinking", "shrinking": "enlarging"}


@dataclass(frozen=True)
class Run:
    """The output folder of a run.

    Attributes
    ----------
    root : Path
    """

    root: Path

    def anat(self, label: str, session: int) -> str:
        """Path of the results of a visit, up to their suffix."""
        return f"{self.root}/sub-{label}/ses-{session}/anat/sub-{label}_ses-{session}"

    def native(self, label: str, session: int, suffix: str) -> tuple[Array, Grid]:
        """An image on the voxels of the T1w."""
        return images.read(f"{self.anat(label, session)}_{suffix}.nii.gz")

    def standard(self, label: str, session: int, suffix: str) -> Array:
        """An image on the working grid."""
        return images.read(f"{self.anat(label, session)}_space-{DEFAULT}_res-1_{suffix}.nii.gz")[0]

    def to_native(self, label: str, session: int) -> Array:
        """World of the standard space to that of the T1w."""
        return read_xfm(f"{self.anat(label, session)}_from-T1w_to-{DEFAULT}_mode-image_xfm.txt")

    def volume(self, label: str, session: int, suffix: str) -> float:
        """Volume of a native map, in ml."""
        values, grid = self.native(label, session, suffix)
        return float(values.sum(dtype=np.float64)) * grid.voxel_volume / 1000

    def person(self, label: str) -> str:
        """Path of the results of a person, up to their suffix."""
        return f"{self.root}/sub-{label}/anat/sub-{label}"

    def labels(self) -> list[str]:
        """The people with longitudinal results."""
        paths = self.root.glob("sub-*/anat/*_desc-longitudinal_T1w.nii.gz")
        return sorted(path.name.split("_")[0].removeprefix("sub-") for path in paths)


LESIONS, WHITE = "label-L_desc-inpaint_mask", "label-WM_probseg"


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bids", type=Path)
    p.add_argument("long", type=Path)
    p.add_argument("--cross", type=Path)
    p.add_argument("--exchanged", type=Path)
    args = p.parse_args()
    long = Run(args.long)
    for name, path in (("longitudinal", args.long), ("cross-sectional", args.cross)):
        if path:
            print(f"{name}\n{HEADER}")
            rows = [row_of(label, args.bids, Run(path), long) for label in long.labels()]
            print(total(rows), end="\n\n")
    if args.exchanged:
        print("exchanged visits      mask voxels   probability   inpainted")
        for label in long.labels():
            exchanged(label, long, Run(args.exchanged))


HEADER = (
    f"{'':<8}{'lesions ml':>16}{'CV %':>7}{'WM ml':>16}{'CV %':>7}"
    "   new: true found false   resolved enlarging shrinking   filling/noise  native"
)


def row_of(label: str, bids: Path, run: Run, long: Run) -> dict[str, float]:
    """Measure a person, and print the row."""
    lesion, white = ([run.volume(label, s, suffix) for s in (1, 2)] for suffix in (LESIONS, WHITE))
    affine = read_xfm(f"{long.person(label)}_from-template_to-{DEFAULT}_mode-image_xfm.txt")
    # a voxel of the working grid with its volume in the person
    true = Grid.of(WORKING_GRID.shape, affine @ WORKING_GRID.matrix)
    painted = [standard_mask(f"{bids}/{MASKS}", "label-lesion_mask", label, s, long) for s in (1, 2)]
    masks = [standard_mask(str(run.root), LESIONS, label, s, long) for s in (1, 2)]
    if run == long:
        # without a way there and back
        masks = [run.standard(label, s, LESIONS) > 0 for s in (1, 2)]
    limits = limits_of(long, label)
    found = history(masks, true, limits)
    row = {"lesions": cv(*lesion), "white": cv(*white)}
    true_new = truly_new(bids, label, long, painted[0])
    row |= score_new(found["new"], true_new, true_new | painted[1] & ~painted[0])
    row |= {change: ndimage.label(found[change], CONNECTIVITY)[1] for change in CHANGES}
    row |= fillings(label, bids, run, long, painted, masks)
    print(
        f"{label:<8}{lesion[0]:8.2f}{lesion[1]:8.2f}{100 * row['lesions']:7.2f}"
        f"{white[0]:8.1f}{white[1]:8.1f}{100 * row['white']:7.2f}"
        f"{row['true']:12.0f}{row['hit']:6.0f}{row['false']:6.0f}"
        f"{row['resolved']:11.0f}{row['enlarging']:10.0f}{row['shrinking']:10.0f}"
        f"{row['filling']:16.2f}{row['native']:8.2f}",
        flush=True,
    )
    return row


def total(rows: list[dict[str, float]]) -> str:
    """The last row: root mean square of CV, detection of new lesions, and means of all else."""
    lesion, white = (100 * np.sqrt(np.mean([row[k] ** 2 for row in rows])) for k in ("lesions", "white"))
    true, hit, found, wrong = (sum(row[k] for row in rows) for k in ("true", "hit", "found", "false"))
    right, f1 = found - wrong, float("nan")
    if true and found:
        recall, precision = hit / true, right / found
        f1 = 2 * recall * precision / max(recall + precision, 1e-9)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return (
        f"all     CV of lesions {lesion:.2f} %, of white matter {white:.2f} %; new lesions: F1 {f1:.2f}, "
        f"{mean['false']:.2f} false a person; resolved {mean['resolved']:.2f}, enlarging "
        f"{mean['enlarging']:.2f}, shrinking {mean['shrinking']:.2f} a person; filling/noise "
        f"{mean['filling']:.2f}, native {mean['native']:.2f}"
    )


def cv(first: float, second: float) -> float:
    """Coefficient of variation of two values."""
    mean = (first + second) / 2
    return abs(first - second) / np.sqrt(2) / mean if mean else 0.0


def standard_mask(root: str, suffix: str, label: str, session: int, long: Run) -> Array:
    """A native mask in the standard space of the longitudinal run."""
    path = f"{root}/sub-{label}/ses-{session}/anat/sub-{label}_ses-{session}_{suffix}.nii.gz"
    mask, grid = images.read(path)
    return resample(mask > 0, grid, WORKING_GRID, long.to_native(label, session), order=1) > 0.5


def limits_of(long: Run, label: str) -> Limits:
    """By which lesions changed."""
    return Limits(**read_json(f"{long.person(label)}_desc-lesionchange_dseg.json")["Limits"])


def history(masks: list[Array], grid: Grid, limits: Limits) -> dict[str, Array]:
    """The voxels of the lesions of each change, at any visit."""
    labels, lesions = histories(masks, grid, limits)
    return {c: np.isin(labels, [one.label for one in lesions if one.change == c]) for c in CHANGES}


def truly_new(bids: Path, label: str, long: Run, before: Array) -> Array:
    """The new lesions that touch no older one, and are large enough for a map."""
    new = standard_mask(f"{bids}/{MASKS}", "label-new_mask", label, 2, long)
    labels, count = ndimage.label(new, CONNECTIVITY)
    touching = np.unique(labels[ndimage.binary_dilation(before, CONNECTIVITY)])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    alone = [i for i in range(1, count + 1) if i not in touching and sizes[i] >= LESION_MIN_VOLUME]
    return np.isin(labels, alone)


def score_new(found: Array, true: Array, changed: Array) -> dict[str, float]:
    """New lesions that there are, that were found, and that are none: where nothing became a lesion."""
    labels, count = ndimage.label(true, CONNECTIVITY)
    marks, total_found = ndimage.label(found, CONNECTIVITY)
    hit, right = (len(np.unique(a[(a > 0) & b])) for a, b in ((labels, found), (marks, changed)))
    return {"true": count, "hit": hit, "found": total_found, "false": total_found - right}


def fillings(
    label: str, bids: Path, run: Run, long: Run, painted: list[Array], masks: list[Array]
) -> dict[str, float]:
    """Difference of the fillings of two visits over that of the images where nothing was filled.

    Both are standard deviations, in what was a lesion at both visits and in stable white matter: of the
    images on the working grid, which are denoised, and of those on the voxels of the T1w, which are not.
    """
    lesion = np.all([*painted, *masks], axis=0)
    away = [ndimage.binary_dilation(mask, iterations=4) for mask in (*painted, *masks)]
    stable = stable_white_matter([in_common(run, long, label, s, WHITE) for s in (1, 2)], away)
    pairs = {
        "filling": [
            [in_common(run, long, label, s, f"desc-{name}_T1w") for s in (1, 2)]
            for name in ("inpainted", "preproc")
        ],
        "native": list(zip(*(unbiased(label, s, bids, run, long) for s in (1, 2)), strict=True)),
    }
    out = {}
    for key, (filled, plain) in pairs.items():
        scales = match(plain, stable)
        difference, noise = (
            float(np.std((pair[0] / scales[0] - pair[1] / scales[1])[where]))
            for pair, where in ((filled, lesion), (plain, stable))
        )
        out[key] = difference / noise
    return out


def in_common(run: Run, long: Run, label: str, session: int, suffix: str) -> Array:
    """A standard image of a run in the standard space of the longitudinal run, where visits meet."""
    world = np.linalg.inv(run.to_native(label, session)) @ long.to_native(label, session)
    return resample(run.standard(label, session, suffix), WORKING_GRID, WORKING_GRID, world, order=1)


def unbiased(label: str, session: int, bids: Path, run: Run, long: Run) -> list[Array]:
    """The native inpainted image and the T1w, without their bias field, in the same place."""
    name = f"sub-{label}/ses-{session}/anat/sub-{label}_ses-{session}_T1w.nii.gz"
    raw, grid = images.load_t1w(bids / name)
    filled, corrected = (run.native(label, session, f"desc-{k}_T1w")[0] for k in ("inpainted", "preproc"))
    smooth = [
        ndimage.gaussian_filter(np.where(corrected > 0, v, 0), SMOOTH / grid.voxel_sizes)
        for v in (raw, corrected)
    ]
    field = np.where(corrected > 0, smooth[0] / np.maximum(smooth[1], 1e-6), np.inf)
    world = long.to_native(label, session)
    return [resample(v / field, grid, WORKING_GRID, world, order=1) for v in (filled, raw)]


def exchanged(label: str, long: Run, other: Run) -> None:
    """Print by how much the maps of a person differ if the visits are exchanged."""
    voxels, most, levels = 0, 0.0, 0.0
    for session in (1, 2):
        pairs = [
            [run.native(label, session, suffix)[0] for run in (long, other)]
            for suffix in (LESIONS, "label-L_probseg", "desc-inpainted_T1w")
        ]
        voxels += int((pairs[0][0] != pairs[0][1]).sum())
        most = max(most, float(np.abs(pairs[1][0] - pairs[1][1]).max()))
        level = float(np.median(pairs[2][0][pairs[2][0] > 0]))
        levels = max(levels, float(np.abs(pairs[2][0].astype(float) - pairs[2][1]).max()) / level)
    courses = []
    for run in (long, other):
        with open(f"{run.person(label)}_desc-lesionchange_dseg.tsv", encoding="utf-8") as file:
            courses.append(Counter(line.split("\t")[2] for line in file.readlines()[1:]))
    swapped = Counter({REVERSED.get(change, change): n for change, n in courses[1].items()})
    same = "reversed" if courses[0] == swapped else f"{dict(courses[0])} and {dict(courses[1])}"
    print(f"{label:<16}{voxels:16d}{most:14.1e}{levels:12.1e}   histories: {same}", flush=True)


if __name__ == "__main__":
    main()
