import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from bids_inpaint.imaging import feathering, lesion_table, lesions
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.uncertainty import LesionModel
from bids_inpaint.space import Grid, resample

GRID = Grid.of((40, 40, 40), np.diag([1.0, 1, 2, 1]))
RULE = lesions.Rule("difference", threshold=0.1, low=0.0, min_volume=10)


@pytest.fixture
def scene():
    healthy = np.full(GRID.shape, 2.0, np.float32)
    white = np.ones(GRID.shape, np.float32)
    white[:, :, :10] = 0
    image = healthy.copy()
    image[10:16, 10:16, 20:26] = 1.4  # a lesion, 30% darker
    image[30:34, 30:34, 30:34] = 2.8  # brighter than healthy
    image[10:16, 10:16, 2:8] = 1.0  # dark, outside white matter
    return image, healthy, white


def test_only_dark_white_matter_is_lesion(scene):
    image, healthy, white = scene
    dark = lesions.darkening(image, healthy, white)
    found = lesions.lesion_map(lesions.probability(dark, white, 0.1), 5)
    expected = np.zeros(GRID.shape, bool)
    expected[10:16, 10:16, 20:26] = True
    assert (found & ~expected).sum() <= 0
    assert (found & expected).sum() > 0.9 * expected.sum()


def test_threshold_is_relative_to_white_matter(scene):
    image, healthy, white = scene
    for unit in (1.0, 350.0):
        dark = lesions.darkening(image * unit, healthy * unit, white)
        assert dark[12, 12, 22] == pytest.approx(0.3, abs=0.01)
        assert not lesions.lesion_map(lesions.probability(dark, white, 0.35)).any()


def test_cortex_of_the_template_is_not_searched():
    """A piece of cortex that the network made white matter of is no lesion."""
    white = np.ones(GRID.shape, np.float32)
    prior = np.zeros(GRID.shape, np.float32)
    prior[20:] = 1
    region = lesions.search_region(white, prior, GRID)
    # an affine leaves some millimetres of play, not centimetres
    assert region[20:, 20, 20].all()
    assert not region[:15, 20, 20].any()
    white[30:] = 0
    assert not lesions.search_region(white, prior, GRID)[30:].any()


def test_changes_are_kept_around_candidates_alone():
    prior = np.zeros(GRID.shape, np.float32)
    prior[20:] = 1
    image = np.full(GRID.shape, 300, np.float32)
    image[28:34, 10:16, 20:26] = 200  # a lesion
    image[4:10, 10:16, 20:26] = 200  # cortex
    inpainted = np.full(GRID.shape, 303, np.float32)
    scale = Scale(white=300.0)
    found = lesions.find_unsegmented(image, inpainted, scale, prior, RULE, GRID)
    out = feathering.confine(image, inpainted, found, GRID)
    assert (out[28:34, 10:16, 20:26] == 303).all()
    assert (out[:20] == image[:20]).all()
    assert (out[:, :, 32:] == image[:, :, 32:]).all()
    # what it brightened to less than white matter is grey matter
    inpainted[28:34, 10:16, 20:26] = 230
    assert not lesions.find_unsegmented(image, inpainted, scale, prior, RULE, GRID).any()


def test_equal_images_have_no_lesions(scene):
    _, healthy, white = scene
    dark = lesions.darkening(healthy, healthy, white)
    assert not lesions.lesion_map(lesions.probability(dark, white, 0.05)).any()


def test_small_components_are_dropped_by_corner_connectivity():
    mask = np.zeros((6, 6, 6), bool)
    mask[1, 1, 1] = mask[2, 2, 1] = True  # share an edge: one lesion
    mask[4, 4, 4] = mask[5, 5, 5] = True  # share a corner: two
    kept = lesions.remove_small(mask, 2)
    assert kept[1, 1, 1]
    assert not kept[4, 4, 4]


def test_feather_is_exactly_zero_far_away():
    mask = np.zeros(GRID.shape, bool)
    mask[20, 20, 20] = True
    weight = feathering.feather(mask, GRID)
    assert weight[20, 20, 20] == weight[21, 20, 20] == 1
    assert 0 < weight[22, 20, 20] < 1
    assert weight[23, 20, 20] == 0
    # two millimetres along z are one voxel
    assert 0 < weight[20, 20, 21] < 1
    assert weight[20, 20, 22] == 0
    assert not feathering.feather(np.zeros(GRID.shape), GRID).any()


