"""Two visits of a person as a user processes them: one space, one decision on lesions, their histories."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import contents, write_dataset, write_nifti
from PIL import Image as Picture
from scipy import ndimage

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import expected
from bids_inpaint.dataset.people import people
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io.transforms import read_xfm

#: The first lesion has resolved at the second visit, the last is new there, and two have not changed.
BEFORE, AFTER = LESIONS[:3], (*LESIONS[1:3], ((26.0, -8.0, 34.0), 5.0))
VISITS = [
    Image(f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz", "", {"sub": "01", "ses": str(s)}) for s in (1, 2)
]


def run(root: Path, out: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / out), "participant",
            "-w", str(root / f"work-{out}"), "--sloppy", "--nprocs", "2", "--skip-bids-validation",
            "--segmentation", "none", *options,
        ],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A person with two visits, on other voxels and tilted differently."""
    root = tmp_path_factory.mktemp("longitudinal")
    bids = write_dataset(root / "bids")
    for number, (image, lesions, tilt) in enumerate(zip(VISITS, (BEFORE, AFTER), (4, -7), strict=True)):
        grid = tilted((160, 190, 160), (1.15, 1.15, 1.15 + 0.05 * number), degrees=tilt)
        data, mask = acquire(grid, lesions, seed=number)
        write_nifti(bids / image.path, data, grid.matrix)
        np.save(root / f"painted{number}.npy", mask)
    times = "ses-1\t1901-05-01T10:00:00\nses-2\t1903-05-01T10:00:00\n"
    (bids / "sub-01/sub-01_sessions.tsv").write_text(f"session_id\tacq_time\n{times}")
    return root


@pytest.fixture(scope="module")
def finished(root) -> subprocess.CompletedProcess:
    done = run(root, "out", "--longitudinal")
    assert done.returncode == 0, done.stderr
    return done


def of_person(root: Path, suffix: str) -> Path:
    return root / "out/sub-01/anat" / f"sub-01_{suffix}"


