"""Which mask and which affine goes with which T1w, on trees of files that nobody opens."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import write_nifti
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint.dataset import bids
from bids_inpaint.dataset.image import Image
from bids_inpaint.errors import InputError
from bids_inpaint.interfaces.images import BrainMask
from bids_inpaint.io import images
from bids_inpaint.settings import Settings
from bids_inpaint.space import Grid

TEMPLATE = "MNI152NLin2009aSym"
TO, BACK = f"from-T1w_to-{TEMPLATE}_mode-image_xfm.txt", f"from-{TEMPLATE}_to-T1w_mode-image_xfm.txt"
TO_MEAN = "from-orig_to-T1w_mode-image_xfm.txt"


def plant(root: Path, *names: str) -> Path:
    """Files with content by their names, ``sub-01_ses-a_T1w.nii.gz`` in ``sub-01/ses-a/anat``."""
    for name in names:
        folder = "/".join(part for part in name.split("_")[:2] if part.startswith(("sub-", "ses-")))
        path = root / name if "/" in name else root / folder / "anat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def dataset(folder: Path, *names: str) -> Path:
    plant(folder / "bids", *names)
    (folder / "bids/dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return folder


def collect(folder: Path, processing: bool = True, **options) -> bids.Collection:
    given = {"bids_dir": folder / "bids", "output_dir": folder / "out", "work_dir": folder / "w"}
    return bids.collect(Settings(**given, **options), processing)


def by_prefix(collection: bids.Collection) -> dict[str, Image]:
    return {image.prefix: image for image in collection.images}


def name(path: str | None) -> str | None:
    return path and Path(path).name


def brains(folder: Path, *names: str, **options) -> dict[str, Image]:
    return by_prefix(collect(folder, derivatives={"tool": plant(folder / "tool", *names)}, **options))


def lesions(folder: Path, *names: str, **options) -> bids.Collection:
    return collect(folder, lesion_masks=plant(folder / "masks", *names), **options)


# brain masks


@pytest.mark.parametrize("zeros", ["", "0"])
def test_zeros_of_runs_are_no_matter(tmp_path, zeros):
    """Renaming run-1 to run-01 changes nothing but names."""
    root = dataset(tmp_path, *(f"sub-01_run-{zeros}{i}_T1w.nii.gz" for i in (1, 2)))
    found = brains(root, "sub-01_run-1_desc-brain_mask.nii.gz", "sub-01_run-02_desc-brain_mask.nii.gz",
                   *(f"sub-01_run-{run}_{end}" for run in ("01", "2") for end in (TO, BACK)))  # fmt: skip
    one, two = (found[f"sub-01_run-{zeros}{i}"] for i in (1, 2))
    assert [name(i.brain_mask) for i in (one, two)] == [
        "sub-01_run-1_desc-brain_mask.nii.gz", "sub-01_run-02_desc-brain_mask.nii.gz",
    ]  # fmt: skip
    assert [name(i.xfm[0]) for i in (one, two)] == [f"sub-01_run-01_{TO}", f"sub-01_run-2_{TO}"]
    masks = (f"sub-01_run-{run}_label-L_mask.nii.gz" for run in ("001", "2"))
    found = by_prefix(lesions(root, *masks))
    assert [name(i.lesion_mask) for i in found.values()] == [
        "sub-01_run-001_label-L_mask.nii.gz", "sub-01_run-2_label-L_mask.nii.gz",
    ]  # fmt: skip


def test_transforms_with_a_warp_are_told(tmp_path):
    """As those of fMRIPrep are, beside its brain masks."""
    root = dataset(tmp_path, *(f"sub-{s}_T1w.nii.gz" for s in ("01", "02", "03")))
    files = [f"sub-{s}_{TO.replace('.txt', '.h5')}" for s in ("01", "02", "03")]
    files += [f"sub-03_{TO}", f"sub-03_{BACK}", "sub-01_desc-brain_mask.nii.gz"]
    found = collect(root, derivatives={"tool": plant(root / "tool", *files)})
    (told,) = [w for w in found.warnings if "warp" in w]
    assert f"(2, such as {files[0]})" in told
    assert [i.xfm is None for i in found.images] == [True, True, False]


def test_a_mask_without_session_is_not_put_on_every_session(tmp_path):
    root = dataset(tmp_path, *(f"sub-01_ses-{s}_T1w.nii.gz" for s in "12"), "sub-02_ses-1_T1w.nii.gz")
    masks = [f"sub-{s}_desc-brain_mask.nii.gz" for s in ("01", "02")]
    found = brains(root, *masks)
    assert found["sub-02_ses-1"].brain_mask == str(root / "tool/sub-02/anat" / masks[1])
    assert not found["sub-02_ses-1"].warnings
    for session in "12":
        image = found[f"sub-01_ses-{session}"]
        assert image.brain_mask is None
        assert image.sources == []
        (warning,) = image.warnings
        assert f"{masks[0]} may be of any of 2 T1w images" in warning
    # the other session counts also where only one is asked for, by label or filter
    assert brains(root, session_label=("1",))["sub-01_ses-1"].brain_mask is None
    rules = root / "rules.json"
    rules.write_text('{"t1w": {"session": "2"}}')
    assert brains(root, participant_label=("01",), bids_filter_file=rules)["sub-01_ses-2"].brain_mask is None


def test_a_mask_of_the_mean_is_used_through_the_transforms(tmp_path):
    root = dataset(tmp_path, *(f"sub-01_ses-{s}_T1w.nii.gz" for s in "123"))
    xfms = [f"sub-01_ses-{s}_{TO_MEAN}" for s in "12"]
    found = brains(root, "sub-01_desc-brain_mask.nii.gz", *xfms)
    for session, xfm in zip("12", xfms, strict=True):
        image = found[f"sub-01_ses-{session}"]
        assert name(image.brain_mask) == "sub-01_desc-brain_mask.nii.gz"
        assert image.brain_mask_xfm == str(root / f"tool/sub-01/ses-{session}/anat/{xfm}")
        assert image.sources == [
            "bids:tool:sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            f"bids:tool:sub-01/ses-{session}/anat/{xfm}",
        ]
    assert found["sub-01_ses-3"].brain_mask is None
    assert len(found["sub-01_ses-3"].warnings) == 1


def test_an_affine_of_the_mean_is_not_used(tmp_path):
    root = dataset(tmp_path, *(f"sub-01_run-{s}_T1w.nii.gz" for s in "12"))
    found = brains(root, f"sub-01_{TO}", f"sub-01_{BACK}", "sub-01_run-1_desc-brain_mask.nii.gz")
    for image in found.values():
        assert image.xfm is None
        assert sum("is not used" in warning for warning in image.warnings) == 2


def test_what_lies_in_the_space_of_a_mean_is_not_taken_for_the_image(tmp_path):
    """By its name alone it would be the first one's."""
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-01_acq-x_T1w.nii.gz")
    xfms = [f"sub-01_{acq}{TO_MEAN}" for acq in ("", "acq-x_")]
    found = brains(root, "sub-01_desc-brain_mask.nii.gz", f"sub-01_{TO}", f"sub-01_{BACK}", *xfms)
    assert [name(found[p].brain_mask_xfm) for p in ("sub-01", "sub-01_acq-x")] == xfms
    assert found["sub-01"].xfm is None
    assert len(found["sub-01"].warnings) == 2
    # two transforms are none
    plant(root / "tool", f"other/{xfms[0]}")
    image = brains(root)["sub-01"]
    assert image.brain_mask is None
    assert any("transform" in warning and "neither is used" in warning for warning in image.warnings)


