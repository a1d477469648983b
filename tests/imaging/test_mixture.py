"""The Gaussian mixture on synthetic brains whose tissues are known."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.imaging import mixture, tissues
from bids_inpaint.imaging.metrics import dice

CSF, GM, WM = 1, 2, 3


def head(n=64, noise=0.05, moved=0, levels=(0.3, 0.7, 1.0), fluid=True):
    """A ball of white matter with a ventricle, in shells of grey matter and fluid, and its priors.

    Returns the image, the brain, the priors, and the true labels. The priors are `moved` by so many voxels.
    """
    radius = np.linalg.norm(np.indices((n,) * 3) - n / 2 + 0.5, axis=0) * 64 / n
    labels = np.zeros(radius.shape, np.uint8)
    for limit, label in ((29, CSF), (26, GM), (19, WM), (6, CSF)):
        labels[radius < limit] = label
    brain = labels > 0
    priors = [
        np.roll(ndimage.gaussian_filter((labels == k).astype(np.float32), 1.5), moved, 0)
        for k in (CSF, GM, WM)
    ]
    if not fluid:
        labels[(labels == CSF) & (radius > 20)] = GM
        labels[labels == CSF] = WM
    # what borders on another tissue has a part of it
    image = ndimage.gaussian_filter(np.choose(labels, (0, *levels)), 0.5)
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return (image * brain).astype(np.float32), brain, priors, labels


def likeliest(maps, brain):
    return np.where(brain, np.stack(maps).argmax(0) + 1, 0)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 0.99),
        ({"noise": 0.1}, 0.95),
        # the person's brain is not where the template's is
        ({"moved": 4}, 0.99),
        ({"moved": 4, "noise": 0.1}, 0.94),
        # black fluid, and grey matter that is nearly as bright as white matter
        ({"levels": (0, 0.7, 1)}, 0.99),
        ({"levels": (0.3, 0.9, 1), "noise": 0.03}, 0.97),
        ({"n": 16}, 0.97),
    ],
)
def test_tissues_are_where_they_are(options, least):
    image, brain, priors, labels = head(**options)
    maps = mixture.segment(image, brain, priors)
    found = likeliest(maps, brain)
    for label in (CSF, GM, WM):
        assert dice(found == label, labels == label) > least
    tissues.check(maps, brain, priors)


def test_maps_are_probabilities_inside_the_brain_alone():
    image, brain, priors, _ = head()
    maps = mixture.segment(image, brain, priors)
    for values in maps:
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert not values[~brain].any()
    total = sum(maps)[brain]
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_the_unit_of_the_intensities_does_not_matter():
    image, brain, priors, _ = head()
    for map_, other in zip(
        mixture.segment(image, brain, priors), mixture.segment(image * 700, brain, priors), strict=True
    ):
        np.testing.assert_allclose(map_, other, atol=1e-3)


def test_bright_vessels_and_dark_spots_change_nothing_elsewhere():
    image, brain, priors, labels = head()
    before = likeliest(mixture.segment(image, brain, priors), brain)
    spots = np.zeros(image.shape, bool)
    spots[30:34, 30:34, 16:20] = spots[30:34, 16:20, 30:34] = True
    spots &= brain
    image[spots & (labels == WM)] = 5
    image[spots & (labels == GM)] = -3
    after = likeliest(mixture.segment(image, brain, priors), brain)
    assert (before == after)[brain & ~spots].mean() > 0.998
    # what is brighter than white matter is no fluid, whose Gaussian has the longer tail
    assert (after[spots & (labels == WM)] == WM).all()
    assert (after[spots & (labels == GM)] == CSF).all()


@pytest.mark.parametrize(
    "options",
    [
        {"levels": (0.7, 0.7, 0.7), "noise": 0},
        {"levels": (0.7, 0.7, 0.7), "noise": 0.1},
        # the contrast of a T2w
        {"levels": (1, 0.7, 0.3)},
        # no fluid: it would be looked for in grey matter
        {"fluid": False},
        {"fluid": False, "noise": 0.1},
        {"n": 10},
    ],
)
def test_no_tissues_are_made_up(options):
    with pytest.raises(
        tissues.Implausible, match=r"do not differ in intensity as in a T1w: their means are [01]\."
    ):
        mixture.segment(*head(**options)[:3])


@pytest.mark.parametrize("value", [0, 1, np.nan])
def test_constant_images_and_images_of_no_numbers_have_no_tissues(value):
    _, brain, priors, _ = head()
    with pytest.raises(tissues.Implausible):
        mixture.segment(np.full(brain.shape, value, np.float32), brain, priors)


def test_two_threads_give_the_same_bytes(tmp_path):
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from test_mixture import head, mixture\n"
        "maps = mixture.segment(*head()[:3])\n"
        "print(hashlib.sha256(b''.join(m.tobytes() for m in maps)).hexdigest())"
    )
    folders = [os.path.dirname(__file__)]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, *folders],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True, text=True, check=True, cwd=tmp_path,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
