"""The configuration of a training run, from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Data:
    """Which subjects of the cache are for what."""

    train: list[str]
    validation: list[str]
    test: list[str]
    leave_out_patients: list[str]


@dataclass(frozen=True)
class Fit:
    """The schedule.

    `patch` is the edge of the cubes in voxels, `batch` their number a step; batch normalisation keeps
    its statistics fixed from step `freeze_normalisation` on.
    """

    patch: int
    batch: int
    steps: int
    decay_steps: int
    warmup_steps: int
    learning_rate: float
    ema: float
    freeze_normalisation: int
    lesion_weight: float
    gate_weight: float
    checkpoint_every: int


@dataclass(frozen=True)
class Config:
    """Everything that defines a run, but for the data folder and the device."""

    name: str
    seed: int
    blind: bool
    intensity: str
    network: dict[str, Any]
    data: Data
    fit: Fit

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a TOML file, or a shipped configuration by its name.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a subject is in two sets.
        """
        shipped = FOLDER / f"{path}.toml"
        raw = tomllib.loads((shipped if shipped.exists() else Path(path)).read_text())
        try:
            config = cls(data=Data(**raw.pop("data")), fit=Fit(**raw.pop("fit")), **raw)
        except (TypeError, KeyError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"{path}: {error}; the tables and keys are {known}") from None
        sets = [*config.data.train, *config.data.validation, *config.data.test]
        if twice := {s for s in sets if sets.count(s) > 1}:
            raise ValueError(f"{path}: {', '.join(sorted(twice))} is in two sets")
        return config
