"""The bias field is ANTs' N4, whatever the machine, and known fields are found again."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.demo import acquire
from bids_inpaint.imaging import bias, itk
from bids_inpaint.space import Grid


def sd(ratio: np.ndarray) -> float:
    return float(ratio.std() / ratio.mean())


def brain(shape=(61, 74, 58)) -> tuple[np.ndarray, np.ndarray]:
    """White matter, grey matter and fluid, of each some everywhere, with noise; and the mask."""
    x, y, z = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    mask = x**2 + y**2 + z**2 < 1
    folds = np.sin(14 * x) + np.sin(14 * y) + np.sin(14 * z)
    image = ndimage.gaussian_filter(np.select([folds > 0, folds > -1.8], [1, 0.7], 0.35), 0.7)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, *shape))
    return np.where(mask, np.hypot(image + noise[0], noise[1]), 0).astype(np.float32), mask


def smooth(shape) -> np.ndarray:
    """A field like that of a surface coil, from 0.7 to 1.5."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.exp(0.2 * x - 0.15 * y * z + 0.3 * np.exp(-((x - 1) ** 2) - (y + 1) ** 2) - 0.1 * z**2)


@pytest.fixture(scope="module")
def acquired() -> tuple[np.ndarray, np.ndarray]:
    """The template's brain on 3 mm voxels, with noise and a bias field."""
    matrix = [[-3, 0, 0, 90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]]
    image = acquire(Grid.of((61, 73, 61), matrix))[0].astype(np.float32)
    return image, image > 0


@pytest.mark.parametrize("shrink", [3, 4])
@pytest.mark.parametrize("holes", [False, True])
def test_the_field_is_that_of_ants(acquired, shrink, holes):
    """Also where voxels of the brain have no signal."""
    image, mask = acquired
    if holes:
        image = image.copy()
        image[28:32, 36:40, 28:32] = 0
        image[20, 20:24, 30] = -5
        assert mask[image <= 0].any()
    ours, ants = (bias.correct(image, mask, partial(n4, shrink=shrink))[1] for n4 in (bias.n4, itk.n4))
    assert sd(ants[mask]) > 0.02
    assert sd(ours[mask] / ants[mask]) < 1e-3
    np.testing.assert_allclose(ours, ants, rtol=0.01)


@pytest.mark.parametrize(("shrink", "error"), [(2, 0.03), (3, 0.04), (4, 0.055)])
def test_a_known_field_is_found(shrink, error):
    image, mask = brain()
    field = smooth(image.shape)
    before, after = (bias.n4(np.maximum(i, 1e-3), mask, shrink) for i in (image, image * field))
    assert sd(field[mask]) > 2 * error
    assert sd((after / field)[mask]) < error
    # most of the error is what N4 takes for a field in the image that has none
    assert sd((after / before / field)[mask]) < 0.01


def test_the_corrected_image_and_the_field_make_the_image(acquired):
    image, mask = acquired
    corrected, field = bias.correct(image, mask, bias.n4)
    np.testing.assert_allclose((corrected * field)[mask], image[mask], rtol=1e-5)
    assert not corrected[~mask].any()
    assert field.min() > 0
    # beyond the box around the brain it goes on
    np.testing.assert_array_equal(field[0], field[1])


def test_the_bytes_are_the_same_with_any_number_of_threads():
    code = (
        "import hashlib, numpy as np; from bids_inpaint.imaging import bias;"
        "image = np.random.default_rng(0).random((150, 160, 140), np.float32) + 0.5;"
        "mask = np.ones(image.shape, bool);"
        "print(hashlib.sha256(bias.n4(image, mask).tobytes()).hexdigest())"
    )
    digests = set()
    for threads in "12":
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_zeros_and_negative_values_inside_the_mask():
    """They are taken as nearly dark, and stay what they are."""
    image, mask = brain()
    image[28:32, 36:40, 28:32] = 0
    image[20, 20:24, 30] = -5
    corrected, field = bias.correct(image, mask, bias.n4)
    assert np.isfinite(field).all()
    assert field.min() > 0
    assert not corrected[28:32, 36:40, 28:32].any()
    assert (corrected[20, 20:24, 30] < 0).all()


def test_what_has_no_contrast_has_a_flat_field():
    mask = brain()[1]
    for level in (0, 7):
        corrected, field = bias.correct(np.full(mask.shape, level, np.float32), mask, bias.n4)
        np.testing.assert_allclose(field, 1, rtol=1e-6)
        np.testing.assert_allclose(corrected[mask], level, rtol=1e-6)


def test_what_has_no_field():
    image, mask = brain((20, 20, 20))
    image = np.maximum(image, 1e-3)
    for estimate in (bias.n4, lambda *part: bias.correct(*part, bias.n4)):
        with pytest.raises(ValueError, match="empty mask"):
            estimate(image, np.zeros_like(mask))
    for wrong in (0, -1, np.nan, np.inf):
        spoilt = image.copy()
        spoilt[10, 10, 10] = wrong
        with pytest.raises(ValueError, match="positive and finite"):
            bias.n4(spoilt, mask)


@pytest.mark.parametrize("shape", [(40, 40, 3), (1, 30, 30), (5, 6, 7)])
def test_thin_images(shape):
    """An axis that is too short for the sample is fitted to more of its voxels."""
    rng = np.random.default_rng(0)
    mask = np.ones(shape, bool)
    image = (np.where(rng.random(shape) < 0.5, 1, 0.7) * smooth(shape)).astype(np.float32)
    field = bias.n4(image, mask)
    assert field.shape == shape
    assert np.isfinite(field).all()
    assert field.min() > 0


def test_a_mask_between_the_voxels_of_the_sample():
    image, _ = brain((20, 20, 20))
    mask = np.zeros(image.shape, bool)
    for voxel in np.ndindex(4, 4, 4):
        mask[...] = False
        mask[voxel] = True
        # of a single voxel, nothing is known
        np.testing.assert_array_equal(bias.n4(np.maximum(image, 0.1), mask), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused_and_not_left_uncorrected(value):
    image, mask = brain((24, 24, 24))
    image[tuple(np.argwhere(mask)[0])] = value
    with pytest.raises(ValueError, match="no numbers"):
        bias.correct(image, mask, bias.n4)
