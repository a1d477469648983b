"""The nodes that segment brains: what they write, and what they refuse."""

import numpy as np
import pytest

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.interfaces.mixture import SegmentMixture
from bids_inpaint.io import images
from bids_inpaint.space import Grid


@pytest.fixture
def brain(tmp_path, monkeypatch):
    """Files of a ball of three shells, its mask and its priors in the current folder, and its tissues."""
    monkeypatch.chdir(tmp_path)
    grid = Grid.of((30, 30, 30), np.diag([2.0, 2, 2, 1]))
    radius = np.linalg.norm(np.indices(grid.shape) - 14.5, axis=0)
    limits = {"CSF": (12.5, 14), "GM": (8.5, 12.5), "WM": (0, 8.5)}
    tissues = {name: (radius >= low) & (radius < high) for name, (low, high) in limits.items()}
    data = sum(value * tissues[name] for name, value in (("CSF", 200), ("GM", 700), ("WM", 1000)))
    noise = np.random.default_rng(0).normal(0, 40, grid.shape)
    images.save("brain.nii.gz", np.where(data > 0, data + noise, 0).astype(np.float32), grid)
    images.save("mask.nii.gz", data > 0, grid, np.uint8)
    for name, there in tissues.items():
        images.save(f"{name}.nii.gz", there.astype(np.float32), grid)
    return tissues


def segment(folder):
    priors = [f"{name}.nii.gz" for name in ("CSF", "GM", "WM")]
    step = SegmentMixture(
        in_file="brain.nii.gz", mask_file="mask.nii.gz", priors=priors, source="sub-01_T1w.nii"
    )
    return step.run(cwd=str(folder)).outputs


def test_the_mixture_writes_maps_and_labels(brain, tmp_path):
    outputs = segment(tmp_path)
    labels, grid = images.read(outputs.dseg)
    assert grid.same_as(images.read("brain.nii.gz")[1])
    for label, name in ((1, "GM"), (2, "WM"), (3, "CSF")):
        probability = images.read(getattr(outputs, name.lower()))[0]
        for found in (labels == label, probability > 0.5):
            assert dice(found, brain[name]) > 0.95
    assert outputs.method.startswith("Gaussian mixture (bids_inpaint ")


@pytest.mark.parametrize("what", ["constant", "inverted", "elsewhere"])
def test_brains_without_tissues_are_refused_in_one_sentence(brain, tmp_path, what):
    data, grid = images.read("brain.nii.gz")
    mask = data > 0
    if what == "constant":
        data = np.where(mask, 5, 0)
    elif what == "inverted":
        data = np.where(mask, 1300 - data, 0)
    else:
        # grey and white matter in halves, and fluid in a corner: tissues, but of no brain
        halves = np.where(np.arange(30) < 15, 700, 1000)[:, None, None] * np.ones(grid.shape)
        halves[:, :12] = 200
        data = np.where(mask, halves, 0)
    images.save("brain.nii.gz", data.astype(np.float32), grid)
    with pytest.raises(
        InputError, match=r"^The brain of sub-01_T1w.nii could not be segmented .*choose another"
    ):
        segment(tmp_path)
