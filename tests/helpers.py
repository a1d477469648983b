"""Writers of small datasets and network cards, and what tests of whole runs share."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, expected
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.imaging.history import change_between
from bids_inpaint.imaging.lesion_table import tabulate
from bids_inpaint.interfaces.native import write_table
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, Grid, resample

#: Configuration of a network that is trained in seconds.
TESTS = Path(__file__).parent
ROOT = TESTS.parent

TOY = """
name = "toy"
seed = 3
blind = {blind}
intensity = "wm"
[network]
filters = 4
levels = 3
residual = true
full_resolution = false
[data]
train = ["toy_sub-01", "toy_sub-02"]
validation = []
test = []
leave_out_patients = []
[fit]
patch = 16
batch = 2
steps = {steps}
decay_steps = 2
warmup_steps = 1
learning_rate = 1e-3
ema = 0.5
freeze_normalisation = 3
lesion_weight = 5.0
gate_weight = 0.02
checkpoint_every = 2
[synthesis]
mix = {{none = 0.1, patient = 0.3, singles = 0.3, both = 0.3}}
vary = true
"""


def write_card(path: Path, **changes) -> None:
    """Write the card of a network file."""
    card = {
        "software": "bids_inpaint",
        "name": path.stem,
        "blind": True,
        "intensity": "wm",
        "multiple": 8,
        "lesion_threshold": 0.1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card | changes))


def write_nifti(path: Path, data: np.ndarray, affine=None, **header) -> Path:
    """Write any array as NIfTI, however wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every derivative and figure, by name; not logs and reports, which tell when they were made."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not {"log", "logs"} & set(p.relative_to(folder).parts) and p.suffix != ".html"
    }


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of a few megabytes, or skip."""
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def write_dataset(root: Path, *names: str, data: np.ndarray | None = None) -> Path:
    """A raw BIDS dataset with the named images, as ``sub-01/anat/sub-01_T1w.nii.gz``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    )
    if data is None:
        data = np.arange(32**3, dtype=np.int16).reshape(32, 32, 32)
    for name in names:
        write_nifti(root / name, data)
    return root


