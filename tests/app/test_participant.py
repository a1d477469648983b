"""The participant level as a user runs it, on images made from the template."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from helpers import TESTS, contents, errors_by_bids, write_dataset, write_nifti
from scipy import ndimage

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, expected
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.demo import LESIONS, acquire, tilted
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, Grid

LESIONED = Image("", "", {"sub": "01", "ses": "pre"})
SECRET = b"Erika Mustermann"
THICK = Image("", "", {"sub": "02", "run": "1"})


def command(root: Path, out="out", work="work", *options: str) -> list[str]:
    return [
        sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / out), "participant",
        "-w", str(root / work), "--sloppy", "--nprocs", "2", "--skip-bids-validation",
        "--lesion-masks", str(root / "masks"), "--compare-segmentation", "--flair", *options,
    ]  # fmt: skip


def run(root: Path, *args: str) -> subprocess.CompletedProcess:
    """Every process of the run notes in ``tripped`` whether it looked for another machine."""
    return subprocess.run(
        command(root, *args), capture_output=True, text=True, timeout=1200, check=False,
        env=watched(root / "tripped"),
    )  # fmt: skip


def watched(notes: Path) -> dict[str, str]:
    """The environment of a process that notes in a file when it looks for another machine."""
    wire = TESTS / "tripwire"
    return os.environ | {"PYTHONPATH": str(wire), "TRIPWIRE": str(notes)}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three participants: tilted with lesions; in MNI, thick and lesion-free; and a broken file."""
    root = tmp_path_factory.mktemp("participant")
    bids = write_dataset(root / "bids")
    tilt = tilted((170, 200, 176), (1.1, 1.1, 1.1), degrees=14)
    data, mask = acquire(tilt, LESIONS)
    header = {"descrip": SECRET, "db_name": SECRET, "aux_file": SECRET, "intent_name": SECRET}
    t1w = write_nifti(bids / "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz", data, tilt.matrix, **header)
    loaded = nib.load(t1w)
    loaded.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET))
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj), tilt.matrix, loaded.header), t1w)
    sidecar = t1w.with_name("sub-01_ses-pre_T1w.json")
    sidecar.write_text(json.dumps({"PatientName": SECRET.decode(), "Manufacturer": "Any"}))
    np.save(root / "painted.npy", mask)
    masks = write_dataset(root / "masks")
    lesions = masks / "sub-01/ses-pre/anat/sub-01_ses-pre_label-lesion_mask.nii.gz"
    write_nifti(lesions, mask.astype(np.uint8), tilt.matrix)
    for name in ("sub-02/anat/sub-02", "sub-03/anat/sub-03"):
        nobody = np.zeros(WORKING_GRID.shape, np.uint8)
        write_nifti(
            masks / f"{name}_space-MNI152NLin2009aSym_label-lesion_mask.nii.gz", nobody, WORKING_GRID.matrix
        )
    # as RPI, 3 mm slices, floating point
    affine = np.array([[-1, 0, 0, 90], [0, -1, 0, 90], [0, 0, 3, -72], [0, 0, 0, 1.0]])
    thick = Grid.of((182, 218, 60), affine)
    data, _ = acquire(thick, seed=1)
    write_nifti(bids / "sub-02/anat/sub-02_run-1_T1w.nii.gz", data.astype(np.float32) / 7, affine)
    broken = write_nifti(bids / "sub-03/anat/sub-03_T1w.nii.gz", data, affine)
    broken.write_bytes(broken.read_bytes()[:50_000])
    return root


@pytest.fixture(scope="module")
def finished(root) -> subprocess.CompletedProcess:
    return run(root)


