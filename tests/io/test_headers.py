"""A header has one meaning: where an image lies does not depend on how that is written down."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from helpers import write_nifti

from bids_inpaint import errors
from bids_inpaint.io import headers, images
from bids_inpaint.io.images import stored_values, write_like

#: An oblique lattice of 96 mm.
TURN = np.radians(10)
PLACE = np.array(
    [
        [-2 * np.cos(TURN), -2 * np.sin(TURN), 0, 60],
        [-2 * np.sin(TURN), 2 * np.cos(TURN), 0, -40],
        [0, 0, 2, -30],
        [0, 0, 0, 1],
    ]
)
DATA = np.arange(48**3, dtype=np.int16).reshape(48, 48, 48)


def write(path, matrix=PLACE, sform=1, qform=1, unit=2, kind=nib.Nifti1Image, dtype=np.int16):
    image = kind(DATA.astype(dtype), None, dtype=dtype)
    image.set_qform(matrix, qform)
    image.set_sform(matrix, sform)
    image.header["xyzt_units"] = unit
    image.to_filename(path)
    return path


def change(path, offset, layout, *values):
    """Overwrite a field of a header."""
    pack = gzip.compress if path.suffix == ".gz" else bytes
    raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(pack(bytes(raw)))
    return path


def place(path):
    """Affine of an image, and what is said of its header."""
    warnings = []
    data, grid = images.load_t1w(path, warnings)
    np.testing.assert_array_equal(data, DATA)
    return grid.matrix, warnings


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (2, 4), (4, 1), (3, 0)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_usable_form_places_the_image(tmp_path, codes, kind):
    matrix, warnings = place(write(tmp_path / "a_T1w.nii.gz", qform=codes[0], sform=codes[1], kind=kind))
    np.testing.assert_allclose(matrix, PLACE, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize(("unit", "factor"), [(1, 0.001), (2, 1), (3, 1000), (0, 1), (10, 1), (11, 1000)])
def test_units_of_length_are_read(tmp_path, unit, factor):
    matrix = np.diag([factor, factor, factor, 1]) @ PLACE
    found, warnings = place(write(tmp_path / "a_T1w.nii.gz", matrix, unit=unit))
    np.testing.assert_allclose(found, PLACE, rtol=1e-5, atol=1e-3)
    assert warnings == []


@pytest.mark.parametrize(("unit", "name"), [(1, "metres"), (3, "micrometres")])
def test_a_wrong_unit_is_named_and_not_believed(tmp_path, unit, name):
    found, warnings = place(write(tmp_path / "a_T1w.nii.gz", unit=unit))
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert len(warnings) == 1
    assert f"said to be {name}" in warnings[0]


@pytest.mark.parametrize("factor", [15, 1000])
def test_an_extent_no_head_has_is_refused(tmp_path, factor):
    path = write(tmp_path / "a_T1w.nii.gz", np.diag([factor, factor, factor, 1]) @ PLACE)
    with pytest.raises(
        errors.InputError, match=rf"a_T1w.nii.gz covers {96 * factor}×.*voxel sizes or the unit"
    ):
        images.load_t1w(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("sform", [1, 0])
def test_a_quaternion_longer_than_one_by_rounding_is_used(tmp_path, suffix, sform):
    matrix = np.diag([-2.0, 2, -2, 1])
    path = write(tmp_path / f"a_T1w{suffix}", matrix, sform=sform)
    change(path, 256, "<fff", 0.0, 1.0000005, 0.0)
    found, warnings = place(path)
    np.testing.assert_allclose(found, matrix, atol=1e-5)
    assert warnings == []
    raw, stored, _, grid = stored_values(path)
    written = nib.load(write_like(raw, stored, str(tmp_path / "out.nii.gz")))
    np.testing.assert_allclose(written.get_qform(), found, atol=1e-5)
    np.testing.assert_allclose(written.affine, grid.matrix)


def test_a_qform_that_is_no_rotation_is_left_out(tmp_path):
    path = change(write(tmp_path / "a_T1w.nii.gz"), 256, "<fff", 0.9, 0.9, 0.9)
    found, warnings = place(path)
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert "qform holds no rotation" in warnings[0]


def test_a_zero_sform_gives_way_to_the_qform(tmp_path):
    path = change(write(tmp_path / "a_T1w.nii.gz"), 280, "<12f", *[0.0] * 12)
    found, warnings = place(path)
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert "sform has a code and holds no affine; the qform was used" in warnings[0]


def test_forms_that_disagree_are_named_with_both_affines(tmp_path):
    path = write(tmp_path / "a_T1w.nii.gz")
    image = nib.load(path)
    moved = PLACE.copy()
    moved[1, 3] += 12
    image.set_sform(moved, 2)
    image.to_filename(path)
    found, warnings = place(path)
    np.testing.assert_allclose(found, moved, atol=1e-4)
    assert "12.0 mm apart" in warnings[0]
    assert headers.written(moved) in warnings[0]
    # half a voxel is rounding
    moved[1, 3] -= 11.2
    image.set_sform(moved, 2)
    image.to_filename(path)
    assert place(path)[1] == []


def test_without_codes_left_and_right_are_a_guess_and_stay_one(tmp_path):
    path = write(tmp_path / "a_T1w.nii.gz", sform=0, qform=0)
    found, warnings = place(path)
    np.testing.assert_allclose(found, nib.load(path).affine)
    assert "left and right are a guess" in warnings[0]
    raw, stored, _, grid = stored_values(path)
    paths = [write_like(raw, stored, str(tmp_path / "t1w.nii.gz"))]
    paths.append(images.save(tmp_path / "mask.nii.gz", stored > 5, grid, np.uint8))
    for one in map(nib.load, paths):
        assert int(one.header["sform_code"]) == int(one.header["qform_code"]) == 0
        np.testing.assert_allclose(one.affine, found)


@pytest.mark.parametrize("code", [1, 2, 4])
def test_results_keep_the_code_of_the_coordinates(tmp_path, code):
    _, stored, _, grid = stored_values(write(tmp_path / "a_T1w.nii.gz", sform=code, qform=code))
    images.save(tmp_path / "mask.nii.gz", stored > 5, grid, np.uint8)
    assert int(nib.load(tmp_path / "mask.nii.gz").header["sform_code"]) == code


def test_what_is_written_is_in_millimetres(tmp_path):
    path = write(tmp_path / "a_T1w.nii.gz", np.diag([1e-3, 1e-3, 1e-3, 1]) @ PLACE, unit=1)
    raw, stored, _, _ = stored_values(path)
    out = nib.load(write_like(raw, stored, str(tmp_path / "out.nii.gz")))
    np.testing.assert_allclose(out.affine, PLACE, rtol=1e-5, atol=1e-3)
    assert out.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f4", ">f4", "f8"])
def test_every_type_is_read_and_written_as_it_was(tmp_path, dtype):
    values = (np.arange(48**3) % 100).reshape(48, 48, 48).astype(dtype)
    image = nib.Nifti1Image(values, PLACE, dtype=np.dtype(dtype))
    image.to_filename(tmp_path / "a_T1w.nii.gz")
    data, _ = images.load_t1w(tmp_path / "a_T1w.nii.gz")
    np.testing.assert_array_equal(data, values.astype(np.float32))
    raw, stored, _, _ = stored_values(tmp_path / "a_T1w.nii.gz")
    out = nib.load(write_like(raw, stored, str(tmp_path / "out.nii.gz")))
    assert out.get_data_dtype().newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), values)


def test_big_endian_files_and_offsets_that_are_no_number(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.Nifti1Image(DATA, PLACE, header).to_filename(tmp_path / "a_T1w.nii.gz")
    assert place(tmp_path / "a_T1w.nii.gz")[1] == []
    path = change(write(tmp_path / "b_T1w.nii.gz"), 112, "<ff", 1.0, np.nan)
    found, warnings = place(path)
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert "offset that is no number" in warnings[0]
    # a slope of 0 means that there is no scale, whatever the offset
    assert place(change(write(tmp_path / "c_T1w.nii.gz"), 112, "<ff", 0.0, 7.0))[1] == []


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (b"/annex/objects/MD5E-s35--0123.nii.gz\n", "datalad get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_pointers_to_content_are_named(tmp_path, text, remedy):
    (tmp_path / "a_T1w.nii.gz").write_bytes(text)
    with pytest.raises(errors.InputError, match=f"content that is not here.*{remedy}"):
        images.load_t1w(tmp_path / "a_T1w.nii.gz")


def test_background_that_is_no_number_is_no_signal(tmp_path):
    head = np.zeros((32, 32, 32), np.float32)
    head[4:28, 4:28, 4:28] = 100 + np.arange(24)
    background = head == 0
    for value in (np.nan, -np.inf, np.inf):
        path = write_nifti(tmp_path / "a_T1w.nii.gz", np.where(background, np.float32(value), head))
        warnings = []
        data, _ = images.load_t1w(path, warnings)
        np.testing.assert_array_equal(data, head)
        assert f"NaN or infinite values around the head (voxels: {background.sum()})" in warnings[0]
    head[14:16, 14, 14] = np.nan
    with pytest.raises(errors.InputError, match=r"NaN or infinite values inside the head \(voxels: 2\)"):
        images.load_t1w(write_nifti(tmp_path / "b_T1w.nii.gz", head))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [0.0, -2.0, np.nan, np.inf])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxel_sizes_that_are_none_are_needed_or_not(tmp_path, axis, size, kind):
    where = (76 + 4 * (1 + axis), "<f") if kind is nib.Nifti1Image else (104 + 8 * (1 + axis), "<d")
    for forms in ({"sform": 0}, {"sform": 0, "qform": 0}):
        path = change(write(tmp_path / "a_T1w.nii", kind=kind, **forms), *where, size)
        with pytest.raises(
            errors.InputError, match=r"a_T1w.nii has no usable voxel size.*: convert it again"
        ):
            images.load_t1w(path)
    path = change(write(tmp_path / "a_T1w.nii", kind=kind), *where, size)
    found, warnings = place(path)
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert len(warnings) == 1
    assert "so that its qform was left out" in warnings[0]
    raw, stored, _, _ = stored_values(path)
    written = nib.load(write_like(raw, stored, str(tmp_path / "out.nii")))
    np.testing.assert_allclose(written.get_qform(), PLACE, atol=1e-4)
    found, warnings = place(change(write(tmp_path / "a_T1w.nii", qform=0, kind=kind), *where, size))
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize("code", [-1, 17, 32767])
def test_forms_with_codes_that_nifti_does_not_know_are_used_and_named(tmp_path, code):
    moved = PLACE.copy()
    moved[:3, 3] += [8, 0, 0]
    for offset, name, others in ((254, "sform", {"qform": 0}), (252, "qform", {"sform": 0})):
        path = change(write(tmp_path / "a_T1w.nii.gz", **others), offset, "<h", code)
        found, warnings = place(path)
        np.testing.assert_allclose(found, PLACE, atol=1e-4)
        assert len(warnings) == 1
        assert f"its {name} has the code {code}, which NIfTI does not know; it was taken as 2" in warnings[0]
        assert images.load_t1w(path)[1].code == 2
    path = change(write(tmp_path / "a_T1w.nii.gz"), 254, "<h", code)
    change(path, 268, "<f", float(moved[0, 3]))
    found, warnings = place(path)
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert "8.0 mm apart" in warnings[1]


@pytest.mark.parametrize(("side", "sign"), [(0.0, 1), (0.5, 1), (np.nan, 1), (-1.0, -1)])
def test_the_side_of_a_qform_is_read_as_by_other_programs(tmp_path, side, sign):
    found, warnings = place(change(write(tmp_path / "a_T1w.nii", sform=0), 76, "<f", side))
    first = nib.load(write(tmp_path / "b_T1w.nii", sform=0)).header["pixdim"][0]
    np.testing.assert_allclose(found[:, 2], PLACE[:, 2] * sign * first, atol=1e-4)
    assert warnings == []


def test_a_qform_whose_side_no_two_programs_agree_on_is_left_out(tmp_path):
    found, warnings = place(change(write(tmp_path / "a_T1w.nii"), 76, "<f", -0.5))
    np.testing.assert_allclose(found, PLACE, atol=1e-4)
    assert "qform holds no rotation" in warnings[0]


@pytest.mark.parametrize("offset", [0.0, 1.0, 348.0, -16.0, np.nan])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_do_not_begin_within_the_header(tmp_path, offset, suffix):
    path = change(write(tmp_path / f"a_T1w{suffix}"), 108, "<f", offset)
    for reader in (images.load_t1w, images.load_given, stored_values):
        with pytest.raises(errors.InputError, match=r"a_T1w.nii.* \(its voxels begin at byte .*convert it"):
            reader(path)


def test_voxels_of_nifti_2_begin_behind_its_longer_header(tmp_path):
    path = write(tmp_path / "a_T1w.nii", kind=nib.Nifti2Image)
    assert place(path)[1] == []
    for offset in (0, 352):
        with pytest.raises(
            errors.InputError, match=r"begin at byte .*, inside its header, which ends at 544"
        ):
            images.load_t1w(change(path, 168, "<q", offset))


def test_a_plane_is_no_volume_whatever_its_forms(tmp_path):
    image = nib.Nifti1Image(DATA[:, :, 0], PLACE)
    image.set_qform(PLACE, 1)
    image.to_filename(tmp_path / "a_T1w.nii")
    with pytest.raises(errors.InputError, match="is not a volume"):
        images.load_t1w(tmp_path / "a_T1w.nii")
