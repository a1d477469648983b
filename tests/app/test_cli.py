import json
import os
import re
import subprocess
import sys

import pytest
from helpers import write_dataset

from bids_inpaint import __version__, cli
from bids_inpaint.parser import options_of_others
from bids_inpaint.settings import Settings


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")


def run(dataset, *options):
    out = dataset.parent / "out"
    return cli.main(
        [
            str(dataset),
            str(out),
            "participant",
            "-w",
            str(dataset.parent / "w"),
            "--skip-bids-validation",
            *options,
        ]
    )


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"bids_inpaint {__version__}\n"


def test_defaults_are_those_of_the_settings(tmp_path):
    """Each is named once, whoever asks: the command line or Python code."""
    args = cli.parser().parse_args([str(tmp_path / "bids"), str(tmp_path / "out"), "participant"])
    assert cli.settings_of(args) == Settings(tmp_path / "bids", tmp_path / "out")


def test_help_tells_defaults_that_there_are(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    text = cli.parser().format_help()
    for nothing in ("None", "[]", "False", "==SUPPRESS=="):
        assert f"(default: {nothing})" not in text
    assert not [line for line in text.splitlines() if line.count("(default") > 1]
    for default in ("blind-unet", "unet", "MNI152NLin2009aSym", "10.0", "0", "work", "auto", "gmm"):
        assert f"(default: {default})" in text
    # what stands for a value is not the name of the option
    assert not re.search(r"--([a-z0-9-]+) (?=[A-Z0-9_]+\b)(?i:\1)", text.replace("--model MODEL", ""))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "blind-unet"], "has no --model: leave it out"),
        (["--flair", "--fill", "lesions"], "has no --fill, --flair: leave them out"),
        (["--lesion-thr", "0.2", "--strict"], "has no --lesion-threshold, --strict: leave them out"),
        (["--bias-correction", "n4"], "has no --bias-correction: leave it out"),
        (["--random-seed=0"], "has no --random-seed: leave it out"),
        (["--boilerplate-only"], "has no --boilerplate-only: leave it out"),
    ],
)
def test_the_group_level_refuses_what_it_ignores(dataset, capsys, options, named):
    """Also where it is the default, and before anything is made."""
    out, work = dataset.parent / "out", dataset.parent / "w"
    assert cli.main([str(dataset), str(out), "group", "-w", str(work), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert not out.exists()
    assert not work.exists()


def test_the_group_level_takes_the_line_of_the_participant_level(dataset, capsys):
    """As far as options say what is looked at, and where and how."""
    options = (
        f"--participant-label 01 --template MNI152NLin2009aSym --bids-database-dir {dataset.parent}/db "
        f"--use-plugin {dataset.parent}/p.yml --skip-bids-validation --nprocs 2 --omp-nthreads 1 --mem-gb 4 "
        "-v --device cpu --stop-on-first-crash --clean-workdir"
    )
    argv = [str(dataset), str(dataset.parent / "out"), "group", "-w", str(dataset.parent / "w")]
    masks = ["-d", "x=somewhere", "--lesion-masks", "elsewhere"]
    assert options_of_others([*argv, *options.split(), *masks], "group") == []
    assert cli.main([*argv, *options.split()]) == 2
    assert "has no finished participant" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from bids_inpaint import cli, options; cli.parser();"
        "heavy = {'numpy', 'scipy', 'nipype', 'ants', 'bids', 'torch', 'onnxruntime', 'nibabel', 'jinja2'};"
        "heavy &= set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"NO_ET": "1"})


def test_torch_is_for_training_alone():
    code = (
        "import sys; import bids_inpaint.participant.run, bids_inpaint.workflows.base;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"NO_ET": "1"})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--participant-label", "sub-09"], "Participant 09 is not in"),
        (["--model", "nothing"], "Model nothing is neither shipped nor a file"),
        (["--second-pass", "blind-unet"], "blind-unet of --second-pass is blind"),
        (["--sampler", "ddim"], "alone: leave them out, or choose one with --model ddpm."),
        (["--sampling-steps", "0"], "--sampling-steps 0 is out of range"),
        (
            ["--use-plugin", "/nonexistent.yml"],
            "Plugin file /nonexistent.yml can't be read (No such file or directory)",
        ),
        (["--lesion-threshold", "3"], "--lesion-threshold 3.0 is out of range"),
        (["--lesion-masks", "/nonexistent"], "--lesion-masks /nonexistent is not a folder"),
        (["-d", "x=/nonexistent"], "-d x=/nonexistent: /nonexistent is not a folder: check the path."),
        (["--template", "NoSuchTemplate"], "Template NoSuchTemplate was not found"),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_2(dataset, capsys, monkeypatch, options, reason):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(dataset.parent / "tf"))
    assert run(dataset, *options) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert error.startswith("bids_inpaint: error: ")
    assert reason in error


def test_cuda_without_cuda(dataset, capsys):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    assert run(dataset, "--device", "cuda") == 2
    assert "install onnxruntime-gpu" in capsys.readouterr().err


def test_unknown_plugin(dataset, capsys):
    file = dataset.parent / "plugin.yml"
    file.write_text("plugin: Nope\n")
    assert run(dataset, "--use-plugin", str(file)) == 2
    assert "'Nope', which Nipype does not have" in capsys.readouterr().err


def test_invalid_datasets_are_refused_unless_told(dataset, capsys):
    (dataset / "sub-01" / "anat" / "sub-01_T1.nii.gz").write_bytes(b"")
    out = dataset.parent / "out"
    argv = [str(dataset), str(out), "participant", "-w", str(dataset.parent / "w"), "--boilerplate-only"]
    assert cli.main([*argv, "--participant-label", "01"]) == 2
    assert "is not valid BIDS" in capsys.readouterr().err
    # what others' files are is no matter
    assert cli.main([*argv, "--participant-label", "02"]) == 0
    # one participant does not stop the others
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--skip-bids-validation"]) == 0


def test_boilerplate_only(dataset, capsys):
    assert run(dataset, "--boilerplate-only", "--participant-label", "sub-01", "02") == 0
    out = dataset.parent / "out"
    text = (out / "logs" / "CITATION.md").read_text()
    assert "@manjon2020" in text
    assert "MNI152NLin2009aSym" in text
    cited = {word for word in text.replace("[", " ").replace("]", " ").split() if word.startswith("@")}
    bibliography = (out / "logs" / "CITATION.bib").read_text()
    assert all(f"{{{key.strip('@.,;')}," in bibliography for key in cited)
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert not list(out.glob("sub-*"))
    (file,) = out.glob("logs/*/settings.toml")
    saved = Settings.load(file)
    assert (saved.participant_label, saved.boilerplate_only) == (("01", "02"), True)


def test_a_network_that_needs_masks_fills_what_the_default_one_finds(dataset):
    assert run(dataset, "--boilerplate-only", "--model", "unet") == 0
    text = (dataset.parent / "out" / "logs" / "CITATION.md").read_text()
    assert "blind, without masks) with the network 'blind-unet'" in text
    assert "the non-blind network 'unet'" in text
    assert "the mean of both" not in text


def test_without_a_home(monkeypatch, tmp_path):
    """Libraries that keep files there find a place to write."""
    from bids_inpaint.environment import settle

    names = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.delenv("HOME")
    settle()
    home = os.environ["HOME"]
    assert os.access(home, os.W_OK)
    assert all(os.environ[name].startswith(home) for name in names)
    monkeypatch.setenv("HOME", str(tmp_path))
    settle()
    assert os.environ["HOME"] == str(tmp_path)
