"""What people rated, quality and columns of the dataset, in the tables and the page of a group."""

import csv
import json
import re

import numpy as np
import pytest
from helpers import write_dataset, write_finished

from bids_inpaint import cli
from bids_inpaint.dataset.description import write_methods
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.results import fingerprint
from bids_inpaint.io import images
from bids_inpaint.reports.ratings import COLUMNS
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((46, 55, 46), [[-4, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
IMAGES = [Image("", "", {"sub": label}) for label in ("01", "02", "03", "04")]


@pytest.fixture
def root(tmp_path):
    """Four people, each with a cube of lesions of another size; one has a warning, two are of another run."""
    write_dataset(tmp_path / "bids", *(f"sub-{i.subject}/anat/sub-{i.subject}_T1w.nii.gz" for i in IMAGES))
    (tmp_path / "bids/participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t20\tF\nsub-02\t30\tM\nsub-03\t40\tF\nsub-04\t50\tM\n"
    )
    out = tmp_path / "out"
    for i, image in enumerate(IMAGES):
        lesions = np.zeros(WORKING_GRID.shape, bool)
        lesions[80 : 88 + 8 * i, 80:88, 80:88] = True
        volumes = {"GM": 700_000.0, "WM": 500_000.0, "CSF": 300_000.0}
        write_finished(out, image, lesions, volumes=volumes, native=NATIVE)
        sidecar = out / f"sub-{image.subject}/anat/sub-{image.subject}_desc-inpainted_T1w.json"
        warnings = ["Too <b>dark</b>.\nLook."] if i == 1 else []
        more = {
            "QualityMeasures": {"BrainVolume": 1500.0 + i, "GreyToWhite": 0.6},
            "QualityWarnings": warnings,
        }
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | more))
        log = out / f"sub-{image.subject}/log"
        log.mkdir()
        status = {"Status": "done", "RunUUID": "ab-1" if i < 2 else "ab-2", "Parts": ["inpainted"]}
        (log / f"sub-{image.subject}_status.json").write_text(json.dumps(status))
    return tmp_path


def group(root, *options) -> int:
    argv = [str(root / "bids"), str(root / "out"), "group", "-w", str(root / "w"), "--nprocs", "1"]
    return cli.main([*argv, *options])


def table(root, name) -> list[dict[str, str]]:
    with (root / f"out/group_desc-{name}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def rate(path, **marks) -> None:
    """A table of ratings: by participant, of the step `lesions`; results by their present fingerprint."""
    path.parent.mkdir(exist_ok=True)
    out = path.parents[1] / "out" if path.parent.name != "ratings" else path.parents[1]
    lines = ["\t".join(COLUMNS)]
    for name, mark in marks.items():
        label = f"sub-{name[1:]}"
        results = fingerprint(out, Image("", "", {"sub": name[1:]}))
        cells = {"participant_id": label, "image": label, "lesions": mark, "results": results}
        cells |= {"rater": "<i>A", "comment": "moved"}
        lines.append("\t".join(cells.get(c, "n/a") for c in COLUMNS))
    path.write_text("\n".join(lines) + "\n")


def test_excluded_images_are_named_and_in_no_statistics(root):
    rate(root / "out/ratings/a.tsv", _01="good", _03="exclude", _04="check")
    assert group(root) == 0
    page = (root / "out/group.html").read_text()
    assert "3 participants, 3 images" in page
    assert "<li>sub-03: lesions (&lt;i&gt;A: moved)</li>" in page
    assert "1 image was excluded after a look" in page
    rows = table(root, "volumes")
    assert [row["rating"] for row in rows] == ["good", "n/a", "exclude", "check"]
    assert [row["excluded"] for row in rows] == ["n/a", "n/a", "lesions", "n/a"]
    assert [row["rating"] for row in table(root, "quality")] == ["good", "n/a", "exclude", "check"]
    share = images.read(root / "out/group_space-MNI152NLin2009aSym_res-1_label-L_probseg.nii.gz")[0]
    # of the three others, the fourth alone reaches as far
    assert share[90, 84, 84] == pytest.approx(2 / 3)
    assert share[98, 84, 84] == pytest.approx(1 / 3)
    about = json.loads((root / "out/group_space-MNI152NLin2009aSym_res-1_label-L_probseg.json").read_text())
    assert about["Participants"] == 3
    kept = table(root, "ratings")
    assert [(row["image"], row["lesions"]) for row in kept] == [
        ("sub-01", "good"), ("sub-03", "exclude"), ("sub-04", "check"),
    ]  # fmt: skip
    assert set(json.loads((root / "out/group_desc-ratings.json").read_text())) == set(COLUMNS)
    # without ratings it is not there, and nothing is excluded
    (root / "out/ratings/a.tsv").unlink()
    assert group(root) == 0
    assert not (root / "out/group_desc-ratings.tsv").exists()
    assert "4 participants, 4 images" in (root / "out/group.html").read_text()


def test_a_table_may_lie_anywhere(root, capsys):
    rate(root / "mine/a.tsv", _02="exclude")
    rate(root / "out/ratings/b.tsv", _01="exclude")
    assert group(root, "--ratings", str(root / "mine/a.tsv")) == 0
    assert [row["excluded"] for row in table(root, "volumes")] == ["n/a", "lesions", "n/a", "n/a"]
    assert group(root, "--ratings", str(root / "nowhere.tsv")) == 2
    assert "nowhere.tsv is not a file: give a table that the reports saved" in capsys.readouterr().err
    rate(root / "mine/a.tsv", _01="exclude", _02="exclude", _03="exclude", _04="exclude")
    assert group(root, "--ratings", str(root / "mine/a.tsv")) == 2
    assert "All images are excluded by their ratings" in capsys.readouterr().err


def test_ratings_of_results_that_changed_do_not_count(root):
    rate(root / "out/ratings/a.tsv", _01="exclude")
    mask = root / "out/sub-01/anat/sub-01_label-L_desc-inpaint_mask.nii.gz"
    images.save(mask, np.zeros(NATIVE.shape), NATIVE, np.uint8)
    assert group(root) == 0
    assert table(root, "volumes")[0]["excluded"] == "n/a"
    assert "Ratings of earlier results do not count: sub-01." in (root / "out/group.html").read_text()


def test_shares_quality_and_warnings(root):
    assert group(root) == 0
    first, second = table(root, "volumes")[:2]
    assert float(first["brain_volume"]) == 1200
    assert float(first["brain_fraction"]) == pytest.approx(0.8)
    assert float(first["lesion_share"]) == pytest.approx(float(first["lesion_volume"]) / 500, rel=1e-4)
    assert float(second["lesion_volume"]) > float(first["lesion_volume"]) > 0
    rows = table(root, "quality")
    assert [row["BrainVolume"] for row in rows] == ["1500", "1501", "1502", "1503"]
    assert [row["warnings"] for row in rows] == ["n/a", "Too <b>dark</b>. Look.", "n/a", "n/a"]
    described = json.loads((root / "out/group_desc-quality.json").read_text())
    assert described["BrainVolume"]["Units"] == "mL"
    page = (root / "out/group.html").read_text()
    assert "Too &lt;b&gt;dark&lt;/b&gt;." in page


def test_there_is_a_plot_for_each_column_that_can_be_plotted(root):
    assert group(root) == 0
    page = (root / "out/group.html").read_text()
    assert re.findall(r"<h3>(\w+)</h3>\n<a href=\"(figures/group_by-\d.svg)\"", page) == [
        ("age", "figures/group_by-1.svg"), ("sex", "figures/group_by-2.svg"),
    ]  # fmt: skip
    assert (root / "out/figures/group_by-2.svg").stat().st_size > 1000
    # plots of an earlier run do not stay
    (root / "bids/participants.tsv").unlink()
    assert group(root) == 0
    assert sorted(p.name for p in (root / "out/figures").iterdir()) == [
        "group_lesion_map.svg",
        "group_volumes.svg",
    ]


def test_methods_are_those_of_the_runs_that_made_the_images(root):
    write_methods(root / "out", "ab-1", {"sub-01": "With mirrors.", "sub-02": "With mirrors."})
    write_methods(root / "out", "ab-2", {"sub-03": "Without.", "sub-04": "Without."})
    write_methods(root / "out", "ab-3", {"sub-01": "A run that only began."})
    assert group(root) == 0
    page = (root / "out/group.html").read_text()
    assert "<h3>sub-01, sub-02</h3>" in page
    assert "<p>With mirrors.</p>" in page
    assert "<p>Without.</p>" in page
    assert "only began" not in page
    assert "(Gorgolewski et al. 2011)" in page
    assert "@" not in re.sub(r"<style>.*?</style>|<script.*?</script>", "", page, flags=re.S)


def test_results_without_the_pictures_of_this_version_are_read(root):
    """As versions before 0.2.0 left them."""
    for path in (root / "out").glob("sub-*/figures/*"):
        path.unlink()
    assert group(root) == 0
    assert len(table(root, "volumes")) == 4
    assert '<img src="sub-' not in (root / "out/group.html").read_text()
