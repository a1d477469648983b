"""The configuration of a training run, from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bids_inpaint.io.files import replacing, to_toml
from bids_inpaint.networks.card import NAME
from bids_inpaint.networks.engines import ENGINES

FOLDER = Path(__file__).parent / "configs"
#: Ways to make a lesion: see :mod:`bids_inpaint.training.painters`.
PAINTERS = ("parametric", "quantile", "field", "patch")


def person(name: str) -> str:
    """Label of the participant of a subject of the cache.

    Examples
    --------
    >>> person("ms_sub-thick12_ses-2"), person("training_seg_01")
    ('thick12', 'training_seg_01')
    """
    return name.split("sub-")[-1].split("_ses-")[0].split("_run-")[0].split("_acq-")[0]


def individual(name: str) -> str:
    """Dataset and label of the participant of a subject of the cache: all images of a person have one.

    Examples
    --------
    >>> individual("ms_sub-1_ses-1"), individual("training_seg_01")
    ('ms_sub-1', 'training_seg_01')
    """
    dataset, sub, _ = name.rpartition("sub-")
    return f"{dataset}{sub}{person(name)}"


@dataclass(frozen=True)
class Data:
    """Which subjects of the cache, as DATASET_sub-LABEL, or which label maps are for what.

    Attributes
    ----------
    train, validation, test : list of str
    leave_out_patients : list of str
        Patients whose lesion shapes are not trained with; networks are scored with those of them who are no
        training subjects either (:attr:`lenders`).
    without : str
        Folder of blind networks ``PERSON.onnx`` with their cards, each of which learned nothing from this
        person: see :class:`bids_inpaint.training.strangers.Strangers`.
    """

    train: list[str]
    validation: list[str]
    test: list[str]
    leave_out_patients: list[str] = field(default_factory=list)
    without: str = ""

    @property
    def lenders(self) -> list[str]:
        """Patients from whom nothing is learned, and who lend their lesions to what is scored."""
        trained = {person(name) for name in self.train}
        return [name for name in self.leave_out_patients if name not in trained]

    def leaving_out(self, names: Sequence[str], to: Literal["validation", "test"]) -> Data:
        """The same, but nothing is learned from some people: neither their images nor their lesions' shapes.

        Parameters
        ----------
        names : sequence of str
            Subjects; all other images of these people are left out, too.
        to : {'validation', 'test'}
            What these subjects are for instead.
        """
        out = {individual(name) for name in names}
        rest = {
            part: [name for name in getattr(self, part) if individual(name) not in out]
            for part in ("train", "validation", "test")
        }
        rest[to] += names
        shapes = list(dict.fromkeys([*self.leave_out_patients, *map(person, names)]))
        return Data(**rest, leave_out_patients=shapes, without=self.without)


@dataclass(frozen=True)
class Synthesis:
    """How samples are made from cached images; the defaults are the paper's (section 2.3).

    Attributes
    ----------
    mix : dict
        Shares of healthy images that get no lesions ('none'), those of a patient ('patient'), single
        ones ('singles') or both ('both').
    vary : bool
        Whether contrast, residual bias, resolution, noise and gain are varied.
    artefacts : bool
        Whether, too, white matter may be dirty and have vessels and perivascular spaces, and edges may ring
        or ghost.
    painters : dict
        Shares of the ways to make a lesion: see :mod:`bids_inpaint.training.painters`.
    patients : float, optional
        Share of the samples that are of patients with their own lesions; by default each subject is as
        frequent as another.
    faint : float
        Share of the painted lesions that are darker than white matter by 8 to 20 % alone, with wide borders.
    periventricular, juxtacortical : float
        Share of the patches with painted lesions that get more of them: bands and caps that melt into a
        ventricle, and small spots on the border of the cortex, in part in it.
    infratentorial : float
        Share of the healthy patches that are cut at the brainstem and the cerebellar peduncles.
    tracts, sulci, contrast : float
        Share of the images whose white matter is darker alike in both hemispheres, whose fluid and cortex
        grow into the tissue beside them, and whose fluid and deep grey matter get another brightness; none of
        these is lesion.
    unseen : float
        How much of a voxel is lesion that an expert marked, or a painter, and that is not darker than its
        lesion-free target; those that are clearly darker are wholly lesion.
    beyond : float
        How much of a voxel is lesion that lies beside what an expert marked, and is as dark.
    squares : float
        Share of the holes of slices that are the squares of Armanious et al. 2019; the others are lesions and
        blobs.
    tumours : float
        Share of the others that are as large as the tumours of the BraTS challenge, and may reach beyond the
        brain.
    noisiest : float
        Share of the samples of a diffusion model that are nothing but noise in the hole; the others are of
        any step.
    """

    mix: dict[str, float] = field(default_factory=lambda: {"patient": 1.0})
    vary: bool = False
    artefacts: bool = False
    painters: dict[str, float] = field(default_factory=lambda: {"parametric": 1.0})
    patients: float | None = None
    faint: float = 0.0
    periventricular: float = 0.0
    juxtacortical: float = 0.0
    infratentorial: float = 0.0
    tracts: float = 0.0
    sulci: float = 0.0
    contrast: float = 0.0
    unseen: float = 1.0
    beyond: float = 0.0
    squares: float = 0.0
    tumours: float = 0.0
    noisiest: float = 0.0

    def __post_init__(self) -> None:
        known = {"mix": ("none", "patient", "singles", "both"), "painters": PAINTERS}
        for table, names in known.items():
            if unknown := set(getattr(self, table)) - set(names):
                raise TypeError(f"unknown share {', '.join(sorted(unknown))} in {table}")
        for share in fields(self):
            value = getattr(self, share.name)
            if isinstance(value, (int, float)) and not 0 <= value <= 1:
                raise TypeError(f"{share.name} = {value} is no share, 0 to 1")


@dataclass(frozen=True)
class Schedule:
    """The schedule; the defaults are the paper's (section 2.3): 200 epochs of 50 cases, Adam, MSE.

    Attributes
    ----------
    patch : int
        Edge of the cubes in voxels; 0 for whole volumes.
    batch, steps : int
    learning_rate : float
        Of Adam, reached after `warmup_steps`, and falling to zero over the last `decay_steps`.
    ema : float
        Decay of the running average of the weights that is exported; 0 exports the last weights.
    freeze_normalisation : int, optional
        Step from which batch normalisation keeps its statistics.
    clip : float, optional
        Largest norm of the gradient.
    lesion_weight, background_weight : float
        Weight of a voxel of a lesion, added to that of the brain, and of one outside the brain, beside
        1 for healthy brain.
    gate_weight : float
        Weight of the cross-entropy of the gate beside the squared error.
    absolute : bool
        Whether networks for 'flair' minimise the absolute error of the FLAIR in place of the squared one.
    real_flair : bool
        Whether the FLAIR of patients alone teaches them how a FLAIR looks; made ones then teach lesions.
    checkpoint_every : int
        Steps between checkpoints.
    start : str
        Name or ONNX file of an exported network whose weights to start from, or a checkpoint
        (``*.pt``) of the same architecture.
    start_sha256 : str
        That the file of an exported network has, or how it begins: what has a name changes with versions.
    """

    patch: int = 0
    batch: int = 1
    steps: int = 10_000
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay_steps: int = 0
    ema: float = 0.0
    freeze_normalisation: int | None = None
    clip: float | None = None
    lesion_weight: float = 0.0
    background_weight: float = 1.0
    gate_weight: float = 0.0
    absolute: bool = False
    real_flair: bool = False
    checkpoint_every: int = 250
    start: str = ""
    start_sha256: str = ""


@dataclass(frozen=True)
class Losses:
    """The losses of adversarial training; the weights are the paper's (Armanious 2019, section 3).

    Attributes
    ----------
    all, local, style, perceptual, pixels : float
        Weights of what the discriminators of the slice and of the square around the hole say, of the style
        and perceptual losses, and of the mean absolute error in the hole, which the paper has not.
    filters : int
        Of the first layer of the discriminators.
    alone : int
        Steps at the beginning in which the absolute error is the only loss, and no discriminator learns.
    vgg19 : str
        File with the weights of VGG-19 in torchvision's names; fixed random ones without it.
    """

    all: float = 0.8
    local: float = 0.2
    style: float = 1e-4
    perceptual: float = 1e-4
    pixels: float = 0.0
    filters: int = 64
    alone: int = 0
    vgg19: str = ""


@dataclass(frozen=True)
class Config:
    """Everything that defines a run, but for the data folder and the device.

    Attributes
    ----------
    name : str
    seed : int
    network : dict
        Arguments of the engine's architecture: see :mod:`bids_inpaint.training.architectures`.
    data : Data
    schedule : Schedule
        The table ``[fit]``.
    synthesis : Synthesis
    adversarial : Losses
    task : {'inpaint', 'brain', 'flair'}
    engine : str
        One of :data:`bids_inpaint.training.engines.ENGINES`: how an inpainting network fills (the volume at
        once, slice by slice in many steps, or in one). That of 'flair' is 'joint'.
    blind : bool
        Whether an inpainting network finds the lesions itself; some engines can't.
    intensity : {'wm', 'mean', 'percentiles', 'range'}
        What is 1 in the input of the network.
    """

    name: str
    seed: int
    network: dict[str, Any]
    data: Data
    schedule: Schedule
    synthesis: Synthesis
    adversarial: Losses
    task: Literal["inpaint", "brain", "flair"] = "inpaint"
    engine: str = "unet"
    blind: bool = True
    intensity: Literal["wm", "mean", "percentiles", "range"] = "wm"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise TypeError(f"name {self.name!r} is not one of letters, digits, '.', '_', '+' and '-'")
        engine = ENGINES.get(self.engine)
        if engine is None or self.intensity not in engine.intensities.get(self.task, ()):
            raise TypeError(
                f"task {self.task} with engine {self.engine} and intensity {self.intensity} is unknown"
            )

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
            config = cls(
                data=Data(**raw.pop("data")),
                schedule=Schedule(**raw.pop("fit", {})),
                synthesis=Synthesis(**raw.pop("synthesis", {})),
                adversarial=Losses(**raw.pop("adversarial", {})),
                **raw,
            )
        except (TypeError, KeyError) as error:
            known = ", ".join("fit" if f.name == "schedule" else f.name for f in fields(cls))
            raise ValueError(f"{path}: {error}; the tables and keys are {known}") from None
        sets = [*config.data.train, *config.data.validation, *config.data.test]
        if twice := {s for s in sets if sets.count(s) > 1}:
            raise ValueError(f"{path}: {', '.join(sorted(twice))} is in two sets")
        return config

    def save(self, path: Path) -> None:
        """Write a TOML file that :meth:`load` reads."""
        tables: dict[str, Any] = {
            "data": self.data,
            "fit": self.schedule,
            "synthesis": self.synthesis,
            "adversarial": self.adversarial,
        }
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        lines = [f"{k} = {to_toml(v)}" for k, v in own.items() if k not in (*tables, "schedule", "network")]
        lines += ["[network]", *(f"{k} = {to_toml(v)}" for k, v in self.network.items())]
        for name, table in tables.items():
            values = {f.name: getattr(table, f.name) for f in fields(table)}
            lines += [f"[{name}]", *(f"{k} = {to_toml(v)}" for k, v in values.items() if v is not None)]
        with replacing(path) as part:
            part.write_text("\n".join(lines) + "\n")
