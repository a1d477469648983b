"""Pictures of the report: the same bytes each time, the right way round, one layer over the other."""

import re

import numpy as np
import pytest

from bids_inpaint.io import images
from bids_inpaint.reports import figures
from bids_inpaint.space import Grid

#: Axes of voxels to the left, right or in another order, of the same world.
LAS = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 2, -20], [0, 0, 0, 1]])


@pytest.fixture
def brain():
    """A brain that is brighter on its left, whose voxels run from right to left."""
    data = np.zeros((32, 40, 24), np.float32)
    data[4:28, 4:36, 4:20] = 100
    data[20:28, 10:20, 8:16] = 200
    return data


def draw(folder, data, matrix, name="brain"):
    image = images.save(folder / f"{name}.nii.gz", data, Grid.of(data.shape, matrix))
    mask = images.save(folder / f"{name}_mask.nii.gz", data > 0, Grid.of(data.shape, matrix), np.uint8)
    out = folder / f"{name}.svg"
    figures.contours(image, [mask], str(out), ["#ff3030"])
    return out.read_bytes()


def test_a_picture_does_not_depend_on_the_order_of_the_voxels(tmp_path, brain):
    turned, right = brain[::-1], LAS.copy()
    right[0] = [2, 0, 0, 30 - 2 * 31]
    upright = np.moveaxis(brain, 2, 0)
    first = LAS[:, [2, 0, 1, 3]]
    pictures = [draw(tmp_path, *one, name) for one, name in
                (((brain, LAS), "a"), ((turned, right), "b"), ((upright, first), "c"))]  # fmt: skip
    assert pictures[0] == pictures[1] == pictures[2]


def test_left_is_left(tmp_path, brain, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures._Mosaic, "save", lambda self, out: drawn.append(self))
    image = images.save(tmp_path / "a.nii.gz", brain, Grid.of(brain.shape, LAS))
    monkeypatch.setattr(figures._Volume, "limits", lambda self: (0, 200))
    path = images.save(tmp_path / "m.nii.gz", brain > 0, Grid.of(brain.shape, LAS), np.uint8)
    figures.contours(image, [path], "unused.svg", ["red"])
    axial = drawn[0].figure.subfigs[0].axes[0].images[0].get_array()
    bright = np.argwhere(axial[:, : axial.shape[1] // 7] == 200)
    if not bright.size:
        bright = np.argwhere(axial == 200)
        bright[:, 1] %= axial.shape[1] // 7
    assert bright[:, 1].mean() < axial.shape[1] / 14


def test_the_second_image_appears_under_the_pointer(tmp_path, brain):
    paths = [
        images.save(tmp_path / f"{name}.nii.gz", data, Grid.of(brain.shape, LAS))
        for name, data in (("before", brain), ("after", brain * 2), ("empty", np.zeros_like(brain)))
    ]
    out = tmp_path / "flicker.svg"
    cuts = figures.cuts_through(np.zeros(brain.shape, bool), Grid.of(brain.shape, LAS), brain > 0)
    figures.flicker(*paths[:2], str(out), ("Original", "Inpainted"), cuts, paths[2])
    text = out.read_text()
    assert [m.start() > 0 for m in re.finditer("<g class=", text)] == [True, True]
    assert text.index('class="background-svg"') < text.index('class="foreground-svg"')
    assert ".foreground-svg { opacity: 0; }" in text
    # three rows of each
    assert text.count("<image ") == 6


def test_a_difference_of_nothing_is_drawn(tmp_path, brain):
    grid = Grid.of(brain.shape, LAS)
    paths = [images.save(tmp_path / f"{i}.nii.gz", v, grid) for i, v in enumerate((brain, brain * 0))]
    cuts = figures.cuts_through(np.zeros(brain.shape, bool), grid, brain > 0)
    out = figures.overlay(*paths, str(tmp_path / "out.svg"), cuts, 0.4)
    assert "<svg" in (tmp_path / "out.svg").read_text()
    assert out.endswith("out.svg")
