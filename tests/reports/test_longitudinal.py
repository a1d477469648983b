"""The report of a person over time in a real browser: what it says, flicker, keys, nothing fetched."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find
from helpers import write_dataset, write_finished, write_followed

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.people import page_of, pictures_of
from bids_inpaint.imaging.history import LesionHistory
from bids_inpaint.io import images
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.longitudinal import write_course
from bids_inpaint.participant.outcomes import Outcome, Run
from bids_inpaint.participant.report import write_report
from bids_inpaint.reports import figures
from bids_inpaint.reports.changes import COLOURS, Chart, cuts_through_lesions, ranked
from bids_inpaint.reports.folder import link_pages
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
VISITS = [Image("", "", {"sub": "01", "ses": session}) for session in "abc"]
OTHERS = [Image("", "", {"sub": "02", "ses": session}) for session in "ab"]
ATTACK = "<img src=x onerror='window.hacked = 1'>"
#: mm³: resolved, new, and too little of a difference
LESIONS = [[3000, 2000, 0], [0, 500, 900], [300, 310, 300]]


def draw(folder: Path) -> dict[str, bytes]:
    """Small pictures of a visit: their layers."""
    grid = Grid.of((45, 54, 45), np.diag([4.0, 4, 4, 1]))
    x = np.indices(grid.shape) - np.array(grid.shape).reshape(3, 1, 1, 1) / 2
    ball = np.float32((x**2).sum(0) < 18**2)
    image = images.save(folder / "i.nii.gz", ball * (100 + 40 * np.sin(x[0] / 3)), grid)
    mask = images.save(folder / "m.nii.gz", np.float32((x**2).sum(0) < 4**2), grid)
    cuts = figures.cuts_through(mask)
    for name in ("before", "after"):
        figures.grey(image, str(folder / f"{name}.png"), cuts)
    classes = ["resolved", "new absent"]
    colours = [COLOURS["resolved"], COLOURS["new"]]
    figures.outlines([mask, image], colours, str(folder / "outlines.svg"), cuts, classes=classes)
    names = {"before": "before.png", "after": "after.png", "outlines": "outlines.svg"}
    return {layer: (folder / name).read_bytes() for layer, name in names.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two people with several visits, of which one has warnings and times, as their runs leave them."""
    root = tmp_path_factory.mktemp("person")
    write_dataset(root / "bids")
    out = root / "out"
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[80:92, 80:92, 80:92] = True
    layers = draw(root)
    for image in (*VISITS, *OTHERS):
        write_finished(out, image, lesions, volumes={"GM": 7e5, "WM": 5e5, "CSF": 3e5}, native=NATIVE)
    likeness = [[1, 0.97, 0.6], [0.97, 1, 0.98], [0.6, 0.98, 1]]
    write_followed(out, VISITS, LESIONS, [0, 0.5, 2], Likeness=likeness)
    write_followed(out, OTHERS, [[100, 100]])
    for image in VISITS:
        sidecar = out / f"{image.folder}/{image.prefix}_desc-inpainted_T1w.json"
        own = [f"Too dark {ATTACK}."] if image is VISITS[1] else []
        more = {"QualityWarnings": ["All visits are old.", *own]}
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | more))
    for image in (*VISITS, *OTHERS):
        for layer, name in pictures_of(image.subject, image.prefix).items():
            (out / name).write_bytes(layers[layer].replace(b'"outlines-', f'"{image.prefix}-'.encode()))
    settings = Settings(root / "bids", out, root / "w")
    run = Run(settings, Networks.of(settings), "a-1", [*VISITS, *OTHERS])
    for people in (VISITS, OTHERS):
        assert write_course(out, people[0].subject)
        write_report(people[0].subject, [Outcome(image) for image in people], run)
    link_pages(out)
    return out


@pytest.fixture
def browser(made, tmp_path):
    find()
    one = Browser(tmp_path)
    yield one
    one.close()
    assert one.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in one.requests)


