"""What participants.tsv and its relatives say, and to which image it belongs."""

import csv
import html
import json

import numpy as np
import pytest
from helpers import write_dataset, write_finished

from bids_inpaint import cli
from bids_inpaint.dataset.bids import collect
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.participants import People, ages, people
from bids_inpaint.dataset.results import volumes_of
from bids_inpaint.dataset.status import OPTIONAL, last_run
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.group.level import mixed
from bids_inpaint.group.measure import PROVENANCE, Measured
from bids_inpaint.group.tables import join
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid


def write(root, table: str | bytes, **files: str):
    """A dataset folder with a participants.tsv and more files; `__` in their names is a folder."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "participants.tsv").write_bytes(table if isinstance(table, bytes) else table.encode())
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "table",
    [
        "participant_id\tage\nsub-01\t30\nsub-02\tn/a\n",
        "participant_id\tage\n01\t30\n02\tn/a\n",
        '"participant_id"\t"age"\n"sub-01"\t"30"\n"02"\t\n',
        "participant_id \t age\n sub-01 \t 30 \n",
        "\ufeffparticipant_id\tage\r\nsub-01\t30\r\n\r\n",
        "participant_id\tage\rsub-01\t30\r",
        "participant_id\tage\nsub-01\t30\nsub-01\t30\n",
        "age\tparticipant_id\t\n30\tsub-01\t\n",
        "participant_id\tage\nsub-01\t30\n".encode("utf-16"),
    ],
)
def test_tables_as_programs_write_them(tmp_path, caplog, table):
    found = People(write(tmp_path, table))
    assert found.of("01", None) == {"age": "30"}
    assert found.of("01", "1") == {"age": "30"}
    assert found.of("02", None) == {"age": "n/a"}
    assert found.age("02", None) is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("table", "row", "warning"),
    [
        ("Participant_ID\tage\nsub-01\t30\n", {"age": "30"}, "is taken for participant_id"),
        ("participant_id,age\nsub-01,30\n", {}, "has commas in place of tabs, and is not used"),
        ("subject\tage\nsub-01\t30\n", {}, "has no column participant_id, and is not used"),
        ("participant_id\tage\tage\nsub-01\t30\t31\n", {"age": "30", "age_2": "31"}, "is called age_2"),
        ("participant_id\tparticipant_id\nsub-01\tsub-02\n", {}, "two columns participant_id"),
        ("participant_id\tage\nsub-01\t30\nsub-01\t35\n", {"age": "n/a"}, "of which none is used"),
        ("participant_id\tsex\tage\nsub-01\t30\n", {"sex": "n/a", "age": "n/a"}, "cells in line 2 "),
        ("participant_id\tage\nsub-01\t30\tF\n", {"age": "n/a"}, "cells in line 2 "),
        ("\0", {}, "no column participant_id"),
        ("participant_id\tcity\nsub-01\tKöln\n".encode("latin-1"), {"city": "K\ufffdln"}, "is not UTF-8"),
        ("participant_id\t\x1b[2J\t\x1b[2J\n", {"\x1b[2J": "n/a", "\x1b[2J_2": "n/a"}, r"columns \x1b[2J: "),
    ],
)
def test_doubtful_tables_are_warned_of_once(tmp_path, caplog, table, row, warning):
    found = people(write(tmp_path, table))
    assert found.of("01", None) == row
    assert people(tmp_path).of("01", None) == row
    assert [warning in record.message for record in caplog.records] == [True]
    assert found.warnings == [record.message for record in caplog.records]


def test_a_table_that_is_not_there_is_no_table(tmp_path, caplog):
    assert People(tmp_path).of("01", None) == {}
    assert not caplog.records
    (tmp_path / "participants.tsv").symlink_to("annexed")
    assert People(tmp_path).of("01", None) == {}
    assert "participants.tsv is a broken link" in caplog.text


def test_each_session_has_its_own_row(tmp_path, caplog):
    table = (
        "participant_id\tsession_id\tage\n01\t 1\t30\nsub-01\tses-2\t35\nsub-02\tn/a\t40\n"
        "sub-03\tses-1\t50\nsub-03\tses-1\t51\nsub-04\tses-1\t60\n"
    )
    found = People(write(tmp_path, table))
    assert [found.of("01", session)["age"] for session in ("1", "2", "3", None)] == ["30", "35", "n/a", "n/a"]
    # a row of no session is about all of them
    assert [found.of("02", session)["age"] for session in ("1", None)] == ["40", "40"]
    assert found.of("04", None) == {"age": "n/a"}
    assert not caplog.records
    assert found.of("03", "1") == {"age": "n/a"}
    assert "2 different rows of ses-1 of sub-03, of which none is used" in caplog.text


@pytest.mark.parametrize("column", ["session", "ses", "Visit", "visit_id", "Session Label", "timepoint"])
def test_sessions_in_columns_of_other_names(tmp_path, caplog, column):
    """A row is not that of another session, however the column is called."""
    table = f"participant_id\tage\t{column}\nsub-01\t60\tses-2\nsub-02\t40\tn/a\nsub-03\t50\t1\n"
    found = People(write(tmp_path, f"{table}sub-03\t52\t2\n"))
    assert [found.age("02", "1"), found.age("01", "2"), found.age("01", None)] == [40, 60, 60]
    assert not caplog.records
    assert [found.age("01", "1"), found.age("03", "1"), found.age("03", "2")] == [None, 50, 52]
    (record,) = caplog.records
    assert f"participants.tsv has a column {column}, which is taken for session_id" in record.message
    joined = join(found, IMAGES[:2], every=True)
    assert [row["age"] for row in joined.rows.values()] == ["n/a", "60"]
    assert (
        "no row that is about 1 of 2 images, which have n/a in its columns: sub-01_ses-1"
        in joined.warnings[0]
    )


def test_sessions_that_a_table_of_sessions_lacks_are_named(tmp_path):
    root = write(tmp_path, "participant_id\n", **{
        "sub-01__sub-01_sessions.tsv": "session_id\tage\nses-01\t60\nses-2\t61\n"})  # fmt: skip
    (root / "participants.tsv").unlink()
    joined = join(People(root), IMAGES, every=True)
    assert [row["age"] for row in list(joined.rows.values())[:2]] == ["n/a", "61"]
    assert joined.warnings == (
        "sub-LABEL_sessions.tsv has no row that is about 1 of 6 images, which have n/a in its columns: "
        "sub-01_ses-1.",
    )


def test_tables_of_sessions_are_joined(tmp_path, caplog):
    root = write(
        tmp_path, "participant_id\tsex\tage\nsub-01\tF\t20\nsub-02\tM\t30\n",
        **{
            "sub-01__sub-01_sessions.tsv": "session_id\tage\tedss\nses-1\t20\t1.5\n2\tn/a\t2\n",
            "sub-03__sub-03_sessions.tsv": "session_id\tedss\nses-1\t3\nses-1\t4\n",
        },
    )  # fmt: skip
    found = People(root)
    assert found.of("01", "1") == {"sex": "F", "age": "20", "edss": "1.5"}
    # the age of another session is not that of this one
    assert found.of("01", "2") == {"sex": "F", "age": "n/a", "edss": "2"}
    assert found.of("01", "3") == {"sex": "F", "age": "n/a", "edss": "n/a"}
    assert found.of("02", "1") == {"sex": "M", "age": "30"}
    assert not caplog.records
    assert found.of("03", "1") == {"sex": "n/a", "age": "n/a", "edss": "n/a"}
    assert "sub-03_sessions.tsv has 2 different rows of ses-1" in caplog.text


@pytest.mark.parametrize(
    ("cell", "entry", "years"),
    [
        ("30", {}, 30), ("8.5", {"Units": "years"}, 8.5), ("8,5", {}, 8.5), ("102", {"Units": "month"}, 8.5),
        ("102", {"Units": "Months"}, 8.5), ("6574.5", {"Units": "days"}, 18),
        ("3000", {"Units": "week"}, 57.5),
        ("102", {"Description": "Age in months at the scan"}, 8.5),
        ("102", {"Description": "Age of the participant (months)"}, 8.5),
        ("102", {"LongName": "Months old"}, 8.5), ("6574.5", {"Description": "Age [days]"}, 18),
        ("102", {"Description": "Age at scan, in full months."}, 8.5),
        ("30", {"Description": "Age in years, within 30 days of the scan"}, 30),
        ("30", {"Description": "Age on the day of the scan"}, 30),
        ("102", {"Description": "Age (months)", "Units": "years"}, 102), ("89+", {}, 89), (">89", {}, 89),
        ("20-25", {}, 22.5), ("-9", {}, None), ("n/a", {}, None), ("", {}, None), ("nan", {}, None),
        ("inf", {}, None), ("adult", {}, None), ("6,205", {}, None),
    ],
)  # fmt: skip
def test_ages_are_in_years(tmp_path, caplog, cell, entry, years):
    root = write(tmp_path, f"participant_id\tage\tx\n01\t{cell}\t1\n", **{
        "participants.json": json.dumps({"age": entry}),
    })  # fmt: skip
    assert ages(root)("01", None) == pytest.approx(years, abs=0.01)
    assert ages(root)("02", None) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("cell", "entry", "warning"),
    [
        ("150", {}, "ages of over 130 years"),
        ("20", {"Units": "furlong"}, "unit 'furlong' of ages"),
        ("20", {"Description": "Age in years or in months"}, "unit 'age in years or in months' of ages"),
        ("20", {"Description": "Age, seen within 9 weeks"}, "unit 'age, seen within 9 weeks' of ages"),
    ],
)
def test_ages_that_can_not_be_are_not_used(tmp_path, caplog, cell, entry, warning):
    root = write(tmp_path, f"participant_id\tage\n01\t{cell}\n", **{
        "participants.json": json.dumps({"age": entry}),
    })  # fmt: skip
    assert ages(root)("01", None) is None
    assert warning in caplog.text
    assert not people(root).child("01", None)


def test_children_are_told_by_session_and_unit(tmp_path):
    names = [f"sub-0{i}/ses-{s}/anat/sub-0{i}_ses-{s}_T1w.nii" for i in (1, 2, 3) for s in (1, 2)]
    root = write_dataset(tmp_path / "bids", *names)
    write(
        root, "participant_id\tsession_id\tage\nsub-01\tses-1\t204\nsub-01\tses-2\t217\nsub-02\tn/a\t240\n",
        **{
            "participants.json": '{"age": {"Units": "month"}}',
            "sub-03__sub-03_sessions.tsv": "session_id\tage\nses-1\t<18\nses-2\t17-19\n",
        },
    )  # fmt: skip
    # 17 years, then 18; 20 years; below 18, then unknown
    expected = [True, False, False, False, True, False]
    found = collect(Settings(bids_dir=root, output_dir=tmp_path / "o", work_dir=tmp_path / "w")).images
    assert [any("child" in text for text in image.warnings) for image in found] == expected
    sidecar = root / "sub-03/sub-03_sessions.json"
    sidecar.write_text('{"age": {"Units": "days"}}')
    (root / "sub-03/sub-03_sessions.tsv").write_text("session_id\tage\nses-1\t6000\nses-2\t7000\n")
    assert [People(root).child("03", session) for session in ("1", "2")] == [True, False]


IMAGES = [
    Image("", "", {"sub": "01", "ses": "1"}),
    Image("", "", {"sub": "01", "ses": "2"}),
    *(Image("", "", {"sub": label}) for label in ("02", "03", "04", "05")),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Finished results of which each has something that the others haven't."""
    root = tmp_path_factory.mktemp("group")
    bids, out = root / "bids", root / "out"
    write_dataset(bids, *(f"{image.folder}/{image.prefix}_T1w.nii" for image in IMAGES))
    write(
        bids,
        "Participant_id\tsession_id\tage\tdice\tlesion_volume\n01\tses-1\t30\t1\t2\nsub-01\t2\t35\t1\t3\n"
        "02\t\t40\t1\t4\n99\t\t50\t1\t5\n",
        **{"participants.json": '{"age": {"Description": "x", "Minimum": NaN, "Levels": [Infinity, 1]}}'},
    )
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[80:84, 80:84, 80:84] = True
    coarse = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
    tissues = dict.fromkeys(("original", "inpainted", "reference"), lesions.astype(np.uint8))
    for image in IMAGES:
        # sub-02 has no given mask
        given = {} if image.subject == "02" else {"reference": np.ones(coarse.shape, bool)}
        more = {"tissues": tissues, "volumes": {"GM": 1000.0}} if image.subject in ("01", "03") else {}
        write_finished(out, image, lesions, native=coarse, **given, **more)
        sidecar = out / image.folder / f"{image.prefix}_desc-inpainted_T1w.json"
        made = {"SoftwareVersion": "0.2.0", "Options": {"fill": "lesions", "seed": 0}}
        if image.prefix == "sub-01_ses-2":
            made = {"SoftwareVersion": "0.3.0", "Options": {"fill": "full", "seed": 0}}
        if image.subject != "02":
            sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | made))
    for label, status in {
        "01_ses-1": {"Status": "done"},
        "03": {"Status": "failed", "Failed": ["reference"], "Error": "x."},
        "04": {"Status": "failed", "Failed": ["inpainted", "reference"], "Error": "sub-04 is no head."},
        "05": {"Status": "unfinished"},
    }.items():
        path = out / f"sub-{label[:2]}/log/sub-{label}_status.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(status))
    return root


