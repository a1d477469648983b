"""Lesions from near: the right place the right way round, in pictures and in a real browser."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find
from helpers import write_finished
from PIL import Image as Picture
from scipy import ndimage

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import EVERYTHING, figures_of
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.outcomes import Outcome, Run
from bids_inpaint.participant.report import write_report
from bids_inpaint.reports import sheet, zoom
from bids_inpaint.reports.figures import LESION, OTHER
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid, resample

#: Tilted by 10° about x, thick slices, voxels from right to left.
ANGLE = np.deg2rad(10)
TURN = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
SHAPE = (150, 180, 70)
TILTED = np.eye(4)
TILTED[:3, :3] = TURN @ np.diag([-1.0, 1.0, 2.0])
TILTED[:3, 3] = -TILTED[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
#: Four voxels wide on the grid of the pages.
NATIVE = Grid.of((91, 109, 91), [[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
IMAGES = [Image("", "", {"sub": "01"}), *(Image("", "", {"sub": "02", "ses": s}) for s in "ab")]


def world(grid: Grid) -> np.ndarray:
    points = np.indices(grid.shape).reshape(3, -1)
    return (grid.matrix[:3, :3] @ points + grid.matrix[:3, 3:]).reshape(3, *grid.shape)


def paint(grid: Grid, *balls: tuple[tuple[float, float, float], float], noise: float = 0.0) -> zoom.Head:
    """A brain of 100, dark at its top, with dark balls that filling removes: lesions, the largest first."""
    place = world(grid)
    labels = np.zeros(grid.shape, np.int32)
    for i, (centre, radius) in enumerate(balls, 1):
        labels[((place - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2] = i
    brain = (place**2).sum(0) < 65**2
    whole = np.float32(100 * brain + noise * np.random.default_rng(0).normal(0, 1, grid.shape) * brain)
    whole -= np.float32(60) * (brain & (place[2] > 21))
    before = np.where(labels > 0, 50, whole).astype(np.float32)
    return zoom.Head(before, whole, brain, labels, np.float32(labels > 0) * 0.8, grid)


def draw(head: zoom.Head, folder: Path) -> tuple[np.ndarray, np.ndarray, str, dict]:
    """Pictures before and after filling, the outlines, and what the rows are."""
    paths = [str(folder / name) for name in ("a.png", "b.png", "c.svg", "d.json")]
    zoom.draw(head, *paths)
    pictures = []
    for path in paths[:2]:
        with Picture.open(path) as picture:
            pictures.append(np.asarray(picture).astype(int))
    return pictures[0], pictures[1], Path(paths[2]).read_text(), json.loads(Path(paths[3]).read_text())


def planes(picture: np.ndarray, row: int) -> list[np.ndarray]:
    """The axial, the sagittal and the coronal plane of a row: 100 pixels of 0.5 mm, 4 pixels apart."""
    return [picture[100 * row : 100 * row + 100, 104 * i : 104 * i + 100] for i in range(3)]


def test_a_lesion_and_its_outline_are_in_the_middle_of_each_plane(tmp_path):
    """On tilted, thick voxels; the other lesion on its axial plane has the other colour."""
    head = paint(Grid.of(SHAPE, TILTED), ((-20, 5, 10), 6), ((-6, 15, 10), 4))
    before, after, svg, rows = draw(head, tmp_path)
    assert rows["Lesions"] == [1, 2]
    assert rows["Probabilities"] == pytest.approx([0.8, 0.8])
    for plane, after_it in zip(planes(before, 0), planes(after, 0), strict=True):
        changed = np.abs(plane - after_it) > 60
        parts, _ = ndimage.label(changed)
        y, x = np.nonzero(parts == parts[50, 50])
        # 12 mm across in the middle, of pixels of half a millimetre
        assert (x.mean(), y.mean()) == pytest.approx((49.5, 49.5), abs=2.5)
        assert np.sqrt(x.size * 4 / np.pi) == pytest.approx(24, abs=4)
        assert not changed[:10].any()
    own = re.search(r'id="m1-0" d="M(\d+) (\d+)l([-\d ]+)', svg)
    points = np.cumsum([[int(own[1]), int(own[2])], *np.array(own[3].split(), int).reshape(-1, 2)], 0) / 10
    assert points.mean(0) == pytest.approx((50, 50), abs=3)
    assert np.ptp(points, axis=0) == pytest.approx((24, 24), abs=4)
    other = re.search(r'id="m1-1" d="M(\d+) (\d+)l', svg)
    # 14 mm to the right and 10 mm to the front of it
    assert (int(other[1]) / 10, int(other[2]) / 10) == pytest.approx((78, 30), abs=10)
    assert svg.count(LESION) == 2
    assert svg.count(OTHER) == 2


def test_right_is_right_front_is_right_or_up_and_top_is_up(tmp_path):
    """Markers of another brightness to the right, in front of and above a lesion."""
    head = paint(Grid.of(SHAPE, TILTED), ((-10, 0, 0), 5))
    place = world(head.grid)
    for centre, value in (((5, 0, 0), 50), ((-10, 15, 0), 65), ((-10, 0, 15), 80)):
        marker = ((place - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < 5**2
        head.original[marker] = head.inpainted[marker] = value
    after = draw(head, tmp_path)[1]
    axial, sagittal, coronal = planes(after, 0)
    bright = axial[50, 50]
    assert [axial[50, 80] < axial[20, 50] < bright, bool(axial[80, 50] == bright)] == [True, True]
    assert [sagittal[50, 80] < sagittal[20, 50] < bright, bool(sagittal[80, 50] == bright)] == [True, True]
    assert [coronal[50, 80] < coronal[20, 50] < bright, bool(coronal[80, 50] == bright)] == [True, True]


def test_a_hundred_lesions_stay_small_and_quick(tmp_path):
    """The 30 largest and the 10 least probable, in a few megabytes although there is much noise."""
    rng = np.random.default_rng(1)
    places = [(x, y, z) for x in range(-40, 41, 10) for y in range(-40, 41, 10) for z in range(-35, 36, 10)]
    chosen = [places[i] for i in rng.permutation(len(places))[:100]]
    balls = [(centre, 4.5 - 0.02 * i) for i, centre in enumerate(chosen)]
    grid = Grid.of((150, 150, 150), [[1, 0, 0, -75], [0, 1, 0, -75], [0, 0, 1, -75], [0, 0, 0, 1]])
    head = paint(grid, *balls, noise=5)
    likely = 0.9 * np.ones(101)
    doubtful = [33, 41, 52, 60, 61, 77, 80, 91, 99, 100]
    likely[doubtful] = np.linspace(0.3, 0.5, 10)
    likely[5] = 0.1
    head = zoom.Head(*list(vars(head).values())[:4], np.float32(likely)[head.labels], grid)
    start = time.process_time()
    rows = draw(head, tmp_path)[3]
    assert time.process_time() - start < 20
    assert rows["Lesions"] == [*range(1, 31), *doubtful]
    assert rows["Doubtful"] == doubtful
    assert rows["Probabilities"][4] == pytest.approx(0.1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3e6


def letters_apart(row: np.ndarray) -> np.ndarray:
    """Columns with something bright in them, as (first, last) of each stretch."""
    there = np.r_[0, (row > 128).any(0), 0].astype(int)
    return np.stack([np.flatnonzero(np.diff(there) == 1), np.flatnonzero(np.diff(there) == -1) - 1], 1)


def test_the_sheet_is_true_to_scale_and_has_left_at_left(tmp_path):
    """On tilted voxels: lesions on one side alone, a bar as long as it says, no words beside the pixels."""
    head = paint(Grid.of(SHAPE, TILTED), ((-30, 5, 10), 8), ((-25, -10, -12), 5))
    path = tmp_path / "sheet.png"
    sheet.draw(head, str(path))
    with Picture.open(path) as picture:
        assert picture.info.keys() == {"dpi"}
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape[1] == pytest.approx(180 / 25.4 * 300, abs=6)
    coloured = np.argwhere(pixels[..., 0] - pixels[..., 2] > 150)
    # six slices beside each other, after the margin for the names of rows
    step = (pixels.shape[1] - 66) / 6
    places = (coloured[:, 1] - 66) % step / step
    assert places.max() < 0.5
    # outlined in the second of three rows alone
    high = (coloured[:, 0] - 66) / (pixels.shape[0] - 132)
    assert (high.min(), high.max()) == pytest.approx((0.5, 0.5), abs=0.17)
    # the larger lesion is 16 mm wide, and the brain 130 mm; z = 10 mm is a slice, or nearly
    columns = (coloured[:, 1] - 66) // step
    wide = [np.ptp(coloured[columns == i, 1]) for i in set(columns)]
    bar = letters_apart(pixels[-60:, :, 0])[-1]
    per_mm = (bar[1] - bar[0] + 1) / 50
    assert max(wide) / per_mm == pytest.approx(16, abs=2)
    middle = pixels[:, :, 0].max(0)[66 : 66 + int(step)] > 60
    assert np.ptp(np.flatnonzero(middle)) / per_mm == pytest.approx(130, abs=8)


def test_the_sheet_of_a_brain_without_lesions_has_no_outlines(tmp_path):
    path = tmp_path / "sheet.png"
    sheet.draw(paint(Grid.of(SHAPE, TILTED)), str(path))
    with Picture.open(path) as picture:
        pixels = np.asarray(picture).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0
    assert pixels.max() == 255


def test_a_brain_without_lesions_has_empty_pictures(tmp_path):
    before, _, svg, rows = draw(paint(Grid.of(SHAPE, TILTED)), tmp_path)
    assert rows["Lesions"] == []
    assert not before.any()
    assert "<path" not in svg


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The reports of two people with 45 lesions in each image."""
    find()
    folder = tmp_path_factory.mktemp("zoom") / "out"
    places = [(x, y, z) for x in (-32, -8, 8, 32) for y in (-36, -12, 12, 36) for z in (-24, 0, 24)][:45]
    place = world(WORKING_GRID)
    lesions = np.zeros(WORKING_GRID.shape, bool)
    for i, centre in enumerate(places):
        radius = 7 - 0.1 * i
        lesions |= ((place - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < radius**2
    own = resample(lesions, WORKING_GRID, NATIVE, order=0) > 0.5
    labels, _ = ndimage.label(own, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    rank = np.r_[0, np.argsort(np.argsort(-sizes, kind="stable"), kind="stable") + 1]
    painted = paint(NATIVE, noise=4)
    before = np.where(labels > 0, np.float32(50), painted.inpainted)
    head = zoom.Head(before, painted.inpainted, painted.brain, rank[labels], np.float32(own) * 0.7, NATIVE)
    for image in IMAGES:
        write_finished(folder, image, lesions, native=NATIVE)
        names = figures_of(image, EVERYTHING)
        kinds = ("first", "second", "contours", "lesions")
        zoom.draw(head, *(str(folder / names[f"zoom_{kind}"]) for kind in kinds))
        sheet.draw(head, str(folder / names["sheet"]))
        for key in ("lesions_first", "lesions_second"):
            (folder / names[key]).write_bytes((folder / names["zoom_first"]).read_bytes())
        sidecar = folder / f"{image.folder}/{image.prefix}_desc-inpainted_T1w.json"
        sidecar.write_text(json.dumps({"QualityMeasures": {}}))
    settings = Settings(folder.parent / "bids", folder, folder.parent / "w")
    run = Run(settings, Networks.of(settings), "a-1", IMAGES)
    for subject in ("01", "02"):
        write_report(subject, [Outcome(i) for i in IMAGES if i.subject == subject], run)
    return folder


@pytest.fixture
def browser(out, tmp_path):
    one = Browser(tmp_path)
    yield one
    one.close()
    # the page of the group and its neighbours are not there
    assert [c for c in one.complaints if "FILE_NOT_FOUND" not in c] == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in one.requests)


def title(browser: Browser) -> str:
    """What stands above the lesion that is seen from near; nothing if none is."""
    return browser.evaluate("document.querySelector('dialog[open] .text')?.textContent ?? ''")


def test_rows_open_their_lesions_and_keys_lead_through_them(browser, out):
    browser.open(out / "sub-01.html")
    rows = "[...document.querySelectorAll('tr[data-lesion]')].map(row => row.dataset.lesion)"
    assert browser.evaluate(rows) == [str(i) for i in range(1, 41)]
    link = "[...document.links].find(one => one.textContent === 'Sheet for a paper').href"
    assert Path(browser.evaluate(link).removeprefix("file://")).stat().st_size > 1e4
    text = browser.evaluate("document.querySelector('details.lesions').innerText")
    assert "The 30 largest are shown, and of the others the 10 that are least probable" in text
    # by the mouse, anywhere on the row
    browser.evaluate("document.querySelectorAll('tr[data-lesion]')[2].cells[3].click()")
    assert re.fullmatch(
        r"Lesion 3 of 45: \d+ mm³, at x = −?\d+, y = −?\d+, z = −?\d+ mm, mean lesion probability 0.70",
        title(browser),
    )
    images = "[...document.querySelectorAll('dialog[open] .stack img')]"
    browser.wait(f"{images}.every(image => image.complete && image.naturalWidth > 0)")
    assert browser.evaluate(f"{images}.map(image => image.alt)") == [
        f"Lesion 3, {what}: axial, sagittal and coronal plane"
        for what in ("before filling", "after filling", "outlines")
    ]
    # row 3 of all layers fills the frame: a hundred pixels of the picture
    boxes = browser.evaluate(f"""{images}.map(image => {{
        const [box, frame] = [image, image.parentNode].map(one => one.getBoundingClientRect());
        return [(frame.top - box.top) / box.height, frame.height / box.height, box.width / frame.width];
    }})""")
    assert np.array(boxes) == pytest.approx(np.array([[2 / 40, 1 / 40, 1]] * 3), abs=1e-3)
    browser.press("n", "ArrowRight")
    assert title(browser).startswith("Lesion 5 of 45")
    browser.press("p")
    assert title(browser).startswith("Lesion 4 of 45")
    visible = "getComputedStyle(document.querySelector('dialog[open] .{}')).visibility"
    for key, layer in (("f", "second"), ("o", "contours")):
        seen = browser.evaluate(visible.format(layer))
        browser.press(key)
        assert browser.evaluate(visible.format(layer)) != seen
    browser.press("o", "f", "a")
    browser.wait("document.body.classList.contains('show-second')")
    browser.press("a", "Escape")
    assert title(browser) == ""
    # back on the row of the lesion that was seen last, and by the keyboard to it again
    assert browser.evaluate("document.activeElement.textContent") == "4"
    browser.press("l")
    assert title(browser).startswith("Lesion 1 of 45")
    browser.press("p")
    assert title(browser).startswith("Lesion 1 of 45")
    for _ in range(45):
        browser.press("n")
    assert title(browser).startswith("Lesion 40 of 45")
    assert title(browser).endswith("among the least probable")
    browser.evaluate("document.querySelector('dialog[open] [data-near=Escape]').click()")
    assert title(browser) == ""


def test_no_key_rates_while_a_lesion_is_seen_from_near(browser, out):
    browser.open(out / "sub-02.html")
    # no image is laid open yet
    browser.press("l")
    assert title(browser) == ""
    browser.press("n", "n", "l", "x", "i")
    assert title(browser).startswith("Lesion 1 of 45")
    assert browser.evaluate("document.querySelector('dialog[open]').closest('article').id") == "sub-02_ses-b"
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('save').textContent") == "Save ratings"
    shown = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight).map(a => a.id)"
    assert browser.evaluate(shown) == ["sub-02_ses-b"]


def test_pictures_of_other_lesions_than_those_of_the_table_are_not_shown(out, tmp_path):
    """As an earlier run left them, whose map had more lesions."""
    names = figures_of(IMAGES[0], EVERYTHING)
    path = out / names["zoom_lesions"]
    known = path.read_text()
    changed = json.loads(known) | {"Lesions": [1, 99], "Probabilities": [0.5, 0.5]}
    settings = Settings(out.parent / "bids", out, out.parent / "w")
    run = Run(settings, Networks.of(settings), "a-1", IMAGES)
    try:
        path.write_text(json.dumps(changed))
        page = write_report("01", [Outcome(IMAGES[0])], run).read_text()
    finally:
        path.write_text(known)
        write_report("01", [Outcome(IMAGES[0])], run)
    assert "<dialog" not in page
    assert page.count("<td>lesion ") == 30
