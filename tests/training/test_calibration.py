"""Lesion probabilities: what they mean, how lesions are mapped by them, and both on patients left out."""

import json

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint.imaging.lesions import Rule, find_probable
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.networks import registry
from bids_inpaint.networks.card import LesionProbability
from bids_inpaint.space import Grid
from bids_inpaint.training.__main__ import main
from bids_inpaint.training.calibration import (
    Counts,
    Scan,
    by_person,
    fit_logistic,
    logit,
    reliability,
)
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import cache_subject, subjects
from bids_inpaint.training.leave_out import Fitting, leave_out
from bids_inpaint.training.levels import choose, sweep_levels

GATED = (
    TOY.replace("full_resolution = false", "full_resolution = false\ngated = true\npriors = true")
    .replace("validation = []", 'validation = ["toy_sub-02"]')
    .replace('train = ["toy_sub-01", "toy_sub-02"]', 'train = ["toy_sub-01", "ms_sub-01", "ms_sub-02"]')
    .replace("leave_out_patients = []", 'leave_out_patients = ["b"]')
    .replace("decay_steps = 2\nwarmup_steps = 1", "decay_steps = 1\nwarmup_steps = 0")
    .format(steps=2, blind="true")
)


def simulated(person: str, slope: float, intercept: float, seed: int, low: float = -4) -> Scan:
    """A brain of 64,000 voxels whose lesions follow a known function of the raw probability."""
    rng = np.random.default_rng(seed)
    raw = 1 / (1 + np.exp(-rng.uniform(low, 4, (40, 40, 40))))
    truth = rng.random(raw.shape) < 1 / (1 + np.exp(-slope * logit(raw) - intercept))
    return Scan.of(person, raw, truth, np.ones(raw.shape, bool))


def counted(*scans: Scan) -> dict[str, Counts]:
    return by_person((scan.person, Counts.of(scan)) for scan in scans)


def test_calibration_recovers_the_slope_and_the_intercept():
    people = counted(*(simulated(f"p{i}", 0.7, -1.2, i) for i in range(3)))
    assert fit_logistic(people) == pytest.approx((0.7, -1.2), abs=0.03)
    # an error that is there twice is half as large; a person's second image makes him no more important
    one, other = simulated("a", 1.0, 1.0, 0), simulated("b", 1.0, -1.0, 1)
    even, crowd = fit_logistic(counted(one, other)), fit_logistic(counted(*[one] * 9, other))
    assert crowd == pytest.approx(even)
    assert even[1] == pytest.approx(0, abs=0.05)


def test_calibration_needs_lesions_that_the_network_tells():
    scan = simulated("a", 1.0, 0.0, 0)
    nothing = Scan(scan.person, scan.logit, np.zeros_like(scan.truth), scan.brain)
    with pytest.raises(ValueError, match="needs voxels of lesions"):
        fit_logistic(counted(nothing))
    with pytest.raises(ValueError, match="does not rise"):
        fit_logistic(counted(simulated("a", -1.0, 0.0, 0)))


def test_reliability_of_known_errors():
    """Nothing is off where lesions are as frequent as told; overconfidence is off by what it is."""
    perfect = reliability(counted(simulated("a", 1.0, 0.0, 0)))
    assert perfect.ece < 0.01
    assert perfect.ece_brain < 0.01
    assert sum(b.voxels for b in perfect.bins) == 40**3
    # 0.9 is predicted where 6 of 10 are lesions, and 0.001 where 2 of 1000 are
    told = np.full((10, 10, 20), 0.9)
    told[5:] = 0.001
    truth = np.zeros(told.shape, bool)
    truth[:5].flat[:600] = True
    truth[5:].flat[:2] = True
    over = reliability(counted(Scan.of("a", told, truth, np.ones_like(truth))))
    assert over.ece == pytest.approx(0.3, abs=0.002)
    assert over.largest_gap == pytest.approx(0.3, abs=0.002)
    assert over.ece_brain == pytest.approx((0.3 + 0.001) / 2, abs=0.002)
    assert over.ece_with_missed == pytest.approx((300 + 2) / 1002, abs=0.003)
    assert over.missed == pytest.approx(2 / 602)
    last = over.bins[-2] if over.bins[-1].voxels == 0 else over.bins[-1]
    assert (last.observed, last.voxels) == (pytest.approx(0.6), 1000)


def blobs(person: str, lesioned: bool) -> Scan:
    """A lesion with a core and a weak border, and what is no lesion but weak throughout."""
    p, truth = np.full((40, 40, 40), 0.001), np.zeros((40, 40, 40), bool)
    p[4:14, 4:14, 4:14] = 0.22
    if lesioned:
        p[20:30, 20:30, 20:30], truth[20:30, 20:30, 20:30] = 0.32, True
        p[23:27, 23:27, 23:27] = 0.83
    return Scan.of(person, p, truth, np.ones(p.shape, bool))


