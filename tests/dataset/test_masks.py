"""What a mask means, and whether it belongs to an image."""

import struct

import nibabel as nib
import numpy as np
import pytest
from helpers import write_nifti
from scipy import ndimage

from bids_inpaint.dataset.masks import check_place, read_brain, read_lesions
from bids_inpaint.errors import InputError
from bids_inpaint.io.images import load_t1w
from bids_inpaint.io.transforms import read_xfm

AFFINE = np.array([[-4.0, 0, 0, 60], [0, 4, 0, -60], [0, 0, 4, -50], [0, 0, 0, 1]])
IMAGE = np.random.default_rng(0).integers(50, 100, (32, 30, 28)).astype(np.int16)
LESION = np.zeros(IMAGE.shape, np.uint8)
LESION[10:14, 8:11, 9:12] = 1
BRAIN = np.zeros(IMAGE.shape, np.uint8)
BRAIN[4:28, 4:26, 4:24] = 1


@pytest.fixture
def t1w(tmp_path):
    return write_nifti(tmp_path / "sub-01_T1w.nii.gz", IMAGE, AFFINE)


def lesions(path, t1w, **options):
    return read_lesions(path, load_t1w(t1w)[1], t1w, brain=BRAIN > 0, **options)


@pytest.mark.parametrize(
    "values",
    [
        LESION,
        255 * LESION,
        LESION.astype(np.int16),
        LESION.astype(np.float64),
        np.where(LESION > 0, 0.99999, 1e-5).astype(np.float32),
        np.where(LESION > 0, 1, np.nan).astype(np.float32),
        -0.0001 + LESION.astype(np.float32),
    ],
)
def test_every_way_to_write_a_mask_means_the_same(tmp_path, t1w, values):
    warnings = []
    path = write_nifti(tmp_path / "mask.nii.gz", values, AFFINE)
    np.testing.assert_array_equal(lesions(path, t1w, warnings=warnings), LESION > 0)
    assert warnings == []


def test_labels_above_zero_are_lesion_and_named(tmp_path, t1w):
    values = LESION * np.arange(1, 29, dtype=np.uint8)
    warnings = []
    path = write_nifti(tmp_path / "mask.nii.gz", values, AFFINE)
    np.testing.assert_array_equal(lesions(path, t1w, warnings=warnings), LESION > 0)
    assert warnings == ["mask.nii.gz: it has labels 10, 11, 12; all of them were taken as lesion."]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (-LESION.astype(np.int16), "values from -1 to 0"),
        (LESION - 2.0 * BRAIN, "values from -2 to"),
        (np.where(LESION > 0, np.inf, 0), "values from 0 to inf"),
        (LESION * 0.7, r"fractions \(0 to 0.7\)"),
        (np.arange(IMAGE.size, dtype=np.int32).reshape(IMAGE.shape), "values up to"),
        (BRAIN, "of the brain of .*, which no lesion does"),
        (1 - BRAIN, "does not overlap the brain"),
        (1 - BRAIN + LESION, "of its lesions in the brain"),
    ],
)
def test_what_is_no_lesion_mask_is_refused(tmp_path, t1w, values, reason):
    path = write_nifti(tmp_path / "mask.nii.gz", values, AFFINE)
    with pytest.raises(InputError, match=rf"mask.nii.gz .*{reason}"):
        lesions(path, t1w)


def test_no_lesion_is_no_lesion(tmp_path, t1w):
    for empty in (0 * LESION, np.full(LESION.shape, np.nan)):
        assert not lesions(write_nifti(tmp_path / "mask.nii.gz", empty, AFFINE), t1w).any()


def test_lesions_on_the_border_of_the_brain_are_named(tmp_path, t1w):
    border = np.zeros_like(LESION)
    border[2:8, 10:14, 10:14] = 1
    warnings = []
    lesions(write_nifti(tmp_path / "mask.nii.gz", border, AFFINE), t1w, warnings=warnings)
    assert warnings == ["mask.nii.gz: 33% of the given lesions lie outside the brain."]


