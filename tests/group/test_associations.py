"""Tests of volumes by the columns of participants.tsv, against values that are computed here on their own."""

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find
from helpers import write_dataset, write_finished
from scipy import stats

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.group.associations import Associations, associate
from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import Covariates
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
RNG = np.random.default_rng(4)
LOADS = np.round(RNG.lognormal(1, 1, 24), 3)
WHITE = np.round(RNG.normal(500, 40, 24), 1)
GREY = np.round(RNG.normal(650, 40, 24), 1)


def people(count: int = 24) -> list[Measured]:
    """One image of each participant."""
    return [
        Measured(
            Image("", "", {"sub": f"{i:02d}"}),
            {"lesion_volume": LOADS[i], "wm_volume": WHITE[i], "gm_volume": GREY[i]},
        )
        for i in range(count)
    ]


def assess(measured, **columns) -> Associations:
    """By columns with a value for each image; those that start with n/a are missing."""
    names = [one.image.prefix for one in measured]
    rows = {
        name: {column: str(values[i]) for column, values in columns.items()} for i, name in enumerate(names)
    }
    return associate(measured, Covariates({column: {} for column in columns}, rows))


def by_hand(values: list[float]) -> list[float]:
    """Holm's method, as its definition says: the largest of all earlier steps."""
    ranked = sorted(values)
    steps = [min(1, (len(values) - i) * p) for i, p in enumerate(ranked)]
    return [max(steps[: ranked.index(p) + 1]) for p in values]


def test_two_groups_three_groups_and_numbers_are_as_scipy_has_them():
    sex = np.array(["F", "M"] * 12)
    site = np.array(["a", "b", "c"] * 8)
    age = np.round(RNG.uniform(20, 70, 24), 1)
    found = assess(people(), sex=sex, site=site, age=age)
    assert found.untested == ()
    assert [(t.column, t.measure) for t in found.tests] == [
        (column, measure)
        for column in ("sex", "site", "age")
        for measure in ("lesion_volume", "wm_volume", "gm_volume")
    ]
    expected = []
    for test in found.tests:
        y = {"lesion_volume": LOADS, "wm_volume": WHITE, "gm_volume": GREY}[test.measure]
        assert test.n == 24
        if test.column == "sex":
            women, men = y[sex == "F"], y[sex == "M"]
            assert test.groups == {"F": (12, np.median(women)), "M": (12, np.median(men))}
            expected.append(stats.mannwhitneyu(women, men, alternative="two-sided").pvalue)
            pairs = [np.sign(a - b) for a, b in itertools.product(women, men)]
            assert test.effect == pytest.approx(np.mean(pairs))
        elif test.column == "site":
            h, p = stats.kruskal(*(y[site == level] for level in "abc"))
            assert (test.statistic, test.effect) == pytest.approx((h, h / 23))
            expected.append(p)
        else:
            rho, p = stats.spearmanr(age, y)
            assert test.effect == pytest.approx(rho)
            reach = stats.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / 21)
            assert (test.low, test.high) == pytest.approx(
                tuple(np.tanh(np.arctanh(rho) + side * reach) for side in (-1, 1)), abs=1e-6
            )
            expected.append(p)
    assert [test.p for test in found.tests] == pytest.approx(expected)
    assert [test.adjusted for test in found.tests] == pytest.approx(by_hand(expected))
    entries = found.as_json()
    assert entries["Correction"] == "Holm, over 9 tests"
    assert entries["Tests"][0]["Levels"]["F"]["Participants"] == 12
    assert entries["Tests"][8]["ConfidenceInterval95"] == [found.tests[8].low, found.tests[8].high]


