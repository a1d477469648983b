"""Statistics over the participants of a group: what the page shows and the sidecars of its tables hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bids_inpaint.group.measure import Measured
from bids_inpaint.group.statistics import Agreement, Comparison, agree, compare
from bids_inpaint.group.tables import LESIONS, MEASURES

#: Attributes of :class:`Measured` that have the columns of tables.
Table = Literal["volumes", "tissue_dice", "lesions"]


@dataclass(frozen=True)
class Spread:
    """A measure over participants.

    Attributes
    ----------
    participants : int
    mean : float, optional
        None without participants.
    deviation : float, optional
        Standard deviation (n - 1); None for fewer than two participants.
    """

    participants: int
    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of values, one a participant."""
        return cls(
            participants=len(values),
            mean=float(np.mean(values)) if values else None,
            deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        )

    def as_json(self) -> dict[str, Any]:
        """The entry of a sidecar."""
        return {
            "Participants": self.participants,
            "Mean": self.mean,
            "StandardDeviation": self.deviation,
        }


@dataclass(frozen=True)
class TissueComparison:
    """Dice of a tissue with and without inpainting.

    Attributes
    ----------
    original, inpainted : Spread
        Against the reference.
    test : Comparison
        Of inpainted against original.
    """

    original: Spread
    inpainted: Spread
    test: Comparison

    def as_json(self) -> dict[str, Any]:
        """The entry of a sidecar."""
        return {
            "Participants": self.test.n,
            "Original": self.original.as_json(),
            "Inpainted": self.inpainted.as_json(),
            "MeanDifference": self.test.difference,
            "ConfidenceInterval95": [self.test.low, self.test.high],
            "WilcoxonP": self.test.p,
            "RankBiserialCorrelation": self.test.effect,
        }


@dataclass(frozen=True)
class LesionStatistics:
    """How lesion maps compare with their references.

    Attributes
    ----------
    scores : dict of Spread
        By column, over the images whose reference has lesions.
    false_volume : Spread
        Volume in ml of what was mapped where the reference is empty.
    participants : int
        With a score or a false volume.
    volumes : Agreement
        Of the volumes in ml with those of the references.
    """

    scores: dict[str, Spread]
    false_volume: Spread
    participants: int
    volumes: Agreement

    def as_json(self) -> dict[str, Any]:
        """The entry of a sidecar."""
        return {
            "Scores": {column: spread.as_json() for column, spread in self.scores.items()},
            "FalseVolumeWithoutLesions": self.false_volume.as_json(),
            "Participants": self.participants,
            "VolumeCorrelation": self.volumes.correlation,
            "VolumeBias": self.volumes.bias,
            "VolumeLimitsOfAgreement": [self.volumes.low, self.volumes.high],
        }


def by_participant(measured: Iterable[Measured], table: Table, column: str) -> list[float]:
    """A column for each participant: the mean over the images that have it.

    Parameters
    ----------
    measured : iterable of Measured
    table : {'volumes', 'tissue_dice', 'lesions'}
    column : str
    """
    values: dict[str, list[float]] = {}
    for one in measured:
        value = getattr(one, table).get(column, np.nan)
        if np.isfinite(value):
            values.setdefault(one.image.subject, []).append(value)
    return [float(np.mean(v)) for v in values.values()]


def tissue_statistics(measured: Sequence[Measured]) -> dict[str, TissueComparison]:
    """Table 1 of Manjón 2020, with its tests: the original against the inpainted image, by tissue.

    Images without lesions are left out: their original is the reference.
    """
    rows = [m for m in measured if m.tissue_dice and not m.lesion_free]
    out = {}
    for tissue in MEASURES if rows else ():
        original, inpainted = (
            by_participant(rows, "tissue_dice", f"{tissue}_{name}") for name in ("original", "inpainted")
        )
        out[tissue] = TissueComparison(
            Spread.of(original), Spread.of(inpainted), compare(original, inpainted)
        )
    return out


def lesion_statistics(measured: Sequence[Measured]) -> LesionStatistics | None:
    """Mean scores of the lesion maps, and how their volumes agree with those of the references.

    Scores are over images whose reference has lesions; of the others, the volume of what was mapped. None
    without references.
    """
    scored = [m for m in measured if m.lesions]
    if not scored:
        return None
    with_lesions = [m for m in scored if not m.lesion_free]
    without = [m for m in scored if m.lesion_free]
    volume, reference = (by_participant(scored, "lesions", c) for c in ("volume", "reference_volume"))
    return LesionStatistics(
        scores={c: Spread.of(by_participant(with_lesions, "lesions", c)) for c in LESIONS},
        false_volume=Spread.of(by_participant(without, "lesions", "volume")),
        participants=len(volume),
        volumes=agree(volume, reference),
    )