def test_one_bad_image_does_not_stop_the_others(root, finished):
    assert finished.returncode == 1
    sentences = [line for line in finished.stderr.splitlines() if "error:" in line]
    assert len(sentences) == 1
    assert re.search(r"sub-03_T1w\.nii\.gz is truncated or corrupt .*: copy it again\.", sentences[0])
    assert "2 of 3 images done" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list((root / "out/sub-03/log").glob("*/crash*.txt"))
    assert not (root / "out/sub-03/anat").exists()
    assert "truncated or corrupt" in (root / "out/sub-03.html").read_text()


def test_outputs_are_those_promised(root, finished):
    out = root / "out"
    found = {n for n in contents(out) if n.startswith("sub-")}
    products = Products(("inpainted", "original", "reference"), reference=True, flair=True)
    assert found == {*expected(LESIONED, DEFAULT, products), *expected(THICK, DEFAULT, products)}
    assert (out / "sub-01.html").exists()
    assert not list(out.rglob("*.part*"))


def test_outputs_are_valid_bids(root, finished):
    shutil.rmtree(root / "valid", ignore_errors=True)
    # a failed participant leaves a folder with its crash file alone
    shutil.copytree(root / "out", root / "valid", ignore=shutil.ignore_patterns("sub-03*"))
    assert errors_by_bids(root / "valid") == []


def native(root: Path, image: Image, suffix: str) -> nib.Nifti1Image:
    return nib.load(root / "out" / image.folder / f"{image.prefix}_{suffix}.nii.gz")


def test_lesions_are_found_and_filled_where_they_are(root, finished):
    painted = np.load(root / "painted.npy")
    raw = nib.load(root / "bids/sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz")
    filled = native(root, LESIONED, "desc-inpainted_T1w")
    mask = np.asanyarray(native(root, LESIONED, "label-L_desc-inpaint_mask").dataobj) > 0
    np.testing.assert_allclose(filled.affine, raw.affine, atol=1e-5)
    assert filled.get_data_dtype() == raw.get_data_dtype()
    assert dice(mask, painted) > 0.5
    before, after = (np.asanyarray(i.dataobj).astype(float) for i in (raw, filled))
    # white matter is 700
    assert (after - before)[painted].mean() > 80
    # left is not right: the mirrored place is unchanged
    world = np.array(LESIONS[0][0]) * [-1, 1, 1]
    voxel = tuple(np.round(np.linalg.solve(raw.affine, [*world, 1])[:3]).astype(int))
    assert before[voxel] == after[voxel]


def test_outside_the_feathered_support_the_input_is_untouched(root, finished):
    from scipy import ndimage

    for image, name in (
        (LESIONED, "sub-01/ses-pre/anat/sub-01_ses-pre_T1w"),
        (THICK, "sub-02/anat/sub-02_run-1_T1w"),
    ):
        raw = nib.load(root / "bids" / f"{name}.nii.gz")
        mask = np.asanyarray(native(root, image, "label-L_desc-inpaint_mask").dataobj) > 0
        zooms = raw.header.get_zooms()
        away = (
            ndimage.distance_transform_edt(~mask, sampling=zooms)
            if mask.any()
            else np.full(mask.shape, np.inf)
        )
        # the feather ends 3 mm from the lesion; its resampling and that of the mask reach a voxel further
        far = away > 3 + 1.8 + max(zooms)
        before, after = (np.asanyarray(i.dataobj) for i in (raw, native(root, image, "desc-inpainted_T1w")))
        assert (before[far] == after[far]).all()


def test_lesion_free_images_stay_as_they_are(root, finished):
    mask = native(root, THICK, "label-L_desc-inpaint_mask")
    volume = np.asanyarray(mask.dataobj).sum() * np.prod(mask.header.get_zooms()) / 1000
    assert volume < 0.5