@pytest.mark.parametrize("angle", [0, 15])
def test_the_mask_of_the_mean_lies_on_the_image(tmp_path, angle):
    """A transform as fMRIPrep writes it: it takes images from the T1w to the mean."""
    turn = np.radians(angle)
    matrix = np.array([[1, 0, 0, 10], [0, np.cos(turn), -np.sin(turn), -15],
                       [0, np.sin(turn), np.cos(turn), 20], [0, 0, 0, 1.0]])  # fmt: skip
    mean = Grid.of((40, 44, 48), np.diag([4.0, 4, 4, 1]))
    brain = np.zeros(mean.shape, np.uint8)
    brain[8:30, 10:30, 12:40] = 1
    mask = write_nifti(tmp_path / "mask.nii.gz", brain, mean.matrix)
    # the same head, where it lay in the scanner: from points of the mean to points of the image
    own = Grid.of(mean.shape, matrix @ mean.matrix)
    t1w = images.save(tmp_path / "t1w.nii.gz", brain.astype(np.float32) * 100, own)
    xfm = tmp_path / "from-orig_to-T1w_mode-image_xfm.txt"
    ITKLinearTransform.from_ras(matrix).to_filename(xfm)
    node = BrainMask(in_file=t1w, precomputed=str(mask), precomputed_xfm=str(xfm))
    made = images.read(node.run(cwd=str(tmp_path)).outputs.out_file)[0]
    assert (made > 0).sum() == brain.sum()
    assert ((made > 0) == (brain > 0)).all()


