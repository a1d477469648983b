import os
import tomllib

import pytest
from helpers import small_disk as mounted
from helpers import write_dataset

from bids_inpaint.errors import InputError
from bids_inpaint.settings import Settings, check

#: What means something in TOML.
ODD = "a \"b\" \\ 'c' # [d] = \x7f\t\x1b é 😀"


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")


def make(dataset, **options):
    folder = dataset.parent
    return Settings(**({"bids_dir": dataset, "output_dir": folder / "o", "work_dir": folder / "w"} | options))


def checked(dataset, **options):
    settings = make(dataset, **options)
    check(settings)
    return settings


def test_settings_touch_nothing_until_they_are_checked(dataset):
    settings = make(dataset)
    assert not settings.output_dir.exists()
    assert not settings.work_dir.exists()
    check(settings)
    assert list(settings.output_dir.iterdir()) == list(settings.work_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["output_dir", "work_dir"])
def test_folders_inside_the_input(dataset, name):
    for inside in (dataset, dataset / "sub-01", dataset / "out", dataset / "derivatives"):
        with pytest.raises(InputError, match="lies inside the dataset"):
            checked(dataset, **{name: inside})
    allowed = dataset / "derivatives" / "bids_inpaint"
    assert getattr(checked(dataset, **{name: allowed}), name) == allowed


def test_links_into_the_input_are_seen_through(dataset):
    (dataset / "real").mkdir()
    link = dataset.parent / "link"
    link.symlink_to(dataset / "real")
    with pytest.raises(InputError, match="lies inside the dataset"):
        checked(dataset, output_dir=link)


@pytest.mark.parametrize("name", ["output_dir", "work_dir"])
def test_unwritable_folder(dataset, name):
    blocked = dataset.parent / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match=f"{blocked}/x can't be written"):
        checked(dataset, **{name: blocked / "x"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(dataset):
    locked = dataset.parent / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(InputError, match="can't be written"):
        checked(dataset, output_dir=locked)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    with mounted(tmp_path / "disk", "64k") as folder:
        yield folder


def test_full_disk(dataset, small_disk):
    (small_disk / "fill").write_bytes(b"x" * 60 * 1024)
    with pytest.raises(InputError, match=r"can't be written \(No space left on device\)"):
        checked(dataset, output_dir=small_disk / "out")
    assert not list(small_disk.rglob(".write-test*"))


def test_disk_that_fills_up_during_the_run_keeps_no_part(small_disk, tmp_path):
    from bids_inpaint.io.files import publish

    source = tmp_path / "image.nii.gz"
    source.write_bytes(b"x" * 200_000)
    with pytest.raises(OSError, match="No space left"):
        publish(source, small_disk / "image.nii.gz")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("crash", "sentence"),
    [
        ("Node: a.b.c\nx\nInputError: /x.nii is bad: mend it.\n\n", "/x.nii is bad: mend it."),
        (
            "Node: wf.a.save\nOSError: [Errno 28] No space left on device: '/x'",
            "Step a.save found",
        ),
        ("Node: wf.sub_01_wf.n4\nWorkerKilled: probably", "smaller --nprocs"),
        ("Node: wf.sub_01_wf.n4\nthe results file corresponding\nto the node", "run the same command again"),
        ("Node: wf.sub_01_wf.n4\nRuntimeError: boom", "Step sub_01_wf.n4 failed (RuntimeError: boom)"),
    ],
)
def test_crashes_are_explained(dataset, crash, sentence):
    from bids_inpaint.participant.crashes import explain

    assert sentence in explain(crash, make(dataset))


@pytest.mark.parametrize(
    "options",
    [
        {"lesion_threshold": 0.0},
        {"lesion_threshold": 1.5},
        {"lesion_min_volume": -1},
        {"nprocs": 0},
        {"mem_gb": -2.0},
        {"sampling_steps": 1001},
    ],
)
def test_values_out_of_range(dataset, options):
    (name,) = options
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} "):
        make(dataset, **options)


@pytest.mark.parametrize(
    "name", ["device", "sampler", "fill", "segmentation", "skull_strip", "bias_correction"]
)
def test_a_slip_of_the_pen_is_no_choice(dataset, name):
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} can't be 'lesion': choose from "):
        make(dataset, **{name: "lesion"})


def test_saved_settings_are_read_back(dataset):
    (dataset.parent / ODD).mkdir()
    for settings in (
        make(dataset),
        make(
            dataset,
            output_dir=dataset.parent / ODD,
            participant_label=("01", "02"),
            derivatives={ODD: dataset.parent / ODD, "x": dataset},
            lesion_masks=dataset,
            lesion_threshold=1e-5,
            lesion_min_volume=1e16,
            mem_gb=2,
            omp_nthreads=3,
            sampler="heun",
            sampling_steps=7,
            segmentation="spm12",
            spm12=dataset,
            strict=True,
            verbose=2,
        ),
    ):
        path = settings.save("participant", "some-uuid")
        assert path == settings.output_dir / "logs/some-uuid/settings.toml"
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert Settings.load(path) == settings
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        assert (content["analysis_level"], content["run_uuid"]) == ("participant", "some-uuid")


def test_threads_never_exceed_processors(dataset):
    assert make(dataset, nprocs=2, omp_nthreads=16).threads(1) == 2
    assert make(dataset, nprocs=1).threads(1) == 1
    assert [make(dataset, nprocs=16).threads(n) for n in (1, 3, 8, 100)] == [8, 5, 2, 1]
