"""The comparison of engines: holes that are the same every time, and fillings where they belong."""

import json

import numpy as np
import pytest
from helpers import TOY

pytest.importorskip("torch")

from bids_inpaint.imaging.fidelity import hole_scores
from bids_inpaint.networks import session
from bids_inpaint.training.compare import CLASSICAL, compare
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, subjects, template_priors
from bids_inpaint.training.holes import draw_holes, make_case


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


def test_every_way_is_in_the_table(cache, shapes, tmp_path, capsys):
    (tmp_path / "toy.toml").write_text(
        TOY.format(steps=1, blind="true").replace("leave_out_patients = []", 'leave_out_patients = ["a"]')
    )
    config = Config.load(tmp_path / "toy.toml")
    networks, runtime = ["unet", "blind-unet"], session.Runtime(threads=2)
    comparison = compare(config, cache, shapes, ["toy_sub-01"], networks, "lesions", runtime)
    scores = comparison.scores
    assert list(scores) == [*CLASSICAL, *networks]
    assert scores["unet"]["parameters"] > 1e6
    lines = comparison.table().splitlines()[1:]
    assert all(line.startswith(name) for line, name in zip(lines, scores, strict=True))
    comparison.save(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == scores
    comparison.draw(tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("*.png"))) == len(scores)
    assert "white-matter median" in capsys.readouterr().out