def test_given_lesions_are_filled_in_the_reference(root, finished):
    from scipy import ndimage

    painted = np.load(root / "painted.npy")
    raw = nib.load(root / "bids/sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz")
    filled = native(root, LESIONED, "desc-reference_T1w")
    before, after = (np.asanyarray(i.dataobj).astype(float) for i in (raw, filled))
    assert (after - before)[painted].mean() > 80
    away = ndimage.distance_transform_edt(~painted, sampling=raw.header.get_zooms())
    assert (before == after)[away > 6].all()
    mask = np.asanyarray(native(root, LESIONED, "label-L_desc-reference_mask").dataobj) > 0
    assert dice(mask, painted) > 0.85
    # on the working grid, more than 3 mm from the given lesions, it is the image that went in
    space = f"space-{DEFAULT}_res-1"
    image, reference, given = (
        np.asanyarray(native(root, LESIONED, f"{space}_{name}").dataobj)
        for name in ("desc-preproc_T1w", "desc-reference_T1w", "label-L_desc-reference_mask")
    )
    assert (image == reference)[~ndimage.binary_dilation(given > 0, np.ones((3, 3, 3)), 3)].all()
    # nothing was given, so nothing is filled
    thick = nib.load(root / "bids/sub-02/anat/sub-02_run-1_T1w.nii.gz")
    assert (np.asanyarray(native(root, THICK, "desc-reference_T1w").dataobj) == thick.dataobj).all()


def test_group_of_finished_participants(root, finished):
    """Lesions take white matter away; filling them brings it back where they are."""
    arguments = [*command(root)[3:5], "group", "-w", str(root / "work")]
    assert cli.main(arguments) == 0
    tissue = json.loads((root / "out/group_desc-tissue_dice.json").read_text())["Statistics"]
    # the other has no lesion to take part with
    assert tissue["wm"]["Participants"] == 1
    with (root / "out/group_desc-tissue_dice.tsv").open() as file:
        lesioned = next(csv.DictReader(file, delimiter="\t"))
    assert float(lesioned["wm_inpainted"]) > float(lesioned["wm_original"]) > 0.98
    space = f"space-{DEFAULT}_res-1"
    given, original, inpainted = (
        np.asanyarray(native(root, LESIONED, f"{space}_{name}").dataobj)
        for name in ("label-L_desc-reference_mask", "desc-original_dseg", "dseg")
    )
    assert (inpainted[given > 0] == 2).mean() > (original[given > 0] == 2).mean() + 0.1
    with (root / "out/group_desc-lesion_dice.tsv").open() as file:
        assert float(next(csv.DictReader(file, delimiter="\t"))["dice"]) > 0.5
    assert "sub-03" in (root / "out/group.html").read_text()


def test_sidecars(root, finished):
    stem = root / "out" / LESIONED.folder / LESIONED.prefix
    mask = json.loads(Path(f"{stem}_label-L_desc-inpaint_mask.json").read_text())
    assert mask["Type"] == "Lesion"
    assert mask["Sources"] == ["bids:raw:sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz"]
    assert len(mask["ModelSHA256"]) == 64
    standard = json.loads(Path(f"{stem}_space-{DEFAULT}_res-1_desc-inpainted_T1w.json").read_text())
    assert standard["SkullStripped"] is True
    assert DEFAULT in standard["SpatialReference"]
    data, grid = images.read(f"{stem}_space-{DEFAULT}_res-1_desc-inpainted_T1w.nii.gz")
    assert grid.same_as(WORKING_GRID)
    assert np.isfinite(data).all()


def test_what_headers_say_of_a_patient_stays_in_the_dataset(root, finished):
    for name in ("T1w.nii.gz", "T1w.json"):
        content = (root / "bids/sub-01/ses-pre/anat" / f"sub-01_ses-pre_{name}").read_bytes()
        assert SECRET in (gzip.decompress(content) if name.endswith("gz") else content)

    def plain(path: Path) -> bytes:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()

    files = [p for p in (root / "out").rglob("*") if p.is_file()]
    assert len(files) > 20
    told = [p for p in files if SECRET in plain(p)]
    assert told == []
    assert SECRET.decode() not in finished.stderr + finished.stdout


