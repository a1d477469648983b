"""People with several visits in the tables and on the page of a group."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset, write_finished, write_followed

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.reports.ratings import COLUMNS
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])


def visits(subject: str, *sessions: str) -> list[Image]:
    return [
        Image(f"sub-{subject}/ses-{s}/anat/sub-{subject}_ses-{s}_T1w.nii.gz", "", {"sub": subject, "ses": s})
        for s in sessions
    ]


PEOPLE = {"01": visits("01", "1", "2", "3"), "02": visits("02", "1", "2"), "03": visits("03", "1", "2")}
ALONE = Image("sub-04/anat/sub-04_T1w.nii.gz", "", {"sub": "04"})
#: mm³ of each lesion at each visit
LESIONS = {
    "01": [[1000, 1500, 2500], [0, 800, 0], [500, 500, 510], [400, 0, 0]],
    "02": [[2000, 1000]],
    "03": [[100, 100]],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four people: times of two are known, one of them shifted; the last has one visit."""
    root = tmp_path_factory.mktemp("people")
    images = [image for person in PEOPLE.values() for image in person] + [ALONE]
    write_dataset(root / "bids", *(image.path for image in images), data=np.zeros((2, 2, 2), np.int16))
    (root / "bids/participants.tsv").write_text(
        "participant_id\tgroup\nsub-01\tpatient\nsub-02\tcontrol\nsub-03\tcontrol\nsub-04\tcontrol\n"
    )
    for subject, times in {
        # a zone, fractions of a second and a day alone are all allowed
        "01": ("1901-01-01T12:00:00", "1901-07-02T15:00:00.000000Z", "1902-01-01"),
        "02": ("2011-03-01T08:00:00", "2013-03-01T08:00:00"),
    }.items():
        rows = [f"ses-{i}\t{time}\n" for i, time in enumerate(times, 1)]
        table = "session_id\tacq_time\n" + "".join(rows)
        (root / f"bids/sub-{subject}/sub-{subject}_sessions.tsv").write_text(table)
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[80:92, 80:92, 80:92] = True
    for image in images:
        volumes = {"GM": 700_000.0, "WM": 500_000.0, "CSF": 300_000.0}
        write_finished(root / "out", image, lesions, volumes=volumes, native=NATIVE)
    years = {"01": [0, 182.125 / 365.25, 364.5 / 365.25], "02": [0, 731 / 365.25], "03": None}
    for subject, person in PEOPLE.items():
        write_followed(root / "out", person, LESIONS[subject], years[subject])
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture(scope="module")
def grouped(made) -> Path:
    assert group(made) == 0
    return made


def group(root: Path, *options: str) -> int:
    argv = [str(root / "bids"), str(root / "out"), "group", "-w", str(root / "w"), "--nprocs", "1"]
    return cli.main([*argv, *options])


