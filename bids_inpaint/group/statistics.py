"""Comparisons of paired measurements over a group (pure numbers, doctested)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Up to so many differing pairs the Wilcoxon test is exact.
EXACT = 50


@dataclass(frozen=True)
class Comparison:
    """A measure after something against the same before it.

    Attributes
    ----------
    n : int
        Pairs.
    difference : float
        Mean of after minus before.
    low, high : float
        95% confidence interval of it, by the bias-corrected and accelerated bootstrap; NaN for fewer
        than 3 pairs, or if all differences are equal.
    p : float
        Of the Wilcoxon signed-rank test of the pairs that differ, two-sided; exact for up to 50 of them, also
        with ties. 1 if nothing differs.
    effect : float
        Matched-pairs rank-biserial correlation: the share of the ranks in favour of after minus the share
        in favour of before, -1 to 1 (Kerby 2014, doi:10.2466/11.IT.3.1).
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    effect: float


def compare(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Comparison:
    """Compare paired measurements.

    Raises
    ------
    ValueError
        If there is no pair.

    Examples
    --------
    >>> c = compare([0, 0, 0, 0, 0], [1, 2, 3, -4, 5])
    >>> c.n, c.difference, c.p, round(c.effect, 3)
    (5, 1.4, 0.4375, 0.467)
    """
    from scipy import stats

    d = np.asarray(after, float) - np.asarray(before, float)
    if not d.size:
        raise ValueError("no pair to compare")
    ranked = d[d != 0]
    ranks = stats.rankdata(np.abs(ranked))
    low = high = float("nan")
    if d.size > 2 and np.ptp(d) > 0:
        interval = stats.bootstrap((d,), np.mean, rng=np.random.default_rng(seed)).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Comparison(
        n=int(d.size),
        difference=float(d.mean()),
        low=low,
        high=high,
        p=_wilcoxon(ranked, ranks),
        effect=float((ranks * np.sign(ranked)).sum() / ranks.sum()) if ranked.size else 0.0,
    )


def _wilcoxon(differences: np.ndarray, ranks: np.ndarray) -> float:
    """Two-sided p of the signed-rank test of nonzero differences, whose absolute values have these ranks."""
    from scipy import stats

    if not differences.size:
        return 1.0
    if differences.size > EXACT:
        return float(stats.wilcoxon(differences, method="asymptotic").pvalue)
    # ties have halves of ranks
    doubled = np.rint(2 * ranks).astype(int)
    patterns = np.zeros(doubled.sum() + 1)
    patterns[0] = 1
    for rank in doubled:
        # of the rank sums with this difference positive, and with it negative
        patterns[rank:] += patterns[:-rank].copy()
    observed = int(doubled[differences > 0].sum())
    tail = min(patterns[: observed + 1].sum(), patterns[observed:].sum())
    return float(min(1.0, 2 * tail / patterns.sum()))


@dataclass(frozen=True)
class Agreement:
    """A measure against a reference (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8).

    Attributes
    ----------
    correlation : float
        Pearson's; NaN for fewer than 3 pairs, or if one of the two is constant.
    bias : float
        Mean of measure minus reference.
    low, high : float
        Limits of agreement, bias ± 1.96 standard deviations; NaN for a single pair.
    """

    correlation: float
    bias: float
    low: float
    high: float


def agree(measure: Sequence[float], reference: Sequence[float]) -> Agreement:
    """How a measure agrees with its reference.

    Raises
    ------
    ValueError
        If there is no pair.

    Examples
    --------
    >>> a = agree([1, 2, 4], [1, 1, 2])
    >>> round(a.correlation, 3), a.bias, round(a.low, 2), round(a.high, 2)
    (0.945, 1.0, -0.96, 2.96)
    """
    x, y = np.asarray(measure, float), np.asarray(reference, float)
    if not x.size:
        raise ValueError("no pair to compare")
    varied = x.size > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    bias = float((x - y).mean())
    reach = 1.96 * float((x - y).std(ddof=1)) if x.size > 1 else float("nan")
    return Agreement(
        correlation=float(np.corrcoef(x, y)[0, 1]) if varied else float("nan"),
        bias=bias,
        low=bias - reach,
        high=bias + reach,
    )
