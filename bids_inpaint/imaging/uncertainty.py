"""How sure lesions and their volumes are (pure numbers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray

#: Share of the true volumes that an interval is to hold; docs/networks.md says what it does hold.
LEVEL = 0.9
#: Quantile of the normal distribution that an interval of this level ends at.
_END = 1.6448536
#: Voxels of a smaller probability are not counted: of the million that a brain has, they come to more than
#: most lesions.
LEAST = 0.05
#: What is added to volumes before their logarithm is taken: of a lesion about the smallest that is mapped
#: (mm³), of an image about what is mapped of healthy people (ml).
OFFSET_MM3, OFFSET_ML = 10.0, 0.3
#: A mean probability of a lesion counts as within these: few are beyond, and lines would cross there.
_UNSURE, _SURE = 0.3, 0.7


@dataclass(frozen=True)
class LesionProbability:
    """What the lesion probability that a blind network tells is worth: fitted on people apart.

    Attributes
    ----------
    slope, intercept : float
        The calibrated log-odds are the network's times the slope, plus the intercept (Platt 1999).
    threshold : float
        Calibrated probability of the surest voxel of a lesion, at least, 0 to 1.
    low : float
        That of all voxels of a lesion, at least; at most `threshold`.
    """

    slope: float = 1.0
    intercept: float = 0.0
    threshold: float = 0.5
    low: float = 0.5

    def __post_init__(self) -> None:
        known = 0 < self.slope <= 10 and abs(self.intercept) <= 10
        if not (known and 0 < self.low <= self.threshold < 1):
            raise ValueError(f"{self} is no calibration")

    def calibrate(self, probability: Array) -> Array:
        """The probability that a voxel is lesion from that of the network, 0 to 1; exact 0 and 1 stay.

        Examples
        --------
        >>> LesionProbability(slope=2.0).calibrate(np.array([0.0, 0.5, 0.75, 1.0])).tolist()
        [0.0, 0.5, 0.9, 1.0]
        """
        if (self.slope, self.intercept) == (1, 0):
            return probability
        # odds to a power: log-odds of 0 are none
        lesion = probability**self.slope * math.exp(self.intercept)
        return lesion / (lesion + (1 - probability) ** self.slope)


@dataclass(frozen=True)
class LoadModel:
    """The true volume of all lesions of an image, by the volume that its lesion probability comes to.

    Its logarithm has a normal distribution, whose mean and logarithmic standard deviation are linear in the
    logarithm of the expected volume. Both volumes (ml on the working grid) have `OFFSET_ML` added. Voxels
    err together: an interval from their probabilities alone would be far too narrow.

    Attributes
    ----------
    intercept, slope : float
        Of the mean.
    log_sd, log_sd_slope : float
        Of the logarithm of the standard deviation.
    """

    intercept: float
    slope: float
    log_sd: float
    log_sd_slope: float

    def interval(self, expected: Array | float) -> tuple[Array, Array]:
        """Ends of the interval of the true volume (ml on the working grid), at least 0.

        Parameters
        ----------
        expected : array or float
            Of :func:`expected_volume`, in ml on the working grid.

        Examples
        --------
        >>> low, high = LoadModel(0.0, 1.0, -1.0, 0.0).interval(np.array([0.0, 10.0]))
        >>> low.round(2).tolist(), high.round(2).tolist()
        ([0.0, 5.32], [0.25, 18.56])
        """
        x = np.log(np.asarray(expected, float) + OFFSET_ML)
        reach = _END * np.exp(self.log_sd + self.log_sd_slope * x)
        mean = self.intercept + self.slope * x
        low, high = (np.exp(mean + sign * reach) - OFFSET_ML for sign in (-1, 1))
        return np.maximum(low, 0), np.maximum(high, 0)


@dataclass(frozen=True)
class LesionModel:
    """The true volume of a mapped lesion, by its volume and its mean probability.

    Two quantiles of its logarithm are linear in the logarithm of the volume and in the logit of the mean
    probability. Both volumes (mm³ on the working grid) have `OFFSET_MM3` added. A lesion that is none has the
    true volume 0.

    Attributes
    ----------
    low, high : tuple of 3 floats
        Intercept and both slopes of the quantile at each end.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def interval(self, volume: Array | float, probability: Array | float) -> tuple[Array, Array]:
        """Ends of the interval of the true volumes (mm³ on the working grid), which holds the mapped ones.

        Parameters
        ----------
        volume : array or float
            Of the mapped lesions, mm³ on the working grid.
        probability : array or float
            Mean of each, 0-1.
        """
        x = features(volume, probability)
        low, high = (np.exp(x @ np.array(line)) - OFFSET_MM3 for line in (self.low, self.high))
        return np.clip(low, 0, volume), np.maximum(high, volume)


@dataclass(frozen=True)
class VolumeModel:
    """What is known of the true volumes behind the lesion maps of a network.

    Attributes
    ----------
    load : LoadModel
        Of an image.
    lesion : LesionModel
        Of a lesion.
    """

    load: LoadModel
    lesion: LesionModel

    def __post_init__(self) -> None:
        load, lesion = self.load, self.lesion
        numbers = [load.intercept, load.slope, load.log_sd, load.log_sd_slope, *lesion.low, *lesion.high]
        if not (all(abs(number) <= 100 for number in numbers) and load.slope > 0):
            raise ValueError(f"{self} is no model of volumes")

    @classmethod
    def read(cls, content: dict[str, Any]) -> VolumeModel:
        """Of what a card says.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        load = LoadModel(**{key: float(value) for key, value in content["load"].items()})
        return cls(load, LesionModel(*(_three(content["lesion"][end]) for end in ("low", "high"))))


def _three(numbers: Any) -> tuple[float, float, float]:
    a, b, c = map(float, numbers)
    return a, b, c


def features(volume: Array | float, probability: Array | float) -> Array:
    """What the quantiles of :class:`LesionModel` are linear in, shape (lesions, 3)."""
    volume, p = np.atleast_1d(volume), np.clip(np.atleast_1d(probability), _UNSURE, _SURE)
    return np.stack([np.ones(len(p)), np.log(volume + OFFSET_MM3), np.log(p / (1 - p))], axis=-1)


def expected_volume(probability: Array, voxel_volume: float) -> float:
    """The volume (ml) that the calibrated probability of an image comes to.

    Parameters
    ----------
    probability : array
        Of a lesion, 0-1.
    voxel_volume : float
        In mm³.

    Examples
    --------
    >>> expected_volume(np.array([0.01, 0.5, 0.9]), 1000)
    1.4
    """
    told = probability[probability >= LEAST]
    return float(told.sum(dtype=np.float64) * voxel_volume / 1000)