def rows_of(root: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (root / "out/group_desc-longitudinal.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {(row["participant_id"], row["session_id"]): row for row in rows}


def rate(root: Path, **marks: str) -> None:
    """Ratings by prefix without `sub-`, as ``_01_2`` for ``sub-01_ses-2``."""
    (root / "out/ratings").mkdir(exist_ok=True)
    lines = ["\t".join(COLUMNS)]
    for name, mark in marks.items():
        _, subject, session = name.split("_")
        cells = {"participant_id": f"sub-{subject}", "image": f"sub-{subject}_ses-{session}", "lesions": mark}
        lines.append("\t".join(cells.get(column, "n/a") for column in COLUMNS))
    (root / "out/ratings/a.tsv").write_text("\n".join(lines) + "\n")


def test_each_visit_has_a_row_with_its_volumes_and_changes(grouped):
    rows = rows_of(grouped)
    assert [*rows] == [
        ("sub-01", "ses-1"), ("sub-01", "ses-2"), ("sub-01", "ses-3"),
        ("sub-02", "ses-1"), ("sub-02", "ses-2"), ("sub-03", "ses-1"), ("sub-03", "ses-2"),
    ]  # fmt: skip
    of_first = [rows["sub-01", f"ses-{i}"] for i in (1, 2, 3)]
    assert [float(row["lesion_volume"]) for row in of_first] == [1.9, 2.8, 3.01]
    assert [row["lesion_count"] for row in of_first] == ["3", "3", "2"]
    steps = [[row[name] for name in ("new", "enlarging", "shrinking", "resolved")] for row in of_first]
    assert steps == [["n/a"] * 4, ["1", "1", "0", "1"], ["0", "1", "0", "1"]]
    assert {row["gm_volume"] for row in rows.values()} == {"700"}
    assert {row["wm_volume"] for row in rows.values()} == {"500"}
    described = json.loads((grouped / "out/group_desc-longitudinal.json").read_text())
    assert set(rows["sub-01", "ses-1"]) <= set(described)
    assert described["lesion_volume"]["Units"] == "mL"
    assert described["lesion_volume_per_year"]["Units"] == "mL/year"


def test_rates_are_those_of_a_line_through_all_visits(grouped):
    rows = rows_of(grouped)
    times = [0, 182.125 / 365.25, 364.5 / 365.25]
    slope = np.polyfit(times, [1.9, 2.8, 3.01], 1)[0]
    found = {float(rows["sub-01", f"ses-{i}"]["lesion_volume_per_year"]) for i in (1, 2, 3)}
    assert [*found] == [pytest.approx(slope, rel=1e-5)]
    # two visits: the difference over the years
    assert float(rows["sub-02", "ses-1"]["lesion_volume_per_year"]) == pytest.approx(-1 / (731 / 365.25))
    statistics = json.loads((grouped / "out/group_desc-longitudinal.json").read_text())["Statistics"]
    mean = (slope - 365.25 / 731) / 2
    assert statistics["LesionVolumePerYear"]["Participants"] == 2
    assert statistics["LesionVolumePerYear"]["Mean"] == pytest.approx(mean, rel=1e-5)


def test_times_are_those_of_the_dataset_shifted_or_missing(grouped):
    rows = rows_of(grouped)
    times = [rows["sub-01", f"ses-{i}"]["acq_time"] for i in (1, 2, 3)]
    assert times == ["1901-01-01T12:00:00", "1901-07-02T15:00:00", "1902-01-01T00:00:00"]
    assert [float(rows["sub-01", f"ses-{i}"]["years"]) for i in (1, 2)] == [
        0,
        pytest.approx(0.49863, abs=1e-4),
    ]
    for session in ("ses-1", "ses-2"):
        row = rows["sub-03", session]
        assert {row["acq_time"], row["years"], row["lesion_volume_per_year"]} == {"n/a"}
        assert float(row["lesion_volume"]) == 0.1


def test_visits_that_ratings_exclude_change_neither_rates_nor_plots(root):
    rate(root, _01_2="exclude", _02_1="check")
    assert group(root) == 0
    rows = rows_of(root)
    assert rows["sub-01", "ses-2"]["excluded"] == "lesions"
    assert rows["sub-02", "ses-1"]["excluded"] == "n/a"
    # the line goes through the first and the last, and no step is one from or to the second
    assert float(rows["sub-01", "ses-1"]["lesion_volume_per_year"]) == pytest.approx(
        1.11 / (364.5 / 365.25), rel=1e-5
    )
    for session in ("ses-2", "ses-3"):
        assert {rows["sub-01", session][name] for name in ("new", "enlarging", "resolved")} == {"n/a"}
    assert float(rows["sub-01", "ses-2"]["lesion_volume"]) == 2.8
    page = (root / "out/group.html").read_text()
    assert "2 of 3</td>" in page


def test_the_page_leads_to_the_people_and_shows_their_lines(grouped):
    page = (grouped / "out/group.html").read_text()
    assert '<a href="sub-01_desc-longitudinal_T1w.html">sub-01</a>' in page
    # and so do the rows of all seven visits
    assert len(re.findall(r'<a href="sub-0\d_desc-longitudinal_T1w.html">over time</a>', page)) == 7
    assert "3 participants with several visits" in page
    assert 'src="figures/group_over-time.svg"' in page
    # columns with few words have a panel for each
    assert "<h3>By group</h3>" in page
    plot = (grouped / "out/figures/group_over-time-by-1.svg").read_text()
    assert "control, n = 1" in plot
    assert "1 without times left out" in (grouped / "out/figures/group_over-time.svg").read_text()
    assert "group_desc-longitudinal.tsv" in page


@pytest.mark.parametrize(
    ("doubt", "said"),
    [
        ("failed", "is left out of the table over time. No template of it"),
        ("other visits", "sub-02_ses-1 was processed with other visits since"),
        ("other times", "Its acquisition times are others than when it was processed"),
        ("broken", "The longitudinal results of sub-02 can't be read"),
    ],
)
def test_results_that_are_not_those_of_the_last_run_are_left_out(root, caplog, doubt, said):
    person = root / "out/sub-02"
    if doubt == "failed":
        status = {"Status": "failed", "Error": "No template of it."}
        (person / "log/sub-02_longitudinal_status.json").write_text(json.dumps(status))
    elif doubt == "other visits":
        path = person / "ses-1/anat/sub-02_ses-1_desc-inpainted_T1w.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"Visits": None}))
    elif doubt == "other times":
        table = root / "bids/sub-02/sub-02_sessions.tsv"
        table.write_text(table.read_text().replace("2013", "2012"))
    else:
        (person / "anat/sub-02_desc-lesionchange_dseg.tsv").write_text("index\tname\n1\tx\n")
    assert group(root) == 0
    assert {participant for participant, _ in rows_of(root)} == {"sub-01", "sub-03"}
    assert said in caplog.text
    # whatever becomes of them, their images are in all other tables
    assert "sub-02_ses-1" in (root / "out/group.html").read_text()
    assert "sub-02\tses-1" in (root / "out/group_desc-volumes.tsv").read_text()


def test_without_people_over_time_the_group_is_as_before(root):
    assert group(root) == 0
    assert (root / "out/group_desc-longitudinal.tsv").exists()
    for subject in PEOPLE:
        shutil.rmtree(root / f"out/sub-{subject}/anat")
        (root / f"out/sub-{subject}/log/sub-{subject}_longitudinal_status.json").unlink()
    assert group(root) == 0
    assert not list((root / "out").glob("group_desc-longitudinal.*"))
    assert not list((root / "out/figures").glob("group_over-time*"))
    page = (root / "out/group.html").read_text()
    assert "longitudinal" not in page
    assert 'href="#courses"' not in page


def test_a_visit_that_was_added_knows_more_visits_than_the_finished_ones(root, caplog):
    """Each has to know those that were there when it was processed, and no others."""
    path = root / "out/sub-01/anat/sub-01_desc-longitudinal_T1w.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"AddedVisits": [["sub-01_ses-1"]]}))
    assert group(root) == 0
    assert "sub-01_ses-2 was processed with other visits since" in caplog.text
    caplog.clear()
    for image in PEOPLE["01"][1:]:
        sidecar = root / "out" / image.folder / f"{image.prefix}_desc-inpainted_T1w.json"
        known = {"Visits": ["sub-01_ses-2", "sub-01_ses-3"]}
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | known))
    assert group(root) == 0
    assert "other visits since" not in caplog.text
    assert [session for person, session in rows_of(root) if person == "sub-01"] == ["ses-1", "ses-2", "ses-3"]