def write_finished(
    out_dir: Path,
    image: Image,
    lesions: np.ndarray,
    *,
    volumes: dict[str, float] | None = None,
    tissues: dict[str, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
    native: Grid = WORKING_GRID,
) -> None:
    """The outputs of a finished image as far as the group level looks at them; the rest is empty files.

    Parameters
    ----------
    out_dir : Path
    image : Image
    lesions : array of bool, shape of the working grid
    volumes : dict of float
        Tissue volumes in mm³.
    tissues : dict of array of int, shape of the working grid
        By segmented image: original, inpainted, reference.
    reference : array of bool, on `native`
    native : Grid
        Voxels of the T1w.
    """
    products = Products(tuple(tissues or ()), reference is not None)
    for name in expected(image, DEFAULT, products):
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (out_dir / name).touch()
    stem = f"{out_dir / image.folder / image.prefix}_"
    space = f"{stem}space-{DEFAULT}_res-1_"
    own = resample(lesions, WORKING_GRID, native, order=0) > 0.5
    _, found = tabulate(own, np.zeros(native.shape), native)
    write_table(f"{stem}desc-lesions_dseg.tsv", found)
    images.save(f"{stem}label-L_desc-inpaint_mask.nii.gz", own, native, np.uint8)
    images.save(f"{space}label-L_desc-inpaint_mask.nii.gz", lesions, WORKING_GRID, np.uint8)
    if reference is not None:
        images.save(f"{stem}label-L_desc-reference_mask.nii.gz", reference, native, np.uint8)
    for xfm in (f"from-T1w_to-{DEFAULT}", f"from-{DEFAULT}_to-T1w"):
        ITKLinearTransform.from_ras(np.eye(4)).to_filename(f"{stem}{xfm}_mode-image_xfm.txt")
    images.save(f"{stem}desc-brain_mask.nii.gz", np.ones(native.shape), native, np.uint8)
    network = {"Model": "toy", "ModelSHA256": "1"}
    made = {
        "desc-inpainted_T1w": network,
        "label-L_desc-inpaint_mask": network | {"LesionThreshold": 0.1},
    }
    for key, labels in (tissues or {}).items():
        name = "dseg" if key == "inpainted" else f"desc-{key}_dseg"
        images.save(f"{space}{name}.nii.gz", labels, WORKING_GRID, np.uint8)
        made[name] = {"Segmentation": "Atropos"}
    if volumes:
        made["dseg"] = made.get("dseg", {}) | network | {"TissueVolumes": volumes}
    for name, sidecar in made.items():
        Path(f"{stem}{name}.json").write_text(json.dumps(sidecar))


def run_again(root: Path, out: str, *options: str) -> subprocess.CompletedProcess:
    """The participant level, with one work folder for all runs: only what differs is done again."""
    return subprocess.run(
        [
            sys.executable, "-m", "bids_inpaint", root / "bids", root / out, "participant",
            "-w", root / "work", "--sloppy", "--nprocs", "2", "--skip-bids-validation", *options,
        ],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def write_followed(
    out_dir: Path,
    images_of_person: list[Image],
    lesions: list[list[float]],
    years: list[float | None] | None = None,
    **facts: object,
) -> None:
    """The longitudinal results of a person whose visits are finished, as far as other levels read them.

    Parameters
    ----------
    out_dir : Path
    images_of_person : list of Image
        In the order of time.
    lesions : list of list of float
        Volumes (mm³) of each lesion at each visit.
    years : list of float or None
    **facts
        Of the sidecar of the template.
    """
    subject = images_of_person[0].subject
    sessions = [f"ses-{image.entities['ses']}" for image in images_of_person]
    stem = out_dir / f"sub-{subject}/anat/sub-{subject}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    header = ["index", "name", "change", "x", "y", "z", *(f"volume_{name}" for name in sessions)]
    rows = [[*header, *(f"change_{name}" for name in sessions[1:])]]
    for number, volumes in enumerate(lesions, 1):
        there = [volume > 0 for volume in volumes]
        steps = [change_between(*pair) for pair in pairwise(volumes)]
        change = change_between(volumes[0], volumes[-1]) if there[0] or there[-1] else "transient"
        rows.append([number, f"lesion {number}", change, 10.0 * number, -5.0, 20.0, *volumes, *steps])
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    Path(f"{stem}_desc-lesionchange_dseg.tsv").write_text(text)
    visits = [image.prefix for image in images_of_person]
    sidecar = {
        "Visits": visits,
        "Years": years or [None] * len(visits),
        "LesionVolumes": {name: sum(row[i] for row in lesions) for i, name in enumerate(sessions)},
        "Limits": {"growth": 0.25, "least_change": 20.0, "least_volume": 10.0},
    }
    Path(f"{stem}_desc-lesionchange_dseg.json").write_text(json.dumps(sidecar))
    Path(f"{stem}_desc-longitudinal_T1w.json").write_text(json.dumps({"Visits": visits, **facts}))
    log = out_dir / f"sub-{subject}/log"
    log.mkdir(exist_ok=True)
    (log / f"sub-{subject}_longitudinal_status.json").write_text(json.dumps({"Status": "done"}))
    for image in images_of_person:
        path = out_dir / image.folder / f"{image.prefix}_desc-inpainted_T1w.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"Visits": visits}))


def errors_by_bids(root: Path) -> list[dict]:
    """What the validator of BIDS finds wrong in a dataset; the test is skipped without the validator."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed")
    result = subprocess.run(
        [validator, root, "--format", "json", "--ignoreWarnings"], capture_output=True, text=True, check=False
    )
    return [i for i in json.loads(result.stdout)["issues"]["issues"] if i["severity"] == "error"]
