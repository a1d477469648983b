import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset, write_nifti

from bids_inpaint.dataset import bids
from bids_inpaint.errors import InputError
from bids_inpaint.settings import Settings, check

T1W = [
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-01_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-02_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii",
]


@pytest.fixture
def dataset(tmp_path) -> Path:
    root = write_dataset(tmp_path / "bids", *T1W)
    write_nifti(root / "sub-02/anat/sub-02_FLAIR.nii.gz", np.ones((20, 20, 20)))
    write_nifti(root / "derivatives/x/sub-03/anat/sub-03_T1w.nii.gz", np.ones((20, 20, 20)))
    return root


def collect(dataset, **options):
    out = dataset.parent / "out"
    settings = Settings(bids_dir=dataset, output_dir=out, work_dir=dataset.parent / "w", **options)
    check(settings)
    return bids.collect(settings).images


def test_every_t1w_of_every_session_and_run(dataset):
    found = collect(dataset)
    assert [image.prefix for image in found] == [
        "sub-01_ses-a",
        "sub-01_ses-b_acq-mprage_run-01",
        "sub-01_ses-b_acq-mprage_run-02",
        "sub-02",
    ]
    assert found[1].folder == "sub-01/ses-b/anat"
    assert found[1].uri == "bids:raw:sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-01_T1w.nii.gz"


def test_selection(dataset):
    assert [i.prefix for i in collect(dataset, participant_label=("02",))] == ["sub-02"]
    assert [i.prefix for i in collect(dataset, session_label=("a",))] == ["sub-01_ses-a"]
    rules = dataset.parent / "filter.json"
    rules.write_text(json.dumps({"t1w": {"acq": "mprage", "run": 2}}))
    assert [i.prefix for i in collect(dataset, bids_filter_file=rules)] == ["sub-01_ses-b_acq-mprage_run-02"]


def test_database_is_made_and_reused(dataset):
    folder = dataset.parent / "db"
    first = collect(dataset, bids_database_dir=folder)
    # nothing of its making is left
    assert [p.name for p in folder.iterdir()] == ["layout_index.sqlite"]
    assert collect(dataset, bids_database_dir=folder) == first


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"participant_label": ("07",)}, "Participant 07 is not in"),
        ({"participant_label": ("02",), "session_label": ("a",)}, "no T1w of participant 02 with session a"),
        ({"session_label": ("zzz",)}, "no T1w of any participant with session zzz"),
    ],
)
def test_nothing_found(dataset, options, reason):
    with pytest.raises(InputError, match=reason):
        collect(dataset, **options)


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", '{"t1w": {}}', '{"bold": {"task": "rest"}}', "{", "\0", '{"t1w": {"colour": "red"}}',
        '{"t1w": {"scope": "raw"}}', '{"t1w": {"self": 1}}', '{"t1w": {"run": [1, {}]}}',
        '{"t1w": {"regex_search": true, "subject": "("}}', '{"t1w": {"invalid_filters": "drop"}}',
    ],
)  # fmt: skip
def test_empty_or_broken_filters(dataset, content):
    path = dataset.parent / "filter.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"Filter file .*filter\.json"):
        collect(dataset, bids_filter_file=path)


