"""All visits of a person meet halfway, whatever their order, their scanners and the lesions that changed."""

from itertools import permutations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_inpaint.dataset import template
from bids_inpaint.imaging import person
from bids_inpaint.imaging.person import (
    SAME_PERSON,
    build,
    consensus,
    match,
    middle_space,
    stable_white_matter,
)
from bids_inpaint.imaging.rigid import Visit, register
from bids_inpaint.io import images
from bids_inpaint.space import Grid, resample

#: Turn (degrees about each axis), shift (mm), voxel sizes (mm), unit of intensity of each visit.
SCANS = [
    ((2, -3, 1), (3, -2, 1), (1.5, 1.5, 1.5), 1.0),
    ((-4, 1, 5), (-5, 4, 6), (1.2, 1.2, 2.0), 300.0),
    ((0, 3, -2), (1, 7, -8), (1.5, 1.5, 3.0), 0.02),
]


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    return images.read(template.prepare(template.DEFAULT, tmp_path_factory.mktemp("template")).t1w)


def scan(brain, index: int, lesions: int = 0, wider: int = 0) -> tuple[Visit, np.ndarray]:
    """A brain as a scanner sees it, and the transform from its world to that of the brain."""
    data, grid = brain
    turn, shift, sizes, unit = SCANS[index]
    to_brain = np.eye(4)
    to_brain[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    to_brain[:3, 3] = shift
    rng = np.random.default_rng(index)
    data = data.copy()
    for corner in rng.uniform((50, 60, 60), (120, 150, 110), (lesions, 3)).astype(int):
        data[tuple(slice(c, c + 9) for c in corner)] *= 0.5
    shape = np.ceil(np.array([170, 210, 180]) / sizes).astype(int)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -np.array(sizes) * (shape - 1) / 2 + [0, -18, 5] - np.array(shift)
    seen = Grid.of(shape, affine)
    values = resample(data, grid, seen, to_brain)
    mask = values > 0.1 * values.max()
    if wider:
        mask = ndimage.binary_dilation(mask, iterations=wider)
    values *= np.exp(ndimage.zoom(rng.normal(0, 0.1, (4, 4, 4)), shape / 4, order=3))
    values += rng.normal(0, 0.03 * np.median(values[mask]), values.shape)
    return Visit((unit * values * mask).astype(np.float32), seen, mask), to_brain


def away(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance (mm) between the places where two transforms put the points of a brain's box."""
    axes = (np.linspace(*ends, 5) for ends in ((-70, 70), (-105, 75), (-60, 85)))
    points = np.array([*np.meshgrid(*axes), np.ones((5, 5, 5))]).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ points)[:3], axis=0).mean())


@pytest.mark.slow
def test_two_visits_are_aligned_whatever_changed_between_them(brain):
    (one, one_true), (other, other_true) = scan(brain, 0), scan(brain, 1, lesions=30, wider=1)
    matrix, likeness = register(one, other)
    assert away(other_true @ matrix, one_true) < 0.1
    assert likeness > SAME_PERSON
    assert away(register(other, one)[0] @ matrix, np.eye(4)) < 1e-6


@pytest.mark.slow
def test_a_head_may_be_turned_and_its_scanner_may_have_another_origin(brain):
    one, one_true = scan(brain, 0)
    other, other_true = scan(brain, 1)
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", (-20, 15, 20), degrees=True).as_matrix()
    moved[:3, 3] = 80, -120, 60
    turned = Visit(other.data, Grid.of(other.grid.shape, moved @ other.grid.matrix), other.mask)
    assert away(other_true @ np.linalg.inv(moved) @ register(one, turned)[0], one_true) < 0.1


@pytest.mark.slow
def test_without_masks_all_that_is_no_background_counts(brain):
    (one, one_true), (other, other_true) = scan(brain, 0), scan(brain, 1)
    matrix, _ = register(Visit(one.data, one.grid), Visit(other.data, other.grid))
    assert away(other_true @ matrix, one_true) < 0.1


@pytest.mark.parametrize(("mask", "reason"), [(0, "empty mask"), (1, "no signal")])
def test_without_signal_there_is_nothing_to_align(mask, reason):
    grid = Grid.of((30, 30, 30), np.eye(4))
    nothing = Visit(np.zeros(grid.shape, np.float32), grid, np.full(grid.shape, mask, bool))
    with pytest.raises(ValueError, match=reason):
        register(nothing, nothing)


