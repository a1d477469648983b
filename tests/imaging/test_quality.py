"""What is not the T1w of an adult's brain is told, and what is one is not."""

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.dataset import template
from bids_inpaint.imaging import quality
from bids_inpaint.io import images

NOTHING = np.zeros((182, 218, 182), bool)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """T1w, brain mask, white and grey matter of the template."""
    files = template.prepare(template.DEFAULT, tmp_path_factory.mktemp("space"))
    paths = (files.t1w, files.mask, files.priors["WM"], files.priors["GM"])
    return [images.read(path)[0] for path in paths]


def warned(space, image, mask=None, scale=1.0, lesions=NOTHING):
    """Names of the measures that leave their limits."""
    mask = image > 0 if mask is None else mask
    to_native = np.diag([*3 * [np.cbrt(scale)], 1])
    found = quality.judge(quality.measure(image, mask, *space, to_native, lesions))
    return {sentence.split(" is ")[0] for sentence in found}


def ball(radius, centre=(60, 110, 100)):
    """A ball on the working grid."""
    points = np.indices(NOTHING.shape).T - np.array(centre)
    return ((points**2).sum(-1) < radius**2).T


def test_usable_images_are_not_warned_of(space):
    image = space[0]
    assert warned(space, image) == set()
    assert warned(space, 700 * image**1.3, scale=0.7) == set()
    noise = np.random.default_rng(0).normal(0, 0.05 * np.percentile(image, 99), image.shape)
    assert warned(space, np.where(image > 0, np.maximum(image + noise, 1e-3), 0)) == set()
    # lesions of a patient
    lesion = ball(8) | ball(6, (120, 100, 95))
    assert warned(space, np.where(lesion, 0.7 * image, image), lesions=lesion) == set()


def test_other_contrasts_are_warned_of(space):
    image, top = space[0], np.percentile(space[0], 99)
    inverted = np.where(image > 0, np.maximum(1.3 * top - image, 1e-3), 0)
    assert {"GreyToWhite", "TemplateCorrelation"} <= warned(space, inverted)
    enhanced = image.copy()
    enhanced[ball(25)] *= 2
    assert "BrightShare" in warned(space, enhanced)


def test_bright_vessels_on_the_surface_are_warned_of(space):
    image, mask = space[0].copy(), space[0] > 0
    surface = mask & ~ndimage.binary_erosion(mask, iterations=4)
    vessels = surface & (np.random.default_rng(0).random(mask.shape) < 0.05)
    image[vessels] = 2 * np.percentile(image, 99)
    assert warned(space, image) == {"BrightSurface"}


@pytest.mark.parametrize("axis", [1, 2])
def test_brains_that_lie_the_wrong_way_are_warned_of(space, axis):
    assert "TemplateCorrelation" in warned(space, np.flip(space[0], axis))


def test_affines_that_failed_are_warned_of(space):
    assert "TemplateCorrelation" in warned(space, np.roll(space[0], 10, axis=0))
    turned = ndimage.rotate(space[0], 20, axes=(1, 2), reshape=False, order=1)
    assert "TemplateCorrelation" in warned(space, turned, turned > 20)


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
def test_affines_that_are_wrong_by_ten_degrees_are_warned_of(space, axes):
    turned = ndimage.rotate(space[0], 10, axes=axes, reshape=False, order=1)
    assert "RegistrationGain" in warned(space, turned, turned > 20)


def test_brains_with_skull_are_warned_of(space):
    assert warned(space, space[0], scale=1.15) == {"BrainVolume"}


@pytest.mark.parametrize("part", [np.s_[..., 120:], np.s_[..., :40], np.s_[:, :60]])
def test_cropped_brains_are_warned_of(space, part):
    image = space[0].copy()
    image[part] = 0
    assert "TemplateCoverage" in warned(space, image)


@pytest.mark.parametrize("masked", [True, False])
def test_large_holes_are_warned_of(space, masked):
    hole = ball(20)
    image = np.where(hole, 0, space[0])
    mask = (space[0] > 0) & ~hole if masked else space[0] > 0
    assert warned(space, image, mask) == {"DarkRadius"}


def test_small_brains_and_large_lesions_are_warned_of(space):
    assert warned(space, space[0], scale=0.3) == {"BrainScale", "BrainVolume"}
    assert warned(space, space[0], lesions=ball(22)) == {"LargestLesion"}
