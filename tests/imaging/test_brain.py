import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.demo import acquire, tilted
from bids_inpaint.imaging import brain
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images
from bids_inpaint.networks import extraction, registry
from bids_inpaint.space import Grid, upright


def ellipsoid(shape, axes):
    index = np.indices(shape) - (np.array(shape) / 2)[:, None, None, None]
    return ((index / np.array(axes)[:, None, None, None]) ** 2).sum(0) < 1


@pytest.fixture(scope="module")
def stripped():
    grid = tilted((96, 116, 100), (1.9, 1.9, 1.9), 12)
    return acquire(grid)[0].astype(np.float32), grid


def test_stripped_images_are_recognised(stripped):
    data, grid = stripped
    mask = brain.stripped_mask(data, grid)
    assert mask is not None
    assert 1.3e6 < mask.sum() * grid.voxel_volume < 2.1e6
    # ventricles and sulci are inside
    assert mask[data > 0].mean() > 0.995
    middle = tuple(n // 2 for n in data.shape)
    assert mask[middle]


def test_negative_ringing_around_the_brain_is_background(stripped):
    data, grid = stripped
    rng = np.random.default_rng(0)
    ring = np.where(data == 0, rng.normal(0, 5, data.shape) * (rng.random(data.shape) < 0.02), data)
    mask = brain.stripped_mask(ring.astype(np.float32), grid)
    assert mask is not None


def test_heads_are_not_taken_for_stripped(stripped):
    data, grid = stripped
    noise = np.random.default_rng(1).rayleigh(8, data.shape).astype(np.float32)
    assert brain.stripped_mask(data + noise, grid) is None
    # air set to zero, but scalp around the brain
    head = ellipsoid(data.shape, (46, 56, 48))
    assert brain.stripped_mask(np.where(data > 0, data, 300 * head), grid) is None


@pytest.fixture(scope="module")
def head(stripped):
    """The brain in a head: bright scalp beyond a dark gap, noise, and a neck."""
    data, grid = stripped
    mask = brain.stripped_mask(data, grid)
    away = ndimage.distance_transform_edt(~mask, sampling=grid.voxel_sizes)
    rng = np.random.default_rng(2)
    level = np.median(data[mask])
    scalp = (away > 5) & (away < 12)
    whole = np.where(scalp, 1.1 * level, data) + rng.rayleigh(0.02 * level, data.shape)
    return whole.astype(np.float32), mask, grid


def test_brains_of_heads_are_extracted(head):
    data, mask, grid = head
    found = extraction.extract(data, grid, registry.find(registry.BRAIN, "brain"))
    assert dice(found, mask) > 0.93


def test_extraction_does_not_depend_on_how_voxels_are_stored(head):
    """The same head stored with other axes, flipped, in other units: the same mask at the same place."""
    data, _, grid = head
    model = registry.find(registry.BRAIN, "brain")
    one = extraction.extract(data, grid, model)
    turned = nib.Nifti1Image(900 * data, grid.matrix).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    other = extraction.extract(
        turned.get_fdata(dtype=np.float32), Grid.of(turned.shape, turned.affine), model
    )
    back = np.flip(other.transpose(2, 0, 1), (0, 2))
    assert back.shape == one.shape
    assert dice(back, one) > 0.998


def test_extraction_does_not_depend_on_empty_slices_or_rounding(head):
    """The network pools, so that masks used to change with the number of slices around the head."""
    data, _, grid = head
    model = registry.find(registry.BRAIN, "brain")
    # without noise in the air, which has an end where the volume has one
    data = np.where(data > 0.1 * np.median(data[data > 0]), data, 0)
    one = extraction.extract(data, grid, model)
    before, after = (5, 0, 3), (2, 7, 0)
    moved = grid.matrix.copy()
    moved[:3, 3] -= grid.matrix[:3, :3] @ before
    padded = np.pad(data, list(zip(before, after, strict=True)))
    other = extraction.extract(padded, Grid.of(padded.shape, moved), model)
    inside = tuple(slice(b, b + n) for b, n in zip(before, data.shape, strict=True))
    assert (other[inside] != one).sum() < 1e-3 * one.sum()
    rounded = Grid.of(grid.shape, grid.matrix * (1 + 1e-7))
    assert (extraction.extract(data, rounded, model) != one).sum() < 1e-4 * one.sum()


def test_empty_foreground():
    grid = tilted((20, 20, 20), (8, 8, 8))
    assert brain.stripped_mask(np.zeros((20, 20, 20), np.float32), grid) is None


def test_real_images(real_data):
    """All stripped datasets are recognised as such, and no full head is."""
    for name, expected in (
        ("ds002748/sub-31", True),
        ("oasis_trt/sub-1119", True),
        ("ms/sub-openms26", True),
        ("ms/sub-mslesseg14", True),
        ("ds000011/sub-01", False),
        ("ms/sub-thick01", False),
    ):
        path = next((real_data / name).rglob("*T1w.nii.gz"))
        data, grid = images.load_t1w(path)
        assert (brain.stripped_mask(data, grid) is not None) is expected, name


def test_upright_cubes_cover_a_tilted_image():
    grid = tilted((96, 60, 100), (1.9, 3.0, 1.9), 12)
    cubes = upright(grid, 2.0)
    assert cubes.voxel_sizes.tolist() == [2, 2, 2]
    assert all(n % 2 == 0 for n in cubes.shape)
    corners = np.array([[x, y, z, 1] for x in (-0.5, 95.5) for y in (-0.5, 59.5) for z in (-0.5, 99.5)])
    voxels = (np.linalg.inv(cubes.matrix) @ grid.matrix @ corners.T)[:3]
    assert (voxels.min(1) >= -0.501).all()
    assert (voxels.max(1) <= np.array(cubes.shape) - 0.499).all()
    assert (voxels.max(1) >= np.array(cubes.shape) - 2.51).all()


def test_normalised_heads_do_not_depend_on_unit_or_zeros():
    rng = np.random.default_rng(0)
    image = np.zeros((30, 30, 30), np.float32)
    image[5:25, 5:25, 5:25] = rng.random((20, 20, 20)) + 0.1
    one, two = extraction.normalise(image), extraction.normalise(np.pad(image * 700, 10))
    np.testing.assert_allclose(two[10:-10, 10:-10, 10:-10], one, atol=1e-4)
    assert one.max() == 1
    assert not extraction.normalise(np.zeros((4, 4, 4), np.float32)).any()
