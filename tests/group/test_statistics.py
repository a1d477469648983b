import itertools

import numpy as np
import pytest
from scipy import stats

from bids_inpaint.group.statistics import agree, compare


def test_an_improvement_of_all_is_significant_from_six_on():
    """All differences positive: the exact two-sided p is 2 / 2**n, and the ranks are all on one side."""
    before = np.arange(6) / 10
    after = before + np.arange(1, 7) / 100
    result = compare(before, after)
    assert result.p == pytest.approx(2 / 2**6)
    assert result.effect == 1
    assert result.difference == pytest.approx(0.035)
    assert 0.01 < result.low < 0.035 < result.high < 0.06
    assert compare(before, after) == result


def test_direction_of_a_comparison():
    result = compare([3, 4, 5, 6], [2, 2, 2, 2])
    assert result.difference == -2.5
    assert result.effect == -1


def test_nothing_differs():
    result = compare([1, 2, 3], [1, 2, 3])
    assert (result.difference, result.p, result.effect) == (0, 1, 0)
    assert np.isnan(result.low)


def test_small_groups():
    assert compare([1], [2]).p == 1
    assert np.isnan(compare([1, 2], [2, 4]).low)
    with pytest.raises(ValueError, match="no pair"):
        compare([], [])
    with pytest.raises(ValueError, match="no pair"):
        agree([], [])
    one = agree([2], [1])
    assert one.bias == 1
    assert np.isnan([one.correlation, one.low, one.high]).all()


@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, -4, 5], [1, 1, 1, -1, 2, 2], [0, 0.5, -0.25, 3, 0, 7], [0, 3], [-2, -2, -2],
        # from 14 pairs on, scipy takes an approximation where one is zero
        [0, *range(1, 12), -12, 13], [0, 1, 1, 2, -2, 3, 4, 5, -5, 6, 7, 8, 9, -1, 10],
    ],
)  # fmt: skip
def test_p_counts_all_patterns_of_signs(differences):
    """Each difference is as likely to be positive as negative: all 2**n patterns are counted."""
    changed = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(changed))
    signs = np.array(list(itertools.product((0, 1), repeat=len(changed))))
    sums, observed = signs @ ranks, ranks[changed > 0].sum()
    tail = min((sums <= observed).mean(), (sums >= observed).mean())
    result = compare(np.zeros(len(differences)), differences)
    assert result.p == pytest.approx(min(1, 2 * tail), abs=1e-12)
    assert result.n == len(differences)


def test_p_of_many_pairs():
    rng = np.random.default_rng(1)
    for n in (50, 51):
        d = rng.standard_normal(n) + 0.3
        for method in ("exact", "asymptotic"):
            expected = stats.wilcoxon(d, method=method).pvalue
            # an unchanged pair changes nothing
            found = compare(np.zeros(n + 1), [*d, 0]).p
            assert (found == pytest.approx(expected, rel=1e-9)) == ((n == 50) == (method == "exact"))
