"""An image on any scale is processed as the plain one, or it is said why not."""

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.imaging import brain
from bids_inpaint.imaging.conform import conform
from bids_inpaint.space import Grid

POINTS = np.indices((64, 64, 64)).T - 31.5
RADIUS = np.sqrt((POINTS**2).sum(-1)).T
RNG = np.random.default_rng(0)
#: A stripped brain: white matter of 100, grey matter of 70, some fluid.
BRAIN = np.where(RADIUS < 18, 100, np.where(RADIUS < 26, 70, 0)) + RNG.normal(0, 3, RADIUS.shape)
BRAIN = np.where(RADIUS < 26, np.where(RADIUS < 4, 10, BRAIN), 0).astype(np.float32)
#: A head: air with noise, scalp, skull, brain.
HEAD = np.where(RADIUS < 24, BRAIN, np.where(RADIUS < 27, 15, np.where(RADIUS < 30, 140, 0)))
HEAD = np.abs(HEAD + RNG.normal(0, 2, HEAD.shape)).astype(np.float32)


@pytest.mark.parametrize("image", [BRAIN, HEAD, 1e-6 * BRAIN, 1e6 * HEAD])
def test_plain_images_stay_as_they_are(image):
    found = conform(image)
    assert found.data is image
    assert (found.offset, found.warnings) == (0, ())


def test_small_dips_below_zero_stay():
    image = ndimage.shift(BRAIN, 0.5, order=3)
    assert image.min() < -1
    assert conform(image).data is image


@pytest.mark.parametrize(
    ("image", "shift"),
    [*((image, shift) for image in (BRAIN, HEAD) for shift in (-1024, -32768, 1000)), (HEAD, -50)],
)
def test_shifted_images_are_shifted_back(image, shift):
    found = conform(image + np.float32(shift))
    near = 0.02 + float(image.min())
    np.testing.assert_allclose(found.data, image, atol=near)
    assert found.offset == pytest.approx(shift, abs=near)
    assert "was added to all" in found.warnings[0]


@pytest.mark.parametrize("padding", [-1024, -32768])
def test_padding_below_an_image_is_no_signal(padding):
    around = np.zeros(HEAD.shape, bool)
    around[:6] = around[:, -7:] = around[..., :5] = True
    found = conform(np.where(around, np.float32(padding), HEAD))
    np.testing.assert_array_equal(found.data, np.where(around, 0, HEAD))
    assert found.offset == 0
    assert f"background is {padding}" in found.warnings[0]
    # a stripped brain that was not shifted with its background
    found = conform(np.where(BRAIN == 0, np.float32(padding), BRAIN))
    np.testing.assert_array_equal(found.data, np.maximum(BRAIN, 0))


def test_standardised_brains_keep_their_order_and_are_named():
    inside = BRAIN != 0
    z = np.where(inside, (BRAIN - BRAIN[inside].mean()) / BRAIN[inside].std(), 0).astype(np.float32)
    found = conform(z)
    assert "z-scores" in found.warnings[0]
    assert not found.data[~inside].any()
    assert found.data.min() == 0
    assert np.corrcoef(found.data[inside], BRAIN[inside])[0, 1] > 0.9999
    # MP2RAGE: noise of the full range around the head
    uni = np.where(HEAD > 8, HEAD / 200 - 0.5, RNG.uniform(-0.5, 0.5, HEAD.shape)).astype(np.float32)
    found = conform(uni)
    assert found.offset == pytest.approx(-0.5, abs=0.01)
    np.testing.assert_allclose(found.data, uni + 0.5, atol=0.01)


@pytest.mark.parametrize(("count", "value"), [(20, 32767), (1, 1e6), (250, 65535)])
@pytest.mark.parametrize("image", [BRAIN, HEAD])
def test_spikes_are_replaced_by_their_surroundings(image, count, value):
    inside = np.argwhere(RADIUS < 15)
    pick = tuple(inside[RNG.choice(len(inside), count, replace=False)].T)
    spiked = image.copy()
    spiked[pick] = value
    found = conform(spiked)
    others = np.ones(image.shape, bool)
    others[pick] = False
    np.testing.assert_array_equal(found.data[others], image[others])
    assert np.abs(found.data[pick] - ndimage.median_filter(image, 5)[pick]).max() < 10
    assert found.warnings[0].startswith(
        f"values more than 6 times as bright as 99 % of the others (voxels: {count})"
    )
    dark = image.copy()
    dark[pick] = -value
    assert conform(dark).data.min() == 0


