"""A lesion map through a person's hands and back: one image through the app, edited and run again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import run_again, write_dataset, write_nifti
from scipy import ndimage

from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.space import WORKING_GRID

SPACE = "space-MNI152NLin2009aSym_res-1_"
EDITOR = {"Editor": "A. Rater", "EditedAt": "2026-11-27T20:00:00Z", "Reason": "a missed lesion"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("edits")
    grid = tilted((170, 200, 176), (1.1, 1.1, 1.1), degrees=9)
    data, _ = acquire(grid, LESIONS)
    bids = write_dataset(root / "bids")
    write_nifti(bids / "sub-01/anat/sub-01_T1w.nii.gz", data, grid.matrix)
    return root


def values(root: Path, out: str, name: str) -> np.ndarray:
    return np.asarray(nib.load(root / out / f"sub-01/anat/sub-01_{name}.nii.gz").dataobj)


@pytest.fixture(scope="module")
def automatic(root) -> np.ndarray:
    result = run_again(root, "automatic")
    assert result.returncode == 0, result.stderr
    return values(root, "automatic", "label-L_desc-inpaint_mask") > 0


def edit(mask: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Half of the largest lesion and all of the next are removed, and a ball of white matter is added."""
    labels, count = ndimage.label(mask, CONNECTIVITY)
    assert count > 2
    first, second = np.argsort(-np.bincount(labels.ravel())[1:])[:2] + 1
    edited = mask & (labels != second)
    voxels = np.argwhere(labels == first)
    edited[tuple(voxels[voxels[:, 1] > np.median(voxels[:, 1])].T)] = False
    away = ndimage.binary_erosion(white > 0.9, iterations=4)
    away &= ndimage.distance_transform_edt(~mask) > 12
    place = np.argwhere(away)[away.sum() // 2]
    edited |= sum((g - p) ** 2 for g, p in zip(np.indices(mask.shape), place, strict=True)) <= 9
    return edited


def save(root: Path, name: str, mask: np.ndarray, affine: np.ndarray, said: dict | None = None) -> None:
    path = root / "edits/sub-01/anat" / f"sub-01_{name}label-L_desc-edited_mask.nii.gz"
    for old in path.parent.glob("*"):
        old.unlink()
    write_nifti(path, mask.astype(np.uint8), affine)
    if said:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(said))


@pytest.fixture(scope="module")
def edited(root, automatic) -> np.ndarray:
    """The edit, stored with its axes turned around as a viewer may do."""
    mask = edit(automatic, values(root, "automatic", "label-WM_probseg"))
    t1w = nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    turned = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), t1w.affine))
    flipped = turned.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    save(root, "", np.asarray(flipped.dataobj), flipped.affine, EDITOR)
    result = run_again(root, "edited", "--edits", str(root / "edits"))
    assert result.returncode == 0, result.stderr
    for step in ("denoise", "register", "inpaint_wf.inpaint"):
        assert f" {step} done in" not in result.stderr
    return mask


def test_the_map_is_the_edited_one_voxel_for_voxel(root, edited):
    assert np.array_equal(values(root, "edited", "label-L_desc-inpaint_mask") > 0, edited)
    assert np.array_equal(values(root, "edited", "desc-lesions_dseg") > 0, edited)