def keep(browser: Browser, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if folder := os.environ.get("BIDS_INPAINT_SCREENSHOTS"):
        browser.screenshot(Path(folder) / name)


def text_of(browser: Browser, selector: str) -> str:
    return browser.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def seen(browser: Browser) -> list[str]:
    """The pictures that can be seen, and the outlines."""
    return browser.evaluate("""[...document.querySelectorAll(".visit img, .visit svg")]
        .filter(one => getComputedStyle(one).visibility === "visible")
        .map(one => one.getAttribute("src")?.split("/").pop() || "outlines")""")


def picture(visit: int, layer: str = "before") -> str:
    return Path(pictures_of("01", VISITS[visit].prefix)[layer]).name


def test_the_verdict_and_the_volumes_stand_first(browser, made):
    browser.open(made / page_of("01"))
    keep(browser, "person.png")
    verdict = text_of(browser, ".verdict")
    assert "3 visits over 2.00 years. The lesions have 3.30 ml at the first visit and 1.20 ml" in verdict
    assert "Of 3 lesions, 1 is new and 1 resolved." in verdict
    assert "sub-01_ses-a and sub-01_ses-c are as unlike after their alignment" in verdict
    assert "All visits are old." in verdict
    assert browser.evaluate("document.querySelector('.verdict').classList.contains('look')")
    facts = text_of(browser, ".facts")
    assert "−2.10" in facts
    # the slope of the line through all three
    assert "−1.06" in facts
    rows = browser.evaluate(
        "[...document.querySelectorAll('.index tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    # years, volume, difference, number, and new, enlarging, shrinking and resolved since the visit before
    assert rows[0][2:10] == ["0.00", "3.30", "", "2", "", "", "", ""]
    assert rows[1][2:10] == ["0.50", "2.81", "−0.49", "3", "1", "0", "1", "0"]
    assert rows[2][2:10] == ["2.00", "1.20", "−1.61", "2", "0", "1", "0", "1"]
    assert "Too dark <img" in rows[1][-1]
    assert "old" not in rows[1][-1]
    assert browser.evaluate("window.hacked === undefined")


def test_visits_flicker_before_and_after_filling(browser, made):
    browser.open(made / page_of("01"))
    browser.wait("[...document.querySelectorAll('.visit img')].every(i => i.complete && i.naturalWidth > 0)")
    assert seen(browser) == [picture(0), "outlines"]
    # all layers lie on each other
    sizes = """new Set([...document.querySelectorAll(".visit img, .visit svg")].map(one => {
        const box = one.getBoundingClientRect();
        return [box.x, box.y, box.width, box.height].map(Math.round).join() })).size"""
    assert browser.evaluate(sizes) == 1
    browser.press("n", "ArrowRight")
    assert seen(browser) == [picture(2), "outlines"]
    assert text_of(browser, "#seen") == "c (2.00 years), original"
    browser.press("f")
    assert seen(browser) == [picture(2, "after"), "outlines"]
    assert text_of(browser, "#seen") == "c (2.00 years), lesions filled"
    browser.press("p", "o")
    assert seen(browser) == [picture(1, "after")]
    browser.press("o", "f", "1")
    assert seen(browser) == [picture(0), "outlines"]
    # around the end
    browser.press("ArrowLeft")
    assert seen(browser) == [picture(2), "outlines"]
    browser.evaluate("document.querySelector('.stack').click()")
    assert seen(browser) == [picture(0), "outlines"]
    browser.press("a")
    for visit in (1, 2, 0):
        browser.wait(f"document.querySelectorAll('.visit')[{visit}].classList.contains('now')")
    browser.press("a", "z", "3")
    keep(browser, "person-zoom.png")
    assert browser.evaluate("document.querySelector('.stack').clientWidth > innerWidth")
    assert (
        browser.evaluate("document.querySelector('[data-visit=\"2\"]').getAttribute('aria-pressed')")
        == "true"
    )


def test_outlines_of_each_change_can_be_hidden(browser, made):
    browser.open(made / page_of("01"))
    shown = """[...document.querySelectorAll(".visit.now g")]
        .filter(g => getComputedStyle(g).display !== "none").map(g => g.getAttribute("class")).sort()"""
    assert browser.evaluate(shown) == ["new absent", "resolved"]
    browser.evaluate("document.querySelector('[data-change=new]').click()")
    assert browser.evaluate(shown) == ["resolved"]
    browser.press("n")
    assert browser.evaluate(shown) == ["resolved"]
    browser.evaluate("document.querySelector('[data-change=new]').click()")
    assert browser.evaluate(shown) == ["new absent", "resolved"]
    # the place of a lesion that is not there is dashed
    dash = "getComputedStyle(document.querySelector('.visit.now g.absent')).strokeDasharray"
    assert browser.evaluate(dash) != "none"
    # each outline is that of its own visit: names in the page are unique
    names = "[...document.querySelectorAll('[id]')].map(one => one.id)"
    found = browser.evaluate(names)
    assert len(found) == len(set(found))


def test_each_lesion_has_its_line_and_its_words(browser, made):
    browser.open(made / page_of("01"))
    rows = browser.evaluate("""[...document.querySelectorAll(".lesions tbody tr")].map(row =>
        [row.cells[0].innerText, row.cells[1].innerText.trim(),
         row.querySelector("svg").getAttribute("aria-label")])""")
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[1].split()[-1] for row in rows] == ["resolved", "new", "stable"]
    assert rows[1][2] == "Lesion 2: a 0 mm³, b 500 mm³, c 900 mm³"
    # time goes to the right: the second visit is at a quarter
    places = browser.evaluate("""[...document.querySelector(".lesions tbody svg").querySelectorAll("circle")]
        .map(c => +c.getAttribute("cx"))""")
    assert (places[1] - places[0]) / (places[2] - places[0]) == pytest.approx(0.25, abs=0.01)
    assert "Volume of all lesions: a 3.30 ml, b 2.81 ml, c 1.20 ml" in browser.evaluate(
        "document.querySelector('.chart svg').getAttribute('aria-label')"
    )
    assert browser.evaluate("[...document.images].every(image => image.alt)")


def test_the_pages_lead_to_each_other(browser, made):
    browser.open(made / "sub-01.html")
    row = "document.querySelector('.index tbody tr')"
    assert "sub-01 over time" in browser.evaluate(f"{row}.innerText")
    assert "1 is new and 1 resolved" in browser.evaluate(f"{row}.innerText")
    assert browser.evaluate(f"{row}.querySelector('a').getAttribute('href')") == page_of("01")
    # the row is no image: keys and ratings go on as without it
    browser.press("n", "g")
    assert browser.evaluate("document.querySelector('article.now').id") == "sub-01_ses-a"
    browser.open(made / page_of("01"))
    assert browser.evaluate("document.getElementById('after').getAttribute('href')") == page_of("02")
    link = browser.evaluate("document.querySelector('.index tbody a').getAttribute('href')")
    assert link == "sub-01.html#sub-01_ses-a"
    browser.press("i")
    browser.wait("document.title.startsWith('sub-01:') && document.readyState === 'complete'")
    # neither page is among the reports of the other kind
    listed = (made / "logs/participants.js").read_text()
    assert json.loads(listed.split("= ")[1].rstrip(";\n")) == {
        "labels": ["sub-01", "sub-02"], "courses": ["sub-01", "sub-02"], "group": False,
    }  # fmt: skip


def test_without_times_visits_stand_in_their_order(browser, made):
    browser.open(made / page_of("02"))
    page = text_of(browser, "main")
    assert "2 visits. The lesions have 0.10 ml" in page
    assert "Of 1 lesion, none changed." in page
    assert "n/a" in text_of(browser, ".facts")
    assert "stand at equal distances" in page


def test_results_of_an_earlier_run_are_marked(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    status = {"Status": "failed", "Error": "sub-01 has no longitudinal results of this run."}
    (out / "sub-01/log/sub-01_longitudinal_status.json").write_text(json.dumps(status))
    page = write_course(out, "01").read_text()
    assert '<div class="verdict failed">' in page
    assert "<li>sub-01 has no longitudinal results of this run.</li>" in page
    settings = Settings(tmp_path, out, tmp_path, longitudinal="keep")
    run = Run(settings, Networks.of(settings), "a-1", VISITS)
    report = write_report("01", [Outcome(image) for image in VISITS], run).read_text()
    assert '<span class="tag failed">not of this run</span>' in report
    # what can't be read does not keep the other reports away
    (out / "sub-01/anat/sub-01_desc-lesionchange_dseg.tsv").write_text("index\n1\n")
    assert write_course(out, "01") is None
    assert not (out / page_of("01")).exists()
    report = write_report("01", [Outcome(image) for image in VISITS], run).read_text()
    assert "The longitudinal results of sub-01 can" in report
    assert page_of("01") not in report
    # nor does what was never there
    (out / "sub-01/anat/sub-01_desc-lesionchange_dseg.tsv").unlink()
    report = write_report("01", [Outcome(image) for image in VISITS], run).read_text()
    assert "<li>sub-01 has no longitudinal results of this run.</li>" in report


def test_slices_show_every_lesion_that_changed():
    """However small it is beside one that did not change."""
    labels = np.zeros((60, 70, 60), int)
    labels[10:30, 10:40, 10:30] = 1
    labels[40:42, 50:52, 44:46] = 2
    labels[50:52, 20:23, 55:57] = 3
    brain = np.ones(labels.shape, bool)
    volumes = [(12000.0, 12000.0), (0.0, 8.0), (12.0, 0.0)]
    changes = ("stable", "new", "resolved")
    lesions = [
        LesionHistory(i, v, change, (change,), (0.0, 0.0, 0.0))
        for i, (v, change) in enumerate(zip(volumes, changes, strict=True), 1)
    ]
    order = [one.label for one in ranked(lesions)]
    assert order == [3, 2, 1]
    cuts = cuts_through_lesions(labels, order, brain, np.ones(3))
    for axis, chosen in enumerate(cuts):
        assert chosen == sorted(set(chosen))
        shown = {int(v) for i in chosen for v in np.unique(labels.take(i, axis))}
        assert {1, 2, 3} <= shown


def test_charts_hold_whatever_volumes():
    for years in ([0, 0.1, 30], [None, None, None], [0, None, 3]):
        chart = Chart.of(years, 0, 10, 110, 5, 55)
        assert chart.x[0] == 10
        assert chart.x[-1] == pytest.approx(110)
        assert chart.y(0) == 55


def test_the_page_says_which_visits_were_added(made, tmp_path):
    """A visit that is older than the finished ones is not taken for one of those."""
    shutil.copytree(made, tmp_path / "out")
    sidecar = tmp_path / "out/sub-01/anat/sub-01_desc-longitudinal_T1w.json"
    facts = {
        "AddedVisits": [["sub-01_ses-a"]],
        "Likeness": [[1, 0.7], [0.7, 1]],
        "LikenessToTemplate": {"sub-01_ses-a": 0.6},
    }
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | facts))
    page = write_course(tmp_path / "out", "01").read_text()
    assert "a was added to finished visits." in page
    assert "was made of b and c alone" in page
    assert "sub-01_ses-b and sub-01_ses-c are as unlike after their alignment" in page
    assert "sub-01_ses-a and the template of sub-01 are as unlike after their alignment" in page
    assert "was added to" not in (made / page_of("01")).read_text()