def test_the_graph_moves_the_mask(tmp_path):
    from bids_inpaint.dataset import template
    from bids_inpaint.workflows.preprocess import init_preprocess_wf

    (tmp_path / "mask.nii.gz").write_text("x")
    (tmp_path / "xfm.txt").write_text("x")
    files = template.prepare(template.DEFAULT, tmp_path)
    given = {"brain_mask": str(tmp_path / "mask.nii.gz"), "brain_mask_xfm": str(tmp_path / "xfm.txt")}
    mask = init_preprocess_wf(template=files, **given).get_node("mask").inputs
    assert (mask.precomputed, mask.precomputed_xfm) == tuple(given.values())


@pytest.mark.parametrize(
    "other",
    [
        "func/sub-01_task-rest_desc-brain_mask.nii.gz",
        "func/sub-01_task-rest_space-T1w_desc-brain_mask.nii.gz",
        "dwi/sub-01_space-T1w_desc-brain_mask.nii.gz",
        "anat/sub-01_acq-x_desc-brain_mask.nii.gz",
        "anat/sub-01_label-GM_desc-brain_mask.nii.gz",
        "anat/sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
        "anat/sub-01_space-FLAIR_desc-brain_mask.nii.gz",
        "anat/sub-01_mod-FLAIR_desc-brain_mask.nii.gz",
        "ses-9/anat/sub-01_desc-brain_mask.nii.gz",
        "anat/sub-01_T2w_desc-brain_mask.nii.gz",
        "dwi/masks/sub-01_desc-brain_mask.nii.gz",
        "anat/func/masks/old/sub-01_desc-brain_mask.nii.gz",
    ],
)
def test_masks_of_other_images_are_not_used(tmp_path, other):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    found = brains(root, f"sub-01/{other}", "sub-02_desc-brain_mask.nii.gz")
    assert found["sub-01"].brain_mask is None
    # that it is treated otherwise than the others is no secret
    assert any(
        "has no brain mask of this image, though it has of others" in warning
        for warning in found["sub-01"].warnings
    )


