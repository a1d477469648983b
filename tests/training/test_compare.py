"""The comparison of engines: holes that are the same every time, and fillings where they belong."""

import json
import os
import signal

import numpy as np
import pytest
from helpers import TOY

pytest.importorskip("torch")

from bids_inpaint.imaging.fidelity import hole_scores, seams
from bids_inpaint.networks import session
from bids_inpaint.training.compare import compare
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, subjects, template_priors
from bids_inpaint.training.holes import draw_holes, make_case
from bids_inpaint.training.ways import CLASSICAL, worker


@pytest.mark.parametrize("kind", ["lesions", "blobs", "squares"])
def test_holes_are_in_the_brain_and_the_same_every_time(cache, shapes, kind):
    one, two = subjects(cache)
    stored = Lesions.load(shapes)
    hole = draw_holes(one, kind, stored)
    assert (hole == draw_holes(one, kind, stored)).all()
    # both get the lesions of the same patient
    assert kind == "lesions" or (hole != draw_holes(two, kind, stored)).any()
    assert not hole[np.asarray(one.image) == 0].any()
    if kind == "squares":
        (size,) = set(hole.sum((0, 1))[hole.any((0, 1))])
        assert 64 * 32 < size <= 64 * 64


def test_classical_ways_fill_white_matter_with_white_matter(cache, shapes):
    case = make_case(subjects(cache)[0], "lesions", Lesions.load(shapes), template_priors(cache))
    for fill in CLASSICAL.values():
        filled = fill(case)
        assert (filled[~case.hole] == case.voided[~case.hole]).all()
        assert filled[case.hole].mean() == pytest.approx(case.healthy[case.hole].mean(), rel=0.03)
    drawn = CLASSICAL["local histogram"](case)[case.hole]
    assert drawn.std() == pytest.approx(case.healthy[case.hole].std(), rel=0.2)


def test_scores_of_a_known_error():
    truth = np.random.default_rng(0).uniform(0.2, 0.8, (24, 24, 24))
    hole = np.zeros(truth.shape, bool)
    hole[8:16, 8:16, 8:16] = True
    scores = hole_scores(np.where(hole, truth + 0.1, truth), truth, hole)
    assert scores.mse == pytest.approx(0.01)
    assert scores.psnr == pytest.approx(20)
    assert scores.whole_psnr == pytest.approx(20 + 10 * np.log10(truth.size / hole.sum()))
    perfect = hole_scores(truth, truth, hole)
    assert (perfect.ssim, perfect.uqi) == (1, pytest.approx(1))
    assert scores.ssim < 1
    assert scores.uqi < 1


def test_seams_are_told_from_what_slices_differ_by():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.random((6, 6, 6)), 4, 0), 4, 1)
    hole = np.zeros(truth.shape, bool)
    hole[4:20, 4:20, 1:5] = True
    assert seams(truth, truth, hole) == 1
    # every second slice is brighter by what neighbours within a slice differ by on average
    x, y, z = np.mgrid[:24, :24, :6]
    even = 10.0 * x + 10 * y + 10 * z
    striped = np.where(hole, even + 30 * (z % 2), even)
    assert seams(striped, even, hole) == pytest.approx((20 + 40 + 20) / 3 / 10)
    # what lies beyond the hole has no part in it
    assert seams(np.where(hole, striped, rng.random(hole.shape)), even, hole) == seams(striped, even, hole)
    alike = np.where(hole, 10.0 * x + 10 * y, even)
    assert seams(alike, even, hole) == 0
    single = hole & (z == 3)
    assert np.isnan(seams(even, even, single))
    assert np.isnan(seams(np.where(hole, 5, even), even, hole))


def plain(case):
    return np.zeros_like(case.voided)


def crowded(case):
    """Fill with zeros, by way of 300 MB."""
    return np.zeros_like(case.voided) * np.ones(300 * 2**17)[-1]


def test_memory_is_that_of_the_way_alone(cache, shapes, tmp_path):
    case = make_case(subjects(cache)[0], "squares", Lesions.load(shapes), template_priors(cache))
    case.save(tmp_path / "case")
    # what this process holds counts for nobody else
    kept = np.ones(600 * 2**17)
    peaks = {}
    for name, fill in (("plain", plain), ("crowded", crowded), ("lean", CLASSICAL["white-matter median"])):
        with worker(name, fill) as process:
            filled, seconds, processor = process.run(tmp_path / "case")
            peaks[name] = process.peak()
            assert filled.shape == case.hole.shape
            assert seconds > 0
            assert processor > 0
    assert 50 < peaks["lean"] < 590
    assert 250 < peaks["crowded"] - peaks["plain"] < 400
    assert kept.nbytes > 600e6


def test_a_way_that_is_killed_is_named(cache, shapes, tmp_path):
    case = make_case(subjects(cache)[0], "squares", Lesions.load(shapes), template_priors(cache))
    case.save(tmp_path / "case")
    with worker("deadly", killed) as process, pytest.raises(ValueError, match="filled by deadly was killed"):
        process.run(tmp_path / "case")


def killed(case):
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_way_is_in_the_table(cache, shapes, tmp_path, capsys):
    (tmp_path / "toy.toml").write_text(
        TOY.format(steps=1, blind="true").replace("leave_out_patients = []", 'leave_out_patients = ["a"]')
    )
    config = Config.load(tmp_path / "toy.toml")
    networks, runtime = ["unet", "blind-unet"], session.Runtime(threads=2)
    comparison = compare(config, cache, shapes, ["toy_sub-01"], networks, ["lesions", "squares"], runtime)
    ways = [*CLASSICAL, *networks]
    assert list(comparison.scores["lesions"]) == ways
    # a blind network sees no hole
    assert list(comparison.scores["squares"]) == ways[:-1]
    assert comparison.costs["unet"]["parameters"] > 1e6
    assert comparison.costs["unet"]["file_mb"] > 1
    assert all(row["memory_mb"] > 50 for row in comparison.costs.values())
    title, _, *lines = comparison.table().splitlines()
    assert "lesions SSIM | lesions PSNR | lesions seams" in title
    assert "memory MB" in title
    assert [line.split(" | ")[0] for line in lines] == [f"| {way}" for way in ways]
    assert len({line.count("|") for line in (title, *lines)}) == 1
    comparison.save(tmp_path / "scores.json")
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["scores"] == comparison.scores
    assert stored["costs"] == comparison.costs
    comparison.draw(tmp_path / "figures")
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["filled-lesions.png", "filled-squares.png"]
    assert all(path.stat().st_size < 150_000 for path in drawn)
    assert "white-matter median" in capsys.readouterr().out
