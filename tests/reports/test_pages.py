"""Reports and the group's page in a real browser: keys, ratings, nothing fetched, nothing complained of.

``BIDS_INPAINT_SCREENSHOTS`` names a folder for pictures of what is seen.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser import Browser, find
from helpers import write_dataset, write_finished

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import EVERYTHING, figures_of, status_file
from bids_inpaint.io import images
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.outcomes import Outcome, Run
from bids_inpaint.participant.report import write_report
from bids_inpaint.reports import figures
from bids_inpaint.reports.folder import link_pages
from bids_inpaint.reports.ratings import read_ratings
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
IMAGES = [Image("", "", {"sub": "01", "ses": session}) for session in "abc"] + [Image("", "", {"sub": "02"})]
ATTACK = "<img src=x onerror='window.hacked = 1'>"


def draw(folder: Path) -> dict[str, bytes]:
    """A small picture and outlines, by extension."""
    grid = Grid.of((45, 54, 45), np.diag([4.0, 4, 4, 1]))
    x = np.indices(grid.shape) - np.array(grid.shape).reshape(3, 1, 1, 1) / 2
    ball = np.float32((x**2).sum(0) < 18**2)
    image = images.save(folder / "i.nii.gz", ball * (100 + 40 * np.sin(x[0] / 3)), grid)
    mask = images.save(folder / "m.nii.gz", ball, grid)
    cuts = figures.cuts_through(mask)
    figures.grey(image, str(folder / "a.png"), cuts)
    figures.outlines([mask], [figures.LESION], str(folder / "a.svg"), cuts)
    zoomed = {"Lesions": [1], "Probabilities": [0.5]}
    (folder / "a.json").write_text(json.dumps(zoomed))
    return {f".{kind}": (folder / f"a.{kind}").read_bytes() for kind in ("png", "svg", "json")}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The reports of two people, one with three sessions, and the page of their group."""
    find()
    root = tmp_path_factory.mktemp("pages")
    names = [f"{i.folder}/{i.prefix}_T1w.nii.gz" for i in IMAGES]
    write_dataset(root / "bids", *names, data=np.zeros((2, 2, 2), np.int16))
    (root / "bids/participants.tsv").write_text(
        f"participant_id\tage\tnote\nsub-01\t40\t{ATTACK}\nsub-02\t50\tx\n"
    )
    folder = root / "out"
    pictures = draw(root)
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[80:92, 80:92, 80:92] = True
    for i, image in enumerate(IMAGES):
        write_finished(folder, image, lesions, volumes={"GM": 7e5, "WM": 5e5, "CSF": 3e5}, native=NATIVE)
        sidecar = folder / f"{image.folder}/{image.prefix}_desc-inpainted_T1w.json"
        warnings = [f"Too dark {ATTACK}."] if i == 1 else []
        more = {"QualityMeasures": {"BrainVolume": 1500.0}, "QualityWarnings": warnings}
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | more))
        for name in figures_of(image, EVERYTHING).values():
            (folder / name).write_bytes(pictures[Path(name).suffix])
        status = status_file(folder, image)
        status.parent.mkdir(exist_ok=True)
        status.write_text(json.dumps({"Status": "done", "RunUUID": "a-1"}))
    settings = Settings(root / "bids", folder, root / "w")
    run = Run(settings, Networks.of(settings), "a-1", IMAGES)
    for subject in ("01", "02"):
        write_report(subject, [Outcome(i) for i in IMAGES if i.subject == subject], run)
    link_pages(folder)
    argv = [str(root / "bids"), str(folder), "group", "-w", str(root / "w"), "--nprocs", "1"]
    assert cli.main(argv) == 0
    return folder


@pytest.fixture
def browser(out, tmp_path):
    one = Browser(tmp_path)
    yield one
    one.close()
    assert one.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in one.requests)
    assert any(url.startswith("file:") for url in one.requests)


def seen(browser: Browser, selector: str) -> bool:
    """Whether the first such element of the image that is shown can be seen."""
    element = f"document.querySelector('article.now {selector}')"
    return browser.evaluate(f"getComputedStyle({element}).visibility") == "visible"


