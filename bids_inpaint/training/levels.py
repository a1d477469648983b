"""At which probabilities lesions are mapped: the levels of the hysteresis, chosen on people (pure arrays)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.training.calibration import Scan

#: Calibrated probabilities that a lesion has to reach somewhere, and everywhere: :func:`choose` has these.
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
LOWS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
#: Threshold and lower threshold of a lesion map.
Levels = tuple[float, float]


def sweep_levels(
    scan: Scan, slope: float, intercept: float, min_voxels: int
) -> dict[Levels, tuple[float, float]]:
    """Dice coefficient and volume (ml, of voxels of 1 mm³) of the lesion map by hysteresis at all levels.

    What is mapped is what :func:`bids_inpaint.imaging.lesions.find_probable` maps; what is connected is
    looked for once for all thresholds.
    """
    p = 1 / (1 + np.exp(-(slope * scan.logit.astype(np.float32) + intercept))) * scan.brain
    n_true, out = int(scan.truth.sum()), {}
    for low in LOWS:
        labels, count = ndimage.label(p >= low, CONNECTIVITY)
        where = labels > 0
        owner = labels[where] - 1
        sizes, hits = (np.bincount(owner[s], minlength=count) for s in (slice(None), scan.truth[where]))
        peaks = np.zeros(count, np.float32)
        np.maximum.at(peaks, owner, p[where])
        for threshold in (t for t in THRESHOLDS if t >= low):
            keep = (peaks >= threshold) & (sizes >= min_voxels)
            n, both = int(sizes[keep].sum()), int(hits[keep].sum())
            out[threshold, low] = (2 * both / (n + n_true) if n + n_true else 1.0, n / 1000)
    return out


@dataclass(frozen=True)
class Chosen:
    """Levels of the hysteresis, and what they do to the people they were chosen on.

    Attributes
    ----------
    threshold, low : float
        Calibrated probabilities that a lesion reaches somewhere, and everywhere.
    dice : float
        Mean over the people with lesions.
    false_ml : float or None
        Mapped in the mean image without lesions; None if there was none.
    """

    threshold: float
    low: float
    dice: float
    false_ml: float | None


def choose(
    scans: Sequence[Scan], slope: float, intercept: float, min_voxels: int, false_ml: float
) -> Chosen | None:
    """The levels with the best mean Dice coefficient among those that map little of healthy images.

    Parameters
    ----------
    scans : sequence of Scan
        With lesions, in which the people weigh alike, and without.
    slope, intercept : float
        Of :class:`bids_inpaint.networks.card.LesionProbability`.
    min_voxels : int
        Of the smallest lesion.
    false_ml : float
        Limit of what is mapped in the mean image without lesions (ml).

    Returns
    -------
    Chosen or None
        None if all levels map too much.
    """
    dices: dict[Levels, dict[str, list[float]]] = {}
    false: dict[Levels, list[float]] = {}
    for scan in scans:
        lesioned = bool(scan.truth.any())
        for levels, (score, volume) in sweep_levels(scan, slope, intercept, min_voxels).items():
            if lesioned:
                dices.setdefault(levels, {}).setdefault(scan.person, []).append(score)
            else:
                false.setdefault(levels, []).append(volume)
    best: Chosen | None = None
    for levels, people in dices.items():
        dice = float(np.mean([np.mean(scores) for scores in people.values()]))
        mapped = float(np.mean(false[levels])) if false else None
        if (mapped or 0.0) < false_ml and (best is None or dice > best.dice):
            best = Chosen(*levels, dice, mapped)
    return best
