"""How fast a measure of a person changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def per_year(years: Sequence[float | None], values: Sequence[float]) -> float | None:
    """Change of a measure per year: the slope of the least-squares line over time.

    Between two visits that is their difference over the years between them.

    Parameters
    ----------
    years : sequence of float or None
        When each value was measured, from any time on; None if that is unknown.
    values : sequence of float

    Returns
    -------
    float or None
        In the unit of the values; None if fewer than two values have different times.

    Examples
    --------
    >>> per_year([0, 0.5], [2.0, 3.0]), per_year([None, 0.5], [2.0, 3.0])
    (2.0, None)
    >>> round(per_year([0, 1, 2], [1.0, 3.0, 4.0]), 6)
    1.5
    """
    known = [(year, value) for year, value in zip(years, values, strict=True) if year is not None]
    if not known:
        return None
    time, measure = np.array(known, float).T
    time -= time.mean()
    if not (time**2).sum() > 0:
        return None
    return float((time * (measure - measure.mean())).sum() / (time**2).sum())