def test_datasets_that_are_none(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="is empty"):
        collect(empty)
    (empty / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"dataset_description\.json is missing"):
        collect(empty)
    (empty / "dataset_description.json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        collect(empty)
    (empty / "dataset_description.json").write_text('{"Name": "x"}')
    with pytest.raises(InputError, match="lacks Name or BIDSVersion"):
        collect(empty)
    (empty / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    with pytest.raises(InputError, match=r"no sub-\* folder"):
        collect(empty)
    with pytest.raises(InputError, match="is not a folder"):
        collect(tmp_path / "missing")


def test_only_other_images(tmp_path):
    root = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_FLAIR.nii.gz")
    with pytest.raises(InputError, match="no T1w of any participant"):
        collect(root)


def test_precomputed_derivatives_belong_to_their_image(dataset):
    other = dataset.parent / "masks"
    names = [
        "sub-01/ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_run-02_desc-brain_mask.nii.gz",
        "of/a/site/sub-02/anat/sub-02_space-MNI152NLin2009aSym_desc-brain_mask.nii.gz",
    ]
    write_dataset(other, *names)
    stem = other / "of/a/site/sub-02/anat/sub-02"
    for ends in (("T1w", "MNI152NLin2009aSym"), ("MNI152NLin2009aSym", "T1w")):
        Path(f"{stem}_from-{ends[0]}_to-{ends[1]}_mode-image_xfm.txt").write_text("x")
    found = {i.prefix: i for i in collect(dataset, derivatives={"tool": other})}
    assert found["sub-01_ses-a"].brain_mask == str(other / names[0])
    assert found["sub-01_ses-b_acq-mprage_run-01"].brain_mask is None
    assert found["sub-01_ses-b_acq-mprage_run-02"].brain_mask == str(other / names[1])
    assert found["sub-01_ses-a"].sources == [f"bids:tool:{names[0]}"]
    # a mask in template space is no mask of the T1w
    assert found["sub-02"].brain_mask is None
    assert found["sub-02"].xfm[0].endswith("from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt")


def test_links_in_circles_are_not_followed(dataset):
    """Also in folders of masks; and a participant may be a link to elsewhere."""
    before = [i.prefix for i in collect(dataset)]
    other = write_dataset(dataset.parent / "masks", "store/anat/sub-02_desc-brain_mask.nii.gz")
    (other / "sub-02").symlink_to("store")
    for folder in (dataset / "sub-01/ses-a/anat", dataset / "sub-02", other / "store/anat"):
        for name, target in (("anat", "."), ("ses-x", ".."), ("sub-02", "../..")):
            if not (folder / name).exists():
                (folder / name).symlink_to(target)
    found = collect(dataset, derivatives={"tool": other})
    assert [i.prefix for i in found] == before
    assert Path(found[-1].brain_mask).samefile(other / "sub-02/anat/sub-02_desc-brain_mask.nii.gz")


def test_children_and_contrast_agents_are_told_of(tmp_path):
    names = ["sub-01/anat/sub-01_T1w.nii", "sub-02/anat/sub-02_ce-gad_T1w.nii", "sub-02/anat/sub-02_T1w.nii"]
    root = write_dataset(tmp_path / "bids", *names)
    for table in (
        "age\tparticipant_id\n12\n-9\tsub-02\n",
        "participant_id\tage\nsub-01\t9\nsub-02\tn/a\n",
        "\0",
        "participant_id\n\n\tx\ty",
    ):
        (root / "participants.tsv").write_text(table)
        child, plain, enhanced = (image.warnings for image in collect(root))
        assert len(child) == table.startswith("participant_id\tage")
        assert not plain
        assert len(enhanced) == 1
        assert "contrast agent" in enhanced[0]
    (root / names[2]).with_suffix(".json").write_text('{"ContrastBolusIngredient": "GADOLINIUM"}')
    for wrong in ("[]", "[" * 100_000):
        (root / names[0]).with_suffix(".json").write_text(wrong)
        assert [len(image.warnings) for image in collect(root)] == [0, 1, 1]
    # a pipe is not waited for
    for path in ((root / names[0]).with_suffix(".json"), root / "participants.tsv"):
        path.unlink()
        os.mkfifo(path)
    assert [len(image.warnings) for image in collect(root)] == [0, 1, 1]


def test_images_that_would_have_the_same_outputs(tmp_path):
    names = [f"sub-01/anat/sub-01_echo-{i}_T1w.nii" for i in (1, 2)]
    root = write_dataset(tmp_path / "bids", *names)
    with pytest.raises(InputError, match=r"echo-1_T1w.nii and .*echo-2_T1w.nii would have the same outputs"):
        collect(root)
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"echo": 2, "session": null, "run": [null, "*"]}}')
    assert [Path(image.path).name for image in collect(root, bids_filter_file=path)] == [Path(names[1]).name]


def test_databases_of_other_tools(tmp_path):
    from bids.layout import BIDSLayout

    names = ["sub-01/anat/sub-01_T1w.nii.gz", "phantom/anat/sub-99_T1w.nii.gz"]
    root = write_dataset(tmp_path / "bids", *names)
    BIDSLayout(root, database_path=tmp_path / "db", validate=False)
    assert [image.prefix for image in collect(root, bids_database_dir=tmp_path / "db")] == ["sub-01"]


def test_names_are_printed_as_they_may_be(tmp_path):
    root = write_dataset(tmp_path / "bids", "sub-\x1b[2J\n/anat/sub-\x1b[2J\n_T1w.nii.gz")
    with pytest.raises(InputError, match=r"sub-\\x1b\[2J\\n_T1w.nii.gz is not named as BIDS asks"):
        collect(root)


def test_derivatives_without_use_are_refused(dataset):
    useless = write_dataset(dataset.parent / "none", "sub-09/anat/sub-09_desc-brain_mask.nii.gz")
    with pytest.raises(InputError, match="Derivatives tool="):
        collect(dataset, derivatives={"tool": useless})


def test_lesion_masks(dataset):
    masks = write_dataset(
        dataset.parent / "lesions",
        "sub-01/ses-a/anat/sub-01_ses-a_label-lesion_mask.nii.gz",
        "sub-02/anat/sub-02_space-MNI152NLin2009aSym_label-L_mask.nii.gz",
    )
    found = collect(dataset, lesion_masks=masks, participant_label=("02",))
    assert found[0].lesion_space == "template"
    found = collect(dataset, lesion_masks=masks, session_label=("a",))
    assert found[0].lesion_space == "T1w"
    assert [i.prefix for i in collect(dataset, lesion_masks=masks)] == ["sub-01_ses-a", "sub-02"]
    with pytest.raises(InputError, match=r"no lesion mask .* of sub-01_ses-b_acq-mprage_run-01"):
        collect(dataset, lesion_masks=masks, session_label=("b",))


def test_one_of_many_participants_is_quick_to_find(tmp_path):
    """Only the folder asked for is indexed."""
    root = write_dataset(tmp_path / "bids", "sub-0001/anat/sub-0001_T1w.nii.gz")
    for i in range(2, 300):
        anat = root / f"sub-{i:04d}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-{i:04d}_T1w.nii.gz").touch()
    assert [i.prefix for i in collect(root, participant_label=("0001",))] == ["sub-0001"]
