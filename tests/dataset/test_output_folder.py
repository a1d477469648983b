"""What the output folder says of itself, and whose it is."""

import json

import pytest
from helpers import write_dataset

from bids_inpaint import cli
from bids_inpaint.dataset import description
from bids_inpaint.errors import InputError
from bids_inpaint.settings import Settings


@pytest.fixture
def root(tmp_path):
    write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii")
    for name in ("masks", "tool", "other", "out"):
        (tmp_path / name).mkdir()
    return tmp_path


def settings(root, **options) -> Settings:
    return Settings(bids_dir=root / "bids", output_dir=root / "out", work_dir=root / "w", **options)


def described(root) -> dict:
    return json.loads((root / "out/dataset_description.json").read_text(encoding="utf-8"))


def test_earlier_links_stay_and_the_newest_wins(root, caplog):
    description.describe(settings(root, lesion_masks=root / "masks", derivatives={"tool": root / "tool"}))
    links = {name: (root / folder).as_uri() for name, folder in
             {"raw": "bids", "lesions": "masks", "tool": "tool"}.items()}  # fmt: skip
    assert described(root)["DatasetLinks"] == links
    description.describe(settings(root))
    assert described(root)["DatasetLinks"] == links
    assert not caplog.records
    description.describe(settings(root, derivatives={"tool": root / "other"}))
    assert described(root)["DatasetLinks"] == links | {"tool": (root / "other").as_uri()}
    assert f"tool={links['tool']} in their Sources" in caplog.text
    assert described(root)["SourceDatasets"] == [{"URL": links["raw"]}]


def test_names_of_links_are_of_one_folder(root):
    for options in (
        {"derivatives": {"raw": root / "tool"}},
        {"derivatives": {"lesions": root / "tool"}, "lesion_masks": root / "masks"},
    ):
        with pytest.raises(InputError, match="is the name of another folder"):
            description.describe(settings(root, **options))
    assert not list((root / "out").iterdir())
    description.describe(settings(root, derivatives={"lesions": root / "masks"}, lesion_masks=root / "masks"))
    assert described(root)["DatasetLinks"]["lesions"] == (root / "masks").as_uri()


def test_what_users_and_earlier_versions_wrote_stays(root, monkeypatch):
    description.describe(settings(root))
    content = described(root) | {"Name": "Ours", "Authors": ["A", "Ü"], "BIDSVersion": "1.0"}
    content["GeneratedBy"].append({"Name": "own script"})
    (root / "out/dataset_description.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "out/.bidsignore").write_text("notes.txt\n# ours\nfigures\nlog\n", encoding="utf-8")
    older = content["GeneratedBy"][0]
    monkeypatch.setattr(description, "__version__", "99")
    for _ in range(2):
        description.describe(settings(root))
        new = described(root)
        assert new["GeneratedBy"] == [older | {"Version": "99"}, older, {"Name": "own script"}]
        assert (new["Name"], new["Authors"], new["BIDSVersion"]) == ("Ours", ["A", "Ü"], "1.10.0")
        ignored = (root / "out/.bidsignore").read_text(encoding="utf-8").splitlines()
        assert ignored == [
            "notes.txt",
            "# ours",
            "figures",
            "log",
            "logs",
            "ratings",
            "*.html",
            "*_xfm.*",
            "group_*",
        ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            '{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}',
            "not of bids_inpaint but of fMRIPrep: name",
        ),
        ('{"Name": "x", "BIDSVersion": "1.8.0"}', "is not of bids_inpaint: name another output"),
        (
            '{"Name": "x", "GeneratedBy": "bids_inpaint"}',
            "is not of bids_inpaint: name another output",
        ),
        ("[]", "is not of bids_inpaint: name another output"),
        ('{"Name": "x", "GeneratedBy"', "can't be read"),
        ("", "can't be read"),
    ],
)
def test_folders_of_others_are_refused_before_anything_is_written(root, capsys, content, reason):
    path = root / "out/dataset_description.json"
    path.write_text(content)
    (root / "w/bids_inpaint_wf/sub_01_wf").mkdir(parents=True)
    for level in (["participant", "--boilerplate-only", "--clean-workdir"], ["group"]):
        arguments = [*map(str, (root / "bids", root / "out")), *level, "-w", str(root / "w")]
        assert cli.main(arguments) == 2
        assert reason in capsys.readouterr().err
    assert path.read_text() == content
    assert [p.name for p in (root / "out").iterdir()] == [path.name]
    assert (root / "w/bids_inpaint_wf/sub_01_wf").is_dir()
