"""What tells the lesions of a T1w, and how sure: one image through the app in several ways."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import run_again, write_card, write_dataset, write_nifti
from scipy import ndimage

from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.feathering import feather
from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.networks import registry
from bids_inpaint.space import Grid


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("maps")
    grid = tilted((170, 200, 176), (1.1, 1.1, 1.1), degrees=9)
    data, mask = acquire(grid, LESIONS)
    bids = write_dataset(root / "bids")
    write_nifti(bids / "sub-01/anat/sub-01_T1w.nii.gz", data, grid.matrix)
    np.save(root / "painted.npy", mask)
    return root


@pytest.fixture(scope="module")
def told(root) -> dict[str, Path]:
    """By default, by the difference, and by both with mirror images."""
    ways = {
        "probability": [],
        "difference": ["--lesion-map", "difference"],
        "mirror": ["--tta"],
        "strict": ["--lesion-map", "probability", "--lesion-threshold", "0.9"],
    }
    for name, options in ways.items():
        result = run_again(root, name, *options)
        assert result.returncode == 0, result.stderr
    return {name: root / name / "sub-01/anat" for name in ways}


def load(folder: Path, suffix: str) -> np.ndarray:
    return nib.load(folder / f"sub-01_{suffix}.nii.gz").get_fdata()


def sidecar(folder: Path, suffix: str) -> dict:
    return json.loads((folder / f"sub-01_{suffix}.json").read_text())


def test_both_maps_find_the_painted_lesions(root, told):
    painted = np.load(root / "painted.npy")
    for name in ("probability", "difference", "mirror"):
        mask = load(told[name], "label-L_desc-inpaint_mask") > 0
        assert dice(mask, painted) > 0.5, name
    assert dice(load(told["probability"], "label-L_desc-inpaint_mask") > 0, painted) > 0.6


def test_a_lesion_is_what_its_probability_says(told):
    """In the standard space, where it was told: voxels of at least the lower one that touch a sure one."""
    folder, said = told["probability"], sidecar(told["probability"], "label-L_desc-inpaint_mask")
    own = registry.find(registry.DEFAULT).card.lesion_probability
    assert own is not None
    assert said["LesionMap"] == "probability"
    assert (said["LesionThreshold"], said["LesionLowThreshold"]) == (own.threshold, own.low)
    assert said["LesionThresholdUnits"] == "probability"
    chance = load(folder, "space-MNI152NLin2009aSym_res-1_label-L_probseg")
    mask = load(folder, "space-MNI152NLin2009aSym_res-1_label-L_desc-inpaint_mask") > 0
    # what is stored is rounded to single precision
    assert chance[mask].min() >= own.low - 1e-6
    assert 0 <= chance.min() <= chance.max() <= 1
    labels, count = ndimage.label(mask, CONNECTIVITY)
    assert count
    assert (ndimage.maximum(chance, labels, range(1, count + 1)) >= own.threshold - 1e-6).all()
    assert not (chance[~mask] >= max(own.threshold, own.low) + 1e-6).sum() > 10 * count


def test_the_difference_says_what_it_is(told):
    said = sidecar(told["difference"], "label-L_desc-inpaint_mask")
    assert (said["LesionMap"], said["LesionThreshold"]) == ("difference", 0.1)
    assert said["LesionThresholdUnits"].startswith("fraction of the median")
    assert "LesionLowThreshold" not in said
    options = sidecar(told["difference"], "desc-inpainted_T1w")["Options"]
    assert options["LesionMap"] == "difference"


def test_a_threshold_beside_the_map_is_a_probability(told):
    said = sidecar(told["strict"], "label-L_desc-inpaint_mask")
    assert (said["LesionMap"], said["LesionThreshold"]) == ("probability", 0.9)
    strict, usual = (
        load(told[name], "label-L_desc-inpaint_mask").sum() for name in ("strict", "probability")
    )
    assert strict < usual


def test_uncertainty_lies_in_what_is_filled(root, told):
    folder = told["mirror"]
    image = nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    grid = Grid.of(image.shape, image.affine)
    mask = load(folder, "label-L_desc-inpaint_mask") > 0
    spread = load(folder, "desc-uncertainty_T1w")
    filled = load(folder, "desc-inpainted_T1w")
    # a voxel of the working grid, beyond where the filling fades out
    assert not spread[feather(mask, grid, (3.0, 6.0)) == 0].any()
    assert spread.min() == 0
    # in the unit of the T1w: less than a tenth of what is filled
    assert 0 < spread[mask].mean() < 0.1 * filled[mask].mean()
    doubt, chance = load(folder, "label-L_desc-uncertainty_probseg"), load(folder, "label-L_probseg")
    assert 0 < doubt.max() <= 0.5
    assert doubt[chance > 0.98].mean() < doubt[(chance > 0.3) & (chance < 0.7)].mean()
    assert not list(told["probability"].glob("*uncertainty*"))


def test_tables_have_the_lesions_of_the_map(told):
    with (told["probability"] / "sub-01_desc-lesions_dseg.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    mask = load(told["probability"], "label-L_desc-inpaint_mask") > 0
    assert sum(float(row["volume"]) for row in rows) == pytest.approx(mask.sum() * 1.1**3, rel=1e-3)


def test_volumes_have_an_interval_of_what_they_may_be(root, told):
    painted = np.load(root / "painted.npy").sum() * 1.1**3
    rows = {}
    for name in told:
        with (told[name] / "sub-01_desc-lesions_dseg.tsv").open(newline="") as file:
            rows[name] = list(csv.DictReader(file, delimiter="\t"))
        described = sidecar(told[name], "desc-lesions_dseg")
        assert set(rows[name][0]) <= set(described)
    said = sidecar(told["probability"], "label-L_desc-inpaint_mask")
    low, high = said["LesionVolumeInterval"]
    assert 0 < low < painted < high
    assert (said["LesionVolumeIntervalLevel"], said["LesionVolumeIntervalUnits"]) == (0.9, "mm^3")
    for row in rows["probability"]:
        assert 0 <= float(row["volume_low"]) < float(row["volume_high"])
        assert 0.3 <= float(row["probability"]) <= 1
        assert "probability_sd" not in row
    assert all(0 <= float(row["probability_sd"]) <= 0.5 for row in rows["mirror"])


def test_volumes_without_an_interval_say_why(told):
    reasons = {"difference": "of the difference", "strict": "threshold of the network's card alone"}
    for name, why in reasons.items():
        said = sidecar(told[name], "label-L_desc-inpaint_mask")
        assert why in said["LesionVolumeIntervalMissing"]
        assert "LesionVolumeInterval" not in said
        header = (told[name] / "sub-01_desc-lesions_dseg.tsv").read_text().splitlines()[0].split("\t")
        assert "volume_low" not in header
        assert ("probability" in header) == (name == "strict")


def test_what_a_network_does_not_tell_is_not_mapped(root, toy_model, tmp_path):
    silent = tmp_path / "silent.onnx"
    silent.write_bytes(toy_model.read_bytes())
    write_card(silent)
    result = run_again(root, "silent", "--model", str(silent), "--lesion-map", "probability")
    assert result.returncode == 2
    assert "Network silent tells no lesion probability: leave out --lesion-map probability" in result.stderr
    assert result.stderr.count("error:") == 1


def test_slices_have_no_mirror_image(root):
    result = run_again(root, "slices", "--model", "ddpm", "--tta")
    assert result.returncode == 2
    assert "--tta is not for networks that fill slices" in result.stderr