def test_table_is_in_world_units_and_sorted():
    mask = np.zeros(GRID.shape, bool)
    mask[2, 3, 4] = True
    mask[10:13, 20:22, 30] = True
    labels, found = lesion_table.tabulate(mask, np.where(mask, 0.25, 0), GRID)
    assert [row.volume for row in found] == [12.0, 2.0]
    assert found[0].centroid == (11.0, 20.5, 60.0)
    assert found[1].centroid == (2.0, 3.0, 8.0)
    assert found[0].contrast == pytest.approx(0.25)
    assert labels[2, 3, 4] == 2
    assert labels[11, 20, 30] == 1
    empty, none = lesion_table.tabulate(np.zeros(GRID.shape, bool), np.zeros(GRID.shape), GRID)
    assert none == []
    assert not empty.any()


def test_lesions_have_their_probability_and_an_interval():
    mask = np.zeros(GRID.shape, bool)
    mask[2, 3, 4] = True
    mask[10:13, 20:22, 30] = True
    chance, doubt = np.where(mask, 0.5, 0), np.where(mask, 0.1, 0)
    chance[10, 20, 30] = 0.8
    _, found = lesion_table.tabulate(mask, np.zeros(GRID.shape), GRID, chance, doubt)
    assert [row.probability for row in found] == pytest.approx([0.55, 0.5])
    assert [row.probability_sd for row in found] == pytest.approx([0.1, 0.1])
    # half to twice the volume on the working grid, where a voxel is half as large
    model = LesionModel((np.log(0.5), 1.0, 0.0), (np.log(2.0), 1.0, 0.0))
    ends = [row.interval for row in lesion_table.with_intervals(found, model, 0.5)]
    assert np.array(ends) == pytest.approx(np.array([[0, 44.0], [0, 24.0]]))
    assert lesion_table.with_intervals([], model, 0.5) == []


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.uint16])
def test_composition_leaves_the_rest_bit_identical(dtype):
    rng = np.random.default_rng(3)
    original = (rng.random((8, 8, 8)) * 200).astype(dtype)
    weight = np.zeros((8, 8, 8), np.float32)
    weight[2:4, 2:4, 2:4] = 1
    difference = np.full((8, 8, 8), -500.0)
    out = feathering.compose(original, difference, weight)
    outside = weight == 0
    assert out.dtype == dtype
    assert (out[outside] == original[outside]).all()
    expected = original[~outside].astype(float) + 500
    if dtype == np.uint8:
        expected = np.minimum(expected, 255)
    np.testing.assert_allclose(out[~outside], expected, rtol=1e-5)


def test_composition_knows_the_scale_factor():
    original = np.full((2, 2, 2), 100, np.int16)
    out = feathering.compose(original, np.full((2, 2, 2), -5.0), np.ones((2, 2, 2)), slope=0.5)
    assert (out == 110).all()


@pytest.mark.parametrize(("angle", "shift"), [(0, 0.5), (8, 0.37), (25, 0.2)])
@pytest.mark.parametrize("size", [1.0, 0.5, 3.0])
def test_a_mask_on_another_grid_keeps_its_lesions_and_volume(angle, shift, size):
    """Thin and small ones, in slices, on a finer and on a coarser grid, turned and moved."""
    rng = np.random.default_rng(3)
    sizes = (1.0, 1.0, size)
    source = Grid.of((60, 60, round(60 / size)), np.diag([*sizes, 1]))
    mask = np.zeros(source.shape, bool)
    for centre in rng.uniform(12, 48, (25, 3)):
        start = (centre / sizes).astype(int)
        length = np.maximum(rng.integers(1, 6, 3) * (rng.random(3) < 0.6), 1)
        mask[
            tuple(slice(s, s + max(round(n / z), 1)) for s, n, z in zip(start, length, sizes, strict=True))
        ] = 1
    target = Grid.of((60, 60, 60), np.eye(4))
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", [angle, angle / 2, -angle / 2], degrees=True).as_matrix()
    world[:3, 3] = np.array([30, 30, 30]) - world[:3, :3] @ [30, 30, 30] + shift
    kept, reached = lesions.transfer(mask, source, target, world)
    volume = mask.sum() * source.voxel_volume
    assert kept.sum() == pytest.approx(volume, rel=0.03)
    assert (reached | ~kept).all()
    # each lesion is where it was
    labels, count = ndimage.label(mask, lesions.CONNECTIVITY)
    places = KDTree(np.argwhere(kept) @ world[:3, :3].T + world[:3, 3])
    for label in range(1, count + 1):
        assert places.query(np.argwhere(labels == label) * sizes)[0].min() < 0.9
    # and is inside what is filled, once that is brought back
    back = resample(reached, target, source, np.linalg.inv(world), order=1)
    assert back[mask].mean() > 0.95
