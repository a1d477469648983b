"""Intervals of true volumes, fitted to people whose lesions are known."""

from dataclasses import replace

import numpy as np
import pytest

from bids_inpaint.networks import registry
from bids_inpaint.training.calibration import Scan
from bids_inpaint.training.intervals import Volumes, coverage, fit, hold, hold_out

CARD = registry.find(registry.DEFAULT).card
RAW = replace(CARD, lesion_probability=replace(CARD.lesion_probability, slope=1.0, intercept=0.0))


def people(count: int, seed: int = 0) -> list[Volumes]:
    """Images whose true volumes are spread by 40 %, with lesions that are spread by 60 %."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        expected = float(np.exp(rng.uniform(-1, 4)))
        truth = max((expected + 0.3) * float(np.exp(rng.normal(0.1, 0.4))) - 0.3, 0.001)
        volumes, chance = np.exp(rng.uniform(2.5, 7, 12)), rng.uniform(0.35, 0.9, 12)
        true = np.maximum((volumes + 10) * np.exp(rng.normal(0, 0.6, 12)) - 10, 0)
        group = ("field", "patch")[i % 2]
        lesions = np.stack([volumes, chance, true], axis=1)
        out.append(Volumes(f"person {i // 10}", group, expected, truth, lesions))
    return out


def test_what_was_drawn_is_fitted_and_held():
    model = fit(people(300))
    assert model.load.slope == pytest.approx(1, abs=0.05)
    assert model.load.intercept == pytest.approx(0.1, abs=0.15)
    others = people(300, seed=1)
    held = coverage([hold(model, one) for one in others])["all"]
    assert 0.86 < held["images_held"] < 0.96
    assert 0.87 < held["lesions_held"] < 0.93
    assert (held["images"], held["lesions"]) == (300, 3600)


def test_each_person_is_held_by_what_was_learned_from_the_others():
    measured = people(60)
    odd = [replace(one, person="odd", truth=20 * one.truth + 5) for one in people(5, seed=2)]
    held = hold_out([*measured, *odd])
    assert len(held) == 65
    assert np.mean([one.image for one in held[:60]]) > 0.85
    assert not any(one.image for one in held[60:])


def test_true_voxels_belong_to_the_nearest_lesion_of_the_map():
    brain = np.ones((40, 40, 40), bool)
    chance, truth = np.full(brain.shape, 0.01), np.zeros(brain.shape, bool)
    chance[5:8, 5:8, 5:8] = 0.9
    chance[20:24, 20:24, 20:24] = 0.8
    chance[33:36, 33:36, 33:36] = 0.9
    # of the first more is lesion than is mapped, the third is none, and one was not seen
    truth[4:9, 4:9, 4:9] = True
    truth[20:24, 20:24, 20:23] = True
    truth[20:22, 5:7, 5:7] = True
    scan = Scan.of("a", chance, truth, brain)
    measured = Volumes.of(scan, "field", RAW, min_volume=10.0)
    assert measured.truth == pytest.approx((125 + 48 + 8) / 1000)
    assert measured.expected == pytest.approx((27 * 0.9 + 64 * 0.8 + 27 * 0.9) / 1000, rel=1e-3)
    rows = sorted(map(tuple, measured.lesions.round(3)), key=lambda row: (row[0], -row[2]))
    assert [row[0] for row in rows] == [27, 27, 64]
    assert [row[2] for row in rows] == [125, 0, 48]
    assert rows[2][1] == pytest.approx(0.8, abs=1e-3)


def test_an_image_without_lesions_has_an_interval_from_zero():
    brain = np.ones((40, 40, 40), bool)
    chance = np.full(brain.shape, 0.06)
    model = fit(people(300))
    nothing = np.zeros(brain.shape, bool)
    measured = Volumes.of(Scan.of("a", chance, nothing, brain), "lesion-free", RAW, 10.0)
    assert measured.expected == pytest.approx(3.84, rel=1e-2)
    assert measured.lesions.shape == (0, 3)
    assert hold(model, measured).image
    # with a lesion in the map it would not begin there
    mapped = replace(measured, lesions=np.array([[20.0, 0.6, 0.0]]))
    assert not hold(model, mapped).image
    found = coverage([hold(model, measured)])
    assert found["lesion-free"]["images_held"] == 1
    assert found["lesion-free"]["lesions_held"] is None
    assert found["all"]["images"] == 0


def test_few_people_are_refused():
    with pytest.raises(ValueError, match="too few for intervals"):
        fit(people(10))
