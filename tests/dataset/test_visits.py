"""The images of a person come in the order of their times, or of their labels, and doubts are named once."""

import random

import pytest

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.visits import timeline


def write(root, sessions: tuple[str, ...] = (), **files: str) -> list[Image]:
    """Images of sub-01, one of each session, and tables beside them; `__` in their names is a folder."""
    for name, text in files.items():
        path = root / "sub-01" / f"{name.replace('__', '/')}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [
        Image(f"{root}/sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz", "", {"sub": "01", "ses": s})
        for s in sessions
    ]


def scans(session: str, time: str) -> dict[str, str]:
    name = f"anat/sub-01_ses-{session}_T1w.nii.gz"
    return {f"ses-{session}__sub-01_ses-{session}_scans": f"filename\tacq_time\n{name}\t{time}\n"}


def sessions(*rows: tuple[str, str]) -> dict[str, str]:
    lines = "".join(f"ses-{label}\t{time}\n" for label, time in rows)
    return {"sub-01_sessions": f"session_id\tacq_time\n{lines}"}


def labels(found) -> list[str]:
    return [image.entities["ses"] for image in found.images]


@pytest.mark.parametrize(
    "times",
    [
        ("2001-01-01T10:00:00", "2002-01-01T16:00:00", "2003-01-01T22:00:00"),
        # shifted, as BIDS allows
        ("1867-01-01T10:00:00", "1868-01-01T16:00:00.25", "1869-01-01T22:00:00"),
        ("2001-01-01", "2002-01-01T06:00:00Z", "2003-01-01T12:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("table", ["scans", "sessions"])
def test_times_give_years(tmp_path, times, table):
    named = list(zip(("1", "2", "10"), times, strict=True))
    files = {k: v for row in named for k, v in scans(*row).items()} if table == "scans" else sessions(*named)
    images = write(tmp_path, ("1", "2", "10"), **files)
    for _ in range(3):
        random.Random(0).shuffle(images)
        found = timeline(images)
        assert labels(found) == ["1", "2", "10"]
        assert found.years == pytest.approx([0, 1, 2], abs=1.5 / 365)
        assert found.warnings == []


def test_without_times_labels_are_read_as_people_count(tmp_path):
    found = timeline(write(tmp_path, ("M12", "10", "M6", "2", "base")))
    assert labels(found) == ["2", "10", "base", "M6", "M12"]
    assert found.years == [None] * 5
    (text,) = found.warnings
    assert "sub-01 has no acquisition times" in text
    assert "ses-2, ses-10, ses-base, ses-M6, ses-M12" in text


def test_one_image_needs_no_time(tmp_path):
    found = timeline(write(tmp_path, ("1",)))
    assert (found.years, found.warnings) == ([None], [])


def test_runs_of_a_session_keep_their_order(tmp_path):
    names = {"2": "2001-01-01T10:00:00", "10": "2001-01-01T10:20:00"}
    images = [
        Image(f"{tmp_path}/sub-01/anat/sub-01_run-{run}_T1w.nii.gz", "", {"sub": "01", "run": run})
        for run in ("10", "2")
    ]
    write(tmp_path, **{
        "sub-01_scans": "filename\tacq_time\n"
        + "".join(f"anat/sub-01_run-{run}_T1w.nii.gz\t{time}\n" for run, time in names.items()),
    })  # fmt: skip
    found = timeline(images)
    assert [image.entities["run"] for image in found.images] == ["2", "10"]
    assert found.warnings == []


@pytest.mark.parametrize(
    ("times", "order", "years", "warning"),
    [
        # the times win over the labels, and that is said
        (("2005-01-01", "2001-01-01", "2003-01-01"), ["2", "3", "1"], [0, 2, 4], "in another order than its"),
        (("2001-01-01", "n/a", "2003-01-01"), ["1", "2", "3"], [0, None, 2], "no acquisition time of ses-2"),
        (("2001-01-01",) * 3, ["1", "2", "3"], [None] * 3, "the same acquisition time in ses-1, ses-2"),
        (("1867-01-01", "2002-01-01", "2003-01-01"), ["1", "2", "3"], [None] * 3, "135 years apart"),
    ],
)
def test_times_that_contradict_are_named(tmp_path, times, order, years, warning):
    rows = zip(("1", "2", "3"), times, strict=True)
    found = timeline(write(tmp_path, ("3", "1", "2"), **sessions(*rows)))
    assert labels(found) == order
    assert found.years == [None if y is None else pytest.approx(y, abs=5e-3) for y in years]
    (text,) = found.warnings
    assert warning in text


@pytest.mark.parametrize("time", ["31/12/2001", "13:45:30", "unknown", "2001-13-01"])
def test_a_time_that_cannot_be_read_is_named(tmp_path, time):
    found = timeline(write(tmp_path, ("1", "2"), **sessions(("1", "2001-01-01"), ("2", time))))
    assert labels(found) == ["1", "2"]
    assert found.years == [0, None]
    assert any("sub-01_sessions.tsv has an acq_time" in text and time in text for text in found.warnings)


def test_two_tables_are_not_mixed(tmp_path):
    """Both may be shifted, by other numbers of days."""
    files = scans("1", "1850-01-01T00:00:00") | sessions(("1", "2001-01-01"), ("2", "2002-01-01"))
    found = timeline(write(tmp_path, ("1", "2"), **files))
    assert found.years == pytest.approx([0, 1], abs=2e-3)
    assert found.warnings == []
    found = timeline(write(tmp_path, ("1", "2"), **files, **scans("2", "1850-07-01")))
    assert found.years == pytest.approx([0, 0.5], abs=0.01)
    (text,) = found.warnings
    assert "differ by 184 days" in text


def test_rows_that_contradict_are_not_used(tmp_path):
    rows = ("1", "2001-01-01"), ("1", "2001-02-01"), ("2", "2002-01-01")
    found = timeline(write(tmp_path, ("1", "2"), **sessions(*rows)))
    assert found.years == [None, 0]
    assert "several acquisition times of 1" in found.warnings[0]


def test_a_table_that_is_no_table_is_named(tmp_path):
    found = timeline(
        write(tmp_path, ("1", "2"), **{"sub-01_sessions": "session_id,acq_time\n1,2001-01-01\n"})
    )
    assert labels(found) == ["1", "2"]
    assert "has commas in place of tabs" in found.warnings[0]


def test_a_spreadsheet_writes_a_table_as_well(tmp_path):
    text = '"session_id"\t"Acq_time"\r\n"ses-1"\t"2001-01-01T00:00:00"\r\n2\t2002-01-01T00:00:00\r\n'
    images = write(tmp_path, ("1", "2"), **{"sub-01_sessions": text.encode("utf-16")})
    assert timeline(images).years == pytest.approx([0, 1], abs=2e-3)