def test_the_image_named_exactly_has_the_mask(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-01_acq-x_T1w.nii.gz")
    found = brains(root, "sub-01_desc-brain_mask.nii.gz")
    assert name(found["sub-01"].brain_mask) == "sub-01_desc-brain_mask.nii.gz"
    assert found["sub-01_acq-x"].brain_mask is None


def test_two_masks_that_fit_are_both_left_out(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    found = brains(root, "a/sub-01_desc-brain_mask.nii.gz", "b/sub-01_desc-brain_mask.nii.gz")
    assert found["sub-01"].brain_mask is None
    assert "both are its brain mask" in found["sub-01"].warnings[0]
    # a link is no other mask
    (root / "tool/b/sub-01_desc-brain_mask.nii.gz").unlink()
    (root / "tool/b/sub-01_desc-brain_mask.nii.gz").symlink_to("../a/sub-01_desc-brain_mask.nii.gz")
    assert brains(root)["sub-01"].brain_mask


def test_of_two_derivatives_the_last_is_used_and_the_other_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    given = {n: plant(root / n, "sub-01_desc-brain_mask.nii.gz") for n in ("one", "two")}
    (image,) = collect(root, derivatives=given).images
    assert image.brain_mask == str(root / "two/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    assert image.sources == ["bids:two:sub-01/anat/sub-01_desc-brain_mask.nii.gz"]
    assert str(root / "one/sub-01/anat") in image.warnings[0]


def test_affines_need_their_inverse_and_are_of_images(tmp_path):
    root = dataset(tmp_path, *(f"sub-0{i}_T1w.nii.gz" for i in (1, 2, 3)))
    points = [f"sub-02_{end.replace('image', 'points')}" for end in (TO, BACK)]
    found = brains(root, f"sub-01_{TO}", *points, f"sub-03_{TO}", f"sub-03_{BACK}")
    assert [bool(found[f"sub-0{i}"].xfm) for i in (1, 2, 3)] == [False, False, True]
    assert "its inverse is not there" in found["sub-01"].warnings[0]
    assert f"has no affine to {TEMPLATE} of this image" in found["sub-02"].warnings[0]


def test_masks_without_content_are_not_passed_over(tmp_path):
    """The extractor would make another brain of it, and nobody would know."""
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    mask = root / "tool/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    plant(root / "tool", "sub-02_desc-brain_mask.nii.gz")
    mask.parent.mkdir(parents=True)
    mask.symlink_to("../../.git/annex/objects/a/b/MD5E-s1.nii.gz/MD5E-s1.nii.gz")
    found = collect(root, derivatives={"tool": root / "tool"})
    assert [image.prefix for image in found.images] == ["sub-02"]
    (refused,) = found.refused
    assert refused.name == "sub-01"
    assert f"'datalad get {mask}'" in refused.reason


def test_files_of_no_t1w_are_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    other = plant(root / "tool", *(f"sub-{s}_desc-brain_mask.nii.gz" for s in ("01", "01_ses-3", "77")))
    stray, strangers = collect(root, derivatives={"tool": other}).warnings
    assert "sub-01_ses-3_desc-brain_mask.nii.gz is of no T1w of sub-01" in stray
    assert "sub-77" in strangers
    assert collect(root, derivatives={"tool": other}, participant_label=("01",)).warnings == [stray]


def test_folders_that_nobody_may_read_are_named(tmp_path, monkeypatch):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    tool = plant(root / "tool", "sub-01_desc-brain_mask.nii.gz", "sub-02_desc-brain_mask.nii.gz")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("tool/sub-02/anat"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = collect(root, derivatives={"tool": tool})
    assert [bool(image.brain_mask) for image in found.images] == [True, False]
    (warning,) = found.warnings
    assert f"{tool}/sub-02/anat can't be read (Permission denied)" in warning


# lesion masks


@pytest.mark.parametrize("label", ["label-L", "label-lesion", "label-Lesion", "label-lesions", "label-WMH"])
def test_only_lesion_labels_are_lesions(tmp_path, label):
    """Not the first of the alphabet, which may be grey matter."""
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    (tmp_path / "masks").mkdir()
    if label == "label-WMH":
        (tmp_path / "masks/label-WMH_mask.json").write_text('{"Type": "Lesion"}')
    collection = lesions(root, "sub-01_label-GM_mask.nii.gz", f"sub-01_{label}_mask.nii.gz")
    (image,) = collection.images
    assert image.lesion_mask == str(tmp_path / f"masks/sub-01/anat/sub-01_{label}_mask.nii.gz")
    assert image.lesion_space == "T1w"
    assert image.sources == [f"bids:lesions:sub-01/anat/sub-01_{label}_mask.nii.gz"]
    (note,) = image.notes
    assert "label-GM_mask.nii.gz (by its label it holds no lesions" in note


@pytest.mark.parametrize(
    ("masks", "used", "space"),
    [
        (["", "space-FLAIR_"], "", "T1w"),
        (["space-T1w_", f"space-{TEMPLATE}_"], "space-T1w_", "T1w"),
        (["space-orig_", f"space-{TEMPLATE}_"], "space-orig_", "T1w"),
        ([f"space-{TEMPLATE}_", "space-MNI152NLin6Asym_"], f"space-{TEMPLATE}_", "template"),
    ],
)
def test_spaces_of_lesion_masks(tmp_path, masks, used, space):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    (image,) = lesions(root, *(f"sub-01_{mask}label-L_mask.nii.gz" for mask in masks)).images
    assert name(image.lesion_mask) == f"sub-01_{used}label-L_mask.nii.gz"
    assert image.lesion_space == space
    (other,) = set(masks) - {used}
    assert f"sub-01_{other}label-L_mask.nii.gz" in image.notes[0]


@pytest.mark.parametrize("space", ["FLAIR", "ACPC", "MNI152NLin6Asym", f"{TEMPLATE}2", "mni"])
def test_masks_in_other_spaces_are_not_taken_for_ones_of_the_t1w(tmp_path, space):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    masks = f"sub-01_space-{space}_label-L_mask.nii.gz", "sub-02_label-L_mask.nii.gz"
    found = lesions(root, *masks)
    assert [image.prefix for image in found.images] == ["sub-02"]
    (refused,) = found.refused
    assert f"{masks[0]} (it lies in the space {space}" in refused.reason
    assert "empty mask" not in refused.reason
    # the group level does without, and says so
    image = by_prefix(lesions(root, processing=False))["sub-01"]
    assert image.lesion_mask is None
    assert masks[0] in image.notes[0]


def test_masks_of_two_raters_refuse_that_image_alone(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    raters = [f"sub-01_label-L_desc-rater{i}_mask.nii.gz" for i in (1, 2)]
    found = lesions(root, *raters, "sub-02_label-L_mask.nii.gz")
    assert [image.prefix for image in found.images] == ["sub-02"]
    (refused,) = found.refused
    assert refused.name == "sub-01"
    assert all(rater in refused.reason for rater in raters)


def test_lesion_masks_that_may_be_of_several_images_are_of_none(tmp_path):
    root = dataset(tmp_path, *(f"sub-01_ses-{s}_T1w.nii.gz" for s in "12"), "sub-02_ses-1_T1w.nii.gz")
    found = lesions(root, "sub-01_label-L_mask.nii.gz", "sub-02_label-L_mask.nii.gz")
    assert [image.prefix for image in found.images] == ["sub-02_ses-1"]
    assert [r.name for r in found.refused] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert all("may be of any of 2 T1w images" in r.reason for r in found.refused)


@pytest.mark.parametrize(
    "mask",
    ["dwi/sub-01_label-L_mask.nii.gz", "dwi/masks/sub-01_label-L_mask.nii.gz",
     "anat/sub-01_FLAIR_label-L_mask.nii.gz", "anat/sub-01_acq-x_label-L_mask.nii.gz"],
)  # fmt: skip
def test_lesion_masks_of_other_images_are_not_used(tmp_path, mask):
    """Nor is an empty mask the remedy."""
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match=rf"{mask} \(by its name it is of no T1w\): give it one on its T1w"):
        lesions(root, f"sub-01/{mask}")


def test_words_and_folders_that_name_the_t1w_are_no_matter(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    masks = ["sub-01_T1w_desc-brain_mask.nii.gz", "dwi/sub-02/anat/sub-02_desc-brain_mask.nii.gz"]
    found = brains(root, *masks)
    assert [name(image.brain_mask) for image in found.values()] == [Path(mask).name for mask in masks]
    image = lesions(root, "sub-01_T1w_label-L_mask.nii.gz").images[0]
    assert name(image.lesion_mask) == "sub-01_T1w_label-L_mask.nii.gz"


@pytest.mark.parametrize("matrix", [np.eye(4), np.diag([1, 1, 1.01, 1]), None])
@pytest.mark.parametrize("where", ["tool", "masks"])
def test_lesion_masks_in_the_space_of_a_mean_are_not_those_of_the_t1w(tmp_path, matrix, where):
    """As fMRIPrep has it, of several T1w images; the transform of a single one moves nothing."""
    root = dataset(tmp_path, *(f"sub-01_ses-{s}_T1w.nii.gz" for s in "123"))
    masks = [f"sub-01_ses-{s}_{end}_mask.nii.gz" for s, end in (
        (1, "space-T1w_label-L"), (2, "label-L"), (3, "space-orig_label-L"))]  # fmt: skip
    for s in "123":
        xfm = (
            plant(root / where, f"sub-01_ses-{s}_{TO_MEAN}") / f"sub-01/ses-{s}/anat/sub-01_ses-{s}_{TO_MEAN}"
        )
        if matrix is not None:
            ITKLinearTransform.from_ras(matrix).to_filename(xfm)
    derivatives = {"tool": plant(root / "tool", "sub-01_ses-1_desc-brain_mask.nii.gz")}
    found = lesions(root, *masks, derivatives=derivatives)
    still = matrix is not None and (matrix == np.eye(4)).all()
    assert [name(image.lesion_mask) for image in found.images] == masks[not still :]
    if not still:
        (refused,) = found.refused
        assert f"{masks[0]} (by {root / where}/sub-01/ses-1/anat/sub-01_ses-1_{TO_MEAN} its" in refused.reason
        assert "give it one on its T1w" in refused.reason


def test_lesion_masks_of_no_image_are_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    masks = [f"sub-01_{more}label-L_mask.nii.gz" for more in ("", "ses-2_", "acq-x_")]
    found = lesions(root, *masks, "sub-09_label-L_mask.nii.gz")
    assert [name(image.lesion_mask) for image in found.images] == [masks[0]]
    said = "\n".join(found.warnings)
    assert all(mask in said for mask in masks[1:])
    assert "sub-09" in said
    many = [f"sub-01_acq-{i}_label-L_mask.nii.gz" for i in range(40)]
    assert len(lesions(root, *many).warnings) == 22


def test_empty_mask_files_are_refused(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    plant(root / "masks", "sub-01_label-L_mask.nii.gz")
    (root / "masks/sub-01/anat/sub-01_label-L_mask.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        lesions(root)


@pytest.mark.parametrize("session", [True, False])
def test_many_files_and_many_sessions_are_quick(tmp_path, session):
    """Nothing is opened or looked at but names, and of these only those of the session."""
    names = [f"sub-0001_ses-{i}" if session else f"sub-{i:04}" for i in range(1500)]
    root = dataset(tmp_path, *(f"{n}_T1w.nii.gz" for n in names))
    masks = [f"all/{n}_{end}" for n in names for end in ("desc-brain_mask.nii.gz", TO, BACK, TO_MEAN)]
    # one that might be of any session
    plant(root / "tool", *masks, *(["sub-0001_desc-brain_mask.nii.gz"] if session else []))
    start = time.process_time()
    found = brains(root)
    assert time.process_time() - start < 10
    assert all(image.brain_mask and image.brain_mask_xfm for image in found.values())


def test_both_forms_of_an_image_are_one_owner(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii", "sub-01_T1w.nii.gz")
    (root / "f.json").write_text('{"t1w": {"extension": ".nii.gz"}}')
    assert brains(root, "sub-01_desc-brain_mask.nii.gz", bids_filter_file=root / "f.json")[
        "sub-01"
    ].brain_mask


def test_sidecars_are_inherited(tmp_path):
    root = dataset(
        tmp_path, *(f"sub-0{i}_ses-a_T1w.nii.gz" for i in (1, 2, 3)), "sub-03_ses-a_run-1_T1w.nii.gz"
    )
    agent, none = json.dumps({"ContrastBolusIngredient": "GADOLINIUM"}), '{"ContrastBolusIngredient": "none"}'
    raw = root / "bids"
    (raw / "T1w.json").write_text(agent)
    (raw / "sub-02/sub-02_T1w.json").write_text(none)
    (raw / "sub-03/ses-a/sub-03_ses-a_FLAIR.json").write_text(none)
    (raw / "sub-03/ses-a/anat/sub-03_ses-a_run-01_T1w.json").write_text(none)
    warned = {prefix for prefix, image in by_prefix(collect(root)).items() if image.warnings}
    assert warned == {"sub-01_ses-a", "sub-03_ses-a"}


def test_a_flair_that_is_not_used_is_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-02_acq-3d_FLAIR.nii.gz")
    found = by_prefix(collect(root))
    assert found["sub-01"].notes == ()
    assert found["sub-02"].notes == ("A FLAIR lies beside it and is not used: --flair uses it.",)
    assert found["sub-02"].flair is None


def flairs(folder: Path, *names: str, **options) -> dict[str, str | None]:
    """Name of the FLAIR of each image."""
    found = by_prefix(collect(dataset(folder, *names), flair="joint", **options))
    for image in found.values():
        assert image.flair is None or image.flair[1].endswith(Path(image.flair[0]).name)
    return {prefix: name(image.flair[0] if image.flair else None) for prefix, image in found.items()}


def test_the_flair_of_the_session_is_used(tmp_path):
    names = ("sub-01_ses-a_T1w.nii.gz", "sub-01_ses-b_T1w.nii.gz", "sub-01_ses-b_acq-3d_FLAIR.nii.gz")
    assert flairs(tmp_path, *names) == {"sub-01_ses-a": None, "sub-01_ses-b": names[2]}
    image = by_prefix(collect(tmp_path, flair="joint"))["sub-01_ses-b"]
    assert image.flair[1] == f"bids:raw:sub-01/ses-b/anat/{names[2]}"
    assert image.notes == image.warnings == ()


@pytest.mark.parametrize(
    ("t1w", "there", "used"),
    [
        ("run-02", ["run-1", "run-2"], "run-2"),
        ("acq-x", ["acq-x", "acq-y"], "acq-x"),
        ("acq-x_run-1", ["acq-y_run-1", "acq-y_run-2"], "acq-y_run-1"),
        ("run-1", ["acq-x_run-1", "acq-y_run-1"], None),
        ("acq-z", ["acq-x", "acq-y"], None),
        ("acq-z", ["acq-x", "part-phase"], "acq-x"),
    ],
)
def test_of_several_flair_images_the_one_that_fits_is_used(tmp_path, t1w, there, used):
    names = [f"sub-01_{entities}_FLAIR.nii.gz" for entities in there]
    found = flairs(tmp_path, f"sub-01_{t1w}_T1w.nii.gz", *names)
    assert [*found.values()] == [used and f"sub-01_{used}_FLAIR.nii.gz"]
    (image,) = collect(tmp_path, flair="joint").images
    assert bool(image.warnings) is bool(image.notes) is (used is None)
    for warning in image.warnings:
        assert "lie beside it, and none is used" in warning
        assert '{"flair": {"acquisition": "3d"}}' in warning


def test_filters_choose_the_flair(tmp_path):
    names = ["sub-01_T1w.nii.gz", "sub-01_acq-x_FLAIR.nii.gz", "sub-01_acq-y_FLAIR.nii.gz"]
    chosen = tmp_path / "f.json"
    chosen.write_text('{"flair": {"acquisition": "y"}}')
    assert flairs(tmp_path, *names, bids_filter_file=chosen) == {"sub-01": names[2]}
    chosen.write_text('{"flair": {"acquisition": "z"}, "t1w": {"suffix": "T1w"}}')
    assert flairs(tmp_path, *names, bids_filter_file=chosen) == {"sub-01": None}
    chosen.write_text('{"flair": {}}')
    with pytest.raises(InputError, match="has no filter for flair"):
        flairs(tmp_path, *names, bids_filter_file=chosen)


def test_a_flair_whose_content_is_missing_is_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    (root / "bids/sub-01/anat/sub-01_FLAIR.nii.gz").symlink_to("../../.git/annex/objects/x")
    (image,) = collect(root, flair="joint").images
    assert image.flair is None
    assert "Its FLAIR is not used, so that a synthetic one is made" in image.warnings[0]


@pytest.mark.parametrize(
    "other", ["sub-02_FLAIR.nii.gz", "sub-01_ses-b_FLAIR.nii.gz", "sub-01_flair.nii.gz", "FLAIR.nii"]
)
def test_a_flair_by_the_name_of_another_is_not_used(tmp_path, other):
    """Whether there is one by the right name or none."""
    other = f"sub-01/anat/{other}"
    assert flairs(tmp_path, "sub-01_T1w.nii.gz", other) == {"sub-01": None}
    (image,) = collect(tmp_path, flair="joint").images
    assert image.warnings == (
        f"{name(other)} is not used as its FLAIR: name it as BIDS asks, with the labels of its folders "
        "(sub-01[_KEY-LABEL]_FLAIR.nii.gz).",
    )
    assert flairs(tmp_path, "sub-01_FLAIR.nii.gz") == {"sub-01": "sub-01_FLAIR.nii.gz"}
    assert name(other) in collect(tmp_path, flair="joint").images[0].warnings[0]


def test_images_without_a_flair_are_named(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w.nii.gz")
    (image,) = collect(root, flair="joint").images
    assert image.notes[0].startswith("It has no FLAIR: label-L_desc-joint_mask is by a synthetic one")
    assert image.warnings == ()
    assert collect(root).images[0].notes == ()
    # its map is not like those of others
    dataset(tmp_path, "sub-02_T1w.nii.gz", "sub-02_FLAIR.nii.gz")
    found = by_prefix(collect(root, flair="joint"))
    assert found["sub-01"].warnings[0].startswith("It has no FLAIR")
    assert found["sub-01"].notes == found["sub-02"].warnings == found["sub-02"].notes == ()
