"""The pictures of a person's visits show what changed, where it is, and nothing else."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bids_inpaint.imaging.history import LesionHistory
from bids_inpaint.interfaces.changes import ChangePictures
from bids_inpaint.interfaces.visits import write_histories, write_xfm
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, Grid

SESSIONS = ["ses-1", "ses-2"]
#: Of the person: 2 mm, and all of it 10 mm higher than in the standard space.
TEMPLATE = Grid.of((84, 100, 84), [[2, 0, 0, -84], [0, 2, 0, -110], [0, 0, 2, -74], [0, 0, 0, 1]])
LIFT = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 10], [0, 0, 0, 1]])


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    world = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.matrix[:3, :3].T + grid.matrix[:3, 3]
    return ((world - centre) ** 2).sum(-1) < radius**2


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A new lesion at the right of the head; the second visit is three times as bright."""
    root = tmp_path_factory.mktemp("pictures")
    brain = ball(WORKING_GRID, (0, -10, 0), 62)
    x = np.indices(WORKING_GRID.shape)[1]
    healthy = np.where(brain, 1 + 0.2 * np.sin(x / 9), 0).astype(np.float32)
    new, stable = ball(WORKING_GRID, (30, 0, 12), 8), ball(WORKING_GRID, (-30, 20, -8), 8)
    masks = [stable, new | stable]
    labels = np.where(stable, 1, np.where(new, 2, 0))
    files: dict[str, list[str]] = {"before": [], "after": [], "masks": []}
    for number, (mask, scale) in enumerate(zip(masks, (1, 3), strict=True)):
        before = np.where(mask, np.float32(0.5), healthy) * scale
        for name, values in (("before", before), ("after", healthy * scale), ("masks", mask)):
            path = root / f"{name}{number}.nii"
            files[name].append(images.save(path, np.float32(values), WORKING_GRID))
    volume = float(new.sum())
    lesions = [
        LesionHistory(1, (volume, volume), "stable", ("stable",), (-30, 20, 2)),
        LesionHistory(2, (0, volume), "new", ("new",), (30, 0, 22)),
    ]
    table = str(root / "table.tsv")
    write_histories(table, lesions, SESSIONS)
    out = root / "out"
    out.mkdir()
    made = ChangePictures(
        **files,
        labels=images.save(root / "labels.nii", labels.astype(np.int32), WORKING_GRID),
        table=table,
        sessions=SESSIONS,
        template_mask=images.save(
            root / "m.nii", ball(TEMPLATE, (0, -10, 10), 62).astype(np.uint8), TEMPLATE
        ),
        # from a point of the standard space to that of the person
        standard_xfm=write_xfm(str(root / "xfm.txt"), LIFT),
    ).run(cwd=out)
    return made.outputs


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path), float)


def test_visits_differ_by_what_changed_alone(drawn):
    first, second = (pixels(path) for path in drawn.before)
    assert first.shape == second.shape
    moved = np.abs(first - second) > 40
    places, count = ndimage.label(moved)
    assert count
    # one lesion, of the size of the ball on each slice that cuts it
    assert moved.sum() < 0.03 * moved.size
    for part in ndimage.find_objects(places):
        assert max(s.stop - s.start for s in part) <= 2 * 8 + 3
    # away from it both have the same grey, though one was three times as bright
    away = ndimage.distance_transform_edt(~moved) > 6
    assert np.abs(first - second)[away].max() <= 3


def test_filled_visits_are_alike(drawn):
    filled = [pixels(path) for path in drawn.after]
    assert np.abs(filled[0] - filled[1]).max() <= 4
    assert np.abs(pixels(drawn.before[1]) - filled[1]).max() > 40


def test_what_is_at_the_right_of_the_person_is_at_the_right(drawn):
    first, second = (pixels(path) for path in drawn.before)
    moved = np.abs(first - second) > 40
    axial = moved[: moved.shape[0] // 3]
    slices = np.array_split(np.arange(moved.shape[1]), 4)
    (hit,) = [columns for columns in slices if axial[:, columns].any()]
    assert np.flatnonzero(axial[:, hit].any(0)).min() > hit.size / 2


def test_outlines_tell_what_is_there_from_what_is_at_another_visit(drawn):
    groups = [re.findall(r'<g class="([^"]+)">', Path(path).read_text()) for path in drawn.outlines]
    named = ["new names", "stable names"]
    assert [set(found) for found in groups] == [
        {"new absent", "stable", *named}, {"new", "stable", *named},
    ]  # fmt: skip
    names = [set(re.findall(r'id="([^"]+)"', Path(path).read_text())) for path in drawn.outlines]
    assert not names[0] & names[1]
    # only pictures are left in the folder of the node
    assert {path.suffix for path in Path(drawn.outlines[0]).parent.iterdir()} == {".png", ".svg"}


def test_lesions_have_their_numbers_beside_them(drawn):
    """Once along each axis: that of the new one in the right half of its axial slice."""
    text = Path(drawn.outlines[0]).read_text()
    width, height = (int(n) for n in re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups())
    found = re.findall(r'<text x="(\d+)" y="(\d+)">(\d)</text>', text)
    assert sorted(label for *_, label in found) == ["1", "1", "1", "2", "2", "2"]
    for label, side in (("1", 0), ("2", 1)):
        (x,) = [int(x) for x, y, name in found if name == label and int(y) < height / 3]
        assert round(4 * x / width % 1) == side


def test_pictures_are_in_the_space_of_the_person(drawn):
    """The brain is where the mask of the template is, and not 10 mm lower or 20."""
    picture = pixels(drawn.before[0])
    coronal = picture[-(picture.shape[0] // 3) :]
    # through the middle of a slice, away from what is written
    line = coronal[:, round(picture.shape[1] * 3 / 8)]
    inside = np.flatnonzero(line > 30)
    assert abs(inside[0] - (line.size - 1 - inside[-1])) < 8
