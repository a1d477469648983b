"""The participant level on real patients and controls never trained on."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import ROOT, write_card

from bids_inpaint import cli
from bids_inpaint.imaging import feathering
from bids_inpaint.imaging.fidelity import psnr
from bids_inpaint.imaging.metrics import dice, lesion_scores
from bids_inpaint.imaging.multimodal import rigid
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import registry, volumes
from bids_inpaint.networks.extraction import extract
from bids_inpaint.space import WORKING_GRID, Grid


def run(dataset: Path, root: Path, label: str, *options: str) -> Path:
    out = root / "out"
    command = [
        sys.executable, "-m", "bids_inpaint", str(dataset), str(out), "participant",
        "--participant-label", label, "-w", str(root / "work"), "--nprocs", "2", *options,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=1500)
    return out


@pytest.fixture(scope="module")
def patient(real_data, tmp_path_factory) -> Path:
    """Folder with the outputs and the work folder of a patient."""
    root = tmp_path_factory.mktemp("patient")
    run(real_data / "ms", root, "openms26")
    return root


def test_patient_with_expert_mask(real_data, patient):
    """Lesions of a patient already in MNI space are found and become white."""
    out = patient / "out"
    stem = "sub-openms26/anat/sub-openms26"
    expert = images.read(real_data / f"ms/derivatives/experts/{stem}_label-lesion_mask.nii.gz")[0] > 0
    found = images.read(out / f"{stem}_label-L_desc-inpaint_mask.nii.gz")[0] > 0
    scores = lesion_scores(found, expert, 1.0)
    assert scores.dice >= 0.35
    before = images.read(real_data / f"ms/{stem}_T1w.nii.gz")[0]
    after = images.read(out / f"{stem}_desc-inpainted_T1w.nii.gz")[0]
    white = images.read(out / f"{stem}_label-WM_probseg.nii.gz")[0] > 0.95
    level = np.median(after[white & ~found])
    assert before[found].mean() < 0.85 * level
    assert after[found].mean() > 0.9 * level


def test_the_fast_networks_give_what_the_slow_ones_do(real_data, patient, tmp_path, monkeypatch):
    """The reference are the networks as they were trained, with their upsampling, on the whole grid."""
    pytest.importorskip("torch")
    write_baseline = runpy.run_path(str(ROOT / "benchmarks" / "network.py"))["write_baseline"]
    slow = [write_baseline(registry.find(name), tmp_path) for name in (registry.DEFAULT, registry.REFERENCE)]
    monkeypatch.setattr(volumes, "MARGIN", {"blind": 1000, "filling": 1000})
    plugin = tmp_path / "linear.yml"
    plugin.write_text("plugin: Linear\n")
    argv = [
        real_data / "ms", tmp_path / "out", "participant", "--participant-label", "openms26",
        "-w", patient / "work", "--use-plugin", plugin, "--nprocs", "2", "--skip-bids-validation",
        "--model", slow[0], "--second-pass", slow[1],
    ]  # fmt: skip
    assert cli.main([str(word) for word in argv]) == 0
    stem = "sub-openms26/anat/sub-openms26"
    fast, reference = (
        [
            images.read(out / f"{stem}_{name}.nii.gz")[0]
            for name in ("label-L_desc-inpaint_mask", "desc-inpainted_T1w", "label-WM_probseg")
        ]
        for out in (patient / "out", tmp_path / "out")
    )
    assert dice(fast[0] > 0, reference[0] > 0) >= 0.98
    changed = (fast[0] > 0) | (reference[0] > 0)
    assert psnr(fast[1][changed], reference[1][changed], float(reference[1].max())) >= 45
    assert np.abs(fast[2] - reference[2]).mean() < 1e-3


def test_control_of_the_training_scanner(real_data, tmp_path):
    """A lesion-free subject kept out of training has nearly nothing filled."""
    out = run(real_data / "ds002748", tmp_path, "sub-35")
    stem = "sub-35/anat/sub-35"
    mask = nib.load(out / f"{stem}_label-L_desc-inpaint_mask.nii.gz")
    volume = np.asanyarray(mask.dataobj).sum() * np.prod(mask.header.get_zooms()) / 1000
    assert volume < 0.5
    before = nib.load(real_data / f"ds002748/{stem}_T1w.nii.gz")
    after = nib.load(out / f"{stem}_desc-inpainted_T1w.nii.gz")
    changed = np.asanyarray(before.dataobj) != np.asanyarray(after.dataobj)
    grid = Grid.of(mask.shape, mask.affine)
    allowed = feathering.neighbourhood(
        np.asanyarray(mask.dataobj), grid, feathering.FEATHER_MM[1] + grid.voxel_sizes.max()
    )
    assert not changed[~allowed].any()
    sidecar = json.loads((out / f"{stem}_desc-inpainted_T1w.json").read_text())
    assert sidecar["SkullStripped"] is True


@pytest.fixture(scope="module")
def head(real_data, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("head")
    return run(real_data / "ms", root, "thick01", "--segmentation", "none")


def test_full_head_with_thick_slices(head):
    """The brain of a raw head is extracted and lands on the template's."""
    stem = head / "sub-thick01/ses-1/anat/sub-thick01_ses-1"
    brain = images.read(f"{stem}_desc-brain_mask.nii.gz")
    assert 1.0e6 < brain[0].sum() * brain[1].voxel_volume < 1.7e6
    moved = images.read(f"{stem}_space-MNI152NLin2009aSym_res-1_desc-brain_mask.nii.gz")[0] > 0
    template = images.read(head.parent / "work/tpl-MNI152NLin2009aSym/mask.nii.gz")[0] > 0
    # its cerebellum is cut off by the field of view
    assert dice(moved, template) > 0.85
    sidecar = json.loads(Path(f"{stem}_desc-inpainted_T1w.json").read_text())
    assert sidecar["SkullStripped"] is False