def test_a_lesion_is_mapped_with_its_border_and_what_has_no_core_is_not():
    scans = [blobs("a", True), blobs("b", False)]
    chosen = choose(scans, 1.0, 0.0, 10, false_ml=0.3)
    assert 0.22 < chosen.threshold < 0.83
    assert chosen.low < 0.32
    assert (chosen.dice, chosen.false_ml) == (1.0, 0.0)
    assert choose([blobs("b", False), *scans], 1.0, 5.0, 10, false_ml=0.3) is None


def test_levels_map_what_the_app_maps():
    scan = simulated("a", 1.0, 0.0, 3, low=-6)
    raw = 1 / (1 + np.exp(-scan.logit.astype(float)))
    p, grid = LesionProbability(0.8, -2.5).calibrate(raw), Grid.of(raw.shape, np.eye(4))
    for (threshold, low), (score, volume) in sweep_levels(scan, 0.8, -2.5, 10).items():
        found = find_probable(p, Rule("probability", threshold, low, 10), grid)
        assert volume == pytest.approx(found.sum() / 1000, abs=0.01)
        assert score == pytest.approx(dice(found, scan.truth), abs=0.01)


@pytest.fixture(scope="module")
def people(cache, tmp_path_factory):
    """Two healthy brains and two patients: one with more than 5 ml of lesions, one with less."""
    folder = tmp_path_factory.mktemp("people")
    for name in ("toy_sub-01", "toy_sub-02"):
        (folder / name).symlink_to(cache / name)
    image = np.asarray(subjects(cache)[0].image, np.float32)
    priors = {"WM": (image > 0.85).astype(np.float32), "GM": ((image > 0.1) & (image < 0.85)).astype(float)}
    (folder / "template").mkdir()
    for tissue in ("WM", "GM"):
        np.save(folder / "template" / f"{tissue}.npy", (255 * priors[tissue]).astype(np.uint8))
    for name, edge in (("ms_sub-01", 20), ("ms_sub-02", 10)):
        lesion = np.zeros(image.shape, bool)
        lesion[80 : 80 + edge, 80 : 80 + edge, 80 : 80 + edge] = True
        patient = cache_subject(
            folder / name, np.where(lesion, 0.7 * image, image), image > 0, priors, lesion
        )
        np.save(patient.folder / "target.npy", image.astype(np.float16))
    return folder


@pytest.fixture
def config(tmp_path):
    (tmp_path / "toy.toml").write_text(GATED)
    return tmp_path / "toy.toml"


def test_blind_networks_are_scored_on_patients_who_were_left_out(people, shapes, config, tmp_path):
    """From start to end: each patient in turn, a calibrated card, and scores of the card's own maps."""
    common = ["--lesions", str(shapes), "--threads", "1", "--workers", "0"]
    assert main(["fit", str(config), str(people), str(tmp_path / "all"), *common]) == 0
    with pytest.raises(ValueError, match="learned from ms_sub-01"):
        leave_out(
            Config.load(config), people, shapes, tmp_path / "x", Fitting(tmp_path / "all/checkpoint.pt")
        )
    healthy = tmp_path / "healthy.toml"
    healthy.write_text(GATED.replace(', "ms_sub-01", "ms_sub-02"', ""))
    assert main(["fit", str(healthy), str(people), str(tmp_path / "start"), *common]) == 0
    run = tmp_path / "run"
    command = ["cross-validate", str(config), str(people), str(run), *common]
    assert main([*command, "--start", str(tmp_path / "start/checkpoint.pt"), "--share", "0.5"]) == 0
    scores = json.loads((run / "scores.json").read_text())
    assert scores["folds"] == [["ms_sub-01"], ["ms_sub-02"]]
    assert set(scores["subjects"]) == {"ms_sub-01", "ms_sub-02"}
    assert scores["means"]["more than 5 ml"] == scores["subjects"]["ms_sub-01"]
    assert scores["means"]["up to 5 ml"] == scores["subjects"]["ms_sub-02"]
    row = scores["subjects"]["ms_sub-01"]
    assert row["volume_ml"] == 8.0
    assert {"difference_dice", "probability_dice", "probability_lesion_f1", "ece"} <= set(row)
    assert sum(b["voxels"] for b in scores["reliability"]["bins"]) > 2 * 2_000_000
    # what is left out teaches nothing and chooses nothing
    card = json.loads((run / "fold-1" / "toy.json").read_text())
    assert "ms_sub-01" not in card["data"]["train"]
    assert card["calibration"]["subjects"] == ["toy_sub-02", "ms_sub-02"]
    assert card["calibration"]["left_out_in_turn"] == ["ms_sub-02"]
    assert card["command"].endswith("--share 0.5")
    levels = registry.find(str(run / "fold-1" / "toy.onnx")).card.lesion_probability
    assert levels.threshold >= levels.low > 0
    with pytest.raises(ValueError, match="another division or start"):
        leave_out(Config.load(config), people, shapes, run, Fitting())
