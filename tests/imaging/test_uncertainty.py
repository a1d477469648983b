"""What is known of the true volumes behind lesion maps."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from bids_inpaint.imaging.uncertainty import LesionModel, LoadModel, VolumeModel, expected_volume
from bids_inpaint.networks import registry

MODEL = VolumeModel(LoadModel(0.1, 1.0, -0.8, -0.1), LesionModel((0.0, 0.6, 2.0), (1.4, 1.0, -1.0)))


def test_intervals_grow_with_the_volume_and_never_fall_below_zero():
    expected = np.geomspace(0.01, 200, 50)
    low, high = MODEL.load.interval(expected)
    assert (low >= 0).all()
    assert (low <= expected).all()
    assert (high > expected).all()
    assert (np.diff(high) > 0).all()
    assert low[0] == 0 < low[-1]
    # a larger volume is known better, as a share of it
    ratio = np.log((high + 0.3) / (low + 0.3))[low > 0]
    assert (np.diff(ratio) < 0).all()


def test_a_surer_lesion_has_a_narrower_interval():
    low, high = MODEL.lesion.interval([100.0, 100.0, 15.0], [0.5, 0.9, 0.5])
    assert 0 <= low[0] < low[1] < 100 < high[1] < high[0]
    assert high[2] < high[0]
    # none of them is certain
    low, high = MODEL.lesion.interval([100.0, 100.0], [0.0, 1.0])
    assert np.isfinite(high).all()
    assert (low <= high).all()


def test_only_voxels_that_may_be_lesion_count():
    chance = np.zeros((100, 100, 100))
    chance += 0.01
    chance[0, 0, :2] = 0.05, 0.95
    assert expected_volume(chance, 2.0) == pytest.approx(0.002)


def test_a_card_has_the_model_and_no_nonsense():
    content = json.loads(json.dumps(asdict(MODEL)))
    assert VolumeModel.read(content) == MODEL
    wrong = (("load", "slope", -1.0), ("load", "log_sd", float("nan")), ("lesion", "low", [1, 2]))
    for part, name, value in wrong:
        broken = json.loads(json.dumps(content))
        broken[part][name] = value
        with pytest.raises(ValueError, match=r"model of volumes|unpack"):
            VolumeModel.read(broken)
    shipped = registry.find(registry.DEFAULT).card.lesion_volume
    low, high = shipped.load.interval(10.0)
    assert 5 < low < 10 < high < 25
