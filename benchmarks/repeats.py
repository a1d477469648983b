"""People who were scanned twice, with a known truth, and how well their visits are aligned.

    python benchmarks/repeats.py CACHE LESIONS OUTPUT [SUBJECT ...] [--unchanged]
        [--contrast POWER] [--seed N] [--visits N]

Lesions are painted into healthy brains of a cache (``python -m bids_inpaint.training prepare``). At the
second visit some have grown and some are new, or, with ``--unchanged``, all are as they were. Each visit has
its own position of the head (some degrees and millimetres), bias field, noise and unit, and the second visit
of every other person has other voxels. With ``--contrast`` it also has another contrast of the tissues.
Further visits (``--visits``) have the voxels of the first, and differ in lesions from the one before as the
second does. OUTPUT becomes a BIDS dataset with a session for each visit. Its folder ``derivatives/painted``
holds the lesion mask of each visit, that of the lesions that are new at it, and
``from-ses1_to-ses2_xfm.txt``, the true transform (4x4, RAS+, mm).

A row is printed for each person: the mean and the largest error of the registration over the brain, by how
much an exchange of the visits changes it (mm), the correlation of both, and the seconds of one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_inpaint.imaging.brain import stripped_mask
from bids_inpaint.imaging.rigid import Visit, register
from bids_inpaint.io import images
from bids_inpaint.io.files import write_json, write_text
from bids_inpaint.space import WORKING_GRID, Grid, resample
from bids_inpaint.training.data import Lesions, Subject
from bids_inpaint.training.paint import MASKS
from bids_inpaint.training.parameters import LesionParameters, draw_patient
from bids_inpaint.training.synthesis import paint

#: Voxel sizes (mm) of the first visit, and those of the second, in turn.
SIZES = (1.0, 1.0, 1.0), ((1.0, 1.0, 1.0), (0.9, 0.9, 1.3))
#: Standard deviations of turns (degrees), shifts (mm), the log of the bias field on a coarse lattice, and
#: noise (of white matter).
TURN, SHIFT, BIAS, NOISE = 3.0, 4.0, 0.1, 0.03
#: Lesions that grow have as many voxels at least.
GROWING = 30
#: Lesions that are new at the second visit.
NEW = 3
#: The middle of the brain in the world of the working grid (mm).
MIDDLE = np.array([0.0, -18.0, 10.0])


def main() -> None:
    """Write the dataset and print the rows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cache", type=Path)
    p.add_argument("lesions", type=Path)
    p.add_argument("output", type=Path)
    p.add_argument("subjects", nargs="*", default=[f"ds002748_sub-{i}" for i in range(35, 41)])
    p.add_argument("--unchanged", action="store_true")
    p.add_argument("--contrast", type=float, default=1.0, help="power of the second visit's intensities")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--visits", type=int, default=2)
    args = p.parse_args()
    shapes = Lesions.load(args.lesions)
    for folder, kind in ((args.output, "raw"), (args.output / MASKS, "derivative")):
        write_json(
            folder / "dataset_description.json",
            {"Name": f"Repeats ({kind})", "BIDSVersion": "1.10.0", "DatasetType": kind},
        )
    print(f"{'':<20}mean mm    max mm  exchanged      like   seconds")
    for number, name in enumerate(args.subjects):
        rng = np.random.default_rng([args.seed, *name.encode()])
        second = Second(SIZES[1][number % 2], args.unchanged, args.contrast)
        visits = scan_all(Subject(args.cache / name), shapes, rng, second, args.visits)
        print(f"{name:<20}" + measure(*write(args.output, name.split("-")[-1], visits)), flush=True)


@dataclass(frozen=True)
class Second:
    """How the second visit differs: voxel sizes (mm), whether in lesions, and power of the intensities."""

    sizes: tuple[float, ...]
    unchanged: bool = False
    contrast: float = 1.0


@dataclass(frozen=True)
class Scan:
    """A brain as a scanner sees it.

    Attributes
    ----------
    image : array
    lesions, new : array of bool
        Lesion mask, and that of the lesions that the visit before does not have.
    grid : Grid
    to_brain : array, shape (4, 4)
        World of the image to that of the brain.
    """

    image: np.ndarray
    lesions: np.ndarray
    new: np.ndarray
    grid: Grid
    to_brain: np.ndarray


def scan_all(
    subject: Subject, shapes: Lesions, rng: np.random.Generator, other: Second, count: int = 2
) -> list[Scan]:
    """All visits of a person."""
    first = draw_patient(rng, shapes)
    second, new = later(first, shapes, rng, other.unchanged)
    healthy = torch.from_numpy(np.asarray(subject.image, np.float32))
    seed = int(rng.integers(2**31))
    out: list[Scan] = []
    lesions, added, edges, power = first, new[:0], SIZES[0], 1.0
    for number in range(count):
        if number == 1:
            lesions, added, edges, power = second, new, other.sizes, other.contrast
        elif number > 1:
            lesions, added = later(lesions, shapes, rng, other.unchanged)
            edges, power = SIZES[0], 1.0
        image, *supports = (
            one.numpy()
            for one in (
                *paint(healthy, subject.grey_level, lesions, (0, 0, 0), seed),
                paint(healthy, subject.grey_level, added, (0, 0, 0), seed)[1],
            )
        )
        # white matter, which is 1, and fluid keep their place
        image = np.where(image < 1, image**power, 1 + power * (image - 1))
        out.append(scan(image, [support > 0.5 for support in supports], edges, rng))
    return out


