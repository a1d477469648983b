"""Visits decide together what is lesion, and each lesion has one history, the same with time reversed."""

import numpy as np
import pytest
from scipy import ndimage

from bids_inpaint.imaging.history import (
    CHANGES,
    Limits,
    change_between,
    change_map,
    decide,
    follow,
    histories,
    numbered,
)
from bids_inpaint.imaging.lesions import Rule, find_probable
from bids_inpaint.space import Grid

GRID = Grid.of((40, 40, 40), np.diag([1, 1, 2, 1]))
REVERSED = {"new": "resolved", "resolved": "new", "enlarging": "shrinking", "shrinking": "enlarging"}


def box(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """Cubes, by a corner and an edge."""
    mask = np.zeros(GRID.shape, bool)
    for x, y, z, edge in corners:
        mask[x : x + edge, y : y + edge, z : z + edge] = True
    return mask


BEFORE = box((2, 2, 2, 4), (12, 2, 2, 4), (22, 2, 2, 5), (32, 2, 2, 4), (2, 30, 2, 2))
AFTER = box((2, 2, 2, 4), (12, 2, 2, 5), (22, 2, 2, 4), (2, 20, 2, 4), (2, 30, 2, 2))


def test_each_lesion_has_its_history():
    labels, lesions = histories([BEFORE, AFTER], GRID)
    found = {labels[place]: place for place in ((2, 2, 2), (12, 2, 2), (22, 2, 2), (32, 2, 2), (2, 20, 2))}
    expected = ["stable", "enlarging", "shrinking", "resolved", "new"]
    volumes = [(128, 128), (128, 250), (250, 128), (128, 0), (0, 128)]
    for (label, place), change, course in zip(found.items(), expected, volumes, strict=True):
        lesion = lesions[label - 1]
        assert (lesion.label, lesion.change, lesion.steps) == (label, change, (change,))
        assert lesion.volumes == course
        middle = np.array(place) + 2
        assert np.abs(np.array(lesion.centroid) / [1, 1, 2] - middle).max() <= 0.5
    largest = [max(lesion.volumes) for lesion in lesions]
    assert largest == sorted(largest, reverse=True)
    assert set(np.unique(change_map(labels, lesions))) == {0, *(1 + CHANGES.index(c) for c in expected)}


def test_with_time_reversed_new_is_resolved():
    labels, lesions = histories([BEFORE, AFTER], GRID)
    back, reverse = histories([AFTER, BEFORE], GRID)
    assert (labels == back).all()
    assert [REVERSED.get(lesion.change, lesion.change) for lesion in lesions] == [
        lesion.change for lesion in reverse
    ]
    assert [lesion.volumes[::-1] for lesion in lesions] == [lesion.volumes for lesion in reverse]


def test_lesions_that_merge_are_one_at_all_visits():
    apart, merged = box((2, 2, 2, 4), (8, 2, 2, 4)), box((2, 2, 2, 4), (5, 2, 2, 4), (8, 2, 2, 4))
    labels, (lesion,) = histories([apart, merged], GRID)
    assert lesion.volumes == (256.0, 320.0)
    assert lesion.change == "enlarging"
    assert histories([merged, apart], GRID)[1][0].change == "shrinking"
    assert set(np.unique(labels)) == {0, 1}


def test_three_visits_have_two_steps():
    there, not_there = box((2, 2, 2, 4)), box()
    _, (lesion,) = histories([not_there, there, not_there], GRID)
    assert (lesion.change, lesion.steps) == ("transient", ("new", "resolved"))
    _, (lesion,) = histories([there, not_there, there], GRID)
    assert (lesion.change, lesion.steps) == ("stable", ("resolved", "new"))


def test_without_lesions_there_are_none():
    labels, lesions = histories([box(), box()], GRID)
    assert not labels.any()
    assert lesions == []
    assert not change_map(labels, lesions).any()
    # of 8 mm³
    labels, lesions = histories([box((2, 2, 2, 1)), box((2, 2, 2, 1))], GRID)
    assert lesions == []
    assert not labels.any()


@pytest.mark.parametrize(
    ("before", "after", "limits", "change"),
    [
        (100, 124, Limits(), "stable"),
        (100, 125, Limits(), "enlarging"),
        (40, 55, Limits(), "stable"),
        (40, 55, Limits(least_change=10), "enlarging"),
        (9, 200, Limits(), "new"),
        (200, 9, Limits(), "resolved"),
        (0, 0, Limits(least_volume=0, least_change=0, growth=0), "stable"),
    ],
)
def test_limits_are_those_that_are_given(before, after, limits, change):
    assert change_between(before, after, limits) == change


def test_a_visit_helps_another_and_the_order_is_no_matter():
    rng = np.random.default_rng(0)
    visits = list(rng.uniform(0, 1, (3, 10, 10, 10)))
    masks = decide(visits, Limits(alone=0.6, supported=0.3))
    for turned in ((2, 0, 1), (2, 1, 0)):
        again = decide([visits[i] for i in turned], Limits(alone=0.6, supported=0.3))
        assert all((masks[i] == mask).all() for i, mask in zip(turned, again, strict=True))
    for visit, mask in zip(visits, masks, strict=True):
        assert mask[visit >= 0.6].all()
        assert not mask[visit < 0.3].any()
    # a visit alone is as ever
    assert (decide(visits[:1])[0] == (visits[0] >= 0.5)).all()


def test_noise_about_the_threshold_is_no_change():
    """What flickers in two maps that are made alone is stable in those that are made together."""
    rng = np.random.default_rng(1)
    truth = np.where(box((10, 10, 10, 8)), 0.55, 0.02)
    visits = [np.clip(truth + rng.normal(0, 0.08, GRID.shape), 0, 1) for _ in range(2)]
    alone = [(visit >= 0.5).sum() for visit in visits]
    together = [mask.sum() for mask in decide(visits)]
    assert abs(together[0] - together[1]) <= 0.2 * max(abs(alone[0] - alone[1]), 5)
    assert [lesion.change for lesion in histories(decide(visits), GRID)[1]] == ["stable"]


@pytest.mark.parametrize("wrong", [{"supported": 0.6}, {"alone": 1.2}, {"growth": -1}, {"supported": 0}])
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="limits of"):
        Limits(**wrong)