def test_the_middle_of_three_visits_knows_no_order(monkeypatch):
    """Registrations that contradict each other a little have one middle, from whichever visit one looks."""
    rng = np.random.default_rng(0)

    def rigid(degrees: float, shift: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_rotvec(rng.normal(0, degrees, 3), degrees=True).as_matrix()
        matrix[:3, 3] = rng.normal(0, shift, 3)
        return matrix

    from_brain = [rigid(10, 20) for _ in range(3)]
    found = {(i, j): from_brain[j] @ rigid(0.02, 0.02) @ np.linalg.inv(from_brain[i])
             for i, j in ((0, 1), (0, 2), (1, 2))}  # fmt: skip
    found |= {(j, i): np.linalg.inv(matrix) for (i, j), matrix in found.items()}
    grid = Grid.of((200, 200, 200), [[1, 0, 0, -100], [0, 1, 0, -100], [0, 0, 1, -100], [0, 0, 0, 1]])
    visits = [Visit(np.full(grid.shape, i, np.uint8), grid) for i in range(3)]

    def look_up(one: Visit, other: Visit) -> tuple[np.ndarray, float]:
        i, j = int(one.data[0, 0, 0]), int(other.data[0, 0, 0])
        return found[i, j], 1 - 0.01 * (i + j)

    monkeypatch.setattr(person, "register", look_up)
    middle = middle_space(visits)
    assert 0.01 < middle.apart < 0.2
    assert middle.likeness[0, 2] == middle.likeness[2, 0] == 0.98
    for i, j in permutations(range(3), 2):
        there = np.linalg.inv(middle.to_template[j]) @ middle.to_template[i]
        assert away(there, from_brain[j] @ np.linalg.inv(from_brain[i])) < 0.1
    for order in permutations(range(3)):
        again = middle_space([visits[i] for i in order])
        assert again.apart == pytest.approx(middle.apart, abs=1e-9)
        for i, matrix in zip(order, again.to_template, strict=True):
            assert away(matrix, middle.to_template[i]) < 1e-9


@pytest.mark.slow
def test_the_template_is_between_the_visits(brain):
    visits, true = zip(*(scan(brain, index, 10 * index) for index in range(2)), strict=True)
    middle = middle_space(visits)
    # the step from the first visit to the middle, and from there to the second, are the same
    first, second = middle.to_template[0], np.linalg.inv(middle.to_template[1])
    assert away(first, second) < 1e-6
    made = build(visits, middle.to_template)
    assert made.grid.voxel_sizes == pytest.approx(1.2)
    assert made.scales[1] / made.scales[0] == pytest.approx(300, rel=0.05)
    data, grid = brain
    expected = resample(data, grid, made.grid, true[0] @ np.linalg.inv(first))
    assert np.corrcoef(made.image[made.mask], expected[made.mask])[0, 1] > 0.95
    again = build(visits[::-1], middle_space(visits[::-1]).to_template)
    assert again.grid.same_as(made.grid, 1e-6)
    assert np.abs(again.image - made.image).max() < 1e-3 * made.image.max()
    assert (again.mask == made.mask).all()


@pytest.mark.slow
def test_a_place_that_one_visit_has_not_seen_is_of_the_other(brain):
    one, _ = scan(brain, 0)
    cut = Visit(one.data[:, :, 25:], one.grid.part((slice(0, 113), slice(0, 140), slice(25, 120))), None)
    made = build([one, cut], [np.eye(4)] * 2)
    whole = build([one, one], [np.eye(4)] * 2)
    low = whole.mask & (np.indices(whole.mask.shape)[2] < 20)
    assert low.any()
    assert np.abs(made.image[low] - whole.image[low]).max() < 0.05 * whole.image.max()


def test_a_unit_that_all_visits_share_does_not_depend_on_lesions():
    rng = np.random.default_rng(0)
    tissue = rng.normal(100, 5, (40, 40, 40))
    white = np.full(tissue.shape, 0.99)
    units = np.array([1.0, 7.0, 0.3])
    visits, lesions = [], []
    for k, unit in enumerate(units):
        lesion = np.zeros(tissue.shape)
        lesion[4 * k : 12 + 6 * k, 5:30, 5:30] = 0.8
        visits.append(unit * (tissue * (1 - 0.4 * lesion) + rng.normal(0, 3, tissue.shape)))
        lesions.append(lesion)
    where = stable_white_matter([white] * 3, lesions)
    assert not any(lesion[where].any() for lesion in lesions)
    scales = match(visits, where)
    assert scales / scales[0] == pytest.approx(units, rel=2e-3)
    # lesions that nobody knew of are outvoted
    assert match(visits, white > 0) / scales == pytest.approx(1, rel=0.02)
    with pytest.raises(ValueError, match="no voxel"):
        match([np.zeros((3, 3, 3))] * 2, np.ones((3, 3, 3), bool))


def test_masks_of_all_visits_become_one():
    place = np.indices((60, 60, 60)) - 29.5
    radius = np.sqrt((place**2).sum(0))
    grid = Grid.of((60, 60, 60), np.eye(4))
    both = consensus([radius < 20, radius < 22], grid)
    assert both.sum() == pytest.approx((radius < 21).sum(), rel=0.03)
    # one that took the neck, and has a hole, has no say among three
    failed = (radius < 20) | (place[2] < -15)
    failed[25:30, 25:30, 25:30] = False
    assert consensus([radius < 20, failed, radius < 20], grid).sum() == pytest.approx(
        (radius < 20).sum(), rel=0.02
    )
