"""A built-in example: a small BIDS dataset made from the bundled template, and a run on it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.dataset import template
from bids_inpaint.io import images
from bids_inpaint.io.files import write_json
from bids_inpaint.space import WORKING_GRID, Grid, resample

#: Centres (mm, MNI) and radii (mm) of the painted lesions: periventricular, deep and juxtacortical.
LESIONS = (
    ((-26.0, -28.0, 26.0), 6.0),
    ((24.0, 20.0, 22.0), 5.0),
    ((-22.0, 32.0, 16.0), 4.0),
    ((30.0, -42.0, 24.0), 5.0),
    ((26.0, -8.0, 34.0), 3.5),
)
LEVEL = 0.65


def acquire(
    grid: Grid, lesions: tuple = (), seed: int = 0, scale: float = 700.0, folder: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Acquire a T1w of the template's brain, with noise and a bias field.

    Parameters
    ----------
    grid : Grid
        Where the scanner's voxels lie in MNI space.
    lesions : tuple of (centre, radius)
        In mm; painted at `LEVEL` of white matter, inside white matter alone.
    seed : int
        Of the noise.
    scale : float
        Intensity of white matter.
    folder : Path, optional
        Where the template is prepared; a temporary one by default.

    Returns
    -------
    image : array of int16, shape `grid.shape`
    mask : array of bool
        The painted lesions.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = template.prepare(template.DEFAULT, folder or scratch)
        brain = images.read(files.t1w)[0]
        white = images.read(files.priors["WM"])[0]
    brain = brain / np.median(brain[white > 0.95])
    index = np.indices(WORKING_GRID.shape, dtype=np.float32).reshape(3, -1)
    world = WORKING_GRID.matrix[:3, :3] @ index + WORKING_GRID.matrix[:3, 3:]
    support = np.zeros(brain.size, np.float32)
    for number, (centre, radius) in enumerate(lesions):
        distance = np.sqrt(((world - np.array(centre)[:, None]) ** 2).sum(0))
        # no two are alike
        ripple = 1 + 0.15 * np.sin(0.6 * world[number % 3] + number)
        support = np.maximum(support, np.clip(radius * ripple - distance + 0.5, 0, 1))
    spot = ndimage.gaussian_filter(support.reshape(brain.shape), 0.6) * np.clip(white * 1.5 - 0.5, 0, 1)
    brain = brain + spot * (np.minimum(LEVEL, brain) - brain)
    rng = np.random.default_rng(seed)
    bias = np.exp(0.08 * np.sin(world[0] / 60 + 1) + 0.06 * np.cos(world[1] / 70)).reshape(brain.shape)
    native = resample(brain * bias * scale, WORKING_GRID, grid, order=3)
    inside = resample((brain > 0).astype(np.float32), WORKING_GRID, grid, order=1) > 0.5
    noise = rng.normal(0, 0.015 * scale, (2, *grid.shape))
    magnitude = np.hypot(native + noise[0], noise[1]) * inside
    mask = resample(spot, WORKING_GRID, grid, order=1) > 0.5
    return np.round(magnitude).astype(np.int16), mask


def tilted(shape: tuple[int, int, int], zooms: tuple[float, float, float], degrees: float = 0.0) -> Grid:
    """A grid around the brain, turned about the x axis, as a scanner's (LAS order of axes)."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-zooms[0], zooms[1], zooms[2]])
    affine[:3, 3] = np.array([0.0, -18.0, 8.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid.of(shape, affine)


def make_dataset(root: Path) -> Path:
    """Write the example dataset: ``sub-lesions`` and ``sub-healthy``, with the painted masks."""
    write_json(
        root / "dataset_description.json",
        {"Name": "bids_inpaint demo", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"},
    )
    (root / "README").write_text(
        "Two T1w images made from the MNI152 template by bids_inpaint, one with painted lesions.\n",
        encoding="utf-8",
    )
    truth = root / "derivatives" / "painted"
    write_json(
        truth / "dataset_description.json",
        {
            "Name": "Painted lesions",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "bids_inpaint demo"}],
        },
    )
    grid = tilted((192, 232, 200), (0.95, 0.95, 0.95), degrees=8)
    for seed, (label, lesions) in enumerate((("lesions", LESIONS), ("healthy", ()))):
        data, mask = acquire(grid, lesions, seed)
        for folder, suffix, values in (
            (root, "T1w", data),
            (truth, "label-lesion_mask", mask.astype(np.uint8)),
        ):
            path = folder / f"sub-{label}" / "anat" / f"sub-{label}_{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save(path, values, grid)
    return root


def main(argv: list[str] | None = None) -> int:
    """Build the dataset, run both levels on it, and say where the results are."""
    p = argparse.ArgumentParser(prog="python -m bids_inpaint.demo", description=main.__doc__)
    p.add_argument("folder", type=Path, help="where everything goes")
    folder = p.parse_args(argv).folder.absolute()
    from bids_inpaint.cli import main as bids_inpaint
    from bids_inpaint.imaging.metrics import dice

    dataset, output = make_dataset(folder / "bids"), folder / "out"
    places = [str(dataset), str(output)]
    masks = ["--lesion-masks", str(dataset / "derivatives" / "painted")]
    work = ["-w", str(folder / "work")]
    code = bids_inpaint([*places, "participant", *work]) or bids_inpaint([*places, "group", *work, *masks])
    if code:
        return code
    lesion_map = output / "sub-lesions/anat/sub-lesions_label-L_desc-inpaint_mask.nii.gz"
    painted = dataset / "derivatives/painted/sub-lesions/anat/sub-lesions_label-lesion_mask.nii.gz"
    score = dice(images.read(lesion_map)[0] > 0, images.read(painted)[0] > 0)
    anat = output / "sub-lesions" / "anat"
    print(f"Report:           {output / 'sub-lesions.html'}")
    print(f"Group:            {output / 'group.html'}")
    print(f"Inpainted image:  {anat / 'sub-lesions_desc-inpainted_T1w.nii.gz'}")
    print(f"Lesion map:       {lesion_map} (Dice with the painted lesions {score:.2f})")
    print(f"Tissues:          {anat / 'sub-lesions_dseg.nii.gz'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