def test_a_participant_counts_once_with_the_mean_of_the_images_that_have_a_value():
    """Sessions with ages of their own; the participant whose group changes has no part in that test."""
    measured, ages, groups = [], [], []
    for i in range(12):
        for session in "ab":
            image = Image("", "", {"sub": f"{i:02d}", "ses": session})
            volume = float(LOADS[i]) * (1 if session == "a" else 3)
            measured.append(Measured(image, {"lesion_volume": volume}))
            ages.append("n/a" if i == 3 and session == "b" else 30 + 7 * i % 11 + (session == "b"))
            groups.append("x" if i < 6 or (i == 11 and session == "b") else "y")
    found = assess(measured, age=ages, group=groups)
    age, group = [test for test in found.tests if test.measure == "lesion_volume"]
    x = [30 + 7 * i % 11 + (0 if i == 3 else 0.5) for i in range(12)]
    y = [LOADS[i] * (1 if i == 3 else 2) for i in range(12)]
    assert (age.n, age.effect) == pytest.approx((12, stats.spearmanr(x, y).statistic))
    assert {level: n for level, (n, _) in group.groups.items()} == {"x": 6, "y": 5}
    assert group.p == pytest.approx(stats.mannwhitneyu(2 * LOADS[:6], 2 * LOADS[6:11]).pvalue)
    reasons = dict(found.untested)
    assert "1 participant with different values at different images left out" in [
        reason for column, reason in found.untested if column == "group"
    ]
    # nobody has tissues here
    assert "White matter" in " ".join(reason for column, reason in found.untested if column == "age")
    assert set(reasons) == {"age", "group"}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("subject_id", [f"x{i % 2}" for i in range(24)], "identifier, a date or a comment"),
        ("ID", list(range(24)), "identifier, a date or a comment"),
        ("acq_time", ["1901"] * 12 + ["1902"] * 12, "identifier, a date or a comment"),
        ("chart", [1000 + 3 * i for i in range(24)], "taken for an identifier"),
        ("note", ["x", "y"] * 12, "identifier, a date or a comment"),
        ("history", [f"word {i % 7}" for i in range(24)], "taken for free text"),
        ("group", ["a"] * 24, "the same value"),
        ("group", ["n/a"] * 24, "no participant has a value"),
        ("group", ["a"] * 22 + ["b"] * 2, "fewer than two levels have 3 participants"),
        ("score", [*np.random.default_rng(0).uniform(0, 1, 9), *["n/a"] * 15], "fewer than 10 participants"),
    ],
)
def test_what_can_not_be_tested_is_not_and_says_why(name, values, reason):
    found = assess(people(), **{name: values})
    assert found.tests == ()
    assert any(reason in said and column == name for column, said in found.untested)


def test_codes_are_groups_and_rare_levels_are_left_out():
    codes = [i % 4 for i in range(24)]
    many = [i % 12 for i in range(24)]
    rare = ["a"] * 11 + ["b"] * 11 + ["other"] * 2
    found = assess(people(), codes=codes, many=many, rare=rare)
    kinds = {test.column: test.test for test in found.tests}
    assert kinds == {"codes": "Kruskal-Wallis H", "many": "Spearman", "rare": "Mann-Whitney U"}
    assert {test.n for test in found.tests if test.column == "rare"} == {22}
    assert found.untested == (("rare", "levels with fewer than 3 participants left out: other (2)"),)
    # what the dataset calls levels are levels
    rows = {one.image.prefix: {"many": str(i % 12)} for i, one in enumerate(people())}
    named = associate(people(), Covariates({"many": {"Levels": {"0": "x"}}}, rows))
    assert not named.tests