def test_what_was_removed_is_the_original_bit_for_bit_and_what_was_added_is_filled(root, automatic, edited):
    original = np.asarray(nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz").dataobj)
    before, after = (values(root, out, "desc-inpainted_T1w") for out in ("automatic", "edited"))
    removed, added = automatic & ~edited, edited & ~automatic
    assert (before[removed] != original[removed]).mean() > 0.9
    assert np.array_equal(after[removed], original[removed])
    assert np.array_equal(before[added], original[added])
    assert (after[added] != original[added]).mean() > 0.8
    # white matter was added, and is filled by white matter
    assert abs(after[added].mean() / original[added].mean() - 1) < 0.05
    elsewhere = ndimage.distance_transform_edt(~(added | removed)) > 8
    assert np.array_equal(after[elsewhere], before[elsewhere])


def test_sidecars_and_table_keep_who_and_how_far(root, automatic, edited):
    anat = root / "edited/sub-01/anat"
    for name in ("desc-inpainted_T1w", "label-L_desc-inpaint_mask", f"{SPACE}label-L_desc-inpaint_mask"):
        sidecar = json.loads((anat / f"sub-01_{name}.json").read_text())
        said = sidecar["LesionEdit"]
        assert said.items() >= EDITOR.items()
        assert said["AddedVoxels"] == (edited & ~automatic).sum()
        assert said["RemovedVoxels"] == (automatic & ~edited).sum()
        assert said["AutomaticVolume"] == pytest.approx(automatic.sum() * 1.1**3, abs=0.01)
        assert said["EditedVolume"] == pytest.approx(edited.sum() * 1.1**3, abs=0.01)
        assert any(source.startswith("bids:edits:sub-01/anat/") for source in sidecar["Sources"])
    told = json.loads((anat / "sub-01_label-L_probseg.json").read_text())
    assert not any("bids:edits" in source for source in told["Sources"])
    assert np.array_equal(
        values(root, "edited", "label-L_probseg"), values(root, "automatic", "label-L_probseg")
    )
    table = (anat / "sub-01_desc-lesions_dseg.tsv").read_text()
    rows = list(csv.DictReader(table.splitlines(), delimiter="\t"))
    states = [row["edit"] for row in rows]
    assert states.count("added") == 1
    assert "changed" in states
    assert "none" in states
    ball = next(row for row in rows if row["edit"] == "added")
    assert float(ball["volume"]) == pytest.approx((edited & ~automatic).sum() * 1.1**3, abs=0.01)


def test_an_edit_in_standard_space_and_one_that_changes(root, automatic, edited):
    mask = values(root, "automatic", f"{SPACE}label-L_desc-inpaint_mask") > 0
    ours = edit(mask, values(root, "automatic", f"{SPACE}label-WM_probseg"))
    save(root, f"{SPACE}", ours, WORKING_GRID.matrix)
    result = run_again(root, "edited", "--edits", str(root / "edits"))
    assert result.returncode == 0, result.stderr
    assert np.array_equal(values(root, "edited", f"{SPACE}label-L_desc-inpaint_mask") > 0, ours)
    native = values(root, "edited", "label-L_desc-inpaint_mask") > 0
    removed, added = automatic & ~native, native & ~automatic
    assert 0.5 < removed.sum() * 1.1**3 / (mask & ~ours).sum() < 1.5
    assert added.sum() * 1.1**3 == pytest.approx((ours & ~mask).sum(), rel=0.1)
    original = np.asarray(nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz").dataobj)
    assert np.array_equal(values(root, "edited", "desc-inpainted_T1w")[removed], original[removed])


@pytest.mark.parametrize("way", ["grid", "fractions", "far"])
def test_edits_that_do_not_fit_are_refused_in_one_sentence(root, automatic, edited, way):
    t1w = nib.load(root / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    mask = automatic.astype(np.float32)
    if way == "grid":
        save(root, "", automatic[:-1], t1w.affine)
    elif way == "far":
        save(root, "", automatic, t1w.affine + np.array([[0, 0, 0, 9]] * 3 + [[0, 0, 0, 0]]))
    else:
        path = root / "edits/sub-01/anat/sub-01_label-L_desc-edited_mask.nii.gz"
        save(root, "", automatic, t1w.affine)
        write_nifti(path, mask * 0.7, t1w.affine)
    result = run_again(root, "refused", "--edits", str(root / "edits"))
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    sentence = {
        "grid": "is not on the voxels of the lesion map of",
        "far": "that it corrects (up to 15.6 mm away): save it",
        "fractions": "is not a binary mask, as it has fractions",
    }[way]
    assert len(errors) == 1
    assert sentence in errors[0]