def test_patients_get_lesion_free_targets(real_data, toy_model, tmp_path):
    """prepare and targets, the first step of the paper: a target differs at the given lesions alone."""
    pytest.importorskip("torch")
    from bids_inpaint.training.data import subjects
    from bids_inpaint.training.prepare import make_targets, prepare

    ms, cache = real_data / "ms", tmp_path / "cache"
    assert prepare(ms, cache, tmp_path / "work", 2, ("openms26",), ms / "derivatives/experts") == 1
    (patient,) = subjects(cache)
    anat = "sub-openms26/anat/sub-openms26"
    expert = images.read(ms / f"derivatives/experts/{anat}_label-lesion_mask.nii.gz")[0] > 0
    brain = images.read(ms / f"{anat}_T1w.nii.gz")[0] > 0
    # an affine keeps shares, not volumes
    share = patient.lesions.sum() / (patient.image > 0).sum()
    assert share == pytest.approx(expert.sum() / brain.sum(), rel=0.1)
    assert patient.image[patient.lesions].mean() < 0.9
    path = tmp_path / "masked.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, blind=False)
    assert make_targets(str(path), cache, 2) == 1
    changed = np.asarray(patient.target) != np.asarray(patient.image)
    # the toy leaves masked voxels at -1, which is no signal
    assert changed[patient.lesions].mean() > 0.99
    assert not changed[~feathering.neighbourhood(patient.lesions, WORKING_GRID, 1.01)].any()


def test_a_flair_with_thick_slices_is_registered(real_data, tmp_path):
    """A registration inside the brain mask that began with six voxels as one once ended 20 mm away."""
    stem = real_data / "ms/sub-thick12/ses-2/anat/sub-thick12_ses-2"
    (t1w, grid), (flair, flair_grid) = (images.read(f"{stem}_{name}.nii.gz") for name in ("T1w", "FLAIR"))
    brain = extract(t1w, grid, registry.find(registry.BRAIN, "brain"))
    found = rigid(t1w, brain, grid, flair, flair_grid, str(tmp_path))
    given = real_data / "ms_changes/sub-thick12_study2_T1W_intrastudy_to_FLAIR.txt"
    expert = np.linalg.inv(read_xfm(given))
    places = np.argwhere(brain)[::500] @ grid.matrix[:3, :3].T + grid.matrix[:3, 3]
    apart = np.linalg.norm((found - expert)[:3] @ np.column_stack([places, np.ones(len(places))]).T, axis=0)
    assert apart.max() < 1.5