def test_a_mask_with_the_voxels_of_the_image_lies_where_the_image_does(tmp_path, t1w):
    moved = AFFINE.copy()
    moved[1, 3] += 12
    for affine in (moved, np.diag([1.0, 1, 1, 1])):
        path = write_nifti(tmp_path / "mask.nii.gz", LESION, affine)
        with pytest.raises(InputError, match=r"has the voxels of .*T1w.*mm away.*copy the header"):
            check_place(path, t1w)
        with pytest.raises(InputError, match="has the voxels of"):
            read_brain(path, load_t1w(t1w)[1], t1w)
    # a fraction of a voxel is rounding, and other voxels have a place of their own
    moved[1, 3] -= 11
    check_place(write_nifti(tmp_path / "mask.nii.gz", LESION, moved), t1w)
    check_place(write_nifti(tmp_path / "mask.nii.gz", LESION[1:], moved), t1w)


@pytest.mark.parametrize("axes", ["RAS", "PIR", "ASL", "LPI"])
def test_a_mask_with_its_axes_in_another_order_is_the_same(tmp_path, t1w, axes):
    orientation = nib.orientations.axcodes2ornt(axes)
    image = nib.Nifti1Image(LESION, AFFINE)
    own = nib.orientations.io_orientation(AFFINE)
    turned = image.as_reoriented(nib.orientations.ornt_transform(own, orientation))
    turned.to_filename(tmp_path / "mask.nii.gz")
    check_place(tmp_path / "mask.nii.gz", t1w)
    np.testing.assert_array_equal(lesions(tmp_path / "mask.nii.gz", t1w), LESION > 0)


@pytest.mark.parametrize(
    ("kind", "values", "fixed", "point"),
    [
        # results of antspyx 0.6.3 (apply_to_point, LPS+)
        ("TranslationTransform_double_3_3", "5 6 7", "", (15, 26, 37)),
        ("Euler3DTransform_double_3_3", "0 0 1.5707963267948966 0 0 0", "0 0 0", (-20, 10, 30)),
        ("Euler3DTransform_double_3_3", "1.5707963267948966 0 0 1 2 3", "0 0 0 1", (11, -28, 23)),
        ("VersorRigid3DTransform_double_3_3", "0 0 0.7071067811865476 0 0 0", "10 20 30", (10, 20, 30)),
        ("Similarity3DTransform_double_3_3", "0 0 0 0 0 0 2", "0 0 0", (20, 40, 60)),
        ("ScaleVersor3DTransform_double_3_3", "0 0 0 0 0 0 1 2 3", "0 0 0", (10, 40, 90)),
        ("AffineTransform_double_3_3", "1 0 0 0 1 0 0 0 1 1 2 3", "0 0 0", (11, 22, 33)),
    ],
)
def test_linear_transforms_of_itk_are_read(tmp_path, kind, values, fixed, point):
    path = tmp_path / "x.txt"
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}\nParameters: {values}\n"
        f"FixedParameters: {fixed}\n"
    )
    flip = np.diag([-1.0, -1, 1, 1])
    np.testing.assert_allclose((flip @ read_xfm(path) @ flip @ [10, 20, 30, 1])[:3], point, atol=1e-5)


def test_other_transforms_are_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\n"
                    "Parameters: 1 2\nFixedParameters: 1\n")  # fmt: skip
    with pytest.raises(InputError, match=r"BSplineTransform_double_3_3 is no linear.*VersorRigid3D"):
        read_xfm(path)


def with_forms(path, values, sform, qform, codes=(1, 1)):
    """A mask whose codes are written as they are given, those that nibabel would change, too."""
    image = nib.Nifti1Image(values, sform)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    raw = bytearray(image.to_bytes())
    struct.pack_into("<hh", raw, 252, codes[1], codes[0])
    path.write_bytes(bytes(raw))
    return path


