"""The model of lesions by a T1w and a FLAIR, fitted to patients whose lesions are known."""

import json

import numpy as np
import pytest

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.flair import FEATURES, Both, FlairModel
from bids_inpaint.networks import registry, session
from bids_inpaint.training import flair_model
from bids_inpaint.training.data import cache_subject, find_subjects
from bids_inpaint.training.flair_model import Patient, fit, fit_card, score, vary


def patient(name: str, seed: int, bright: float = 1.5, seen: float = 0.5) -> Patient:
    """White matter with lesions, which the T1w shows in part, and the FLAIR all of; and bright cortex."""
    rng = np.random.default_rng(seed)
    shape = (70, 70, 40)
    mask = np.zeros(shape, bool)
    mask[4:66, 4:66, 4:36] = True
    cortex = mask.copy()
    cortex[8:62, 8:62, 6:34] = False
    lesions = np.zeros(shape, bool)
    probability = np.full(shape, 0.02, np.float32)
    for _ in range(14):
        corner = rng.integers((14, 14, 10), (50, 50, 26))
        box = tuple(slice(c, c + 5) for c in corner)
        lesions[box] = True
        if rng.random() < seen:
            probability[box] = 0.9
    inpainted = np.where(cortex, 0.7, 1.0).astype(np.float32)
    image = inpainted - 0.2 * (probability > 0.5)
    flair = np.where(lesions, bright, np.where(cortex, 1.15, 1.0)) + 0.03 * rng.standard_normal(shape)
    white = np.where(cortex | ~mask, 0, 1).astype(np.float32)
    both = Both(
        image * mask, inpainted * mask, probability, (250 * flair * mask).astype(np.float32), mask, white
    )
    return Patient(name, both, lesions, probability > 0.5)


def test_lesions_that_only_the_flair_shows_are_found_in_strangers():
    known = [patient("a", 1), patient("b", 2, bright=1.35)]
    stranger = patient("c", 3)
    model = fit(known)
    row = score(stranger, model)
    assert row["dice"] > 0.85 > 0.8 > row["dice_t1w_alone"]
    assert row["volume_ml"] == pytest.approx(stranger.lesions.sum() / 1000)
    assert row["mapped_ml"] == pytest.approx(row["volume_ml"], rel=0.25)
    assert row["fnr"] < 0.2
    # the cortex is no lesion
    assert row["fpr"] < 0.2
    assert fit(known) == model


def test_other_scanners_are_made_of_those_there_are():
    one = patient("a", 1).both
    level = one.white_level()
    lesion = one.flair > 1.4 * level
    stronger, blurred = vary(one, 1.5, 0), vary(one, 1, 1.2)
    assert np.median(stronger.flair[lesion]) == pytest.approx(1.75 * level, rel=0.03)
    assert stronger.white_level() == pytest.approx(level, rel=0.01)
    assert np.mean(blurred.flair[lesion]) < 0.97 * np.mean(one.flair[lesion])
    np.testing.assert_array_equal(vary(one, 1, 0).flair, one.flair)


def test_nothing_is_learned_from_people_without_lesions():
    healthy = patient("a", 1)
    healthy.lesions[:] = False
    with pytest.raises(ValueError, match="nobody of these patients has lesions"):
        fit([healthy])


def test_each_patient_is_scored_by_a_model_of_the_others(tmp_path, cache, monkeypatch):
    """And the card gets the model of all, which the registry reads."""
    path = tmp_path / "net.onnx"
    shipped = registry.find(registry.DEFAULT).path
    path.write_bytes(shipped.read_bytes())
    card = json.loads(shipped.with_suffix(".json").read_text())
    del card["lesion_by_flair"], card["flair_scores"]
    path.with_suffix(".json").write_text(json.dumps(card))
    assert registry.find(str(path)).card.lesion_by_flair is None
    image = find_subjects(cache, ["toy_sub-01"])[0].image
    image = np.asarray(image, np.float32)
    white = image > 0.8
    prior = {"WM": white.astype(np.float32), "GM": ((image > 0) & ~white).astype(np.float32)}
    people = {f"toy_sub-p{i}": patient(f"toy_sub-p{i}", i, bright=1.3 + 0.1 * i) for i in range(3)}
    for name in people:
        lesions = np.zeros(image.shape, bool)
        lesions[60:70, 60:70, 60:70] = True
        cache_subject(
            tmp_path / "cache" / name, np.asarray(image), image > 0, prior, lesions, np.asarray(image)
        )
    monkeypatch.setattr(flair_model, "template_priors", lambda cache: [])
    monkeypatch.setattr(flair_model, "look", lambda subject, *others: people[subject.name])
    content = fit_card(path.with_suffix(".json"), tmp_path / "cache", list(people), tmp_path)
    known = registry.find(str(path)).card.lesion_by_flair
    assert known == fit([people[name] for name in sorted(people)])
    others = [people["toy_sub-p1"], people["toy_sub-p2"]]
    expected = score(people["toy_sub-p0"], fit(others))
    assert content["flair_scores"]["left_out_in_turn"]["toy_sub-p0"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="two patients are needed"):
        fit_card(path.with_suffix(".json"), tmp_path / "cache", ["toy_sub-p0"], tmp_path)


def test_networks_that_know_the_patient_are_refused(tmp_path, cache):
    image = np.asarray(find_subjects(cache, ["toy_sub-01"])[0].image, np.float32)
    white = image > 0.8
    prior = {"WM": white.astype(np.float32), "GM": ((image > 0) & ~white).astype(np.float32)}
    for name, lesions in (("ms_sub-openms26", white), ("ms_sub-x", None)):
        cache_subject(tmp_path / "cache" / name, image, image > 0, prior, lesions, image)
    shipped = registry.find(registry.DEFAULT).path
    for suffix in (".onnx", ".json"):
        (tmp_path / f"openms26{suffix}").write_bytes(shipped.with_suffix(suffix).read_bytes())
    known, unmarked = find_subjects(tmp_path / "cache", ["ms_sub-openms26", "ms_sub-x"])
    with pytest.raises(ValueError, match="learned from ms_sub-openms26: it is not a network without"):
        flair_model.look(known, tmp_path, [], session.Runtime())
    with pytest.raises(ValueError, match="ms_sub-x has no lesion mask"):
        flair_model.look(unmarked, tmp_path, [], session.Runtime())


@pytest.mark.parametrize(
    "wrong", [{"coefficients": [1.0], "intercept": 0, "threshold": 0.5}, {"coefficients": "x"}, 3, [1]]
)
def test_cards_with_another_model_are_refused(tmp_path, wrong):
    path = tmp_path / "net.onnx"
    path.write_bytes(registry.find(registry.DEFAULT).path.read_bytes())
    card = json.loads(registry.find(registry.DEFAULT).path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"lesion_by_flair": wrong}))
    with pytest.raises(InputError, match="is not a bids_inpaint network by its card"):
        registry.find(str(path))


def test_the_shipped_model_is_one_of_bright_and_dark_lesions():
    known = registry.find(registry.DEFAULT).card.lesion_by_flair
    assert isinstance(known, FlairModel)
    named = dict(zip(FEATURES, known.coefficients, strict=True))
    assert named["brightness within 1 mm"] > 0
    assert named["darkening"] > 0
    assert named["log odds"] + named["log odds within 1.5 mm"] > 0