def test_a_volume_that_is_the_same_in_all_is_not_tested():
    for_all = [Measured(one.image, one.volumes | {"lesion_volume": 0.0}) for one in people()]
    found = assess(for_all, group=["a", "b"] * 12)
    assert [test.measure for test in found.tests] == ["wm_volume", "gm_volume"]
    assert found.untested == (("group", "Lesion volume: the volume is the same in all participants"),)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The page of 13 people, of whom a rating excludes one; the first has two runs."""
    find()
    root = tmp_path_factory.mktemp("columns")
    images = [Image("", "", {"sub": f"{i:02d}"}) for i in range(1, 14)]
    images[0:1] = [Image("", "", {"sub": "01", "run": run}) for run in "12"]
    write_dataset(
        root / "bids", *(f"{i.folder}/{i.prefix}_T1w.nii.gz" for i in images),
        data=np.zeros((2, 2, 2), np.int16),
    )  # fmt: skip
    rows = ["participant_id\tage\tgroup\thistory\tsite"]
    ages = RNG.permutation(np.arange(20, 60, 3))
    for i in range(1, 14):
        note = "<b>a</b>" if i == 2 else f"note {i}"
        rows.append(f"sub-{i:02d}\t{ages[i]}\t{'patient' if i % 2 else 'control'}\t{note}\t{'ABC'[i % 3]}")
    (root / "bids/participants.tsv").write_text("\n".join(rows) + "\n")
    for k, image in enumerate(images):
        lesions = np.zeros(WORKING_GRID.shape, bool)
        edge = 4 * int(RNG.integers(1, 12))
        lesions[60 : 60 + edge, 80:96, 80:96] = True
        volumes = {"GM": 7e5 - 1e4 * k, "WM": 5e5 + 1e4 * ((7 * k) % 13), "CSF": 3e5}
        write_finished(root / "out", image, lesions, volumes=volumes, native=NATIVE)
    (root / "out/ratings").mkdir()
    (root / "out/ratings/a.tsv").write_text("participant_id\tlesions\nsub-13\texclude\n")
    argv = [str(root / "bids"), str(root / "out"), "group", "-w", str(root / "w"), "--nprocs", "1"]
    assert cli.main(argv) == 0
    return root / "out"


@pytest.fixture
def browser(out, tmp_path):
    one = Browser(tmp_path)
    one.open(out / "group.html")
    yield one
    one.close()
    assert one.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in one.requests)


def test_the_page_and_the_sidecar_have_the_tests(browser, out):
    with (out / "group_desc-volumes.tsv").open() as file:
        table = [row for row in csv.DictReader(file, delimiter="\t") if row["excluded"] == "n/a"]
    loads: dict[str, list[float]] = {}
    for row in table:
        loads.setdefault(row["participant_id"], []).append(float(row["lesion_volume"]))
    assert len(loads) == 12
    group = {row["participant_id"]: row["group"] for row in table}
    sides = [[np.mean(v) for p, v in loads.items() if group[p] == level] for level in ("control", "patient")]
    p = stats.mannwhitneyu(*sides).pvalue
    rows = browser.evaluate(
        "[...document.querySelectorAll('.tests tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    shown = {(row[0], row[1]): row for row in rows}
    row = shown["group", "Lesion volume"]
    assert row[2] == f"control 6 ({np.median(sides[0]):.2f} ml), patient 6 ({np.median(sides[1]):.2f} ml)"
    assert float(row[6]) == pytest.approx(p, abs=1e-4)
    assert {column for column, _ in shown} == {"age", "group", "site"}
    assert shown["age", "Grey matter"][2] == "12"
    assert re.fullmatch(r"ρ = [+−]0\.\d\d", shown["age", "Grey matter"][4])
    sidecar = json.loads((out / "group_desc-volumes.json").read_text())["Statistics"]
    (entry,) = (
        t for t in sidecar["Tests"] if (t["Column"], t["Measure"]) == ("group", "lesion_volume")
    )  # fmt: skip
    assert entry["P"] == pytest.approx(p)
    assert [t["HolmP"] for t in sidecar["Tests"]] == pytest.approx(
        by_hand([t["P"] for t in sidecar["Tests"]])
    )
    assert sidecar["NotTested"] == [
        {"Column": "history", "Reason": "more than 6 different words, so it is taken for free text"}
    ]
    text = browser.evaluate("document.getElementById('columns').innerText")
    assert "corrected for all 9 tests" in text
    assert "history (more than 6 different words, so it is taken for free text)" in text


def test_all_plots_have_letters_of_one_size(browser, out):
    """Letters are drawn as shapes of 100 units, which each plot scales, and the page scales the plot."""
    plots = browser.evaluate(
        "[...document.querySelectorAll('.plot')].map(image => image.getAttribute('src'))"
    )
    assert len(plots) == 5
    ready = "[...document.querySelectorAll('.plot')].every(image => image.complete && image.naturalWidth > 0)"
    browser.wait(ready)
    shown = browser.evaluate("[...document.querySelectorAll('.plot')].map(image => image.clientWidth)")
    sizes = set()
    for name, width in zip(plots, shown, strict=True):
        text = (out / name).read_text()
        view = float(re.search(r'viewBox="0 0 ([\d.]+) ', text)[1])
        letters = max(float(scale) for scale in re.findall(r"translate\([^)]*\) scale\(([\d.]+) ", text))
        sizes.add(round(100 * letters * width / view, 2))
    # ten points
    assert sizes == {13.33}


def test_the_page_links_to_all_tables_plots_and_maps(browser, out):
    links = browser.evaluate("[...document.links].map(link => decodeURIComponent(link.getAttribute('href')))")
    made = {str(path.relative_to(out)) for path in (*out.glob("group_*"), *out.glob("figures/*"))}
    assert len(made) > 8
    assert made <= set(links)


def test_links_at_the_top_lead_to_their_sections(browser, out):
    for name in ("columns", "map", "outliers"):
        browser.evaluate(f"document.querySelector('header a[href=\"#{name}\"]').click()")
        heading = f"document.querySelector('#{name} h2').getBoundingClientRect()"
        header = "document.querySelector('header').getBoundingClientRect().bottom"
        browser.wait(f"{heading}.top >= {header} - 1 && {heading}.bottom < innerHeight")
    # the one before the last that fits is at the top of the window
    browser.evaluate("document.querySelector('header a[href=\"#columns\"]').click()")
    browser.wait("document.getElementById('columns').getBoundingClientRect().top < 100")
