"""Tests of volumes by the columns of the dataset's tables: which columns can be tested, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import Covariates, counted, number_of

#: Tested measures: column of the volumes -> name.
TESTED = {"lesion_volume": "Lesion volume", "wm_volume": "White matter", "gm_volume": "Grey matter"}
#: A column of words has so many levels at most, and each level that is compared so many participants.
MOST_LEVELS, LEAST_IN_LEVEL = 6, 3
#: A column of numbers has so many participants at least.
LEAST_NUMBERS = 10
#: Numbers that each stand for so many participants on average, or more, are codes of groups.
_PER_CODE = 3
_IDENTIFIER = re.compile(
    r"(?:^|_)(?:id|ids|identifier|uid|guid|uuid|mrn|index|number|nr|no|name|initials|date|birthdate|dob"
    r"|comments?|notes?|remarks?)$"
)


@dataclass(frozen=True)
class Association:
    """A test of one measure by one column, with a value for each participant.

    Attributes
    ----------
    column, measure : str
    test : {'Mann-Whitney U', 'Kruskal-Wallis H', 'Spearman'}
    groups : dict of tuple of (int, float)
        Level to the number of its participants and the median of the measure (ml); empty for numbers.
    n : int
        Participants.
    statistic : float
        U of the first level, H, or Spearman's rho.
    effect : float
        The rank-biserial correlation, which is positive if the first level has larger values (Kerby 2014,
        doi:10.2466/11.IT.3.1); epsilon squared, 0 to 1 (Tomczak and Tomczak 2014); or Spearman's rho.
    low, high : float
        95% confidence interval of rho (Bonett and Wright 2000, doi:10.1007/BF02294183); NaN for levels.
    p : float
        Two-sided.
    adjusted : float
        The same by Holm's method, for all tests of the group together.
    """

    column: str
    measure: str
    test: str
    groups: Mapping[str, tuple[int, float]]
    n: int
    statistic: float
    effect: float
    low: float
    high: float
    p: float
    adjusted: float = float("nan")

    def as_json(self) -> dict[str, Any]:
        """The entry of a sidecar."""
        groups = {level: {"Participants": n, "Median": median} for level, (n, median) in self.groups.items()}
        interval = {} if np.isnan(self.low) else {"ConfidenceInterval95": [self.low, self.high]}
        names = {"Mann-Whitney U": "RankBiserialCorrelation", "Kruskal-Wallis H": "EpsilonSquared"}
        return {
            "Column": self.column,
            "Measure": self.measure,
            "Test": self.test,
            "Participants": self.n,
            **({"Levels": groups} if groups else {}),
            "Statistic": self.statistic,
            names.get(self.test, "SpearmanRho"): self.effect,
            **interval,
            "P": self.p,
            "HolmP": self.adjusted,
        }


@dataclass(frozen=True)
class Associations:
    """All tests of a group.

    Attributes
    ----------
    tests : tuple of Association
    untested : tuple of tuple of str
        Columns and why they, or a part of them, are not tested.
    """

    tests: tuple[Association, ...] = ()
    untested: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The entry of a sidecar; empty if there are no columns."""
        if not self.tests and not self.untested:
            return {}
        return {
            "Tests": [test.as_json() for test in self.tests],
            "Correction": f"Holm, over {counted(len(self.tests), 'test')}",
            "NotTested": [{"Column": column, "Reason": reason} for column, reason in self.untested],
        }


def associate(measured: Sequence[Measured], covariates: Covariates) -> Associations:
    """Test volumes by each column that has a few words, or numbers.

    A participant counts once: with the mean over the images of which both the volume and the column are
    known, and if the column has words, only if they are the same for all of these.

    Parameters
    ----------
    measured : sequence of Measured
        The images that no rating excludes.
    covariates : Covariates
    """
    tests: list[Association] = []
    untested: list[tuple[str, str]] = []
    for column, meaning in covariates.columns.items():
        values = covariates.known(column, (one.image for one in measured))
        reason = _unfit(column, values, measured)
        if reason:
            untested.append((column, reason))
            continue
        numeric = _numeric(values, measured, "Levels" in meaning)
        if numeric is None:
            found, reasons = _by_level(column, values, measured)
        else:
            found, reasons = _by_number(column, numeric, measured)
        tests += found
        untested += [(column, reason) for reason in reasons]
    adjusted = holm([test.p for test in tests])
    corrected = (replace(test, adjusted=p) for test, p in zip(tests, adjusted, strict=True))
    return Associations(tuple(corrected), tuple(untested))


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values for each other by Holm's method (1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(values, kind="stable")
    out, largest = [1.0] * len(values), 0.0
    for rank, i in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        out[i] = largest
    return out


def _unfit(column: str, values: Mapping[str, str], measured: Sequence[Measured]) -> str:
    """Why a column is none to be tested; empty if it may be."""
    if column.lower() == "acq_time" or _IDENTIFIER.search(column.lower()):
        return "its name is that of an identifier, a date or a comment"
    if not values:
        return "no participant has a value"
    if len(set(values.values())) == 1:
        return "all participants have the same value"
    numbers = [number_of(value) for value in _of_participants(values, measured).values()]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers) > 5 and all(number == int(number) for number in known):
        steps = np.diff(known)
        if (steps > 0).all() or (steps < 0).all():
            return "its numbers run in the order of the participants, so it is taken for an identifier"
    return ""


def _of_participants(values: Mapping[str, str], measured: Sequence[Measured]) -> dict[str, str]:
    """The value of the first image of each participant, in the order of their labels."""
    out: dict[str, str] = {}
    for one in sorted(measured, key=lambda one: one.image.subject):
        if one.image.prefix in values:
            out.setdefault(one.image.subject, values[one.image.prefix])
    return out