RULE = Rule("probability", threshold=0.4, low=0.3, min_volume=10)


def chance(*lesions: tuple[np.ndarray, float]) -> np.ndarray:
    out = np.full(GRID.shape, 0.02, np.float32)
    for mask, probability in lesions:
        out[mask] = probability
    return out


def test_one_visit_decides_as_its_own_map_does():
    rng = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(rng.normal(size=GRID.shape), 2)
    probability = np.clip(0.2 + 2 * rough, 0, 1).astype(np.float32)
    alone = find_probable(probability, RULE, GRID)
    (mask,), labels, lesions = follow([probability], RULE, GRID)
    assert alone.any()
    assert (mask == alone).all()
    assert ((labels > 0) == alone).all()
    assert sum(lesion.volumes[0] for lesion in lesions) == pytest.approx(2 * alone.sum())


def test_what_is_sure_at_one_visit_needs_less_at_the_others():
    place, elsewhere = box((2, 2, 2, 4)), box((20, 2, 2, 4))
    masks, _, lesions = follow([chance((place, 0.6)), chance((place, 0.25), (elsewhere, 0.25))], RULE, GRID)
    assert [(mask == place).all() for mask in masks] == [True, True]
    assert [lesion.change for lesion in lesions] == ["stable"]
    # what is lesion nowhere by itself is none, and so is what no visit is sure of
    assert not follow([chance((place, 0.35)), chance((elsewhere, 0.25))], RULE, GRID)[2]


def test_a_visit_has_no_part_of_a_lesion_below_the_least_volume():
    place, crumb = box((2, 2, 2, 4)), box((2, 2, 2, 1))
    masks, labels, lesions = follow([chance((crumb, 0.9)), chance((place, 0.9))], RULE, GRID)
    assert not masks[0].any()
    assert (masks[1] == place).all()
    assert [lesion.change for lesion in lesions] == ["new"]
    assert ((labels > 0) == place).all()


SURE = Rule("probability", 0.5, 0.5, 10.0)


def test_masks_that_are_kept_support_a_visit_that_is_added_and_stay():
    finished = box((2, 2, 2, 4), (20, 2, 2, 4))
    # surely a lesion, possibly one, and possibly one where no other is
    added = 0.9 * box((30, 30, 4, 4)) + 0.4 * box((2, 2, 2, 4), (10, 20, 4, 4))
    probabilities = [np.zeros(GRID.shape), added]
    masks, labels, lesions = follow(probabilities, SURE, GRID, {0: finished}, numbered([[finished]], GRID))
    assert (masks[0] == finished).all()
    assert (masks[1] == box((2, 2, 2, 4), (30, 30, 4, 4))).all()
    changes = {labels[place]: c for place, c in (((2, 2, 2), "stable"), ((20, 2, 2), "resolved"))}
    changes[labels[30, 30, 4]] = "new"
    assert {lesion.label: lesion.change for lesion in lesions} == changes


def test_lesions_keep_their_numbers_if_visits_are_added():
    first = box((2, 2, 2, 5), (12, 2, 2, 4), (22, 2, 2, 3))
    # larger than all before, a bridge between the first two, and another
    second = box((20, 20, 4, 8), (6, 2, 2, 3), (9, 2, 2, 4), (2, 30, 2, 3))
    third = box((34, 2, 2, 3))
    numbers = numbered([[first], [second]], GRID)
    labels, lesions = histories([first, second, third], GRID, numbers=numbers)
    places = ((2, 2, 2), (12, 2, 2), (22, 2, 2), (20, 20, 4), (2, 30, 2), (34, 2, 2))
    # 2 is gone, and nobody else gets a number that another had
    assert [labels[place] for place in places] == [1, 1, 3, 4, 5, 6]
    assert [lesion.label for lesion in lesions] == [1, 3, 4, 5, 6]
    by_label = {lesion.label: lesion for lesion in lesions}
    assert by_label[1].volumes[0] == 2 * (5**3 + 4**3)
    assert by_label[3].volumes == (54, 0, 0)
    assert by_label[6].volumes == (0, 0, 54)
    assert (change_map(labels, lesions) > 0).sum() == (labels > 0).sum()
    # what is not there any more can't lend its number
    alone = numbered([[box((2, 2, 2, 4))], [box((2, 2, 2, 4), (20, 2, 2, 4))]], GRID)
    assert alone is not None
    assert alone.last == 2


def test_without_lesions_before_numbers_begin_at_one():
    nothing = np.zeros(GRID.shape, bool)
    labels, lesions = histories([nothing, BEFORE], GRID, numbers=numbered([[nothing]], GRID))
    assert [lesion.label for lesion in lesions] == list(range(1, len(lesions) + 1))
    assert labels.max() == len(lesions)
