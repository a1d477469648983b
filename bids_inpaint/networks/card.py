"""What one must know of a network to use it: its card, its engine, and both together as a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bids_inpaint.imaging.flair import FlairModel
from bids_inpaint.imaging.uncertainty import LesionProbability, VolumeModel
from bids_inpaint.networks.diffusion import SAMPLERS, STEPS

if TYPE_CHECKING:
    import numpy as np

    from bids_inpaint.imaging.intensity import Scale
    from bids_inpaint.networks.session import Runtime

    #: Model, brain (0 outside it), voxels to fill, intensity scale, runtime, and priors of white and grey
    #: matter; returns what became of the brain. Blind networks are asked for all of the brain.
    Fill = Callable[["Model", np.ndarray, np.ndarray, Scale, Runtime, Sequence[np.ndarray]], "Filled"]

Task = Literal["inpaint", "brain", "flair"]

#: Of a network: reports and methods texts show it.
NAME = re.compile(r"[\w.+-]{1,64}")
_SOFTWARE = "bids_inpaint"


@dataclass(frozen=True)
class Sampling:
    """How a diffusion model draws unless told otherwise: the sampler, and its number of steps."""

    sampler: str
    steps: int

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS or not 1 <= self.steps <= STEPS:
            raise ValueError(f"{self.sampler} with {self.steps} steps is unknown")


@dataclass(frozen=True)
class Filled:
    """What a network made of a brain.

    Attributes
    ----------
    image : array of float32
        In the unit of the brain.
    probability : array of float32, optional
        Of a lesion, 0-1, calibrated; from blind networks that tell it.
    spread : array of float32, optional
        Standard deviation of `image` between the brain and its mirror image.
    doubt : array of float32, optional
        That of `probability`.
    """

    image: np.ndarray
    probability: np.ndarray | None = None
    spread: np.ndarray | None = None
    doubt: np.ndarray | None = None


@dataclass(frozen=True)
class Card:
    """The facts about a network that stand in the JSON file beside its ONNX file.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the ONNX file.
    blind : bool
        Whether the network finds the lesions itself.
    intensity : {'wm', 'mean', 'percentiles', 'range'}
        What is 1 in its input: the white-matter level, the mean over the brain, or a percentile of the image
        (brain extraction) or of the brain (slices).
    multiple : int
        The spatial axes of its input must be multiples of this, 1 to 128.
    task : {'inpaint', 'brain', 'flair'}
    engine : str
        Name of its :class:`Engine`.
    priors : bool
        Whether two more channels of its input are the white and grey matter of the template.
    lesion_threshold : float, optional
        λ of its lesion maps, as a fraction of white matter, 0 to 1.
    mirror : bool
        Whether a network of slices also sees the slice mirrored left to right.
    neighbours : tuple of int
        Distances of other slices that it also sees, on both sides.
    together : bool
        Whether a diffusion model of slices sees what it has made of the neighbouring ones so far.
    edge : int, optional
        Edge of the squares that it was trained on, in voxels.
    context : int
        Slices that it sees on each side of the one that it is about.
    prediction : {'noise', 'image'}
        What a diffusion model predicts.
    sampling : Sampling, optional
        How a diffusion model draws.
    lesion_probability : LesionProbability, optional
        Of a blind network that tells how probable a lesion is, as a second output.
    lesion_volume : VolumeModel, optional
        Of a network that tells this probability: the true volumes behind its maps by the levels of
        `lesion_probability`.
    lesion_by_flair : FlairModel, optional
        Of a network that tells this probability: how a FLAIR decides about lesions, too.
    inpainter, inpainter_sha256 : str, optional
        The network that ships whose output it also sees.
    inpainter_probability : bool
        Whether it also sees the lesion probability that this network tells, as told: not calibrated.
    more : dict
        All else: training data, licences, scores, and what an engine keeps for itself.
    """

    name: str
    sha256: str
    blind: bool
    intensity: str
    multiple: int
    task: str = "inpaint"
    engine: str = "unet"
    priors: bool = False
    lesion_threshold: float | None = None
    mirror: bool = False
    neighbours: tuple[int, ...] = ()
    together: bool = False
    edge: int | None = None
    context: int = 0
    prediction: str = "noise"
    sampling: Sampling | None = None
    lesion_probability: LesionProbability | None = None
    lesion_volume: VolumeModel | None = None
    lesion_by_flair: FlairModel | None = None
    inpainter: str | None = None
    inpainter_sha256: str | None = None
    inpainter_probability: bool = False
    more: dict[str, Any] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @classmethod
    def read(cls, content: Any) -> Card:
        """Check the content of a card, which anybody may have written.

        Raises
        ------
        KeyError, TypeError, ValueError, OverflowError
            If it is not the card of a network of this program.
        """
        if content["software"] != _SOFTWARE:
            raise ValueError("another program's")
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content and f.name != "more"}
        if "neighbours" in known:
            if not isinstance(known["neighbours"], list):
                raise TypeError("neighbours are a list")
            known["neighbours"] = tuple(int(distance) for distance in known["neighbours"])
        if "sampling" in known:
            sampling = known["sampling"]
            known["sampling"] = Sampling(str(sampling["sampler"]), int(sampling["steps"]))
        if (told := known.get("lesion_probability")) is not None:
            known["lesion_probability"] = LesionProbability(**{k: float(v) for k, v in told.items()})
        if (known_volumes := known.get("lesion_volume")) is not None:
            known["lesion_volume"] = VolumeModel.read(known_volumes)
        if (by_flair := known.get("lesion_by_flair")) is not None:
            known["lesion_by_flair"] = FlairModel.read(by_flair)
        for key, kind in (("edge", int), ("context", int), ("lesion_threshold", float)):
            if key in known:
                known[key] = kind(known[key])
        card = cls(**known, more={key: value for key, value in content.items() if key not in known})
        if not card._is_sound():
            raise ValueError("values of another kind, or out of range")
        return card

    def _is_sound(self) -> bool:
        """Whether names and numbers are of a kind that networks have."""
        return (
            NAME.fullmatch(self.name) is not None
            and all(
                isinstance(value, bool)
                for value in (
                    self.blind,
                    self.priors,
                    self.mirror,
                    self.together,
                    self.inpainter_probability,
                )
            )
            and isinstance(self.multiple, int)
            and 1 <= self.multiple <= 128
            and len(self.neighbours) <= 8
            and all(1 <= distance <= 64 for distance in self.neighbours)
            and 0 < (0.1 if self.lesion_threshold is None else self.lesion_threshold) < 1
            and 8 <= (8 if self.edge is None else self.edge) <= 1024
            and 0 <= self.context <= 16
            and self.prediction in ("image", "noise")
            and (self.blind or self.lesion_probability is None)
            and (self.inpainter is not None or not self.inpainter_probability)
            and (
                self.lesion_probability is not None
                or (self.lesion_volume is None and self.lesion_by_flair is None)
            )
        )

    @property
    def threshold(self) -> float:
        """λ of the lesion maps of a network that inpaints, which has one."""
        assert self.lesion_threshold is not None
        return self.lesion_threshold


@dataclass(frozen=True)
class Signature:
    """The tensors that a network must take and give.

    Attributes
    ----------
    axes : tuple of int
        Numbers of axes of its inputs, then of its outputs.
    channels : tuple of int
        Channels of its first input, then of each output.
    described : str
        The same in words, after "it must".
    """

    axes: tuple[int, ...]
    channels: tuple[int, ...]
    described: str


@dataclass(frozen=True)
class Engine:
    """A kind of network. Each is one module of :mod:`bids_inpaint.networks.engines`.

    Attributes
    ----------
    name : str
        As cards call it.
    describes : str
        What it is, for the methods text.
    intensities : mapping of str to tuple of str
        What can be 1 in its input, by the tasks that it is for.
    signature : callable
        From a card to the tensors of such a network.
    needs : tuple of str
        What its cards must say beyond what all cards say.
    fill : callable, optional
        How it fills; networks for other tasks than 'inpaint' don't.
    slices : bool
        Whether it fills slice by slice, in any space.
    draws : bool
        Whether it draws one of many possible fillings, with a sampler.
    """

    name: str
    describes: str
    intensities: Mapping[str, tuple[str, ...]]
    signature: Callable[[Card], Signature]
    needs: tuple[str, ...] = ()
    fill: Fill | None = None
    slices: bool = False
    draws: bool = False


@dataclass(frozen=True)
class Model:
    """A network that can be run.

    Attributes
    ----------
    card : Card
    path : Path
        The ONNX file.
    engine : Engine
    shipped : bool
        Whether it comes with this program.
    inpainter : Model, optional
        The blind network whose output it also sees.
    """

    card: Card
    path: Path
    engine: Engine
    shipped: bool = False
    inpainter: Model | None = None

    @property
    def name(self) -> str:
        """As its card says."""
        return self.card.name

    @property
    def blind(self) -> bool:
        """Whether it finds the lesions itself."""
        return self.card.blind

    @property
    def identifier(self) -> str:
        """What :func:`bids_inpaint.networks.registry.find` finds it by."""
        return self.name if self.shipped else str(self.path)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the ONNX file as it is."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def slice_channels(mirror: bool, neighbours: Sequence[int]) -> int:
    """Channels of a slice as a network sees it, which has two with each slice: the image, and its hole.

    Examples
    --------
    >>> slice_channels(mirror=True, neighbours=[1, 4])
    12
    """
    return 2 * (1 + bool(mirror) + 2 * len(neighbours))
