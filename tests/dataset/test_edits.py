"""Which corrected lesion map is of which T1w, and who corrected it."""

import json
import os

import pytest
from dataset.test_matching import TEMPLATE, by_prefix, collect, dataset, plant

from bids_inpaint.errors import InputError
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings

EDIT = "label-L_desc-edited_mask.nii.gz"


def edited(folder, *names, **options):
    return collect(folder, edits=plant(folder / "edits", *names), **options)


def test_each_image_gets_its_own_edit_and_others_go_on_as_usual(tmp_path):
    folder = dataset(
        tmp_path, "sub-01_ses-a_run-1_T1w.nii.gz", "sub-01_ses-a_run-2_T1w.nii.gz", "sub-02_T1w.nii.gz"
    )
    found = edited(folder, f"sub-01_ses-a_run-02_{EDIT}", f"sub-02_space-{TEMPLATE}_res-1_{EDIT}")
    images = by_prefix(found)
    assert images["sub-01_ses-a_run-1"].edit is None
    assert images["sub-01_ses-a_run-2"].edit.path.endswith(f"sub-01_ses-a_run-02_{EDIT}")
    assert images["sub-01_ses-a_run-2"].edit.space == "T1w"
    assert images["sub-02"].edit.space == "template"
    assert f"bids:edits:sub-02/anat/sub-02_space-{TEMPLATE}_res-1_{EDIT}" in images["sub-02"].sources
    assert not found.refused


def test_who_and_when_by_the_sidecar_or_else_by_the_time_of_the_file(tmp_path):
    folder = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    plant(folder / "edits", f"sub-01_{EDIT}", f"sub-02_{EDIT}")
    (folder / "edits/sub-01/anat/sub-01_label-L_desc-edited_mask.json").write_text(
        json.dumps({"Editor": "A. Rater", "EditedAt": "2026-01-02", "Other": 1})
    )
    os.utime(folder / f"edits/sub-02/anat/sub-02_{EDIT}", (0, 86400))
    images = by_prefix(collect(folder, edits=folder / "edits"))
    assert images["sub-01"].edit.said == {"Editor": "A. Rater", "EditedAt": "2026-01-02"}
    assert images["sub-02"].edit.said == {
        "EditedAt": "1970-01-02T00:00:00+00:00", "EditedAtFrom": "time of the file"
    }  # fmt: skip


def test_two_edits_of_one_image_are_refused(tmp_path):
    folder = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    found = edited(folder, f"sub-01_{EDIT}", f"sub-01_space-{TEMPLATE}_res-1_{EDIT}")
    assert [one.name for one in found.refused] == ["sub-01"]
    assert "both are edited lesion maps of sub-01: leave one of them there." in found.refused[0].reason
    assert by_prefix(found)["sub-02"].edit is None


def test_edits_that_are_not_used_are_named(tmp_path):
    folder = dataset(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    found = edited(
        folder, f"sub-01_{EDIT}", "sub-02_label-L_desc-edit_mask.nii.gz",
        "sub-02_space-Other_label-L_desc-edited_mask.nii.gz", f"sub-02_acq-x_{EDIT}",
    )  # fmt: skip
    assert by_prefix(found)["sub-02"].edit is None
    said = " ".join(by_prefix(found)["sub-02"].warnings)
    assert "its name doesn't have desc-edited" in said
    assert "it lies in the space Other" in said
    assert any(f"sub-02_acq-x_{EDIT} is of no T1w of sub-02 by its name" in w for w in found.warnings)


def test_a_folder_without_edits_is_refused(tmp_path):
    folder = dataset(tmp_path, "sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match="has no edited lesion map"):
        edited(folder, "sub-01_label-L_mask.nii.gz")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fill": "full"}, "--edits needs --fill lesions"),
        ({"second_pass": "none"}, "--edits needs a non-blind network"),
        ({"model": "unet", "lesion_masks": "masks"}, "--edits corrects the maps of a blind network"),
    ],
)
def test_options_that_contradict_edits(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        Networks.of(Settings(tmp_path, tmp_path / "out", edits=tmp_path, **options))
