import json
import shutil

import numpy as np
import pytest
from helpers import TOY, write_dataset

pytest.importorskip("torch")

from bids_inpaint.dataset import template
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.data import cache_subject, subjects


def test_evaluation_scores_what_a_network_does(shapes, toy_model, tmp_path):
    """The toy lifts dark tissue to 0.9 of white matter: lesions gain, and are left too dark."""
    from bids_inpaint.training.__main__ import main

    files = template.prepare(template.DEFAULT, tmp_path / "template")
    brain, mask = images.read(files.t1w)[0], images.read(files.mask)[0] > 0
    priors = {tissue: images.read(files.priors[tissue])[0] for tissue in ("GM", "WM")}
    cache_subject(tmp_path / "cache/toy_sub-03", brain, mask, priors)
    # half of what the expert of this patient marked is not to be seen
    expert = np.zeros_like(mask)
    expert[60:70, 140:150, 88:100] = priors["WM"][60:70, 140:150, 88:100] > 0.95
    dark = expert.copy()
    dark[65:] = False
    cache_subject(tmp_path / "cache/toy_sub-04", np.where(dark, 0.65 * brain, brain), mask, priors, expert)
    path = tmp_path / "toy.toml"
    text = TOY.format(steps=1, blind="true").replace("test = []", 'test = ["toy_sub-03", "toy_sub-04"]')
    path.write_text(text.replace("leave_out_patients = []", 'leave_out_patients = ["a", "b"]'))
    output, figure = tmp_path / "scores.json", tmp_path / "worst.png"
    command = ["evaluate", str(path), str(tmp_path / "cache"), str(toy_model), "--lesions", str(shapes)]
    assert main([*command, "--split", "test", "--output", str(output), "--figure", str(figure)]) == 0
    scores = json.loads(output.read_text())
    assert scores["subjects"] == ["toy_sub-03"]
    mean = {
        key: value["mean"] for key, value in scores.items() if isinstance(value, dict) and "mean" in value
    }
    # where a lesion lies in deep grey matter, it makes white matter of it
    assert -0.13 < mean["bias"] < -0.02
    assert mean["psnr"] == pytest.approx(-20 * np.log10(mean["rmse"]))
    assert mean["gain"] > 3
    # it makes grey matter white as well
    assert mean["whole_psnr"] < mean["voided_psnr"]
    found = {key: value["mean"] for key, value in scores["threshold_sweep"]["0.15"].items()}
    assert found["sensitivity"] > 0.7
    # which is told as lesions in the healthy image, as the app would do
    assert found["false_ml"] > 1
    assert found["precision"] < 0.5
    patients = scores["patients"]
    assert patients["subjects"] == ["toy_sub-04"]
    share = dark.sum() / expert.sum()
    assert patients["visible_share"]["mean"] == pytest.approx(share, abs=0.05)
    reached = patients["threshold_sweep"]["0.15"]
    assert reached["sensitivity"]["mean"] == pytest.approx(share, abs=0.15)
    assert reached["dice"]["mean"] <= patients["dice_ceiling"]["mean"] + 0.05
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_images_that_cannot_be_prepared_are_named(tmp_path, capfd):
    from bids_inpaint.training.__main__ import main

    name = "sub-01/anat/sub-01_T1w.nii.gz"
    dataset = write_dataset(tmp_path / "bids", name)
    (dataset / name).write_bytes(b"\x1f\x8b not an image")
    cache, work = tmp_path / "cache", tmp_path / "work"
    assert main(["prepare", str(dataset), str(cache), "-w", str(work)]) == 1
    said = capfd.readouterr().err
    assert "1 of 1 images could not be preprocessed" in said
    assert "sub-01_T1w.nii.gz" in said
    assert "Traceback" not in said
    assert list((work / "crashes").glob("crash*"))
    assert not subjects(cache)


def test_lesions_are_painted_into_raw_images(shapes, tmp_path):
    """At their place in the world, in the unit and type of the raw image, which is else as it was."""
    from bids_inpaint.dataset import bids
    from bids_inpaint.demo import acquire, tilted
    from bids_inpaint.settings import Settings
    from bids_inpaint.training.__main__ import main

    centre = np.array([24.0, 20.0, 22.0, 1.0])
    voxel = np.linalg.inv(WORKING_GRID.matrix) @ centre
    lesion = np.zeros(WORKING_GRID.shape, np.uint8)
    lesion[tuple(slice(int(v) - 4, int(v) + 5) for v in voxel[:3])] = 1
    own = shutil.copytree(shapes, tmp_path / "lesions")
    images.save(own / "patients/c_mask.nii.gz", lesion, WORKING_GRID)
    grid = tilted((96, 110, 80), (2.0, 2.0, 2.2), degrees=10)
    raw, _ = acquire(grid, folder=tmp_path / "template")
    name = "sub-01/anat/sub-01_T1w.nii.gz"
    dataset = write_dataset(tmp_path / "bids", name)
    images.save(dataset / name, raw, grid)
    output, work = tmp_path / "out", tmp_path / "work"
    command = ["paint", str(dataset), str(output), "--lesions", str(own), "--patients", "c"]
    assert main([*command, "-w", str(work)]) == 0
    settings = Settings(output, tmp_path / "x", tmp_path / "y", lesion_masks=output / "derivatives/painted")
    (found,) = bids.collect(settings).images
    assert found.lesion_mask is not None
    mask = images.read(found.lesion_mask)[0] > 0
    painted = np.asanyarray(images.load(found.path).dataobj)
    assert painted.dtype == raw.dtype
    assert not (painted > raw).any()
    at = tuple(np.round(np.linalg.inv(grid.matrix) @ centre)[:3].astype(int))
    assert mask[at]
    assert painted[at] < 0.9 * raw[at]
    changed = painted != raw
    assert changed[mask].mean() > 0.95
    # partial volume reaches a little farther
    assert changed.sum() < 5 * mask.sum()
