"""One irregular participant is named in a sentence and never stops the others."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset, write_finished

from bids_inpaint import cli
from bids_inpaint.dataset import bids, scan
from bids_inpaint.dataset.image import Image
from bids_inpaint.errors import InputError
from bids_inpaint.networks import registry
from bids_inpaint.participant import run
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID

GOOD = "sub-01/anat/sub-01_T1w.nii.gz"
ANNEX = "../../.git/annex/objects/aa/bb/MD5E-s35--01.nii.gz/MD5E-s35--01.nii.gz"


def link(target: str):
    return lambda path: path.symlink_to(target)


def content(data: bytes):
    return lambda path: path.write_bytes(data)


@pytest.fixture
def root(tmp_path) -> Path:
    return write_dataset(tmp_path / "bids", GOOD)


def collect(root: Path, **options) -> bids.Collection:
    given = {"bids_dir": root, "output_dir": root.parent / "out", "work_dir": root.parent / "w"}
    return bids.collect(Settings(**(given | options)))


def choose(root: Path, rules: str | dict) -> bids.Collection:
    path = root.parent / "filter.json"
    path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return collect(root, bids_filter_file=path)


def names(collection: bids.Collection) -> list[str]:
    return [Path(image.path).name for image in collection.images]


def add(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / GOOD, root / file)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link(ANNEX), "is a link of git-annex to content that is not here: fetch it with 'datalad get "),
        (link("/nonexistent/x.nii.gz"), "is a link to /nonexistent/x.nii.gz, which does not exist here: "),
        (link("sub-02_T1w.nii.gz"), "is a link to sub-02_T1w.nii.gz, which"),
        (content(b""), "is empty (0 bytes): copy it again."),
        (content(b"/annex/objects/MD5E-s35--01.nii.gz\n"), "is a pointer of git-annex to content"),
        (content(ANNEX.encode()), "is a pointer of git-annex to content"),
        (content(b"version https://git-lfs.github.com/spec/v1\noid"), "is a pointer of Git LFS to content"),
        (os.mkfifo, "is not a regular file: "),
        (os.mkdir, "is not a regular file: "),
    ],
)  # fmt: skip
def test_files_without_content(root, make, reason):
    path = root / "sub-02/anat/sub-02_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    make(path)
    found = collect(root)
    assert [image.prefix for image in found.images] == ["sub-01"]
    (refused,) = found.refused
    assert (refused.name, refused.subject) == ("sub-02", "02")
    assert f"{path} {reason}" in refused.reason
    with pytest.raises(InputError, match=re.escape(f"{path} {reason}")):
        collect(root, participant_label=("02",))
    # the group level reads no T1w: one may be dropped after its run
    settings = Settings(bids_dir=root, output_dir=root.parent / "out", work_dir=root.parent / "w")
    assert len(bids.collect(settings, processing=False).images) == 2


@pytest.mark.parametrize("place", ["sub-02", "sub-02/ses-2", "sub-02/anat"])
def test_folders_that_lead_nowhere(root, place):
    folder = root / place
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to("/nonexistent/folder")
    if place != "sub-02":
        add(root, "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-02_ses-1_T1w.nii.gz"][: 1 + (place != "sub-02")]
    (refused,) = found.refused
    assert refused.subject == "02"
    assert f"{folder} is a link to /nonexistent/folder, which does not exist here" in refused.reason
    assert found.warnings == []


def test_folders_that_nobody_may_read(root, monkeypatch):
    add(root, "sub-02/anat/sub-02_T1w.nii.gz")
    real = os.listdir

    def listdir(path):
        if str(path).endswith("sub-02/anat"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(scan.os, "listdir", listdir)
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz"]
    assert [r.reason for r in found.refused] == [
        f"{root}/sub-02/anat can't be read (Permission denied): check its permissions."
    ]


@pytest.mark.parametrize(
    "name",
    ["sub-02_acq-mp-rage_T1w.nii.gz", "sub-02_T1W.nii.gz", "sub-02_t1w.nii", "sub-03_T1w.nii.gz",
     "sub-02_ses-1_T1w.nii.gz", "sub-02_T1w.NII.GZ", "sub-02_mprage_T1w.nii.gz"],
)  # fmt: skip
def test_misnamed_files(root, name):
    add(root, f"sub-02/anat/{name}")
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz"]
    (refused,) = found.refused
    assert f"{root / 'sub-02/anat' / name} is not named as BIDS asks" in refused.reason
    assert refused.name == re.sub("(?i)_T1w.*", "", name)
    # filters that choose others are obeyed, and that nothing comes of the file is said
    found = choose(root, {"t1w": {"acquisition": None, "subject": "01"}})
    assert (names(found), found.refused) == (["sub-01_T1w.nii.gz"], [])
    assert any(name in warning for warning in found.warnings)


def test_a_description_that_is_a_link_to_nothing(root):
    (root / "dataset_description.json").unlink()
    (root / "dataset_description.json").symlink_to(ANNEX[3:])
    with pytest.raises(InputError, match=r"dataset_description\.json is a link of git-annex"):
        collect(root)


def test_files_of_other_systems_are_passed_over(root):
    add(root, "sub-01/anat/._sub-01_T1w.nii.gz", "sub-01/anat/.sub-01_T1w.nii.gz.swp")
    found = collect(root)
    assert (len(found.images), found.refused, found.warnings) == (1, [], [])


def test_both_forms_of_an_image(root):
    both = [f"sub-03/anat/sub-03_T1w.nii{gz}" for gz in ("", ".gz")]
    add(root, *both)
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz"]
    (refused,) = found.refused
    assert refused.name == "sub-03"
    (remedy,) = re.findall(r"as (\{.*\})\.", refused.reason)
    found = choose(root, remedy)
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-03_T1w.nii.gz"]
    assert found.refused == found.warnings == []
    # where the filter would drop another image, it is no remedy
    (root / "sub-04/anat").mkdir(parents=True)
    (root / "sub-04/anat/sub-04_T1w.nii").write_bytes(b"x")
    (refused,) = collect(root).refused
    assert refused.reason.endswith("would have the same outputs: remove one of them.")


def test_zeros_of_runs_do_not_make_two_images(root):
    """A mask would be of both."""
    twins = [f"sub-03/anat/sub-03_run-{run}_T1w.nii.gz" for run in ("01", "1")]
    add(root, *twins, "sub-03/anat/sub-03_run-2_T1w.nii.gz", "sub-04/anat/sub-04_run-01_T1w.nii.gz")
    found = collect(root)
    assert [image.prefix for image in found.images] == ["sub-01", "sub-03_run-2", "sub-04_run-01"]
    assert [one.name for one in found.refused] == ["sub-03_run-01", "sub-03_run-1"]
    said = f"{root / twins[0]} and {root / twins[1]} are one image by BIDS"
    assert [said in one.reason for one in found.refused] == [True, True]


STRAYS = [
    "Sub-02/anat/Sub-02_T1w.nii.gz", "SUB-03/ses-1/anat/SUB-03_ses-1_T1w.nii",
    "sub_04/anat/sub_04_T1w.nii.gz",
    "sub-01/Ses-2/anat/sub-01_Ses-2_T1w.nii.gz", "sub-01/session-2/anat/sub-01_ses-2_T1w.nii.gz",
    "sub-01/Anat/sub-01_T1w.nii.gz", "sub-01/sub-01_T1w.nii.gz", "sub-01/T1/sub-01_T1w.nii.gz",
    "sub-01/ses-2/ANAT/sub-01_ses-2_T1w.nii.gz", "sub-01/ses-2/sub-01_ses-2_T1w.nii.gz",
    "sub-01/anat/T1w.nii.gz",
]  # fmt: skip


@pytest.mark.parametrize("stray", STRAYS)
def test_images_where_none_is_looked_for(root, stray):
    add(root, stray)
    found = collect(root)
    assert (names(found), found.refused) == (["sub-01_T1w.nii.gz"], [])
    (warning,) = found.warnings
    place = re.search(r"none is looked for, in (\S+): name folders", warning)[1]
    assert stray.startswith(place)
    assert place != "sub-01"


def test_strays_are_told_in_one_sentence_and_nothing_else_is_one(root):
    add(
        root, "code/sub-01_T1w.nii.gz", "sourcedata/sub-05/anat/sub-05_T1w.nii.gz", "sub-01/fmap/x_T1w.nii.gz"
    )
    (root / "sub-01/dicom").mkdir()
    (root / "sub-01/all").symlink_to("..")
    (root / "Sub-06").mkdir()
    assert collect(root).warnings == []
    add(root, *STRAYS)
    (warning,) = collect(root).warnings
    assert "in SUB-03, Sub-02, sub_04, sub-01/Anat, " in warning
    (warning,) = collect(root, participant_label=("01",)).warnings
    assert "in sub-01/Anat, " in warning


def test_echoes(root):
    echoes = [f"sub-04/anat/sub-04_echo-{i}_T1w.nii.gz" for i in (1, 2, 3, 4)]
    add(root, *echoes, "sub-04/anat/sub-04_rec-rms_T1w.nii.gz")
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-04_rec-rms_T1w.nii.gz"]
    (refused,) = found.refused
    assert refused.name == "sub-04"
    without, first = re.findall(r'\{"t1w": \{.*?\}\}', refused.reason)
    assert json.loads(without) == {"t1w": {"echo": None}}
    found = choose(root, without)
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-04_rec-rms_T1w.nii.gz"]
    assert found.refused == found.warnings == []
    found = choose(root, first)
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-04_echo-1_T1w.nii.gz", "sub-04_rec-rms_T1w.nii.gz"]
    # one that drops participants says so
    found = choose(root, {"t1w": {"echo": 1}})
    assert names(found) == ["sub-04_echo-1_T1w.nii.gz"]
    assert any("no T1w" in warning and "sub-01" in warning for warning in found.warnings)


def test_participants_without_a_t1w(root):
    add(root, "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-03/func/sub-03_bold.nii.gz")
    found = collect(root)
    assert names(found) == ["sub-01_T1w.nii.gz"]
    assert found.refused == []
    assert found.warnings == ["These participants have no T1w and are left out: sub-02, sub-03."]
    found = collect(root, participant_label=("01", "02"))
    assert names(found) == ["sub-01_T1w.nii.gz"]
    assert [r.name for r in found.refused] == ["sub-02"]
    assert "has no T1w of participant 02" in found.refused[0].reason


def test_sessions_that_one_participant_lacks(tmp_path):
    sessions = ["sub-01_ses-V1", "sub-01_ses-V2", "sub-02_ses-V1"]
    root = write_dataset(tmp_path / "bids", *(f"{s.replace('_', '/')}/anat/{s}_T1w.nii.gz" for s in sessions))
    for labels in ((), ("01", "02")):
        found = collect(root, participant_label=labels, session_label=("V2",))
        assert names(found) == ["sub-01_ses-V2_T1w.nii.gz"]
        assert found.refused == []
        assert found.warnings == ["These participants have no T1w of session V2: sub-02."]
    found = collect(root, participant_label=("02",), session_label=("V1", "V2"))
    assert names(found) == ["sub-02_ses-V1_T1w.nii.gz"]
    # what is nowhere is a mistake of typing
    with pytest.raises(InputError, match="with session V3:"):
        collect(root, session_label=("V1", "V3"))
    with pytest.raises(InputError, match="Participant 09 is not in"):
        collect(root, participant_label=("01", "09"))


# databases


def index(root: Path) -> Path:
    folder = root.parent / "db"
    collect(root, bids_database_dir=folder)
    return folder


def test_a_database_that_fits_is_used_in_silence(root):
    folder = index(root)
    before = (folder / "layout_index.sqlite").stat().st_mtime_ns
    assert collect(root, bids_database_dir=folder).warnings == []
    assert (folder / "layout_index.sqlite").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "elsewhere", "damaged"])
def test_a_stale_database_is_not_used(root, change):
    add(root, "sub-02/anat/sub-02_T1w.nii.gz")
    folder = index(root)
    if change == "more":
        add(root, "sub-03/anat/sub-03_T1w.nii.gz")
    elif change == "fewer":
        shutil.rmtree(root / "sub-02")
    elif change == "renamed":
        (root / "sub-02/anat/sub-02_T1w.nii.gz").rename(root / "sub-02/anat/sub-02_acq-x_T1w.nii.gz")
    elif change == "elsewhere":
        root = shutil.copytree(root, root.parent / "other")
    else:
        (folder / "layout_index.sqlite").write_bytes(b"x" * 5000)
    path = root.parent / "filter.json"
    path.write_text('{"t1w": {"suffix": "T1w"}}')
    there = sorted(p.name for p in root.rglob("*_T1w.nii.gz"))
    for options in ({}, {"bids_filter_file": path}):
        found = collect(root, bids_database_dir=folder, **options)
        assert sorted(names(found)) == there
        assert all(Path(image.path).is_relative_to(root) for image in found.images)
        (warning,) = found.warnings
        assert f"The database in {folder} does not fit the files of {root}" in warning


# whole runs


def main(root: Path, *options: str) -> int:
    out, work = root.parent / "out", root.parent / "w"
    return cli.main([str(root), str(out), "participant", "-w", str(work), *options])


def test_the_others_are_begun_and_the_exit_code_tells(root, monkeypatch, capsys):
    """Irregular ones are errors, whatever the validator says of their files."""
    add(root, "sub-02/anat/sub-02_acq-mp-rage_T1w.nii.gz", f"sub-{'a' * 180}/anat/sub-{'a' * 180}_T1w.nii.gz")
    (root / "sub-03").symlink_to("/nonexistent")
    (root / "sub-04/anat").mkdir(parents=True)
    (root / "sub-04/anat/sub-04_T1w.nii.gz").symlink_to(ANNEX)
    begun = []
    monkeypatch.setattr(run, "_execute", lambda graph, *_: begun.extend(graph.list_node_names()) or None)
    assert main(root) == 1
    assert {name.split(".")[0] for name in begun} == {"sub_01_wf"}
    told = capsys.readouterr().err
    assert "Traceback" not in told
    errors = [line for line in told.splitlines() if line.startswith("bids_inpaint: error: ")]
    assert len(errors) == 4
    assert "0 of 5 images done" in told
    # nothing is left to run
    assert main(root, "--participant-label", "04") == 2
    assert "'datalad get " in capsys.readouterr().err
    assert main(root, "--participant-label", "a" * 180) == 2
    assert "has so long a name" in capsys.readouterr().err


def test_labels_that_exist_nowhere_come_before_the_validator(root, monkeypatch, capsys):
    monkeypatch.setattr(run, "validate", lambda *_, **__: pytest.fail("validated in vain"))
    assert main(root, "--participant-label", "09") == 2
    assert "Participant 09 is not in" in capsys.readouterr().err


def test_notes_and_warnings_are_printed_once(root, monkeypatch, capsys):
    add(root, "sub-02/anat/sub-02_ce-gad_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    add(root, "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-03/anat/sub-03_FLAIR.nii.gz")
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root, "--skip-bids-validation") == 1
    told = capsys.readouterr().err
    assert told.count("note: sub-01, sub-02_ce-gad: A FLAIR lies beside it") == 1
    assert told.count("sub-02_ce-gad: By its name or sidecar it has a contrast agent") == 1
    assert told.count("warning: These participants have no T1w and are left out: sub-03.") == 1


def test_the_group_level_names_them_and_goes_on(root, tmp_path, caplog):
    add(root, "sub-02/anat/sub-02_T1W.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz")
    (root / GOOD).unlink()
    # not needed any more
    (root / GOOD).symlink_to(ANNEX)
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[80:84, 80:84, 80:84] = True
    write_finished(tmp_path / "out", Image("", "", {"sub": "01"}), lesions)
    assert cli.main([str(root), str(tmp_path / "out"), "group", "-w", str(tmp_path / "w")]) == 0
    rows = (tmp_path / "out/group_desc-volumes.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["participant_id", "sub-01"]
    assert re.search("sub-02 is left out: .*sub-02_T1W.nii.gz is not named as BIDS asks", caplog.text)
    assert "sub-03 is not finished" in caplog.text


# paths


def test_paths_upwards_mean_what_the_system_means(tmp_path, monkeypatch):
    write_dataset(tmp_path / "here/bids", GOOD)
    (tmp_path / "here/deep").mkdir()
    (tmp_path / "link").symlink_to("here/deep")
    monkeypatch.chdir(tmp_path)
    settings = Settings(bids_dir=Path("link/../bids"), output_dir=Path("out"), work_dir=Path("here/../w"))
    assert (settings.bids_dir, settings.work_dir) == (tmp_path / "here/bids", tmp_path / "w")


@pytest.mark.parametrize("home", [False, True])
def test_paths_are_absolute_whatever_they_were(root, toy_model, monkeypatch, tmp_path, home):
    """Steps run in folders of their own."""
    for name in ("masks", "tool", "spm", "db"):
        (tmp_path / name).mkdir()
    for suffix in (".onnx", ".json"):
        shutil.copy(toy_model.with_suffix(suffix), tmp_path / f"net{suffix}")
    (tmp_path / "unet").write_text("a shipped network has this name")
    monkeypatch.chdir(tmp_path / "spm" if home else tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    monkeypatch.setattr(run, "run_participants", lambda settings: seen.append(settings) or 0)
    at = "~/" if home else ""
    arguments = [
        f"{at}bids", f"{at}out", "participant", "-w", f"{at}w", "--lesion-masks", f"{at}masks",
        "--model", f"{at}net.onnx", "--flair", f"{at}net.onnx", "-d", f"tool={at}tool",
        "--bids-filter-file", f"{at}f.json", "--bids-database-dir", f"{at}db", "--use-plugin", f"{at}p.yml",
        "--segmentation", "spm12", "--spm12", f"{at}spm",
    ]  # fmt: skip
    assert cli.main([*arguments, "--second-pass", "unet"]) == 0
    assert cli.main([*arguments, "--second-pass", f"{at}net.onnx"]) == 0
    for settings in seen:
        paths = {
            "bids_dir": "bids", "output_dir": "out", "work_dir": "w", "lesion_masks": "masks",
            "bids_filter_file": "f.json", "bids_database_dir": "db", "use_plugin": "p.yml", "spm12": "spm",
        }  # fmt: skip
        assert {key: getattr(settings, key) for key in paths} == {
            key: tmp_path / value for key, value in paths.items()
        }
        assert settings.derivatives == {"tool": tmp_path / "tool"}
        assert settings.model == settings.flair == str(tmp_path / "net.onnx")
        assert registry.find(settings.model).identifier == str(tmp_path / "net.onnx")
    assert [settings.second_pass for settings in seen] == ["unet", str(tmp_path / "net.onnx")]
