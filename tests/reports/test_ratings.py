"""Tables of ratings, as pages save them and as people write them."""

import json

from bids_inpaint.reports.ratings import COLUMNS, STEPS, read_ratings, verdicts, write_description

HEADER = "\t".join(COLUMNS)


def row(image: str, *marks: str, rater: str = "A", rated: str = "2026-11-27T10:00:00Z", results: str = "n/a"):
    marks = (*marks, *["n/a"] * (len(STEPS) - len(marks)))
    return "\t".join([image.split("_")[0], image, *marks, "n/a", rater, rated, results])


def write(folder, name: str, *lines: str):
    path = folder / name
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_the_worst_of_all_raters_counts(tmp_path):
    one = write(tmp_path, "a.tsv", row("sub-01", "good", "check"), row("sub-02_ses-1", "good"))
    two = write(tmp_path, "b.tsv", row("sub-01", "exclude", rater="B"))
    ratings, warnings = read_ratings([one, two])
    found, more = verdicts(ratings, {"sub-01": "x", "sub-02_ses-1": "y"})
    assert not warnings + more
    assert found["sub-01"].excluded == ("lesions",)
    assert dict(found["sub-01"].marks) == {"lesions": "exclude", "filling": "check"}
    assert (found["sub-02_ses-1"].worst, found["sub-02_ses-1"].excluded) == ("good", ())


def test_of_one_rater_the_last_word_counts(tmp_path):
    later = write(tmp_path, "a.tsv", row("sub-01", "good", rated="2026-11-28T00:00:00Z"))
    earlier = write(tmp_path, "b.tsv", row("sub-01", "exclude"))
    found, _ = verdicts(read_ratings([later, earlier])[0], {"sub-01": "x"})
    assert found["sub-01"].worst == "good"


def test_ratings_of_other_results_do_not_count(tmp_path):
    rows = (row("sub-01", "exclude", results="old"), row("sub-02", "good", results="now"))
    path = write(tmp_path, "a.tsv", *rows, row("sub-09", "good"))
    found, warnings = verdicts(read_ratings([path])[0], {"sub-01": "now", "sub-02": "now"})
    assert list(found) == ["sub-02"]
    assert "Ratings of earlier results do not count: sub-01." in warnings[0]
    assert "not among the finished ones: sub-09." in warnings[1]


def test_what_people_write_in_a_spreadsheet(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("participant_id\tlesions\ttissues\nsub-01\tExclude\tn/a\nsub-02\tbad\tgood\n")
    ratings, warnings = read_ratings([path])
    found, _ = verdicts(ratings, {"sub-01": "x", "sub-02": "x"})
    assert found["sub-01"].excluded == ("lesions",)
    assert dict(found["sub-02"].marks) == {"tissues": "good"}
    assert warnings == [
        f"{path} rates lesions of sub-02 as bad, which is not used: write good, check or exclude."
    ]
    other = tmp_path / "other.tsv"
    other.write_text("participant_id\tage\nsub-01\t9\n")
    assert "so it rates nothing" in read_ratings([other])[1][0]


def test_a_sidecar_says_what_the_columns_mean(tmp_path):
    write_description(tmp_path)
    described = json.loads((tmp_path / "ratings/ratings.json").read_text())
    assert list(described) == list(COLUMNS)
    assert set(described["tissues"]["Levels"]) == {"good", "check", "exclude"}