@pytest.mark.parametrize("shift", [200, 600, 1500])
def test_zeros_below_a_shifted_scale_hide_nothing(shift):
    """A single voxel, or the zeros that defacing or stripping leave."""
    defaced = np.zeros(HEAD.shape, bool)
    defaced[:, 40:, :20] = True
    one = np.zeros(HEAD.shape, bool)
    one[0, 0, 0] = True
    around = RADIUS > 31
    for zeros in (one, defaced, around):
        plain = np.where(zeros, np.float32(0), HEAD)
        found = conform(np.where(zeros, np.float32(0), HEAD + np.float32(shift)))
        assert found.offset == pytest.approx(shift, abs=0.1)
        assert f"its intensities begin at {found.offset:g}" in found.warnings[0]
        np.testing.assert_allclose(found.data, plain, atol=0.1)
        assert conform(plain).data is plain
    brain = BRAIN * (BRAIN > 0)
    found = conform(np.where(BRAIN > 0, BRAIN + np.float32(shift), 0))
    # its darkest fluid is 10
    assert found.offset == pytest.approx(shift, abs=11)
    np.testing.assert_allclose(found.data, brain, atol=11)


def test_images_that_begin_bright_are_not_shifted():
    """A stripped brain whose fluid is bright, and a head whose air is cut off by a threshold."""
    bright = np.where(BRAIN > 0, 0.7 * BRAIN + 30, 0).astype(np.float32)
    threshold = np.where(HEAD < 16, np.float32(0), HEAD)
    for image in (bright, threshold):
        assert conform(image).data is image


@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("image", [BRAIN, HEAD, HEAD - np.float32(1024)])
def test_many_spikes_are_replaced_as_few_are(image, share):
    spikes = RNG.random(image.shape) < share
    found = conform(np.where(spikes, np.float32(65535), image))
    plain = conform(image).data
    np.testing.assert_allclose(found.data[~spikes], plain[~spikes], atol=1)
    assert any(f"times as bright as 99 % of the others (voxels: {spikes.sum()})" in w for w in found.warnings)
    inner = spikes & (RADIUS < 15) & (RADIUS > 6)
    assert np.abs(found.data[inner] - 100).max() < 15
    assert found.data[spikes & (RADIUS > 32)].max() < 10


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (10, 4095)])
def test_a_constant_background_within_the_range_is_no_signal(low, high):
    """As of a stripped brain that was standardised, and then stretched between two limits."""
    inside = BRAIN != 0
    noisy = BRAIN + RNG.normal(0, 2, BRAIN.shape)
    z = np.where(inside, (noisy - noisy[inside].mean()) / noisy[inside].std(), 0)
    stretched = (low + (z - z.min()) / np.ptp(z) * (high - low)).astype(np.float32)
    found = conform(stretched)
    assert not found.data[~inside].any()
    np.testing.assert_array_equal(found.data[inside], stretched[inside])
    assert found.warnings == (f"its background is {stretched[0, 0, 0]:g}, which was taken as no signal",)
    white = np.where(inside, BRAIN, np.float32(110))
    np.testing.assert_array_equal(conform(white).data, np.maximum(BRAIN, 0) * inside)


def test_few_grey_levels_are_named():
    few = np.round(BRAIN / 15).astype(np.float32)
    found = conform(few)
    assert found.data is few
    assert "grey levels" in found.warnings[0]


def test_a_skull_is_seen():
    grid = Grid.of(HEAD.shape, np.diag([3.0, 3, 3, 1]))
    shells = np.where(RADIUS < 24, BRAIN, np.where(RADIUS < 27, 15, np.where(RADIUS < 29, 140, 0)))
    shells = shells.astype(np.float32)
    assert brain.has_skull(shells, shells > 0, grid)
    assert not brain.has_skull(BRAIN, BRAIN > 0, grid)
    assert brain.stripped_mask(shells, Grid.of(HEAD.shape, np.diag([2.2, 2.2, 2.2, 1]))) is None
    assert brain.stripped_mask(BRAIN, Grid.of(HEAD.shape, np.diag([2.5, 2.5, 2.5, 1]))) is not None