def test_a_mask_on_its_own_lattice_has_one_place(tmp_path, t1w):
    padded = np.pad(LESION, 3)
    own = AFFINE.copy()
    own[:3, 3] += AFFINE[:3, :3] @ [-3, -3, -3]
    np.testing.assert_array_equal(lesions(with_forms(tmp_path / "m.nii", padded, own, own), t1w), LESION > 0)
    moved = own.copy()
    moved[1, 3] += 20
    for path, reason in (
        (with_forms(tmp_path / "m.nii", padded, moved, own), "sform and qform place it 20.0 mm apart"),
        (with_forms(tmp_path / "n.nii", padded, own, own, (0, 0)), "has no orientation in its header"),
    ):
        for read in (lesions, lambda path, t1w: read_brain(path, load_t1w(t1w)[1], t1w)):
            with pytest.raises(InputError, match=rf"{path.name} .*{reason}.*not on the voxels of .*correct"):
                read(path, t1w)
    # a mask of that size in the space of a template, too
    with pytest.raises(InputError, match=r"sform and qform place it 20\.0 mm apart"):
        lesions(with_forms(tmp_path / "m.nii", padded, moved, own), t1w, world=np.eye(4))


def test_contradictions_of_a_mask_on_the_voxels_of_the_image_are_named(tmp_path, t1w):
    moved = AFFINE.copy()
    moved[1, 3] += 20
    warnings = []
    path = with_forms(tmp_path / "m.nii", LESION, AFFINE, moved)
    np.testing.assert_array_equal(lesions(path, t1w, warnings=warnings), LESION > 0)
    assert len(warnings) == 1
    assert warnings[0].startswith("m.nii: its sform and qform place it up to 20.0 mm apart")
    # one drawn on an image without orientation
    bare = with_forms(tmp_path / "sub-02_T1w.nii", IMAGE, AFFINE, AFFINE, (0, 0))
    warnings = []
    path = with_forms(tmp_path / "m.nii", LESION, AFFINE, AFFINE, (0, 0))
    np.testing.assert_array_equal(lesions(path, bare, warnings=warnings), LESION > 0)
    assert len(warnings) == 1
    assert "left and right are a guess" in warnings[0]


@pytest.mark.parametrize("top", [255, 100, 50])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_levels_in_whole_numbers_are_no_mask(tmp_path, t1w, top, dtype):
    smooth = np.round(top * ndimage.gaussian_filter(LESION.astype(float), 1.5) / 0.4).clip(0, top)
    sharp = np.round(top * ndimage.shift(ndimage.zoom(LESION, 2, order=0)[8:40, 8:38, 8:36], 0.4, float, 1))
    for values in (smooth, sharp):
        path = write_nifti(tmp_path / "mask.nii.gz", values.astype(dtype), AFFINE)
        with pytest.raises(InputError, match=r"mask.nii.gz is not a binary mask, as its .*threshold it"):
            lesions(path, t1w)


def test_numbered_lesions_are_no_levels(tmp_path, t1w):
    """Also where one is far larger than the others, and has the first or the last number."""
    apart = np.zeros(LESION.shape, np.uint8)
    apart[::3, ::3, ::3] = BRAIN[::3, ::3, ::3]
    apart[4:14, 4:14, 4:14] = 0
    many = ndimage.label(apart)[0]
    large = np.zeros_like(many)
    large[5:13, 5:13, 5:13] = 1
    for values in (many, np.where(large, 1, many + (many > 0)), np.where(large, many.max() + 1, many)):
        numbers = np.minimum(values, 250).astype(np.uint8)
        warnings = []
        path = write_nifti(tmp_path / "mask.nii.gz", numbers, AFFINE)
        np.testing.assert_array_equal(lesions(path, t1w, warnings=warnings), numbers > 0)
        assert "all of them were taken as lesion" in warnings[0]
