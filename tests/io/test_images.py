"""Bad input gets one sentence that names the file, the reason and the remedy."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import write_nifti

from bids_inpaint import errors
from bids_inpaint.io import images
from bids_inpaint.space import Grid

GOOD = np.random.default_rng(0).integers(0, 900, (32, 40, 32)).astype(np.int16)


def changed(**values):
    data = GOOD.astype(np.float32)
    for where, value in values.items():
        data[tuple(int(i) for i in where[1:])] = value
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.stack([GOOD] * 3, -1), "holds 3 volumes"),
        (GOOD[:, :, 0], "is not a volume"),
        (GOOD[:, :, :1], "is not a volume"),
        (np.zeros_like(GOOD), "is 0 everywhere"),
        (np.full_like(GOOD, 7), "is 7 everywhere"),
        (changed(v111=np.nan, v123=np.inf), "NaN or infinite values inside the head (voxels: 2)"),
        (GOOD[:10, :10, :10], "covers only 40×40×40 mm"),
    ],
)
def test_unusable_images_are_refused(tmp_path, data, reason):
    path = write_nifti(tmp_path / "bad_T1w.nii.gz", data)
    with pytest.raises(errors.InputError) as caught:
        images.load_t1w(path)
    message = str(caught.value)
    assert str(path) in message
    assert reason in message
    assert ": " in message.removeprefix(str(path))
    assert "\n" not in message


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_missing_voxel_size(tmp_path, size):
    path = write_nifti(tmp_path / "bad_T1w.nii.gz", GOOD)
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:, 2] = 0
    image.header["pixdim"][3], image.header["vox_offset"] = size, 352
    image.header["sform_code"] = 1
    image.header["srow_z"] = affine[2]
    image.header["srow_x"], image.header["srow_y"] = affine[0], affine[1]
    broken = tmp_path / "broken.nii"
    with open(broken, "wb") as file:
        file.write(image.header.binaryblock + b"\0" * 4 + GOOD.tobytes())
    with pytest.raises(errors.InputError, match="no usable voxel size"):
        images.load_t1w(broken)


@pytest.mark.parametrize("keep", [0, 100, 348, 4000])
def test_truncated_files(tmp_path, keep):
    path = write_nifti(tmp_path / "cut_T1w.nii", GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(errors.InputError, match=r"cut_T1w\.nii"):
        images.load_t1w(path)


def test_truncated_gzip(tmp_path):
    path = write_nifti(tmp_path / "cut_T1w.nii.gz", GOOD)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(errors.InputError, match="truncated or corrupt"):
        images.load_t1w(path)


def test_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    for name in ("pipe.nii.gz", "folder.nii"):
        with pytest.raises(errors.InputError, match=f"{name} is not a regular file"):
            images.load_t1w(tmp_path / name)


def test_not_nifti(tmp_path):
    path = tmp_path / "text_T1w.nii.gz"
    path.write_text("hello")
    with pytest.raises(errors.InputError, match="cannot be read as NIfTI"):
        images.load_t1w(path)


def test_one_volume_in_four_dimensions_is_fine(tmp_path):
    data, grid = images.load_t1w(write_nifti(tmp_path / "a.nii.gz", GOOD[..., None]))
    assert data.shape == grid.shape == GOOD.shape
    assert (data == GOOD).all()


def test_saving_is_atomic(tmp_path, monkeypatch):
    target = tmp_path / "a.nii.gz"
    grid = Grid.of(GOOD.shape, np.eye(4))
    images.save(target, GOOD, grid)
    before = target.read_bytes()

    def full(self, content):
        self._file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.Packed, "write", full)
    with pytest.raises(OSError, match="No space"):
        images.save(target, GOOD * 2, grid)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_same_image_same_bytes(tmp_path):
    grid = Grid.of(GOOD.shape, np.eye(4))
    one, two = (Path(images.save(tmp_path / f"{n}.nii.gz", GOOD, grid)) for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_file_is_packed_as_it_is_written(tmp_path):
    """Whole volumes of bytes are never in memory, and the file is the same as if they had been."""
    data = np.random.default_rng(0).integers(0, 9, (40, 30, 20)).astype(np.float32)
    grid = Grid.of(data.shape, np.diag([1, 2, 3, 1]))
    path = images.save(str(tmp_path / "a.nii.gz"), data, grid)
    content = Path(path).read_bytes()
    assert content == gzip.compress(gzip.decompress(content), 1, mtime=0)
    plain = Path(images.save(str(tmp_path / "a.nii"), data, grid)).read_bytes()
    assert gzip.decompress(content) == plain
    scratch = images.save(str(tmp_path / "b.nii.gz"), data, grid, scratch=True)
    assert gzip.decompress(Path(scratch).read_bytes()) == plain
    assert (images.read(scratch)[0] == data).all()
