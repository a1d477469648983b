"""Lesions by a T1w and a FLAIR together, on arrays whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_inpaint.imaging.flair import FEATURES, Both, FlairModel, lacking, mutual_information, why_not_flair

SHAPE = (60, 60, 60)
WHITE, GREY, FLUID = (slice(10, 40), slice(40, 50), slice(5, 10))


def person(gyri: int) -> dict[str, np.ndarray]:
    """White matter between fluid and grey matter, in slabs along the first axis, with some texture."""
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, bool)
    mask[5:50, 5:55, 5:55] = True
    out = {"mask": mask}
    for name, levels in (("t1w", (0.2, 1.0, 0.7)), ("flair", (0.3, 1.0, 1.2))):
        image = np.zeros(SHAPE, np.float32)
        for where, level in zip((FLUID, WHITE, GREY), levels, strict=True):
            image[where] = level
        # gyri: a border that is no plane along any axis
        wave = (np.indices(SHAPE)[1] // gyri + np.indices(SHAPE)[2] // gyri) % 2 == 1
        image[29:40][wave[29:40]] = levels[2]
        out[name] = (image + 0.02 * rng.standard_normal(SHAPE).astype(np.float32)) * mask
    out["white"] = np.where(mask, (out["t1w"] > 0.85).astype(np.float32), 0)
    out["grey"] = np.where(mask & (out["t1w"] > 0.5), 1 - out["white"], 0)
    return out


@pytest.fixture
def tissues() -> dict[str, np.ndarray]:
    return person(gyri=5)


def both(tissues, **changes) -> Both:
    t1w, flair, mask = tissues["t1w"], tissues["flair"], tissues["mask"]
    return replace(
        Both(t1w, t1w, np.zeros(SHAPE, np.float32), 300 * flair, mask, tissues["white"]), **changes
    )


def why_not(tissues, flair) -> str:
    return why_not_flair(flair, tissues["t1w"], tissues["mask"], tissues["grey"], tissues["white"])


def test_features_are_those_of_their_names(tissues):
    chance = np.full(SHAPE, 0.05, np.float32)
    dark = tissues["t1w"].copy()
    dark[20:26, 20:26, 20:26] -= 0.3
    flair = 300 * tissues["flair"]
    flair[20:26, 20:26, 20:26] *= 1.5
    pair = both(tissues, image=dark, probability=chance, flair=flair)
    pair.probability[20, 20, 20] = 0
    assert pair.white_level() == pytest.approx(300, rel=0.01)
    values = pair.features()
    assert values.shape == (tissues["mask"].sum(), len(FEATURES))
    at = np.flatnonzero(np.flatnonzero(tissues["mask"]) == np.ravel_multi_index((23, 23, 23), SHAPE))[0]
    named = dict(zip(FEATURES, values[at], strict=True))
    assert named["log odds"] == pytest.approx(np.log(0.05 / 0.95), abs=1e-5)
    assert named["brightness"] == pytest.approx(0.5, abs=0.1)
    assert named["brightness within 1 mm"] == pytest.approx(0.5, abs=0.03)
    assert 0.02 < named["brightness within 5 mm"] < 0.25
    assert named["darkening"] == pytest.approx(0.3, abs=1e-5)
    assert named["white matter within 2 mm"] > 0.95
    # 0 has no log odds
    assert np.isfinite(values).all()


def test_unit_and_background_of_the_flair_do_not_matter(tissues):
    rng = np.random.default_rng(1)
    noisy = np.where(tissues["mask"], 7 * tissues["flair"], 5 * rng.random(SHAPE)).astype(np.float32)
    one, other = both(tissues).features(), both(tissues, flair=noisy).features()
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_probability_is_that_of_the_model(tissues):
    # of the log odds of the network alone
    model = FlairModel((2.0, *[0.0] * 7), 1.0, 0.4)
    chance = np.full(SHAPE, 0.05, np.float32)
    found = both(tissues, probability=chance).lesion_probability(model)
    odds = np.exp(2 * np.log(0.05 / 0.95) + 1)
    np.testing.assert_allclose(found[tissues["mask"]], odds / (1 + odds), rtol=1e-4)
    assert not found[~tissues["mask"]].any()


def test_flair_without_signal_in_white_matter_is_refused(tissues):
    with pytest.raises(ValueError, match="too little signal in healthy white matter"):
        both(tissues, flair=np.zeros(SHAPE, np.float32)).features()


@pytest.mark.parametrize(
    ("coefficients", "intercept", "threshold"),
    [([1.0] * 7, 0, 0.5), ([1.0] * 8, 0, 1.0), ([float("nan")] * 8, 0, 0.5), ([1.0] * 8, float("inf"), 0.5)],
)
def test_unsound_models_are_refused(coefficients, intercept, threshold):
    with pytest.raises(ValueError, match="is no model of lesions by a FLAIR"):
        FlairModel.read({"coefficients": coefficients, "intercept": intercept, "threshold": threshold})


def test_a_flair_in_place_is_accepted(tissues):
    assert why_not(tissues, 300 * tissues["flair"]) == ""


def test_other_contrasts_are_refused(tissues):
    assert why_not(tissues, tissues["t1w"]).startswith("has grey matter of 0.7")
    t2w = np.where(tissues["mask"], 1.6 - tissues["t1w"], 0)
    assert why_not(tissues, t2w).startswith("has fluid of 2.3")


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flair_beside_its_place_is_refused(tissues, axis):
    assert "does not match the brain" in why_not(tissues, np.roll(tissues["flair"], 4, axis))


def test_a_flair_of_somebody_else_is_refused(tissues):
    """The same tissues in the same places, but for the gyri."""
    assert "as if it were of somebody else" in why_not(tissues, person(gyri=7)["flair"])
    assert why_not(tissues, person(gyri=5)["flair"]) == ""


def test_what_a_flair_lacks_is_named(tissues):
    flair = tissues["flair"].copy()
    assert lacking(flair, tissues["mask"]) == []
    flair[..., 52:] = 0
    assert why_not(tissues, flair) == ""
    assert lacking(flair, tissues["mask"])[0].startswith("The FLAIR covers 94% of the brain")


def test_a_flair_of_half_the_brain_is_refused(tissues):
    half = tissues["flair"].copy()
    half[..., 25:] = 0
    assert why_not(tissues, half) == "covers 40% of the brain of its T1w image"


def test_mutual_information_knows_no_unit(tissues):
    mask = tissues["mask"]
    one = mutual_information(tissues["t1w"], tissues["flair"], mask)
    assert one > 0.3
    assert mutual_information(tissues["t1w"], 50 - 3 * tissues["flair"], mask) == pytest.approx(one, rel=0.02)
