"""Whether tissue maps can be those of a brain (pure arrays)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray

#: What the measures of usable maps keep: 26 images keep well inside, a degenerate fit of SPM had 15 % of grey
#: matter, and correlations of 0.22 and 0.12 (docs/segmentation.md).
LIMITS = {
    "Covered": (0.85, 1.0),
    "GM": (0.25, 0.75),
    "WM": (0.15, 0.6),
    "CSF": (0.01, 0.45),
    "GMLikePrior": (0.3, 1.0),
    "WMLikePrior": (0.4, 1.0),
    "CSFLikePrior": (0.2, 1.0),
}  # fmt: skip
_NAMES = {"GM": "grey matter", "WM": "white matter", "CSF": "cerebrospinal fluid"}


class Implausible(Exception):
    """Tissue maps are not those of a brain; the message ends a sentence that begins with them."""


def measure(maps: Sequence[Array], mask: Array, priors: Sequence[Array]) -> dict[str, float]:
    """Measure tissue maps on the working grid.

    Parameters
    ----------
    maps : sequence of 3 arrays
        Probabilities (0-1) of CSF, GM and WM.
    mask : array of bool
        The brain.
    priors : sequence of 3 arrays
        The same of the template.

    Returns
    -------
    dict
        ``Covered``, the share of the brain where the three together are above 0.5; ``GM``, ``WM`` and
        ``CSF``, their shares of it; ``GMLikePrior`` …, their correlations with the priors inside it.
    """
    inside = [values[mask].astype(float) for values in maps]
    measures = {"Covered": float((sum(inside) > 0.5).mean())}
    for name, values, prior in zip(("CSF", "GM", "WM"), inside, priors, strict=True):
        measures[name] = float(values.mean())
        constant = np.ptp(values) == 0
        measures[f"{name}LikePrior"] = 0.0 if constant else float(np.corrcoef(values, prior[mask])[0, 1])
    return measures


def check(maps: Sequence[Array], mask: Array, priors: Sequence[Array]) -> None:
    """Measure tissue maps, and refuse what can't be a brain's.

    A segmentation can fail without a word: a degenerate fit of SPM12 found 15 % of grey matter, which
    correlated with the template's by 0.22.

    Parameters
    ----------
    maps, mask, priors
        As of :func:`measure`.

    Raises
    ------
    Implausible
        If one is beyond its limits, or a map has values that are no numbers.
    """
    if not all(np.isfinite(values[mask]).all() for values in maps):
        raise Implausible("its maps have values that are not numbers")
    measures = measure(maps, mask, priors)
    for name, (low, high) in LIMITS.items():
        value = measures[name]
        if low <= value <= high:
            continue
        if name == "Covered":
            raise Implausible(f"it found a tissue in {value:.0%} of the brain alone")
        if name in _NAMES:
            raise Implausible(f"its {_NAMES[name]} is {value:.0%} of the brain")
        tissue = _NAMES[name.removesuffix("LikePrior")]
        raise Implausible(f"its {tissue} is not where the template's is (correlation {value:.2f})")
