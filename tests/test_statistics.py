import numpy as np
import pytest

from bids_inpaint.statistics import agree, compare


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