def volume(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def standard(root: Path, image: Image, suffix: str) -> Path:
    return root / "out" / image.folder / f"{image.prefix}_space-{DEFAULT}_res-1_{suffix}.nii.gz"


def of_both() -> dict[str, str]:
    """What both visits leave together."""
    (person,) = people([Image(i.path, "", i.entities, visits=("a", "b")) for i in VISITS])
    return person.names(DEFAULT)


def test_the_outputs_are_those_of_each_visit_and_those_of_the_person(root, finished):
    names = of_both()
    own = [*names.values(), *(names[key].split(".")[0] + ".json" for key in person_images(names))]
    found = {n for n in contents(root / "out") if n.startswith("sub-")} | {
        str(p.relative_to(root / "out")) for p in (root / "out").glob("sub-*/figures/*.html")
    }
    products = expected_of(root)
    assert found == {*own, *products}
    status = json.loads((root / "out/sub-01/log/sub-01_longitudinal_status.json").read_text())
    assert status["Status"] == "done"
    assert not list((root / "out").rglob("*.saved"))


def person_images(names: dict[str, str]) -> list[str]:
    return [key for key, name in names.items() if name.endswith(".nii.gz")]


def expected_of(root: Path) -> list[str]:
    from bids_inpaint.dataset.outputs import Products

    return [name for image in VISITS for name in expected(image, DEFAULT, Products(()))]


def test_each_lesion_has_its_history(root, finished):
    with of_person(root, "desc-lesionchange_dseg.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected_change = {LESIONS[0]: "resolved", LESIONS[1]: "stable", LESIONS[2]: "stable", AFTER[-1]: "new"}
    for (centre, _), change in expected_change.items():
        away = [np.linalg.norm([float(row[axis]) for axis in "xyz"] - np.array(centre)) for row in rows]
        row = rows[int(np.argmin(away))]
        # both visits lie in the space of the template
        assert min(away) < 4
        assert row["change"] == row["change_ses-2"] == change
    labels = nib.load(of_person(root, "desc-lesionchange_dseg.nii.gz"))
    shapes = nib.load(of_person(root, "desc-longitudinal_T1w.nii.gz"))
    assert labels.shape == shapes.shape
    np.testing.assert_allclose(labels.affine, shapes.affine)
    assert set(np.unique(labels.dataobj)) == {0, *(int(row["index"]) for row in rows)}


def test_the_maps_of_the_visits_are_those_of_the_table(root, finished):
    """On the working grid, whose voxels are those of the table but for the size of the brain."""
    labels = volume(standard(root, Image("", "", {"sub": "01"}), "desc-lesionchange_dseg"))
    sidecar = json.loads(of_person(root, "desc-lesionchange_dseg.json").read_text())
    affine = read_xfm(of_person(root, f"from-template_to-{DEFAULT}_mode-image_xfm.txt"))
    masks = [volume(standard(root, image, "label-L_desc-inpaint_mask")) > 0 for image in VISITS]
    assert ((labels > 0) == (masks[0] | masks[1])).all()
    for session, mask in zip(("ses-1", "ses-2"), masks, strict=True):
        true = mask.sum() * np.linalg.det(affine[:3, :3])
        assert sidecar["LesionVolumes"][session] == pytest.approx(true, rel=1e-3)
    with of_person(root, "desc-lesionchange_dseg.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            inside = labels == int(row["index"])
            for session, mask in zip(("ses-1", "ses-2"), masks, strict=True):
                true = (inside & mask).sum() * np.linalg.det(affine[:3, :3])
                assert float(row[f"volume_{session}"]) == pytest.approx(true, abs=0.02)
    assert sidecar["Visits"] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert sidecar["Years"] == pytest.approx([0, 2], abs=0.01)


def test_lesions_are_found_and_filled_at_each_visit(root, finished):
    for number, image in enumerate(VISITS):
        painted = np.load(root / f"painted{number}.npy")
        stem = root / "out" / image.folder / image.prefix
        raw, filled = volume(root / "bids" / image.path), volume(Path(f"{stem}_desc-inpainted_T1w.nii.gz"))
        mask = volume(Path(f"{stem}_label-L_desc-inpaint_mask.nii.gz")) > 0
        assert dice(mask, painted) > 0.5
        assert (filled.astype(float) - raw)[painted].mean() > 80
        away = ndimage.distance_transform_edt(~mask, sampling=1.15)
        assert (filled == raw)[away > 3 + 1.8 + 1.2].all()


def test_all_visits_share_the_affine_of_the_template(root, finished):
    common = read_xfm(of_person(root, f"from-template_to-{DEFAULT}_mode-image_xfm.txt"))
    for number, image in enumerate(VISITS, 1):
        rigid = read_xfm(of_person(root, f"from-ses{number}_to-template_mode-image_xfm.txt"))
        back = read_xfm(of_person(root, f"from-template_to-ses{number}_mode-image_xfm.txt"))
        # the files have six digits
        np.testing.assert_allclose(rigid @ back, np.eye(4), atol=1e-3)
        np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-5)
        stem = root / "out" / image.folder / image.prefix
        own = read_xfm(f"{stem}_from-T1w_to-{DEFAULT}_mode-image_xfm.txt")
        np.testing.assert_allclose(own, rigid @ common, atol=1e-3)


def test_all_visits_have_one_brain_and_native_maps_the_volumes_of_the_table(root, finished):
    brains = [volume(standard(root, image, "desc-brain_mask")) for image in VISITS]
    assert (brains[0] == brains[1]).all()
    assert brains[0].any()
    volumes = json.loads(of_person(root, "desc-lesionchange_dseg.json").read_text())["LesionVolumes"]
    for image, session in zip(VISITS, ("ses-1", "ses-2"), strict=True):
        native = nib.load(root / "out" / image.folder / f"{image.prefix}_label-L_desc-inpaint_mask.nii.gz")
        mm3 = np.asanyarray(native.dataobj).sum() * abs(np.linalg.det(native.affine[:3, :3]))
        assert mm3 == pytest.approx(volumes[session], rel=0.02)


def test_a_lesion_of_both_visits_has_one_filling(root, finished):
    """In the unit of white matter, on the working grid."""
    filled = [volume(standard(root, image, "desc-inpainted_T1w")) for image in VISITS]
    masks = [volume(standard(root, image, "label-L_desc-inpaint_mask")) > 0 for image in VISITS]
    both = masks[0] & masks[1]
    assert both.any()
    np.testing.assert_allclose(filled[0][both], filled[1][both], rtol=1e-5)


def test_sidecars_say_that_visits_were_processed_together(root, finished):
    for image in VISITS:
        path = root / "out" / image.folder / f"{image.prefix}_desc-inpainted_T1w.json"
        sidecar = json.loads(path.read_text())
        assert sidecar["Visits"] == ["sub-01_ses-1", "sub-01_ses-2"]
        assert sidecar["Options"]["Longitudinal"] is True
        assert sidecar["QualityWarnings"] == []


def test_the_person_has_a_report(root, finished):
    report = "sub-01_desc-longitudinal_T1w.html"
    page = (root / "out" / report).read_text()
    assert "2 visits over 2.00 years" in page
    assert "1 is new and 1 resolved." in page
    assert '<div class="verdict good">' in page
    pictures = re.findall(r'<img class="\w+" src="([^"]+)"', page)
    assert len(pictures) == 4
    sizes = set()
    for name in pictures:
        with Picture.open(root / "out" / name) as picture:
            sizes.add(picture.size)
    assert len(sizes) == 1
    # both visits have outlines of their own, and a place where the other has a lesion
    assert page.count('<g class="stable">') == 2
    assert page.count('<g class="new">') == page.count('<g class="new absent">') == 1
    assert f'href="{report}"' in (root / "out/sub-01.html").read_text()


def test_a_rerun_changes_nothing(root, finished):
    before = contents(root / "out")
    again = run(root, "out", "--longitudinal")
    assert again.returncode == 0, again.stderr
    assert contents(root / "out") == before


@pytest.fixture(scope="module")
def alone(root, finished, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The second visit by itself, after a run of both."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("out", "work-out", "bids"):
        shutil.copytree(root / name, folder / name)
    done = run(folder, "out", "--session-label", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_if_a_visit_fails_the_other_is_processed_as_by_itself(root, alone, tmp_path):
    bids = tmp_path / "bids"
    shutil.copytree(root / "bids", bids)
    broken = bids / VISITS[0].path
    broken.write_bytes(broken.read_bytes()[:50_000])
    done = run(tmp_path, "out", "--longitudinal")
    assert done.returncode == 1
    assert "1 of 2 images done" in done.stderr
    assert re.search(r"note: sub-01: as sub-01_ses-1 failed, its other visits are processed", done.stderr)
    status = json.loads((tmp_path / "out/sub-01/log/sub-01_longitudinal_status.json").read_text())
    assert status["Status"] == "failed"
    assert not (tmp_path / "out/sub-01/anat").exists()
    left = {n: v for n, v in contents(tmp_path / "out").items() if "ses-2" in n}
    right = {
        n: v for n, v in contents(alone[0] / "out").items() if "ses-2" in n and n not in of_both().values()
    }
    assert left.keys() == right.keys()
    # the warning stands in the sidecars of the inpainted image
    differing = {n for n in left if left[n] != right[n]}
    assert all(n.endswith("desc-inpainted_T1w.json") for n in differing)
    warnings = json.loads(left[f"{VISITS[1].folder}/{VISITS[1].prefix}_desc-inpainted_T1w.json"])
    assert any("it was processed by itself" in text for text in warnings["QualityWarnings"])
    assert "Longitudinal" not in warnings["Options"]


def test_results_of_an_earlier_run_are_not_taken_for_those_of_this_one(alone):
    """Once a visit is processed by itself, what all visits had in common is not that of its files."""
    folder, done = alone
    assert "sub-01 has no longitudinal results of this run; those in the output folder are of" in done.stderr
    page = (folder / "out/sub-01_desc-longitudinal_T1w.html").read_text()
    assert '<div class="verdict failed">' in page
    assert "those in the output folder are of an earlier run" in page
    status = json.loads((folder / "out/sub-01/log/sub-01_longitudinal_status.json").read_text())
    assert status["Status"] == "failed"


def test_the_group_has_the_person(root, finished):
    out = root / "out"
    done = subprocess.run(
        [sys.executable, "-m", "bids_inpaint", root / "bids", out, "group", "-w", root / "work-group"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (out / "group_desc-longitudinal.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    sidecar = json.loads(of_person(root, "desc-lesionchange_dseg.json").read_text())
    volumes = [float(row["lesion_volume"]) for row in rows]
    for row, volume in zip(rows, volumes, strict=True):
        assert volume == pytest.approx(sidecar["LesionVolumes"][row["session_id"]] / 1000, rel=1e-4)
    assert [row["acq_time"] for row in rows] == ["1901-05-01T10:00:00", "1903-05-01T10:00:00"]
    rate = (volumes[1] - volumes[0]) / (730 / 365.25)
    assert [float(row["lesion_volume_per_year"]) for row in rows] == pytest.approx([rate, rate], abs=1e-4)
    changes = [rows[1][name] for name in ("new", "enlarging", "shrinking", "resolved")]
    assert changes == ["1", "0", "0", "1"]
    assert 'href="sub-01_desc-longitudinal_T1w.html"' in (out / "group.html").read_text()