def later(
    before: list[LesionParameters], shapes: Lesions, rng: np.random.Generator, unchanged: bool
) -> tuple[list[LesionParameters], list[LesionParameters]]:
    """The lesions of the next visit, and those of them that are new."""
    after = list(before)
    if unchanged:
        return after, []
    large = [i for i, lesion in enumerate(before) if len(lesion.voxels) >= GROWING]
    for i in rng.permutation(large)[: rng.integers(0, 4)]:
        after[i] = replace(before[i], voxels=grown(before[i].voxels))
    new = [
        LesionParameters(shapes.singles[i].astype(float), 0.7, 0.5, 0.8)
        for i in rng.choice(len(shapes.singles), NEW, replace=False)
    ]
    return [*after, *new], new


def grown(voxels: np.ndarray) -> np.ndarray:
    """The voxels of a lesion and their neighbours."""
    steps = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    return np.unique((voxels[:, None] + steps).reshape(-1, 3), axis=0)


def scan(
    brain: np.ndarray, masks: list[np.ndarray], sizes: tuple[float, ...], rng: np.random.Generator
) -> Scan:
    """A brain on the working grid as a scanner sees it, and both masks."""
    to_brain = np.eye(4)
    to_brain[:3, :3] = Rotation.from_rotvec(rng.normal(0, TURN, 3), degrees=True).as_matrix()
    to_brain[:3, 3] = MIDDLE - to_brain[:3, :3] @ MIDDLE + rng.normal(0, SHIFT, 3)
    shape = np.ceil(np.array([200, 240, 200]) / sizes).astype(int)
    matrix = np.diag([*sizes, 1.0])
    matrix[:3, 3] = MIDDLE - np.array(sizes) * (shape - 1) / 2
    grid = Grid.of(shape, matrix)
    # what a voxel averages over
    blur = 0.4 * np.sqrt(np.maximum(np.square(sizes) - 1, 0))
    inside = resample(brain > 0, WORKING_GRID, grid, to_brain, order=1) > 0.5
    image = resample(ndimage.gaussian_filter(brain, blur), WORKING_GRID, grid, to_brain)
    image *= np.exp(ndimage.zoom(rng.normal(0, BIAS, (4, 4, 4)), shape / 4, order=3))
    noise = rng.normal(0, NOISE, (2, *grid.shape))
    image = np.hypot(image + noise[0], noise[1]) * inside * rng.uniform(200, 2000)
    lesions, new = (resample(mask, WORKING_GRID, grid, to_brain, order=1) > 0.5 for mask in masks)
    return Scan(image, lesions, new, grid, to_brain)


def write(output: Path, label: str, visits: list[Scan]) -> tuple[list[Path], np.ndarray]:
    """Write the images, masks, times and the transform; return the images and the transform."""
    paths = []
    for session, visit in enumerate(visits, 1):
        anat = Path(f"sub-{label}/ses-{session}/anat")
        name = f"sub-{label}_ses-{session}"
        for root in (output, output / MASKS):
            (root / anat).mkdir(parents=True, exist_ok=True)
        paths.append(output / anat / f"{name}_T1w.nii.gz")
        images.save(paths[-1], np.round(visit.image), visit.grid, np.int16)
        for kind, mask in (("lesion", visit.lesions), ("new", visit.new)):
            path = output / MASKS / anat / f"{name}_label-{kind}_mask.nii.gz"
            images.save(path, mask, visit.grid, np.uint8)
    times = "".join(f"ses-{i}\t{1900 + i}-06-01T12:00:00\n" for i in range(1, len(visits) + 1))
    write_text(output / f"sub-{label}" / f"sub-{label}_sessions.tsv", f"session_id\tacq_time\n{times}")
    matrix = np.linalg.inv(visits[1].to_brain) @ visits[0].to_brain
    lines = "\n".join(" ".join(f"{v:.9f}" for v in row) for row in matrix)
    write_text(output / MASKS / f"sub-{label}" / f"sub-{label}_from-ses1_to-ses2_xfm.txt", f"{lines}\n")
    return paths[:2], matrix


def measure(paths: list[Path], true: np.ndarray) -> str:
    """The row of a person."""
    visits = []
    for path in paths:
        data, grid = images.load_t1w(path)
        visits.append(Visit(data, grid, stripped_mask(data, grid)))
    start = time.process_time()
    matrix, likeness = register(*visits)
    seconds = time.process_time() - start
    back, _ = register(*visits[::-1])
    first = visits[0]
    voxels = np.argwhere(first.support)[::101]
    points = first.grid.matrix @ np.column_stack([voxels, np.ones(len(voxels))]).T
    away, exchanged = (
        np.linalg.norm((difference @ points)[:3], axis=0)
        for difference in (matrix - true, back @ matrix - np.eye(4))
    )
    return f"{away.mean():7.4f}{away.max():10.4f}{exchanged.max():11.1e}{likeness:10.4f}{seconds:10.1f}"


if __name__ == "__main__":
    main()
