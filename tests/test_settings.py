import os

import pytest
from helpers import write_dataset

from bids_inpaint.images import InputError
from bids_inpaint.settings import Settings


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")


def make(dataset, **options):
    folder = dataset.parent
    return Settings(**({"bids_dir": dataset, "output_dir": folder / "o", "work_dir": folder / "w"} | options))


@pytest.mark.parametrize("name", ["output_dir", "work_dir"])
def test_folders_inside_the_input(dataset, name):
    for inside in (dataset, dataset / "sub-01", dataset / "out", dataset / "derivatives"):
        with pytest.raises(InputError, match="lies inside the dataset"):
            make(dataset, **{name: inside})
    allowed = dataset / "derivatives" / "bids_inpaint"
    assert getattr(make(dataset, **{name: allowed}), name) == allowed


def test_links_into_the_input_are_seen_through(dataset):
    (dataset / "real").mkdir()
    link = dataset.parent / "link"
    link.symlink_to(dataset / "real")
    with pytest.raises(InputError, match="lies inside the dataset"):
        make(dataset, output_dir=link)


@pytest.mark.parametrize("name", ["output_dir", "work_dir"])
def test_unwritable_folder(dataset, name):
    blocked = dataset.parent / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match=f"{blocked}/x can't be written"):
        make(dataset, **{name: blocked / "x"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(dataset):
    locked = dataset.parent / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(InputError, match="can't be written"):
        make(dataset, output_dir=locked)


def test_full_disk(dataset):
    """/dev/full is a disk without space."""
    import bids_inpaint.settings as module

    class Full(type(dataset)):
        def write_bytes(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"can't be written \(No space left on device\)"):
        module.check_writable("Output", Full(dataset.parent / "o"))


@pytest.mark.parametrize(
    "options",
    [
        {"lesion_threshold": 0.0},
        {"lesion_threshold": 1.5},
        {"lesion_min_volume": -1},
        {"nprocs": 0},
        {"mem_gb": -2.0},
    ],
)
def test_values_out_of_range(dataset, options):
    with pytest.raises(InputError, match="--"):
        make(dataset, **options)


def test_threads_never_exceed_processors(dataset):
    assert make(dataset, nprocs=2, omp_nthreads=16).threads == 2
    assert make(dataset, nprocs=1).threads == 1
