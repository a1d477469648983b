"""A FLAIR beside the T1w, as a user has it: registered, looked at, and named in what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import contents, errors_by_bids, write_dataset, write_nifti
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, expected
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io.files import read_sidecar
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import Grid

#: Intensities of the T1w (white matter 1) and of the FLAIR.
T1W, FLAIR = (0, 0.3, 0.5, 0.7, 0.9, 1, 1.3), (0, 0.25, 0.8, 1.2, 1.05, 1, 1)


def flair_on(grid: Grid) -> np.ndarray:
    """A FLAIR of the template's head with bright lesions."""
    t1w, lesions = acquire(grid, LESIONS, seed=5)
    bright = ndimage.gaussian_filter(lesions.astype(float), 0.5)
    healthy = np.interp(t1w / 700, T1W, FLAIR)
    return np.round(400 * (healthy + bright * (1.5 - healthy))).astype(np.int16)


def moved() -> np.ndarray:
    """Where the head lay in the scanner at the FLAIR (mm)."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", (4, -3, 6), degrees=True).as_matrix()
    out[:3, 3] = 6, -4, 9
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """``sub-01`` has a FLAIR with slices of 3 mm and NaN at its edges, ``sub-02`` a T1w named so."""
    root = tmp_path_factory.mktemp("flair")
    bids = write_dataset(root / "bids")
    grid = tilted((170, 200, 176), (1.1, 1.1, 1.1), degrees=10)
    data, mask = acquire(grid, LESIONS)
    thick = tilted((180, 210, 62), (1.05, 1.05, 3.0))
    air = flair_on(thick).astype(np.float32)
    air[:4], air[:, -4:] = np.nan, np.nan
    for label, flair in (("01", air), ("02", acquire(thick, LESIONS, seed=3)[0])):
        anat = bids / f"sub-{label}/anat/sub-{label}"
        write_nifti(Path(f"{anat}_T1w.nii.gz"), data, grid.matrix)
        write_nifti(Path(f"{anat}_acq-2d_FLAIR.nii.gz"), flair, moved() @ thick.matrix)
    np.save(root / "painted.npy", mask)
    return root


@pytest.fixture(scope="module")
def finished(root) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / "out"), "participant",
            "-w", str(root / "work"), "--sloppy", "--nprocs", "2", "--skip-bids-validation", "--flair",
            "--segmentation", "none",
        ],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def result(root: Path, name: str) -> nib.Nifti1Image:
    return nib.load(root / f"out/sub-01/anat/sub-01_{name}.nii.gz")


def test_outputs_are_those_of_a_real_flair(root, finished):
    found = {name for name in contents(root / "out") if name.startswith("sub-01/")}
    products = Products((), flair=True)
    image = Image("", "", {"sub": "01"}, flair=("", ""))
    assert found == set(expected(image, DEFAULT, products))
    assert "sub-01/anat/sub-01_space-T1w_FLAIR.nii.gz" in found
    assert not [name for name in found if "synth" in name]


def test_outputs_are_valid_bids(root, finished):
    assert errors_by_bids(root / "out") == []
    # the template has no skull
    assert read_sidecar(root / "out/sub-01/anat/sub-01_space-T1w_FLAIR.json")["SkullStripped"] is True


def test_flair_lies_on_the_t1w(root, finished):
    t1w = nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    flair = result(root, "space-T1w_FLAIR")
    np.testing.assert_allclose(flair.affine, t1w.affine, atol=1e-4)
    brain = result(root, "desc-brain_mask").get_fdata() > 0
    truth = flair_on(Grid.of(t1w.shape, t1w.affine))
    inner = ndimage.binary_erosion(brain, iterations=3)
    assert np.corrcoef(flair.get_fdata()[inner], truth[inner])[0, 1] > 0.9
    # no bias field is removed, and no scale changed
    assert np.median(flair.get_fdata()[inner]) == pytest.approx(np.median(truth[inner]), rel=0.03)


def test_transform_takes_the_flair_to_the_t1w(root, finished):
    points = read_xfm(root / "out/sub-01/anat/sub-01_from-FLAIR_to-T1w_mode-image_xfm.txt")
    corners = np.array(np.meshgrid((-60, 60), (-80, 60), (-40, 70))).reshape(3, -1)
    places = np.vstack([corners, np.ones(8)])
    apart = np.linalg.norm(((points - moved()) @ places)[:3], axis=0)
    assert apart.max() < 1


def test_lesions_are_those_of_both_images(root, finished):
    painted = np.load(root / "painted.npy")
    mapped = result(root, "label-L_desc-joint_mask").get_fdata() > 0
    probability = result(root, "label-L_desc-joint_probseg").get_fdata()
    assert dice(mapped, painted) > 0.6
    assert probability.min() >= 0
    assert probability.max() <= 1
    assert probability[painted].mean() > 0.5 > 20 * probability[~painted].mean()


def test_sidecars_and_report_name_the_flair(root, finished):
    said = read_sidecar(root / "out/sub-01/anat/sub-01_label-L_desc-joint_mask.json")
    t1w, flair = (f"bids:raw:sub-01/anat/sub-01_{name}.nii.gz" for name in ("T1w", "acq-2d_FLAIR"))
    assert said["Sources"] == [t1w, flair]
    assert said["Model"] == "blind-unet"
    assert 0 < said["LesionThreshold"] < 1
    assert read_sidecar(root / "out/sub-01/anat/sub-01_space-T1w_FLAIR.json")["Sources"] == [flair]
    assert said["LesionMinVolume"] == 10
    inpainted = read_sidecar(root / "out/sub-01/anat/sub-01_desc-inpainted_T1w.json")
    assert flair not in json.dumps(inpainted)
    page = (root / "out/sub-01.html").read_text()
    assert "lesions by both images" in page
    assert "sub-01_space-T1w_FLAIR.png" in page
    assert "was registered to the T1w image with a rigid transform" in page


def test_what_is_unusual_about_the_flair_is_warned_of(root, finished):
    warning = "sub-01_acq-2d_FLAIR.nii.gz: NaN or infinite values around the head"
    (said,) = read_sidecar(root / "out/sub-01/anat/sub-01_label-L_desc-joint_mask.json")["QualityWarnings"]
    assert said.startswith(warning)
    assert f"warning: sub-01: {warning}" in finished.stderr
    assert warning in (root / "out/sub-01.html").read_text()
    # the inpainted image has nothing to do with it
    assert not read_sidecar(root / "out/sub-01/anat/sub-01_desc-inpainted_T1w.json")["QualityWarnings"]
    # the image on the voxels of the T1w has none either
    assert np.isfinite(result(root, "space-T1w_FLAIR").get_fdata()).all()


def test_what_is_no_flair_is_refused_and_nothing_else_lost(root, finished):
    assert finished.returncode == 1
    sentences = [line for line in finished.stderr.splitlines() if "error:" in line]
    assert len(sentences) == 1
    assert "sub-02_acq-2d_FLAIR.nii.gz has grey matter of 0." in sentences[0]
    assert "rename or remove it" in sentences[0]
    names = set(contents(root / "out"))
    core = set(expected(Image("", "", {"sub": "02"}), DEFAULT, Products(())))
    assert core <= names
    assert not [name for name in names if name.startswith("sub-02/anat") and "joint" in name]
