"""What the BIDS validator says, and what follows from it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers import write_dataset

from bids_inpaint.dataset import validation
from bids_inpaint.errors import InputError
from bids_inpaint.settings import Settings

pytestmark = pytest.mark.skipif(
    not Path(sys.executable).with_name("bids-validator-deno").exists(),
    reason="bids-validator-deno is not installed",
)


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path / "bids", *(f"sub-0{i}/anat/sub-0{i}_T1w.nii" for i in (1, 2, 3)))


def validate(root, *labels: str) -> None:
    options = {"output_dir": root.parent / "o", "work_dir": root.parent / "w", "participant_label": labels}
    validation.validate(Settings(bids_dir=root, **options))


def test_errors_are_shown_with_what_the_validator_says(root):
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\t90\nsub-03\t30\n")
    with pytest.raises(InputError) as raised:
        validate(root)
    assert "(1 error: /participants.tsv line 3 TSV_VALUE_INCORRECT_TYPE age '90'): correct" in str(
        raised.value
    )
    assert str(raised.value).isprintable()


def test_one_irregular_participant_does_not_stop_the_others(root, caplog):
    (root / "sub-02/func").mkdir()
    (root / "sub-02/func/sub-02_task-x_bold.nii").write_bytes(b"x")
    (root / "sub-03/anat/sub-03_run-2_T1w.nii.gz").symlink_to("/no\nwhere.nii.gz")
    validate(root)
    messages = [record.getMessage() for record in caplog.records]
    assert [m.split(" is not valid BIDS")[0] for m in messages] == ["sub-02", "sub-03"]
    assert "SIDECAR_KEY_REQUIRED RepetitionTime Field description: The time in seconds" in messages[0]
    assert "/sub-03/anat/sub-03_run-2_T1w.nii.gz SYMLINK_BROKEN Symlink target: /no where" in messages[1]
    assert all(m.isprintable() for m in messages)
    # none is left then
    with pytest.raises(InputError, match=r"is not valid BIDS \(3 errors: /sub-02/func/sub-02_"):
        validate(root, "02")
    validate(root, "01", "02")
    # whoever collects the images says more of a link
    validate(root, "03")


def test_errors_of_the_dataset_come_first(root):
    shutil.copy(root / "sub-01/anat/sub-01_T1w.nii", root / "sub-01/anat/sub-01_T1.nii")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x"}))
    with pytest.raises(InputError, match=r"errors: /dataset_description.json JSON_KEY_REQUIRED BIDSVersion"):
        validate(root)
