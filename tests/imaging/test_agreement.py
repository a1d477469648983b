"""Visits get one unit and one filling, and decide by what differs between them, whatever their order."""

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.imaging.agreement import (
    agreed,
    agreed_spread,
    field_towards,
    joined,
    matching_fields,
    unconfined,
)
from bids_inpaint.imaging.evidence import weigh
from bids_inpaint.imaging.feathering import confine, feather
from bids_inpaint.space import Grid, Misplaced

GRID = Grid.of((64, 72, 60), np.eye(4))
CUBE = tuple(slice(c, c + 5) for c in (30, 34, 28))


@pytest.fixture(scope="module")
def brain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White matter in grey matter with a ventricle, the brain mask, and the template's white matter."""
    image = np.zeros(GRID.shape, np.float32)
    image[4:-4, 4:-4, 4:-4] = 0.7
    image[10:-10, 10:-10, 10:-10] = 1
    white = (image == 1).astype(np.float32)
    image[20:28, 20:50, 20:40] = 0.3
    white[20:28, 20:50, 20:40] = 0
    mask = image > 0
    return ndimage.gaussian_filter(image, 0.5) * mask, mask, white


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.015, image.shape)
    return np.maximum(image + noise * (image > 0), 0).astype(np.float32)


def slope(image: np.ndarray, axis: int) -> np.ndarray:
    """A bias field."""
    steps = np.linspace(-1, 1, image.shape[axis], dtype=np.float32)
    return np.exp(0.04 * steps).reshape([-1 if other == axis else 1 for other in range(3)])