@pytest.fixture(scope="module")
def page(root) -> str:
    assert cli.main([*map(str, (root / "bids", root / "out")), "group", "-w", str(root / "w")]) == 0
    return html.unescape((root / "out/group.html").read_text(encoding="utf-8"))


def rows(root, name) -> list[dict[str, str]]:
    with (root / "out" / f"group_desc-{name}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_group_has_the_covariates_of_each_session(root, page):
    table = rows(root, "volumes")
    names = [f"{row['participant_id']} {row['session_id']}" for row in table]
    assert names == ["sub-01 ses-1", "sub-01 ses-2", "sub-02 n/a", "sub-03 n/a"]
    assert [row["age"] for row in table] == ["30", "35", "40", "n/a"]
    assert "participants.tsv has a column Participant_id, which is taken for participant_id" in page
    # a name of ours is the measured one
    assert [row["lesion_volume"] for row in table] == ["0.064"] * 4
    assert [row["participants_lesion_volume"] for row in table] == ["2", "3", "4", "n/a"]
    assert "participants.tsv has 1 row without an image: sub-99." in page
    assert "no row that is about 3 of 6 images, which have n/a in its columns: sub-03, sub-04, sub-05" in page


def test_group_writes_json_that_others_can_read(root, page):
    def refuse(constant):
        raise AssertionError(constant)

    text = (root / "out/group_desc-volumes.json").read_text()
    columns = json.loads(text, parse_constant=refuse)
    assert columns["age"] == {"Description": "x", "Minimum": None, "Levels": [None, 1]}
    assert "native space" in columns["lesion_volume"]["Description"]
    assert "standard space" in (root / "out/group_desc-tissue_dice.json").read_text()


def test_group_leaves_out_what_is_not_of_the_last_run(root, page):
    # the whole image, or a part of it
    assert "sub-04 is left out, as its last run failed (sub-04 is no head)" in page
    assert "sub-05 is left out, as its last run did not end" in page
    assert [row["participant_id"] for row in rows(root, "lesion_dice")] == ["sub-01", "sub-01"]
    assert [row["participant_id"] for row in rows(root, "tissue_dice")] == ["sub-01", "sub-01"]
    assert (
        "sub-03: its tissue maps are not compared, as those of its reference are not of its last run" in page
    )
    assert "sub-03: its reference mask is not used, as it is not of its last run" in page
    described = json.loads((root / "out" / f"group_space-{DEFAULT}_res-1_label-L_probseg.json").read_text())
    assert described["Participants"] == 3


def test_group_names_who_has_no_given_mask(root, page):
    assert "2 of 4 images have no given lesion mask, so they are not in the tables of lesion" in page
    assert "Dice: sub-02, sub-03." in page


def test_group_names_results_of_other_versions_and_options(root, page):
    assert "Version is 0.2.0 in 2 images, 0.3.0 in sub-01_ses-2, unknown in sub-02;" in page
    assert "Option fill is lesions in 2 images, full in sub-01_ses-2, unknown in sub-02;" in page
    assert '<th>Version</th><td class="exclude">0.2.0 (2 images); 0.3.0 (1 image); unknown (1 image)' in page
    # what is mapped in healthy brains stands beside the volumes
    assert "0.0 to 1.9 ml in young adults and up to 0.9 ml in older ones" in page
    # what is the same for all is no warning
    assert "Network is" not in page
    assert "Option seed is 0 in 3 images, unknown in sub-02. Run the participant level again" in page


def test_alike_results_are_not_warned_of():
    alike = [Measured(image, provenance=dict.fromkeys(PROVENANCE, "1")) for image in IMAGES]
    assert mixed(alike) == []
    old = [Measured(image, provenance={k: v[-1] for k, v in PROVENANCE.items()}) for image in IMAGES]
    assert mixed(old) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"Status": "?"}'])
