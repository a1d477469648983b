"""Pictures of the report: the same bytes each time, the right way round, layers on the same slices."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bids_inpaint.io import images
from bids_inpaint.reports import figures
from bids_inpaint.space import Grid

#: Axes of voxels to the left, to the front and upwards.
LAS = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 2, -20], [0, 0, 0, 1]])


@pytest.fixture
def brain():
    """A brain that is brighter on its left, whose voxels run from right to left."""
    data = np.zeros((32, 40, 24), np.float32)
    data[4:28, 4:36, 4:20] = 100
    data[20:28, 10:20, 8:16] = 200
    return data


def save(folder: Path, data, matrix=LAS, name="brain") -> tuple[str, str]:
    """An image and its brain mask."""
    grid = Grid.of(data.shape, matrix)
    image = images.save(folder / f"{name}.nii.gz", data, grid)
    return image, images.save(folder / f"{name}_mask.nii.gz", data > 0, grid, np.uint8)


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


def draw(folder: Path, data, matrix, name="brain") -> bytes:
    image, mask = save(folder, data, matrix, name)
    cuts = figures.cuts_through(mask)
    picture = figures.grey(image, str(folder / f"{name}.png"), cuts)
    outlines = figures.outlines([mask], ["#ff3030"], str(folder / f"{name}.svg"), cuts)
    return Path(picture).read_bytes() + Path(outlines).read_bytes()


def test_a_picture_does_not_depend_on_the_order_of_the_voxels(tmp_path, brain):
    turned, right = brain[::-1], LAS.copy()
    right[0] = [2, 0, 0, 30 - 2 * 31]
    upright = np.moveaxis(brain, 2, 0)
    first = LAS[:, [2, 0, 1, 3]]
    pictures = [draw(tmp_path, *one, name) for one, name in
                (((brain, LAS), "a"), ((turned, right), "b"), ((upright, first), "c"))]  # fmt: skip
    assert pictures[0] == pictures[1] == pictures[2]


def test_left_is_left(tmp_path, brain):
    """In the axial row, in the thumbnail, and of an outline."""
    image, mask = save(tmp_path, brain)
    cuts = figures.cuts_through(mask)
    axial = pixels(figures.grey(image, str(tmp_path / "a.png"), cuts, limits=(0, 200)))
    place = axial.shape[1] // 7
    bright = np.argwhere(axial[:50] == 255) % [1000, place]
    assert 0 < bright[:, 1].mean() < place / 2
    left = images.save(tmp_path / "l.nii.gz", brain > 150, Grid.of(brain.shape, LAS), np.uint8)
    small = figures.thumbnail(image, mask, left, str(tmp_path / "t.png"))
    coloured = pixels(small).astype(int)
    orange = np.argwhere(coloured[..., 0] - coloured[..., 2] > 100)
    # the axial slice is the first, 64 mm wide at 0.6 pixels a mm
    assert 0 < orange[orange[:, 1] < 38, 1].mean() < 19
    text = Path(figures.outlines([left], ["red"], str(tmp_path / "l.svg"), cuts)).read_text()
    width = float(re.search(r'viewBox="0 0 (\d+) ', text)[1])
    starts = [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)l", text)]
    assert starts
    assert all(x % (width / 7) < width / 14 for x, y in starts if y < 500)


def test_outlines_lie_where_the_mask_is_in_the_picture(tmp_path, brain):
    image, mask = save(tmp_path, brain)
    cuts = figures.cuts_through(mask)
    picture = pixels(figures.grey(image, str(tmp_path / "a.png"), cuts, limits=(0, 100)))
    text = Path(figures.outlines([mask], ["red"], str(tmp_path / "a.svg"), cuts)).read_text()
    first = re.search(r"M(\d+) (\d+)l([-\d ]+)", text)
    steps = np.array(first[3].split(), int).reshape(-1, 2)
    points = np.cumsum([[int(first[1]), int(first[2])], *steps], axis=0) / 10
    # one pixel is a millimetre, and the axial row has 88; letters are in the corners
    seen = np.argwhere(picture[:88, : picture.shape[1] // 7] == 255)
    assert points[:, 0].min() == pytest.approx(seen[:, 1].min(), abs=1)
    assert points[:, 1].max() == pytest.approx(seen[:, 0].max() + 1, abs=1)


def test_slices_go_through_the_lesions(tmp_path, brain):
    _, mask = save(tmp_path, brain)
    lesions = np.zeros_like(brain)
    lesions[10, 12, 9] = lesions[24, 30, 17] = 1
    path = images.save(tmp_path / "l.nii.gz", lesions, Grid.of(brain.shape, LAS), np.uint8)
    x, y, z = figures.cuts_through(mask, mask=path)
    # the volume is turned to the right
    assert {31 - 10, 31 - 24} <= set(x)
    assert {12, 30} <= set(y)
    assert {9, 17} <= set(z)
    assert all(np.diff(cuts).min() >= 2 for cuts in (x, y, z))
    assert max(map(len, (x, y, z))) == 7


def test_layers_have_one_size(tmp_path, brain):
    image, mask = save(tmp_path, brain)
    cuts = figures.cuts_through(mask)
    sizes = {
        pixels(path).shape[:2]
        for path in (
            figures.grey(image, str(tmp_path / "a.png"), cuts),
            figures.tint(image, str(tmp_path / "b.png"), cuts, 0.4),
        )
    }
    assert len(sizes) == 1
    height, width = sizes.pop()
    text = Path(figures.outlines([mask], ["red"], str(tmp_path / "a.svg"), cuts)).read_text()
    box = [float(v) for v in re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups()]
    assert box[0] / box[1] == pytest.approx(width / height, rel=0.01)


def test_differences_have_two_colours_and_nothing_where_there_is_none(tmp_path, brain):
    _, mask = save(tmp_path, brain)
    values = np.zeros_like(brain)
    values[8:14, 8:30, 6:18], values[20:26, 8:30, 6:18] = 0.4, -0.4
    path = images.save(tmp_path / "d.nii.gz", values, Grid.of(brain.shape, LAS))
    drawn = pixels(figures.tint(path, str(tmp_path / "d.png"), figures.cuts_through(mask), 0.4))
    opaque = drawn[drawn[..., 3] > 200][:, :3].astype(int)
    # edges are smoothed
    away = [np.abs(opaque - colour).max(1) for colour in ((213, 94, 0), (0, 90, 170))]
    assert np.min(away, 0).max() < 8
    assert [(a < 8).any() for a in away] == [True, True]
    nothing = images.save(tmp_path / "n.nii.gz", values * 0, Grid.of(brain.shape, LAS))
    drawn = pixels(figures.tint(nothing, str(tmp_path / "n.png"), figures.cuts_through(mask), 0.4))
    assert not drawn[..., 3].any()


def test_a_mask_without_voxels_has_no_outline(tmp_path, brain):
    _, mask = save(tmp_path, brain)
    empty = images.save(tmp_path / "e.nii.gz", brain * 0, Grid.of(brain.shape, LAS), np.uint8)
    cuts = figures.cuts_through(mask, mask=empty)
    text = Path(figures.outlines([empty], ["red"], str(tmp_path / "e.svg"), cuts)).read_text()
    assert 'd=""' in text
    assert [len(one) for one in cuts] == [len(one) for one in figures.cuts_through(mask)]