def keep(browser: Browser, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if folder := os.environ.get("BIDS_INPAINT_SCREENSHOTS"):
        browser.screenshot(Path(folder) / name)


def place(browser: Browser) -> SimpleNamespace:
    """Which images are laid open, and which step is about to be rated."""
    return SimpleNamespace(
        shown=browser.evaluate(
            "[...document.querySelectorAll('article')].filter(a => a.offsetHeight).map(a => a.id)"
        ),
        list=browser.evaluate("document.querySelector('.overview').offsetHeight > 0"),
        step=browser.evaluate("document.querySelector('article.now .step.now')?.dataset.step"),
    )


def test_keys_lead_through_the_images(browser, out):
    browser.open(out / "sub-01.html")
    assert (place(browser).shown, place(browser).list) == ([], True)
    keep(browser, "list.png")
    browser.press("n")
    assert (place(browser).shown, place(browser).list) == (["sub-01_ses-a"], False)
    browser.press("n", "ArrowRight", "n")
    assert place(browser).shown == ["sub-01_ses-c"]
    browser.press("p")
    assert place(browser).shown == ["sub-01_ses-b"]
    browser.press("i")
    assert (place(browser).shown, place(browser).list) == ([], True)
    # what is not seen is not rated
    browser.press("x")
    assert browser.evaluate("document.getElementById('save').textContent") == "Save ratings"
    # the warning is there, and does nothing
    assert browser.evaluate("document.body.innerText.includes('Too dark <img')")
    assert browser.evaluate("window.hacked === undefined")
    # other places can be reached from an image
    browser.press("n")
    browser.evaluate("document.querySelector('header a[href=\"#Methods\"]').click()")
    browser.wait("scrollY > 0")
    assert place(browser).shown == ["sub-01_ses-b"]
    # the other participant, and back
    assert browser.evaluate("document.getElementById('after').getAttribute('href')") == "sub-02.html"
    assert not browser.evaluate("document.getElementById('group').hidden")
    browser.open(out / "sub-02.html")
    assert browser.evaluate("document.getElementById('before').getAttribute('href')") == "sub-01.html"
    for key, name in (("P", "sub-01.html"), ("N", "sub-02.html"), ("G", "group.html")):
        browser.press(key)
        browser.wait(f"location.href.endsWith('{name}') && document.readyState === 'complete'")


def test_pictures_switch_alternate_and_have_outlines(browser, out):
    browser.open(out / "sub-01.html", "#sub-01_ses-b")
    assert place(browser).shown == ["sub-01_ses-b"]
    loaded = "[...document.querySelectorAll('article.now .stack')][0].querySelectorAll('img')"
    browser.wait(f"[...{loaded}].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.evaluate(f"new Set([...{loaded}].map(i => Math.round(i.clientHeight))).size") == 1
    assert (seen(browser, ".second"), seen(browser, ".contours"), seen(browser, ".difference")) == (
        False,
        True,
        False,
    )
    browser.press("f", "o", "d")
    assert (seen(browser, ".second"), seen(browser, ".contours"), seen(browser, ".difference")) == (
        True,
        False,
        True,
    )
    assert seen(browser, ".name.second")
    browser.press("f", "o", "d")
    browser.evaluate("document.querySelector('article.now .stack').click()")
    assert seen(browser, ".second")
    browser.press("f", "a")
    browser.wait("document.body.classList.contains('show-second')")
    browser.wait("!document.body.classList.contains('show-second')")
    browser.press("a", "z")
    keep(browser, "zoom.png")
    assert browser.evaluate("document.querySelector('article.now .stack').clientWidth > innerWidth")


def test_ratings_are_kept_saved_and_read(browser, out):
    browser.open(out / "sub-01.html")
    browser.press("n")
    assert place(browser).step == "lesions"
    browser.press("g", "c", "x")
    assert place(browser).step == "brain_mask"
    browser.press("5", "g", "2", "u")
    for field, text in (("article.now .comment", "moved\tin the scanner"), ("#rater", "A. B")):
        browser.evaluate(f"""{{const input = document.querySelector({json.dumps(field)});
            input.value = {json.dumps(text)};
            input.dispatchEvent(new Event("change", {{bubbles: true}}))}}""")
    keep(browser, "rated.png")
    assert browser.evaluate("document.getElementById('save').textContent") == "Save ratings (1 unsaved)"
    # no key rates while somebody writes
    browser.evaluate("document.querySelector('article.now .comment').focus()")
    browser.press("x")
    # it stays when the page is closed, and other pages know it
    browser.open(out / "sub-02.html")
    browser.open(out / "group.html")
    row = "document.querySelector('tr[data-image=\"sub-01_ses-a\"]')"
    assert "exclude (this browser)" in browser.evaluate(f"{row}.innerText")
    browser.open(out / "sub-01.html")
    browser.press("s")
    path = browser.downloaded("sub-01_ratings-AB.tsv")
    (rating,), warnings = read_ratings([path])
    assert not warnings
    assert (rating.image, rating.rater) == ("sub-01_ses-a", "A. B")
    assert rating.comment.startswith("moved in the scanner")
    assert dict(rating.marks) == {"lesions": "good", "tissues": "exclude", "registration": "good"}
    assert len(rating.results) == 12
    assert browser.evaluate("document.getElementById('save').textContent") == "Save ratings"
    # a table can be loaded again, in another browser too
    text = json.dumps(path.read_text())
    browser.evaluate(f"localStorage.clear(); ratings.load({text}); draw()")
    tags = browser.evaluate("document.querySelector('.index tr[data-image] .marks').innerText")
    assert "Tissues: exclude" in tags


def test_the_list_of_the_group_is_sorted_and_narrowed(browser, out):
    browser.open(out / "group.html")
    keep(browser, "group.png")
    names = (
        "[...document.querySelectorAll('.index tbody tr')].filter(r => !r.hidden).map(r => r.dataset.image)"
    )
    assert browser.evaluate(names) == [image.prefix for image in IMAGES]
    browser.evaluate("document.querySelectorAll('.index th button')[1].click()")
    assert browser.evaluate(names)[0] == "sub-01_ses-b"
    browser.evaluate("""const kind = document.getElementById('kind'); kind.value = 'warned';
        kind.dispatchEvent(new Event('change'))""")
    assert browser.evaluate(names) == ["sub-01_ses-b"]
    assert browser.evaluate("document.getElementById('count').textContent") == "1 of 4"
    assert browser.evaluate("window.hacked === undefined")
    link = browser.evaluate("document.querySelector('.index tbody tr a').getAttribute('href')")
    assert link.startswith("sub-01.html#sub-01_ses-")


def test_a_page_works_without_its_neighbours(browser, out, tmp_path):
    """Of the keys, of what is there: the first image of one alone is open at once."""
    browser.open(out / "sub-02.html")
    assert place(browser).shown == ["sub-02"]
    browser.press("g")
    assert place(browser).step == "filling"
    assert "Methods" in browser.evaluate("document.body.innerText")