def _numeric(
    values: Mapping[str, str], measured: Sequence[Measured], levels: bool
) -> dict[str, float] | None:
    """The numbers of a column by image; None if it has words, or numbers that are codes of groups."""
    numbers = {prefix: number_of(value) for prefix, value in values.items()}
    known = {prefix: number for prefix, number in numbers.items() if number is not None}
    if levels or len(known) < len(values):
        return None
    different, people = len(set(known.values())), len(_of_participants(values, measured))
    if different == 2 or (different <= MOST_LEVELS and people >= _PER_CODE * different):
        return None
    return known


def _by_level(
    column: str, values: Mapping[str, str], measured: Sequence[Measured]
) -> tuple[list[Association], list[str]]:
    """Compare the levels of a column; the tests, and why something isn't tested."""
    levels: dict[str, set[str]] = {}
    for one in measured:
        if one.image.prefix in values:
            levels.setdefault(one.image.subject, set()).add(values[one.image.prefix])
    level_of = {subject: next(iter(found)) for subject, found in levels.items() if len(found) == 1}
    reasons = []
    if changing := len(levels) - len(level_of):
        reasons.append(
            f"{counted(changing, 'participant')} with different values at different images left out"
        )
    if len(set(level_of.values())) > MOST_LEVELS:
        return [], [*reasons, f"more than {MOST_LEVELS} different words, so it is taken for free text"]
    tests, without = [], _Reasons()
    for measure in TESTED:
        groups: dict[str, list[float]] = {}
        for subject, value in _means(measured, measure, values).items():
            if subject in level_of:
                groups.setdefault(level_of[subject], []).append(value)
        small = sorted(level for level, found in groups.items() if len(found) < LEAST_IN_LEVEL)
        large = {level: groups[level] for level in sorted(groups) if level not in small}
        if small:
            names = ", ".join(f"{level} ({len(groups[level])})" for level in small)
            without.add(measure, f"levels with fewer than {LEAST_IN_LEVEL} participants left out: {names}")
        if len(large) < 2:
            without.add(measure, f"fewer than two levels have {LEAST_IN_LEVEL} participants")
        elif np.ptp(np.concatenate([*large.values()])) == 0:
            without.add(measure, "the volume is the same in all participants")
        else:
            tests.append(_compare(column, measure, large))
    return tests, [*reasons, *without.sentences()]


class _Reasons:
    """Why measures aren't tested, each reason once."""

    def __init__(self) -> None:
        self._measures: dict[str, list[str]] = {}

    def add(self, measure: str, reason: str) -> None:
        """Note the reason of a measure."""
        self._measures.setdefault(reason, []).append(measure)

    def sentences(self) -> list[str]:
        """The reasons, with the measures that they are about if these are not all."""
        return [
            reason if len(measures) == len(TESTED) else f"{', '.join(TESTED[m] for m in measures)}: {reason}"
            for reason, measures in self._measures.items()
        ]


def _compare(column: str, measure: str, groups: dict[str, list[float]]) -> Association:
    """A test of the values of two levels or more."""
    from scipy import stats

    sizes = {level: (len(found), float(np.median(found))) for level, found in groups.items()}
    n = sum(map(len, groups.values()))
    nan = float("nan")
    if len(groups) == 2:
        first, second = groups.values()
        u, p = stats.mannwhitneyu(first, second)
        effect = float(2 * u / (len(first) * len(second)) - 1)
        return Association(column, measure, "Mann-Whitney U", sizes, n, float(u), effect, nan, nan, float(p))
    h, p = stats.kruskal(*groups.values())
    return Association(
        column, measure, "Kruskal-Wallis H", sizes, n, float(h), float(h / (n - 1)), nan, nan, float(p)
    )


def _by_number(
    column: str, numbers: Mapping[str, float], measured: Sequence[Measured]
) -> tuple[list[Association], list[str]]:
    """Correlate a column with the measures; the tests, and why something isn't tested."""
    from scipy import stats

    tests, without = [], _Reasons()
    for measure in TESTED:
        values = _means(measured, measure, numbers)
        of_column = _means(measured, measure, numbers, numbers)
        x, y = ([found[subject] for subject in values] for found in (of_column, values))
        if len(x) < LEAST_NUMBERS:
            without.add(measure, f"fewer than {LEAST_NUMBERS} participants have a number and a volume")
        elif np.ptp(x) == 0 or np.ptp(y) == 0:
            without.add(measure, "the volume or the column is the same in all participants")
        else:
            rho, p = map(float, stats.spearmanr(x, y))
            low, high = spearman_interval(rho, len(x))
            tests.append(Association(column, measure, "Spearman", {}, len(x), rho, rho, low, high, p))
    return tests, without.sentences()


def spearman_interval(rho: float, n: int) -> tuple[float, float]:
    """The 95% confidence interval of Spearman's rho of n pairs (Bonett and Wright 2000).

    Examples
    --------
    >>> [round(end, 3) for end in spearman_interval(0.5, 30)]
    [0.148, 0.74]
    """
    if abs(rho) >= 1:
        return rho, rho
    reach = 1.959964 * np.sqrt((1 + rho**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(rho) - reach)), float(np.tanh(np.arctanh(rho) + reach))


def _means(
    measured: Sequence[Measured],
    measure: str,
    known: Mapping[str, Any],
    values: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The mean of a measure, or of other values, for each participant, over the images that have both."""
    found: dict[str, list[float]] = {}
    for one in measured:
        value = one.volumes.get(measure, float("nan"))
        if one.image.prefix in known and np.isfinite(value):
            found.setdefault(one.image.subject, []).append(values[one.image.prefix] if values else value)
    return {subject: float(np.mean(those)) for subject, those in found.items()}