def test_visits_get_one_intensity_where_nothing_changed(brain):
    image, mask, white = brain
    lesioned = image.copy()
    lesioned[CUBE] *= 0.7
    first, second = noisy(image, 0) * slope(image, 0), 300 * noisy(lesioned, 1) * slope(image, 1)
    fields = matching_fields([first, second], [mask, mask], white, GRID)
    np.testing.assert_allclose(fields[0] * fields[1], 1, rtol=1e-5)
    a, b = first / fields[0], second / fields[1]
    stable = ndimage.binary_erosion(white > 0, iterations=2)
    stable[CUBE] = False
    ratio = ndimage.gaussian_filter(a / np.maximum(b, 1e-3), 2)[stable]
    assert abs(np.median(ratio) - 1) < 1e-3
    assert np.std(ratio) < 0.006
    # before, their fields differ by up to 8 %
    before = first[stable] / second[stable]
    assert np.std(before) / np.mean(before) > 0.02
    # what changed is still there
    assert (b[CUBE] / a[CUBE]).mean() == pytest.approx(0.7, abs=0.03)
    back = matching_fields([second, first], [mask, mask], white, GRID)
    for one, other in zip(fields, back[::-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_brain_without_white_matter_that_all_show_is_refused(brain):
    image, mask, white = brain
    other = image * (1 + 0.8 * (np.indices(image.shape).sum(0) % 2 - 0.5))
    with pytest.raises(Misplaced, match="bright at all visits"):
        matching_fields([image, other], [mask, mask], white, GRID)


def test_what_is_filled_twice_has_one_filling_and_the_rest_its_own():
    first, second = np.full(4, 1.0), np.full(4, 2.0)
    weights = [np.array([1, 1, 0, 0.5]), np.array([1, 0, 0, 0.5])]
    one, other = agreed([first, second], weights)
    assert one.tolist() == [1.5, 1, 1, 1.5]
    assert other.tolist() == [1.5, 2, 2, 1.5]
    spreads = agreed_spread([np.zeros(4), np.full(4, 0.3)], [first, second], weights)
    # two fillings that differ by 1 are 0.5 from their mean
    assert spreads[0][0] == pytest.approx(np.sqrt((0 + 0.3**2) / 2 + 0.5**2))
    assert (spreads[0][1], spreads[1][1]) == (0, 0.3)


def odds_of(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_a_small_lesion_that_one_image_does_not_show_is_seen_in_two(brain):
    image, mask, white = brain
    lesioned = image.copy()
    lesioned[CUBE] *= 0.8
    told = [np.full(image.shape, 0.005, np.float32) for _ in range(2)]
    told[1][CUBE] = 0.1
    before, after = weigh(told, [noisy(image, 0), noisy(lesioned, 1)], mask, white, GRID)
    core = tuple(slice(s.start + 1, s.stop - 1) for s in CUBE)
    assert after[core].min() > 0.9
    assert before[core].max() < 0.15
    # that is all
    after[tuple(slice(s.start - 2, s.stop + 2) for s in CUBE)] = 0
    assert after.max() < 0.1


def test_where_images_are_the_same_there_is_one_probability(brain):
    image, mask, white = brain
    told = [np.full(image.shape, 0.005, np.float32) for _ in range(2)]
    told[0][CUBE], told[1][CUBE] = 0.8, 0.2
    first, second = weigh(told, [noisy(image, 0), noisy(image, 1)], mask, white, GRID)
    mean = (odds_of(0.8) + odds_of(0.2)) / 2
    assert np.allclose([odds_of(v) for v in (first[CUBE].mean(), second[CUBE].mean())], mean, atol=0.1)


def test_tissue_that_lies_apart_a_little_is_no_lesion(brain):
    """As after a registration that is wrong by a quarter of a millimetre."""
    image, mask, white = brain
    moved = ndimage.shift(image, (0.25, 0.25, 0), order=1)
    told = [np.full(image.shape, 0.05, np.float32) for _ in range(2)]
    inside = ndimage.binary_erosion(mask, iterations=2)
    for weighed in weigh(told, [noisy(image, 0), noisy(moved, 1)], mask, white, GRID):
        assert (weighed[inside] > 0.3).mean() < 1e-3


def test_the_order_of_visits_is_no_matter_and_one_alone_stays(brain):
    image, mask, white = brain
    rng = np.random.default_rng(0)
    images = [noisy(image * (1 - 0.2 * n * (image < 0.8)), n) for n in range(3)]
    told = list(rng.uniform(0, 1, (3, *image.shape)).astype(np.float32))
    straight = weigh(told, images, mask, white, GRID)
    back = weigh(told[::-1], images[::-1], mask, white, GRID)
    for one, other in zip(straight, back[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    (alone,) = weigh(told[:1], images[:1], mask, white, GRID)
    assert (alone == told[0]).all()


@pytest.mark.parametrize("power", [0.7, 1.5])
def test_another_contrast_is_no_change_and_no_bias_field(brain, power):
    """The cortex of another scanner is darker or brighter: no lesion comes of it, and white matter stays."""
    image, mask, white = brain
    lesioned = image.copy()
    lesioned[CUBE] *= 0.7
    first, second = noisy(image, 0), np.maximum(noisy(lesioned, 1), 0) ** power
    fields = matching_fields([first, second], [mask, mask], white, GRID)
    inside = ndimage.binary_erosion(white > 0, iterations=2)
    inside[CUBE] = False
    assert np.abs(fields[1][inside] / np.median(fields[1][inside]) - 1).max() < 0.01
    unlikely = np.where(mask, 0.02, 0).astype(np.float32)
    one, other = weigh([unlikely, unlikely], [first, second], mask, white, GRID)
    core = tuple(slice(s.start + 1, s.stop - 1) for s in CUBE)
    assert other[core].min() > 0.5
    away = np.ones(GRID.shape, bool)
    away[tuple(slice(s.start - 4, s.stop + 4) for s in CUBE)] = False
    assert max(one[away].max(), other[away].max()) < 0.1


def test_a_visit_gets_the_intensity_of_finished_ones(brain):
    image, mask, white = brain
    lesioned = image.copy()
    lesioned[CUBE] *= 0.7
    finished = [noisy(image, 0), noisy(image, 1)]
    added = 300 * noisy(lesioned, 2) * slope(image, 1)
    out = added / field_towards(finished, added, [mask] * 3, white, GRID)
    stable = ndimage.binary_erosion(white > 0, iterations=2)
    stable[CUBE] = False
    ratio = ndimage.gaussian_filter(out / np.maximum(np.mean(finished, axis=0), 1e-3), 2)[stable]
    assert abs(np.median(ratio) - 1) < 2e-3
    assert np.std(ratio) < 0.006
    assert (out[CUBE] / image[CUBE]).mean() == pytest.approx(0.7, abs=0.03)


def test_a_visit_believes_finished_ones_where_the_images_are_the_same(brain):
    image, mask, white = brain
    told = [np.where(mask, p, 0).astype(np.float32) for p in (0.8, 0.9, 0.01)]
    images = [noisy(image, 3), noisy(image, 4), noisy(image, 5)]
    *_, added = weigh(told, images, mask, white, GRID, kept=(0, 1))
    together = weigh(told[:2], images[:2], mask, white, GRID)[0]
    inside = ndimage.binary_erosion(white > 0, iterations=3)
    assert np.median(added[inside]) == pytest.approx(np.median(together[inside]), abs=0.01)
    # where it alone is darker, it is a lesion whatever they say
    images[2][CUBE] *= 0.7
    told = [np.where(mask, 0.02, 0).astype(np.float32)] * 3
    before, _, after = weigh(told, images, mask, white, GRID, kept=(0, 1))
    assert after[CUBE].mean() > 0.5 > before[CUBE].mean()


def test_a_filling_that_was_confined_is_known_again(brain):
    image, *_ = brain
    mask = np.zeros(GRID.shape, bool)
    mask[CUBE] = True
    weight = feather(mask, GRID)
    filling = image + np.float32(0.2)
    back = unconfined(image, confine(image, filling, mask, GRID), weight)
    np.testing.assert_allclose(back[weight > 0.01], filling[weight > 0.01], rtol=1e-4)
    assert (back[weight == 0] == image[weight == 0]).all()
    own = image + np.float32(0.6)
    out = joined(own, weight, [back], [weight])
    np.testing.assert_allclose(out[mask], filling[mask], rtol=1e-5)
    assert (out[weight == 0] == own[weight == 0]).all()