def test_a_damaged_status_is_no_good_one(tmp_path, content):
    path = tmp_path / "sub-02/log/sub-02_status.json"
    path.parent.mkdir(parents=True)
    assert last_run(IMAGES[2], tmp_path) == ("", OPTIONAL)
    path.write_text(content)
    assert "can't be read" in last_run(IMAGES[2], tmp_path)[0]
    path.write_text('{"Status": "failed", "Failed": ["flair", "original"]}')
    assert last_run(IMAGES[2], tmp_path) == ("", {"reference"})
    path.write_text('{"Status": "failed", "Failed": ["flair"], "Parts": ["inpainted", "original"]}')
    assert last_run(IMAGES[2], tmp_path) == ("", {"original"})
    path.write_text('{"Status": "done", "Parts": ["inpainted", "flair", ["x"]]}')
    assert last_run(IMAGES[2], tmp_path) == ("", {"flair"})
    path.write_text('{"Status": "failed", "Failed": []}')
    assert "its last run failed" in last_run(IMAGES[2], tmp_path)[0]


def test_rows_that_several_sessions_share_are_named(tmp_path, caplog):
    """As BIDS has it, but an age is that of one of them."""
    tables = People(write(tmp_path, "participant_id\tage\nsub-01\t30\nsub-02\t40\n"))
    joined = join(tables, IMAGES[:3], every=True)
    assert [row["age"] for row in joined.rows.values()] == ["30", "30", "40"]
    assert [text.endswith("in its columns: sub-01.") for text in joined.warnings] == [True]
    # those of others are not missed where only some images are looked at
    assert join(tables, IMAGES[2:3], every=False).warnings == ()
    assert "sub-01" in join(tables, IMAGES[2:3], every=True).warnings[0]


def test_the_interval_of_the_lesion_volume_is_a_column():
    rows = [{"volume": "1000"}, {"volume": "500"}]
    known = volumes_of(rows, {}, {"LesionVolumeInterval": [700.0, 2500.0]})
    assert known == {
        "lesion_volume": 1.5,
        "lesion_count": 2.0,
        "lesion_volume_low": 0.7,
        "lesion_volume_high": 2.5,
    }
    without = volumes_of(rows, {}, {"LesionVolumeIntervalMissing": "A person drew the lesion map."})
    assert set(without) == {"lesion_volume", "lesion_count"}
