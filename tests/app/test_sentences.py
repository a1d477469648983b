"""Messages name what is wrong and what helps, and nothing that is wrong passes in silence."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from helpers import write_card, write_dataset, write_finished, write_nifti
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint import cli, fill
from bids_inpaint.dataset import bids, template, validation
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.participants import People
from bids_inpaint.errors import InputError
from bids_inpaint.interfaces.base import InputSpec
from bids_inpaint.interfaces.images import BrainMask, ToWorkingGrid
from bids_inpaint.interfaces.lesions import LesionMask, MapLesions
from bids_inpaint.io import images
from bids_inpaint.networks import extraction, registry
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant import ending, run
from bids_inpaint.participant.crashes import explain
from bids_inpaint.settings import Settings, check
from bids_inpaint.space import WORKING_GRID, Grid
from bids_inpaint.spm import program
from bids_inpaint.workflows.base import init_image_wf

NOTHING = np.zeros(WORKING_GRID.shape, bool)


@pytest.fixture
def root(tmp_path) -> Path:
    """A dataset of two participants, each with an image that is too small for a head."""
    names = (f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2))
    return write_dataset(tmp_path / "bids", *names, data=np.ones((9, 9, 9), np.int16))


def main(root: Path, *options: str, level: str = "participant") -> int:
    out, work = root.parent / "out", root.parent / "w"
    return cli.main(
        [str(root), str(out), level, "-w", str(work), "--nprocs", "1", "--skip-bids-validation", *options]
    )


def settings(root: Path, **options) -> Settings:
    out = Settings(
        **({"bids_dir": root, "output_dir": root.parent / "out", "work_dir": root.parent / "w"} | options)
    )
    check(out)
    return out


def statuses(out: Path) -> dict[str, dict]:
    paths = out.glob("sub-*/log/*_status.json")
    return {path.name.removesuffix("_status.json"): json.loads(path.read_text()) for path in paths}


# options


def seen(root: Path, monkeypatch, *options: str) -> Settings:
    """The settings that a command line leads to."""
    found: list[Settings] = []
    monkeypatch.setattr(run, "run_participants", lambda settings: found.append(settings) or 0)
    assert main(root, *options) == 0
    return found[0]


def test_options_with_several_values_may_be_given_again(root, monkeypatch, tmp_path):
    for name in "xyz":
        (tmp_path / name).mkdir()
    found = seen(
        root, monkeypatch, "-d", f"a={tmp_path / 'x'}", f"b={tmp_path / 'y'}", "-d", f"c={tmp_path / 'z'}",
        "--participant-label", "01", "--participant-label", "sub-02", "01", "--session-label", "A",
        "--session-label", "B",
    )  # fmt: skip
    assert found.derivatives == {"a": tmp_path / "x", "b": tmp_path / "y", "c": tmp_path / "z"}
    assert (found.participant_label, found.session_label) == (("01", "02"), ("A", "B"))
    (tmp_path / "a=b c").mkdir()
    found = seen(root, monkeypatch, "-d", str(tmp_path / "x"), f"{tmp_path}/y/../a=b c/")
    assert found.derivatives == {"x": tmp_path / "x", "a-b-c": tmp_path / "a=b c"}
    assert seen(root, monkeypatch).derivatives == {}


@pytest.mark.parametrize("again", [(), ("-d",)])
def test_one_name_for_two_derivatives(root, capsys, tmp_path, again):
    assert main(root, "-d", f"a={tmp_path / 'x'}", *again, f"a={tmp_path / 'y'}") == 2
    assert f"-d names two folders a ({tmp_path / 'x'} and {tmp_path / 'y'})" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--lesion-min-volume", "--mem-gb", "--lesion-threshold"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_numbers_that_are_none(root, capsys, option, value):
    assert main(root, option, value) == 2
    assert re.search(rf"error: {option} .*{float(value)}", capsys.readouterr().err)


@pytest.mark.parametrize("variable", ["SPMMCRCMD", "MATLABCMD"])
def test_commands_of_spm_that_no_shell_would_take(tmp_path, monkeypatch, variable):
    for name in ("spm.m", "spm_jobman.m", "tpm/TPM.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Contents.m").write_text("% SPM\n% Version 7771 (SPM12) 13-Jan-20\n")
    for name in (program.VARIABLE, "SPMMCRCMD", "MATLABCMD"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path if variable == "MATLABCMD" else None
    monkeypatch.setenv(variable, "/opt/run.sh '/opt/mcr")
    with pytest.raises(InputError, match=rf"{variable} is '/opt/run\.sh '/opt/mcr'.*correct its quotes"):
        program.find(folder)
    # blank is as if it weren't set
    monkeypatch.setenv(variable, "  ")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="Nothing runs the SPM12" if folder else "finds no SPM12"):
        program.find(folder)


# filling of volumes


def test_filling_says_what_the_machine_lacks(monkeypatch, capsys, tmp_path):
    def settle():
        raise OSError(2, "no folder for temporary files (x): mount a writable /tmp.")

    monkeypatch.setattr(fill, "settle", settle)
    assert fill.main([*map(str, (tmp_path / "a.nii", tmp_path / "b.nii", tmp_path / "c.nii"))]) == 2
    told = capsys.readouterr().err
    assert told == "bids_inpaint.fill: error: no folder for temporary files (x): mount a writable /tmp.\n"


def test_filling_needs_a_file_that_can_be_written(monkeypatch, capsys, tmp_path):
    data = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64)
    volume = write_nifti(tmp_path / "a.nii", data, np.eye(4))
    mask = write_nifti(tmp_path / "b.nii", np.ones(data.shape, np.uint8), np.eye(4))
    monkeypatch.setattr(fill.inpainting, "fill_slices", lambda model, data, *_: data)
    assert fill.main([str(volume), str(mask), str(tmp_path / "none/c.nii.gz")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/none/c.nii.gz can't be written (No such file or directory)" in told
    assert fill.main([str(volume), str(mask), str(tmp_path / "c.txt")]) == 2
    assert "c.txt is not the name of a NIfTI file" in capsys.readouterr().err
    assert fill.main([str(volume), str(mask), str(tmp_path / "c.nii")]) == 0
    assert (images.read(tmp_path / "c.nii")[0] == data).all()


# refused images


def test_every_refused_image_has_a_status(root, monkeypatch):
    """So that a batch script finds it; a participant without images has none."""
    for name in ("sub-02_T1w", "sub-02_acq-mp-rage_T1w", "sub-02_echo-2_acq-x_T1w", "sub-02_T1W"):
        path = root / f"sub-02/anat/{name}.nii.gz"
        path.unlink(missing_ok=True)
        path.symlink_to("/nonexistent")
    (root / "sub-03").symlink_to("/nonexistent")
    (root / "sub-04/anat").mkdir(parents=True)
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root) == 1
    found = statuses(root.parent / "out")
    assert found.keys() == {"sub-01", "sub-02", "sub-02_acq-mp-rage", "sub-02_acq-x"}
    assert {status["Status"] for status in found.values()} == {"failed"}
    assert "does not exist here" in found["sub-02"]["Error"]
    # its outputs would not keep the echo
    assert "sub-02_echo-2_acq-x_T1w.nii.gz is a link to" in found["sub-02_acq-x"]["Error"]
    assert "is not named as BIDS asks" in found["sub-02_acq-mp-rage"]["Error"]
    assert not any("EarlierResults" in status for status in found.values())


def test_a_refused_image_with_a_name_that_is_not_utf8_has_a_status(root, monkeypatch):
    stem = os.fsdecode(b"sub-02_acq-\xfc")
    (root / f"sub-02/anat/{stem}_T1w.nii.gz").touch()
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root) == 1
    assert "is not named as BIDS asks" in statuses(root.parent / "out")[stem]["Error"]


def test_the_status_of_an_image_is_not_that_of_a_refused_one_with_its_name(root, monkeypatch):
    """The files of both are there: a name with the wrong case, and the right one."""
    (root / "sub-01/anat/sub-01_T1W.nii.gz").write_bytes(b"")
    write_finished(root.parent / "out", Image("", "", {"sub": "01"}), NOTHING)
    monkeypatch.setattr(run, "_execute", lambda *_: RuntimeError("the queue is closed"))
    assert main(root, "--participant-label", "01") == 1
    assert statuses(root.parent / "out")["sub-01"]["Error"].endswith("the queue is closed")


def test_results_of_all_runs_of_a_refused_session_are_old(root, monkeypatch):
    out = root.parent / "out"
    for entities in ({"ses": "1", "run": "1"}, {"ses": "1", "run": "2"}, {"ses": "2"}, {}):
        write_finished(out, Image("", "", {"sub": "01"} | entities), NOTHING)
    (root / "sub-01/ses-1").symlink_to("/nonexistent")
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root, "--participant-label", "01") == 1
    old = {name for name, status in statuses(out).items() if "/nonexistent" in status["Error"]}
    assert old == {"sub-01_ses-1_run-1", "sub-01_ses-1_run-2"}
    assert statuses(out)["sub-01_ses-1_run-1"]["EarlierResults"] is True


def test_the_group_says_of_results_alone_that_they_are_old(root, caplog):
    out = root.parent / "out"
    for label in ("01", "02"):
        write_finished(out, Image("", "", {"sub": label}), NOTHING)
    for label, more in (("01", {"EarlierResults": True}), ("02", {})):
        folder = out / f"sub-{label}/log"
        folder.mkdir()
        status = {"Status": "failed", "Failed": ["inpainted"], "Error": "it is bad."} | more
        (folder / f"sub-{label}_status.json").write_text(json.dumps(status))
    assert main(root, level="group") == 2
    assert "sub-01 is left out, as its last run failed (it is bad), so its results are of an" in caplog.text
    assert "sub-02 is left out, as its last run failed (it is bad): run the" in caplog.text


# brains that are not where the template has one


def write_xfm(path: Path, shift: float = 0.0) -> str:
    matrix = np.eye(4)
    matrix[0, 3] = shift
    ITKLinearTransform.from_ras(matrix).to_filename(path)
    return str(path)


def volume(folder: Path, name: str, data: np.ndarray, grid: Grid = WORKING_GRID) -> str:
    return images.save(folder / f"{name}.nii.gz", data, grid)


@pytest.mark.parametrize("empty", [False, True])
def test_brains_outside_the_template_are_named_by_their_t1w(tmp_path, empty):
    grid = Grid.of((50, 50, 50), np.diag([4.0, 4, 4, 1]))
    data = volume(tmp_path, "denoised", np.full(grid.shape, 1 - empty, np.float32), grid)
    node = ToWorkingGrid(in_file=data, mask_file=data, xfm=write_xfm(tmp_path / "x.txt", 900))
    node.inputs.source = "/d/sub-01_T1w.nii.gz"
    sentence = (
        "The brain of /d/sub-01_T1w.nii.gz lies outside the template after the affine: check the "
        "orientation in its header, and the brain mask or affine given with -d, if there is one."
    )
    with pytest.raises(InputError, match=re.escape(sentence)):
        node.run(cwd=str(tmp_path))


@pytest.mark.parametrize("what", ["elsewhere", "dark", "no white matter"])
def test_brains_without_the_tissue_of_the_template_are_errors_of_the_input(tmp_path, what):
    zeros, ones = np.zeros(WORKING_GRID.shape, np.float32), np.ones(WORKING_GRID.shape, np.float32)
    brain, other = (volume(tmp_path, name, data) for name, data in (("ones", ones), ("zeros", zeros)))
    if what == "no white matter":
        node = MapLesions(
            preproc=brain, inpainted=brain, wm=other, wm_prior=brain, white=1.0, exponent=1.0,
            lesion_map="difference", threshold=0.1, min_volume=10.0,
        )  # fmt: skip
    else:
        place = volume(tmp_path, "lesions", (np.arange(182)[:, None, None] < 9) * ones.astype(np.uint8))
        node = LesionMask(
            in_file=place, t1w=brain, xfm=write_xfm(tmp_path / "x.txt"), brain_mask=brain,
            preproc=other if what == "dark" else brain, wm_prior=other if what == "elsewhere" else brain,
        )  # fmt: skip
    node.inputs.source = "/d/sub-01_T1w.nii.gz"
    clause = {
        "elsewhere": "does not overlap the white matter of the template",
        "dark": "has no signal in the white matter of the template",
        "no white matter": "has no white matter by its segmentation",
    }[what]
    with pytest.raises(InputError, match=f"The brain of /d/sub-01_T1w.nii.gz {clause}: check"):
        node.run(cwd=str(tmp_path))


def test_every_step_of_an_image_knows_its_t1w(root, tmp_path):
    """And the path, which tells nothing of the content, is no reason to do a step again."""
    image = Image("/d/sub-01_T1w.nii.gz", "", {"sub": "01"})
    options = settings(root, compare_segmentation=True)
    workflow = init_image_wf(
        image=image,
        settings=options,
        networks=Networks.of(options),
        run_uuid="x",
        template=template.prepare(template.DEFAULT, tmp_path),
    )
    nodes = [node for node in workflow._get_all_nodes() if isinstance(node.inputs, InputSpec)]
    assert {"mask", "resample", "inpaint", "map_lesions", "gmm", "quality"} <= {n.name for n in nodes}
    assert {node.inputs.source for node in nodes} == {image.path}
    resample = workflow.get_node("preprocess_wf.resample").inputs
    before = resample.get_hashval("content")[1]
    resample.source = "/elsewhere/sub-01_T1w.nii.gz"
    assert resample.get_hashval("content")[1] == before


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError("no room"), MemoryError),
        (RuntimeError("[ONNXRuntimeError] Failed to allocate memory for requested buffer"), RuntimeError),
        (ValueError("the brain extracted measures 0.01 l"), InputError),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_want_of_memory_is_no_fault_of_the_image(root, tmp_path, monkeypatch, error, raised, given):
    def extract(*_):
        raise error

    monkeypatch.setattr(extraction, "extract", extract)
    grid = Grid.of((50, 50, 50), np.diag([4.0, 4, 4, 1]))
    data = volume(tmp_path, "t1w", np.random.default_rng(0).random(grid.shape).astype(np.float32), grid)
    t1w = shutil.copy(data, tmp_path / "sub-01_T1w.nii.gz")
    node = BrainMask(in_file=data, skull_strip="force", source=str(t1w))
    if given:
        inside = np.zeros(grid.shape, np.uint8)
        inside[10:40, 10:40, 10:35] = 1
        node.inputs.precomputed = volume(tmp_path, "given", inside, grid)
    if given and raised is InputError:
        # it is what helps where no brain is found
        assert images.read(node.run(cwd=str(tmp_path)).outputs.out_file)[0].sum() == inside.sum()
        return
    with pytest.raises(raised) as caught:
        node.run(cwd=str(tmp_path))
    crash = f"Node: wf.sub_01_wf.mask\n{raised.__name__}: {caught.value}\n"
    told = explain(crash, settings(root))
    if raised is InputError:
        assert f"No brain was found in {t1w} (the brain extracted measures 0.01 l" in told
    else:
        assert told.endswith("had too little memory: run again with a smaller --nprocs.")


def test_brain_masks_that_are_none(tmp_path):
    grid = Grid.of((50, 50, 50), np.diag([4.0, 4, 4, 1]))
    data = volume(tmp_path, "t1w", np.ones(grid.shape, np.float32), grid)
    t1w = shutil.copy(data, tmp_path / "sub-01_T1w.nii.gz")
    node = BrainMask(in_file=data, precomputed=data, source=str(t1w))
    reason = (
        f"The brain mask {data} has 8.00 l on {t1w}, which no brain has: give the brain mask of this image."
    )
    with pytest.raises(InputError, match=re.escape(reason)):
        node.run(cwd=str(tmp_path))


# files


def test_what_helps_depends_on_whose_file_it_is(tmp_path):
    good = np.ones((20, 20, 20), np.int16)
    ours = write_nifti(tmp_path / "ours.nii.gz", good)
    ours.write_bytes(b"no image at all")
    for reader, remedy in (
        (
            images.read,
            "remove it and run this participant again, with --clean-workdir if it lies in",
        ),
        (images.load_given, "copy or convert it again"),
        (images.load_t1w, "copy or convert it again"),
    ):
        with pytest.raises(InputError, match=f"ours.nii.gz cannot be read as NIfTI .*: {remedy}"):
            reader(ours)
    header = nib.load(write_nifti(tmp_path / "good.nii", good)).header
    header["srow_z"], header["pixdim"][3], header["vox_offset"] = 0, 0, 352
    flat = tmp_path / "flat.nii"
    flat.write_bytes(header.binaryblock + b"\0" * 4 + good.tobytes())
    for reader, remedy in (
        (images.load_given, "copy the header of the T1w"),
        (images.load_t1w, "convert it again from the DICOM files"),
    ):
        with pytest.raises(InputError, match=f"no usable voxel size .*: {remedy}"):
            reader(flat)
    with pytest.raises(InputError, match="is not a volume"):
        images.load_t1w(write_nifti(tmp_path / "plane.nii", good[:, :, 0]))


def test_a_background_that_is_no_number_is_the_least_value(tmp_path):
    data = np.full((20, 20, 20), 5, np.float32)
    data[8:12] = -3
    data[0] = np.nan
    warnings: list[str] = []
    read, _ = images.load_t1w(write_nifti(tmp_path / "a.nii", data), warnings)
    assert (read[0] == -3).all()
    assert any(warning.endswith("were taken as background.") for warning in warnings)


@pytest.mark.parametrize("file", ["dataset_description.json", "filter.json", "plugin.yml"])
def test_files_that_can_not_be_read_need_no_other_content(root, capsys, monkeypatch, file):
    """The reason is that of the system, and a remedy on JSON would be in vain."""
    path = root / file
    path.write_text("{}")

    def closed(reading):
        def read(self, *arguments, **options):
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return reading(self, *arguments, **options)

        return read

    for name in ("read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, closed(getattr(Path, name)))
    options = {"filter.json": "--bids-filter-file", "plugin.yml": "--use-plugin"}
    assert main(root, *([options[file], str(path)] if file in options else [])) == 2
    told = capsys.readouterr().err
    assert told.endswith(f"{path} can't be read (Permission denied): check the path and its permissions.\n")


def test_filters_with_other_keys(root, capsys):
    path = root / "filter.json"
    path.write_text('{"t1w": {"sequence": "x"}}')
    assert main(root, "--bids-filter-file", str(path)) == 2
    assert f"Filter file {path} has the key 'sequence', which is no BIDS entity: " in capsys.readouterr().err


def test_databases_that_can_not_be_made(root, capsys):
    (root.parent / "file").write_text("in the way")
    for folder in (root.parent / "file/db", root.parent / "file"):
        assert main(root, "--bids-database-dir", str(folder)) == 2
        told = capsys.readouterr().err
        assert f"The database folder {folder} can't be written (" in told
        assert told.endswith("): name another with --bids-database-dir.\n")


# what is missing


def test_what_a_t1w_would_be_called(root, capsys):
    (root / "sub-01/ses-A").mkdir()
    assert main(root, "--session-label", "A", "--participant-label", "01") == 2
    told = capsys.readouterr().err
    assert told.endswith("a file such as sub-01/ses-A/anat/sub-01_ses-A_T1w.nii.gz is needed.\n")
    (root / "filter.json").write_text('{"t1w": {"acquisition": "x"}}')
    assert main(root, "--bids-filter-file", str(root / "filter.json")) == 2
    # one with that name is there
    told = capsys.readouterr().err
    assert told.endswith(f"with the filters of {root / 'filter.json'}: check the filter.\n")
    assert main(root, "--participant-label", "08", "09") == 2
    assert "Participants 08, 09 are not in" in capsys.readouterr().err


def test_an_affine_of_a_mean_is_not_to_be_renamed(tmp_path):
    names = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}" for s in "12"]
    root = write_dataset(tmp_path / "bids", *(f"{name}_T1w.nii.gz" for name in names))
    ends = ("T1w", template.DEFAULT)
    affines = [f"sub-01/anat/sub-01_from-{a}_to-{b}_mode-image_xfm.txt" for a, b in (ends, ends[::-1])]
    to_mean = [f"{name}_from-orig_to-T1w_mode-image_xfm.txt" for name in names[:1]]
    for name in (*affines, *to_mean, "sub-01/anat/sub-01_desc-brain_mask.nii.gz"):
        (tmp_path / "tool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tool" / name).write_text("x")
    one, two = bids.collect(settings(root, derivatives={"tool": tmp_path / "tool"})).images
    assert (one.xfm, two.xfm) == (None, None)
    assert list(one.warnings) == [
        f"{tmp_path / 'tool' / name} starts from the mean of the T1w images and is not used: an affine is "
        "made here."
        for name in sorted(affines)
    ]
    assert any("give it the entities of its T1w" in warning for warning in two.warnings)


def test_the_second_of_two_derivatives_is_used_instead(root, tmp_path):
    given = {}
    for name in ("one", "two"):
        folder = tmp_path / name / "sub-01/anat"
        folder.mkdir(parents=True)
        for end in ("desc-brain_mask.nii.gz", *(f"from-{a}_to-{b}_mode-image_xfm.txt" for a, b in
                    (("T1w", template.DEFAULT), (template.DEFAULT, "T1w")))):  # fmt: skip
            (folder / f"sub-01_{end}").write_text("x")
        given[name] = tmp_path / name
    first = bids.collect(settings(root, derivatives=given)).images[0]
    both = [(tmp_path / name / "sub-01/anat/sub-01_desc-brain_mask.nii.gz") for name in given]
    assert f"{both[0]} is not used, as {both[1]} is used instead." in first.warnings
    assert sum("_xfm.txt is used instead." in warning for warning in first.warnings) == 1


# folders and other options


def test_folders_that_can_not_be_used_and_what_helps(root, capsys):
    (root.parent / "file").write_text("in the way")
    (root / "w").mkdir()
    for options, told in (
        (["-w", str(root / "w")], f"Work folder {root}/w lies inside the dataset {root}: name one outside it "
         "with -w."),
        (["-w", str(root.parent / "file")], "can't be written (File exists): check its permissions and the "
         "space on its disk, or name another folder."),
        (["--spm12", "/x"], "for --segmentation spm12 alone: add --segmentation spm12, or leave"),
        (["--lesion-masks", "/x\ny"], r"/x\ny (--lesion-masks) isn't UTF-8 or has a line break: rename it"),
        (["--second-pass", "blind-unet"], "name one that fills masks, or 'none'."),
    ):  # fmt: skip
        assert main(root, *options) == 2
        assert told in capsys.readouterr().err


def test_names_that_are_too_long_are_shortened_where_it_helps(root, monkeypatch, capsys):
    monkeypatch.setattr(run.os, "pathconf", lambda *_: 100)
    assert main(root) == 2
    assert re.search(
        r"make its labels of sub, ses, acq, ce, rec and run \d+ characters shorter", capsys.readouterr().err
    )


# tables and reports


def test_tables_that_can_not_be_used(root, capsys, caplog):
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t900\nsub-02\t9\t9\n")
    (root / "participants.json").write_text('{"age": {"Units": "month"}}')
    sessions = root / "sub-01/sub-01_sessions.tsv"
    sessions.write_text("session_id\tage\nses-1\t900\n")
    people = People(root)
    assert people.age("01", "1") is None
    assert people.warnings == [
        f"{root}/participants.tsv has a different number of cells in line 3 than in its header: these lines "
        "are not used.",
        f"Tables of {root} have ages of over 130 years, which are not used: name their unit in the JSON "
        'beside the table, such as {"age": {"Units": "month"}}.',
    ]
    sessions.with_suffix(".json").write_text('{"age": {"Units": "moons"}}')
    people = People(root)
    assert people.age("01", "1") is None
    assert people.warnings[-1] == (
        f"The unit 'moons' of ages in {root} is not known, so ages are not used: write year, month, "
        "week or day as its Units."
    )
    sessions.unlink()
    sessions.mkdir()
    people = People(root)
    assert people.age("01", "1") == 75
    assert people.warnings[-1] == f"{sessions} is a broken link or not a regular file, and is not used."


def test_a_report_that_can_not_be_written_leaves_images_unaffected(root, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ending, "write_report", full)
    monkeypatch.setattr(run, "_execute", lambda *_: None)
    assert main(root) == 1
    assert capsys.readouterr().err.count("the images are not affected: run again with --reports-only.") == 2


@pytest.mark.parametrize("errors", [2, 30])
def test_participants_that_are_not_valid(root, monkeypatch, caplog, errors):
    """The validator may find more of them than are shown."""
    issues = [
        {"code": "X", "location": f"/sub-{i:02}/anat/x", "severity": "error"} for i in range(3, 3 + errors)
    ]
    answer = json.dumps({"issues": {"issues": issues}})
    monkeypatch.setattr(validation.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=answer))
    monkeypatch.setattr(validation.shutil, "which", lambda _: "/bin/true")
    validation.validate(settings(root))
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "sub-03 is not valid BIDS (1 error: /sub-03/anat/x X)."
    more = [line for line in told if line.startswith("These participants are not valid BIDS either: ")]
    assert bool(more) == (errors > 20)
    if more:
        assert more[0].endswith(
            "sub-23, sub-24, sub-25, sub-26, sub-27, sub-28, sub-29, sub-30, sub-31, sub-32."
        )


# networks


def test_networks_for_other_tasks_and_damaged_ones(tmp_path, toy_model):
    for suffix in (".onnx", ".json"):
        shutil.copy(toy_model.with_suffix(suffix), tmp_path / f"net{suffix}")
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match="was trained for 'inpaint', not for 'flair': use another one"):
        registry.find(str(path), "flair")
    path.write_bytes(b"no network")
    write_card(path)
    with pytest.raises(InputError, match=r"can't be loaded by ONNX Runtime \(.*\): export it again\."):
        registry.find(str(path))
