import numpy as np
import pytest

from bids_inpaint import space
from bids_inpaint.space import WORKING_GRID, Grid, bounding_box, resample


def blob(grid: Grid, centre, sigma=6.0) -> np.ndarray:
    index = np.indices(grid.shape).reshape(3, -1)
    world = grid.matrix[:3, :3] @ index + grid.matrix[:3, 3:]
    away = ((world - np.array(centre)[:, None]) ** 2).sum(0)
    return np.exp(-away / (2 * sigma**2)).reshape(grid.shape)


def centre_of(data: np.ndarray, grid: Grid) -> np.ndarray:
    weights = data.ravel() / data.sum()
    return grid.matrix[:3, :3] @ (np.indices(grid.shape).reshape(3, -1) @ weights) + grid.matrix[:3, 3]


@pytest.mark.parametrize("order", ["LAS", "RPI", "ASR", "PIR"])
def test_resampling_keeps_world_positions(order):
    """A spot stays at its millimetres whatever the order and direction of the axes."""
    import nibabel as nib

    codes = nib.orientations.axcodes2ornt(order)
    base = Grid.of((60, 70, 50), np.array([[2, 0, 0, -60], [0, 2, 0, -70], [0, 0, 2.5, -60], [0, 0, 0, 1]]))
    image = nib.Nifti1Image(blob(base, (13, -21, 9)), base.matrix)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), codes))
    source = Grid.of(turned.shape, turned.affine)
    out = resample(turned.get_fdata(), source, WORKING_GRID, order=1)
    np.testing.assert_allclose(centre_of(out, WORKING_GRID), (13, -21, 9), atol=0.05)


def test_resampling_there_and_back_through_an_affine():
    world = np.array([[1.1, 0.05, 0, 3], [-0.04, 0.95, 0.1, -2], [0, -0.08, 1.02, 4], [0, 0, 0, 1]])
    native = Grid.of((80, 90, 40), np.array([[-2, 0, 0, 80], [0, 2, 0, -90], [0, 0, 4, -70], [0, 0, 0, 1]]))
    data = blob(native, (10, 5, -8), sigma=12)
    there = resample(data, native, WORKING_GRID, world)
    back = resample(there, WORKING_GRID, native, np.linalg.inv(world))
    assert np.abs(back - data).max() < 0.02
    expected = np.linalg.solve(world, [10, 5, -8, 1])[:3]
    np.testing.assert_allclose(centre_of(there, WORKING_GRID), expected, atol=0.1)


def test_cubic_resampling_does_not_overshoot():
    box = np.zeros((20, 20, 20), np.float32)
    box[5:15, 5:15, 5:15] = 100
    fine = Grid.of((40, 40, 40), np.diag([0.5, 0.5, 0.5, 1]))
    out = resample(box, Grid.of(box.shape, np.eye(4)), fine)
    assert out.min() >= 0
    assert out.max() <= 100


def test_same_grid_is_a_copy():
    data = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    grid = Grid.of(data.shape, np.eye(4))
    out = resample(data, grid, grid)
    assert (out == data).all()
    assert out is not data


def test_bounding_box_stays_inside():
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 2:4, 6] = True
    assert bounding_box(mask, 2) == (slice(0, 3), slice(0, 6), slice(4, 7))
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3, 3), bool))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_resampling_some_voxels_is_a_part_of_the_whole(order):
    rng = np.random.default_rng(0)
    source = Grid.of((20, 22, 24), [[-2, 0.1, 0, 19], [0, 2, 0.2, -20], [0, 0, 2, -22], [0, 0, 0, 1]])
    target = Grid.of((30, 31, 32), [[1.5, 0, 0, -20], [0, 1.4, 0, -20], [0, 0, 1.3, -20], [0, 0, 0, 1]])
    data = rng.random(source.shape)
    where = rng.random(target.shape) < 0.1
    whole, part = (resample(data, source, target, order=order, mask=w) for w in (None, where))
    np.testing.assert_allclose(part, np.where(where, whole, 0), atol=1e-5)
    assert part.any()


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("at", [(1, 1, 1), (18, 3, 10), (10, 20, 22)])
def test_what_is_nearly_empty_is_resampled_as_anything_else(order, at):
    source = Grid.of((20, 22, 24), [[-2, 0.9, 0, 19], [0.3, 2, 1.2, -20], [0, 0.5, 2, -22], [0, 0, 0, 1]])
    target = Grid.of((90, 61, 62), [[0, 1.1, 0, -30], [1.2, 0, 0.3, -40], [0, 0, 1.5, -40], [0, 0, 0, 1]])
    data = np.zeros(source.shape)
    data[at] = 5
    spot = resample(data, source, target, order=order)
    # the border is 0, and so is what continues it
    expected = resample(data, source, target, order=order, outside="nearest")
    assert (spot == expected).all()
    assert spot.any()
    assert not resample(data * 0, source, target, order=order).any()


def test_outside_continues_or_is_zero():
    source = Grid.of((4, 4, 4), np.eye(4))
    target = Grid.of((8, 4, 4), np.eye(4))
    data = np.full(source.shape, 3.0)
    assert not resample(data, source, target, order=1)[5:].any()
    assert (resample(data, source, target, order=1, outside="nearest") == 3).all()


@pytest.mark.parametrize(("order", "outside"), [(0, "zero"), (1, "zero"), (1, "nearest"), (3, "zero")])
def test_a_part_is_what_the_whole_has_there(order, outside):
    source = Grid.of((40, 40, 40), np.diag([2, 2, 2, 1]))
    target = Grid.of((60, 70, 50), [[1.1, 0.1, 0, 5], [0, 1.2, 0, -3], [0, 0, 1.3, 4], [0, 0, 0, 1]])
    data = blob(source, [40, 40, 40])
    mask = np.zeros(target.shape, bool)
    mask[5:40, 10:60, 3:45] = True
    part = (slice(2, 45), slice(0, 61), slice(1, 50))
    for chosen in (None, mask):
        whole = resample(data, source, target, order=order, outside=outside, mask=chosen)
        inside = resample(
            data, source, target, None, order, outside, None if chosen is None else chosen[part], part
        )
        np.testing.assert_allclose(inside, whole[part], atol=1e-6)


def test_slabs_change_nothing(monkeypatch):
    source = Grid.of((30, 30, 30), np.diag([2, 2, 2, 1]))
    target = Grid.of((50, 50, 50), np.diag([1.1, 1.1, 1.1, 1]))
    data, mask = blob(source, [30, 30, 30]), np.ones(target.shape, bool)
    at_once = resample(data, source, target, order=1, mask=mask)
    monkeypatch.setattr(space, "_AT_ONCE", 3 * 50 * 50)
    np.testing.assert_allclose(resample(data, source, target, order=1, mask=mask), at_once, atol=1e-6)