def test_no_other_machine_is_looked_for(root, finished):
    tripped = root / "tripped"
    assert not tripped.exists(), tripped.read_text()
    # the wire is there
    call = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", call], env=watched(root / "tested"), check=True)
    assert "socket.connect" in (root / "tested").read_text()


def test_made_flair_lies_on_the_image(root, finished):
    raw = nib.load(root / "bids/sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz")
    flair = native(root, LESIONED, "desc-synth_FLAIR")
    np.testing.assert_allclose(flair.affine, raw.affine, atol=1e-4)
    made = flair.get_fdata()
    assert made[native(root, LESIONED, "desc-brain_mask").get_fdata() == 0].max() == 0
    wm, csf = (native(root, LESIONED, f"label-{t}_probseg").get_fdata() > 0.9 for t in ("WM", "CSF"))
    assert np.median(made[wm]) == pytest.approx(1, abs=0.1)
    # voxels of narrow sulci are partly cortex
    assert np.median(made[ndimage.binary_erosion(csf)]) < 0.6
    painted = np.load(root / "painted.npy")
    found = native(root, LESIONED, "label-L_desc-joint_mask").get_fdata() > 0
    assert found[painted].mean() > 0.5 > 10 * found[~painted].mean()


def test_tissues_add_up(root, finished):
    maps = [native(root, LESIONED, f"label-{t}_probseg").get_fdata() for t in ("GM", "WM", "CSF")]
    mask = native(root, LESIONED, "desc-brain_mask").get_fdata() > 0
    total = np.sum(maps, 0)
    assert np.median(total[mask]) == pytest.approx(1, abs=0.01)
    assert total[~mask].max() == 0
    dseg = native(root, LESIONED, "dseg").get_fdata()
    assert set(np.unique(dseg)) == {0, 1, 2, 3}
    # most of a brain is grey matter, then white matter, then fluid
    volumes = [
        (dseg == i).sum() * np.prod(native(root, LESIONED, "dseg").header.get_zooms()) / 1e6
        for i in (1, 2, 3)
    ]
    assert 0.4 < volumes[1] < 0.9
    assert 0.5 < volumes[0] < 1.2


def test_rerun_redoes_nothing(root, finished):
    before = contents(root / "out")
    results = list((root / "work").rglob("result_*.pklz"))
    stamps = {
        p: p.stat().st_mtime_ns for p in results if "save" not in p.name and "conform" not in p.parts[-2]
    }
    assert len(stamps) > 30
    again = run(root)
    assert again.returncode == 1
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert contents(root / "out") == before


def test_killed_and_resumed_run_gives_the_same_bytes(root, finished):
    """Also: two independent runs of the same command give the same bytes."""
    options = ("out2", "work2", "--participant-label", "sub-01")
    process = subprocess.Popen(command(root, *options), stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "inpaint done" in line:
                break
        time.sleep(1)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(workers) > 2
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert not (root / "out2/sub-01.html").exists()
    assert not list((root / "out2").rglob("*T1w.nii.gz"))
    assert run(root, *options).returncode == 0
    first = {n: b for n, b in contents(root / "out").items() if n.startswith("sub-01/")}
    second = {n: b for n, b in contents(root / "out2").items() if n.startswith("sub-01/")}
    assert first.keys() == second.keys()
    assert [n for n in first if first[n] != second[n]] == []


def test_reports_only(root, finished):
    report = root / "out" / "sub-01.html"
    report.unlink()
    result = run(root, "out", "work", "--participant-label", "01", "--reports-only")
    assert result.returncode == 0
    text = report.read_text()
    for part in ("Original and inpainted image", "Tissue segmentation", "SHA-256", "No errors to report"):
        assert part in text
    # it opens without network: references are links that are followed by a click alone
    assert not re.search(r"src=\"https?://|<link[^>]+href=\"https?://|url\(\"?https?://|@import", text)
