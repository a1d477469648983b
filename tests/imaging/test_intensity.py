import numpy as np
import pytest

from bids_inpaint.imaging.intensity import GREY, NOISE, Scale, levels
from bids_inpaint.space import Misplaced


@pytest.fixture
def brain():
    """Grey around white matter, with CSF in both cores and a lesion."""
    white, grey = np.zeros((60, 60, 60)), np.zeros((60, 60, 60))
    white[:, :, :30], grey[:, :, 30:] = 1, 1
    image = np.where(white > 0, 300.0, 240.0)
    image[10:20, 10:20, 5:15] = 200
    image[:, :5] = 30
    return image.astype(np.float32), np.ones(image.shape, bool), white, grey


def test_levels_are_those_of_the_tissues(brain):
    assert levels(*brain) == pytest.approx((300, 0.8))


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_standard_contrast_in_any_unit_and_back(brain, unit):
    image, *rest = brain
    scale = Scale.measure(image * unit, *rest)
    out = scale.apply(image * unit)
    assert out.dtype == np.float32
    assert out[0, 30, 45] == pytest.approx(GREY, abs=1e-4)
    assert out[30, 30, 20] == pytest.approx(1)
    np.testing.assert_allclose(scale.undo(out), image * unit, rtol=1e-4)


def test_bright_spots_are_not_blown_up():
    scale = Scale(1.0, 4.0)
    assert scale.apply(np.array([2.0])) == pytest.approx(5)
    assert scale.undo(np.array([5.0, -1.0])) == pytest.approx([2, 0])


def test_images_without_contrast_are_stretched_to_a_limit(brain):
    image, *rest = brain
    assert Scale.measure(np.full_like(image, 7), *rest).exponent == 4


def test_noise_is_not_stretched_beyond_what_the_networks_know(brain):
    image, *rest = brain
    noise = np.random.default_rng(0).normal(0, 0.02, image.shape)
    flat = (1 + noise).astype(np.float32)
    assert Scale.measure(flat, *rest).exponent == pytest.approx(NOISE / 0.02, rel=0.1)
    assert Scale.measure((1 + 5 * noise).astype(np.float32), *rest).exponent == 1


def test_a_brain_elsewhere_has_no_levels(brain):
    image, mask, white, grey = brain
    with pytest.raises(Misplaced, match="does not overlap the white matter"):
        levels(image, np.zeros_like(mask), white, grey)
    with pytest.raises(Misplaced, match="does not overlap the grey matter"):
        levels(np.where(grey > 0, 0, image), mask, white, grey)
