"""Lesion probabilities: what they mean, how lesions are mapped by them, and both on patients left out."""

import json
import shutil

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint.imaging.lesions import Rule, find_probable
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.imaging.uncertainty import LesionProbability
from bids_inpaint.networks import registry
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
from bids_inpaint.training.strangers import learned_from

GATED = (
    TOY.replace("full_resolution = false", "full_resolution = false\ngated = true\npriors = true")
    .replace("validation = []", 'validation = ["toy_sub-02"]')
    .replace('train = ["toy_sub-01", "toy_sub-02"]', 'train = ["toy_sub-01", "ms_sub-01", "ms_sub-02"]')
    .replace("leave_out_patients = []", 'leave_out_patients = ["b"]')
    .replace("learning_rate = 1e-3", "learning_rate = 5e-3")
    .replace("gate_weight = 0.02", "gate_weight = 1.0")
    .replace("freeze_normalisation = 3", "freeze_normalisation = 100")
    .replace("decay_steps = 2", "decay_steps = 50")
    .format(steps=150, blind="true")
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


@pytest.fixture(scope="module")
def left_out(people, shapes, tmp_path_factory):
    """A cross-validation, from start to end: its configuration, its folder, and options of commands."""
    folder = tmp_path_factory.mktemp("left_out")
    config, healthy = folder / "toy.toml", folder / "healthy.toml"
    config.write_text(GATED)
    healthy.write_text(GATED.replace(', "ms_sub-01", "ms_sub-02"', ""))
    common = ["--lesions", str(shapes), "--threads", "1"]
    assert main(["fit", str(healthy), str(people), str(folder / "start"), *common, "--workers", "0"]) == 0
    command = ["cross-validate", str(config), str(people), str(folder / "run"), *common, "--workers", "0"]
    assert main([*command, "--start", str(folder / "start/checkpoint.pt"), "--share", "0.5"]) == 0
    return config, folder / "run", common


def test_blind_networks_are_scored_on_patients_who_were_left_out(left_out, people, shapes, tmp_path):
    config, run, _ = left_out
    scores = json.loads((run / "scores.json").read_text())
    assert scores["folds"] == [["ms_sub-01"], ["ms_sub-02"]]
    assert set(scores["subjects"]) == {"ms_sub-01", "ms_sub-02"}
    assert scores["means"]["more than 5 ml"] == scores["subjects"]["ms_sub-01"]
    assert scores["means"]["up to 5 ml"] == scores["subjects"]["ms_sub-02"]
    row = scores["subjects"]["ms_sub-01"]
    assert row["volume_ml"] == 8.0
    assert {"difference_dice", "probability_dice", "probability_lesion_f1", "ece"} <= set(row)
    brain = np.count_nonzero(subjects(people)[0].image)
    assert sum(b["voxels"] for b in scores["reliability"]["bins"]) == 2 * brain
    assert scores["uncalibrated"] == {}
    # what is left out teaches nothing and chooses nothing
    card = json.loads((run / "fold-1" / "toy.json").read_text())
    assert "ms_sub-01" not in card["data"]["train"]
    assert card["calibration"]["subjects"] == ["toy_sub-02", "ms_sub-02"]
    assert card["calibration"]["left_out_in_turn"] == ["ms_sub-02"]
    assert card["command"].endswith("--share 0.5")
    # other networks may see its output of this person
    network = registry.find(str(run / "without" / "01.onnx"))
    assert network.sha256 == registry.find(str(run / "fold-1" / "toy.onnx")).sha256
    assert not learned_from(network, "ms_sub-01_ses-2")
    assert learned_from(network, "ms_sub-02")
    with pytest.raises(ValueError, match="another division or start"):
        leave_out(Config.load(config), people, shapes, run, Fitting())


def test_what_learned_from_a_patient_is_no_start(left_out, people, shapes, tmp_path):
    config, run, _ = left_out
    with pytest.raises(ValueError, match="learned from ms_sub-02"):
        leave_out(Config.load(config), people, shapes, tmp_path, Fitting(run / "fold-1/checkpoint.pt"))
    # nor from the shapes of his lesions
    folder = shutil.copytree(shapes, tmp_path / "lesions")
    shutil.copy(folder / "patients/a_mask.nii.gz", folder / "patients/01_mask.nii.gz")
    start = run.parent / "start/checkpoint.pt"
    with pytest.raises(ValueError, match="learned from ms_sub-01"):
        leave_out(Config.load(config), people, folder, tmp_path / "run", Fitting(start))


def test_a_card_is_calibrated_and_the_network_scored_by_it(left_out, people, tmp_path, capsys):
    _, run, common = left_out
    for suffix in (".onnx", ".json"):
        shutil.copy(run / f"fold-1/toy{suffix}", tmp_path)
    model, held = tmp_path / "toy.onnx", run / "held/ms_sub-02.npz"
    fold = tmp_path / "fold.toml"
    fold.write_text(GATED.replace('"ms_sub-01", ', "").replace("test = []", 'test = ["ms_sub-01"]'))
    command = ["calibrate", str(fold), str(people), str(model), *common]
    figure = tmp_path / "calibration.png"
    assert main([*command, "--held", str(held), "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    card = json.loads(model.with_suffix(".json").read_text())
    assert registry.find(str(model)).card.lesion_probability == LesionProbability(
        **card["lesion_probability"]
    )
    calibration = card["calibration"]
    assert calibration["reliability"]["ece_brain"] < calibration["raw_reliability"]["ece_brain"]
    assert calibration["false_ml"] < 0.3
    # again, it is what the network tells that is calibrated, and not what the card makes of it
    before = card["lesion_probability"]
    assert main([*command, "--held", str(held)]) == 0
    assert json.loads(model.with_suffix(".json").read_text())["lesion_probability"] == before

    output, diagram = tmp_path / "scores.json", tmp_path / "reliability.png"
    command = ["evaluate", str(fold), str(people), str(model), *common, "--painter", "quantile"]
    command += ["--subjects", "toy_sub-02", "ms_sub-01", "--output", str(output), "--diagram", str(diagram)]
    assert main(command) == 0
    assert diagram.read_bytes().startswith(b"\x89PNG")
    scores = json.loads(output.read_text())
    assert scores["painter"] == "quantile"
    sensitivities = [row["sensitivity"]["mean"] for row in scores["probability_sweep"].values()]
    assert sensitivities == sorted(sensitivities, reverse=True)
    false = [row["false_ml"]["mean"] for row in scores["probability_sweep"].values()]
    assert false == sorted(false, reverse=True)
    assert set(scores["maps"]) == {"difference", "probability"}
    # the healthy image, and the one with lesions
    brain = np.count_nonzero(subjects(people)[0].image)
    assert sum(b["voxels"] for b in scores["reliability"]["bins"]) == 2 * brain
    found = scores["patients"]["maps"]["probability"]["dice"]["mean"]
    # as the cross-validation did it
    rows = json.loads((run / "scores.json").read_text())["subjects"]
    assert found == rows["ms_sub-01"]["probability_dice"]

    command = ["calibrate", str(fold), str(people), str(model), *common, "--subjects", "ms_sub-01"]
    assert main(command) == 1
    assert "ms_sub-01 is tested" in capsys.readouterr().err
