"""The networks that ship, each an ONNX file beside its card, and those users bring."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bids_inpaint import options
from bids_inpaint.diffusion import SAMPLERS
from bids_inpaint.files import first_line, read_json
from bids_inpaint.images import InputError

FOLDER = Path(__file__).parent
DEFAULT = options.MODEL
#: Fills given lesions, for the images that others are compared with.
REFERENCE = options.SECOND_PASS
#: Those that don't inpaint, by their tasks.
BRAIN = "brain"
FLAIR = options.FLAIR
OTHERS = {"brain": BRAIN, "flair": FLAIR}
_MARK = "bids_inpaint"
#: What the card of a task or an engine must say.
_NEEDED = {
    "inpaint": ("lesion_threshold",),
    "ddpm": ("edge", "sampling"),
    "ip-medgan": ("edge",),
    "joint": ("context",),
}
#: Of a network: reports and methods texts show it.
NAME = re.compile(r"[\w.+-]{1,64}")
#: Bytes of a network that are read at most.
LARGEST = 1e9
#: What can be 1 in the input of a network, by its task and engine.
INTENSITIES = {
    ("inpaint", "unet"): ("wm", "mean"),
    ("inpaint", "ddpm"): ("range",),
    ("inpaint", "ip-medgan"): ("range",),
    ("brain", "unet"): ("percentiles",),
    ("flair", "joint"): ("wm",),
}


@dataclass(frozen=True)
class Model:
    """A network and what one must know to use it.

    Attributes
    ----------
    name : str
    path : Path
        The ONNX file: input ``(1, 8, D, H, W)``, output of the same shape.
    blind : bool
        Whether it finds the lesions itself.
    intensity : {'wm', 'mean', 'percentiles', 'range'}
        What is 1 in its input: the white-matter level, the mean over the brain, or a percentile of the image
        (brain extraction) or of the brain (slices).
    multiple : int
        The spatial axes of its input must be multiples of this.
    card : dict
        The whole card: training data, licences, scores.
    task : {'inpaint', 'brain', 'flair'}
    priors : bool
        Whether two more channels of its input are the white and grey matter of the template.
    engine : {'unet', 'ddpm', 'ip-medgan', 'joint'}
        How it fills: the volume at once, slice by slice in many steps, or slice by slice in one. That which
        makes a FLAIR and a lesion map is 'joint'.
    mirror : bool
        Whether one of slices also sees the slice mirrored left to right.
    neighbours : tuple of int
        Distances of other slices that it also sees, on both sides.
    """

    name: str
    path: Path
    blind: bool
    intensity: str
    multiple: int
    card: dict = field(repr=False, hash=False, compare=False)
    task: str = "inpaint"
    priors: bool = False
    engine: str = "unet"
    mirror: bool = False
    neighbours: tuple[int, ...] = ()

    @property
    def identifier(self) -> str:
        """What :func:`find` finds it by."""
        return self.name if self.path.parent == FOLDER else str(self.path)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the ONNX file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def slice_channels(mirror: bool, neighbours: Sequence[int]) -> int:
    """Channels of a slice as a network sees it, which has two with each slice: the image, and its hole.

    Examples
    --------
    >>> slice_channels(mirror=True, neighbours=[1, 4])
    12
    """
    return 2 * (1 + bool(mirror) + 2 * len(neighbours))


def available() -> list[str]:
    """Names of the inpainting networks that ship.

    Examples
    --------
    >>> "blind-unet" in available()
    True
    """
    return sorted(p.stem for p in FOLDER.glob("*.onnx") if p.stem not in OTHERS.values())


def shipped() -> set[str]:
    """Names of all networks that ship, whatever they do."""
    return {*available(), *OTHERS.values()}


def find(name: str, task: str = "inpaint") -> Model:
    """Look up a shipped network by name, or one of the user's by the path of its ONNX file.

    Parameters
    ----------
    name : str
    task : {'inpaint', 'brain', 'flair'}
        What it must have been trained for.

    Raises
    ------
    InputError
        If there is no such network, or the file is not a bids_inpaint network, with its card intact.
    """
    shipped = name in available() if task == "inpaint" else name == OTHERS[task]
    path = FOLDER / f"{name}.onnx" if shipped else Path(name)
    if not path.is_file():
        shipping = f"one of {', '.join(available())}" if task == "inpaint" else OTHERS[task]
        raise InputError(
            f"Model {name} is neither shipped nor a file: use {shipping}, or the path of an ONNX network "
            "exported by bids_inpaint."
        )
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"Model {path} has {size / 1e9:.1f} GB: a network of at most 1 GB can be used.")
    card_path = path.with_suffix(".json")
    remedy = "export it with 'python -m bids_inpaint.training export', and keep both files together"
    try:
        card = read_json(card_path)
    except FileNotFoundError:
        raise InputError(f"Model {path} has no card {card_path.name} beside it: {remedy}.") from None
    except (ValueError, OSError):
        raise InputError(f"The model card {card_path} can't be read: {remedy}.") from None
    try:
        model = Model(
            name=str(card["name"]),
            path=path,
            blind=bool(card["blind"]),
            intensity=str(card["intensity"]),
            multiple=int(card["multiple"]),
            card=card,
            task=str(card.get("task", "inpaint")),
            priors=bool(card.get("priors", False)),
            engine=str(card.get("engine", "unet")),
            mirror=bool(card.get("mirror", False)),
            neighbours=tuple(int(distance) for distance in card.get("neighbours", [])),
        )
        known = model.intensity in INTENSITIES.get((model.task, model.engine), ())
        complete = {*_NEEDED.get(model.task, ()), *_NEEDED.get(model.engine, ())} <= card.keys()
        ours = card["software"] == _MARK and known and complete and _sound(model)
        digest = card["sha256"]
    except (KeyError, TypeError, ValueError, OverflowError):
        ours, digest = False, None
    if not ours:
        raise InputError(f"Model {path} is not a bids_inpaint network by its card: {remedy}.")
    if model.task != task:
        raise InputError(f"Model {path} was trained for '{model.task}', not for '{task}': use another one.")
    if digest != model.sha256:
        raise InputError(
            f"Model {path} has another SHA-256 than its card says: it was changed or damaged; {remedy}."
        )
    if inpainter := card.get("inpainter"):
        ships = inpainter in available() and find(inpainter).sha256
        if not ships or ships != card.get("inpainter_sha256"):
            raise InputError(
                f"Model {path} needs the output of another version of {inpainter}: use the version of "
                "bids_inpaint that it was trained with, or train it again."
            )
    _check_graph(model)
    return model


def _sound(model: Model) -> bool:
    """Whether the name and the numbers of a card are of a kind that networks have."""
    card = model.card
    sampling = card.get("sampling", {"sampler": "ddim", "steps": 1})
    return (
        NAME.fullmatch(model.name) is not None
        and all(isinstance(card.get(key, False), bool) for key in ("blind", "priors", "mirror"))
        and 1 <= model.multiple == card["multiple"] <= 128
        and isinstance(card.get("neighbours", []), list)
        and len(model.neighbours) <= 8
        and all(1 <= distance <= 64 for distance in model.neighbours)
        and 0 < float(card.get("lesion_threshold", 0.1)) < 1
        and 8 <= int(card.get("edge", 8)) <= 1024
        and 0 <= int(card.get("context", 0)) <= 16
        and card.get("prediction", "noise") in ("image", "noise")
        and sampling["sampler"] in SAMPLERS
        and 1 <= int(sampling["steps"]) <= 1000
    )


def _check_graph(model: Model) -> None:
    import onnxruntime

    # weights outside the file, which may name any file, have this key in their entry; ours have none
    if b"location" in model.path.read_bytes():
        raise InputError(
            f"Model {model.path} keeps weights in another file: export it with all its weights inside."
        )

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        ins, outs = session.get_inputs(), session.get_outputs()
    except Exception as error:
        raise InputError(
            f"Model {model.path} can't be loaded by ONNX Runtime ({first_line(error, 120)}): export it again."
        ) from None
    seen = slice_channels(model.mirror, model.neighbours)
    shapes = [tensor.shape for tensor in (*ins, *outs)]
    told = (
        [len(s) for s in shapes],
        [s[1] if len(s) > 1 else None for s in (*shapes[:1], *shapes[len(ins) :])],
    )
    if model.engine == "ddpm":
        fits = told == ([4, 1, 4], [1 + seen, 2])
        needed = f"take {1 + seen} channels in two dimensions and a step, and give 2 channels"
    elif model.engine == "ip-medgan":
        fits = told == ([4, 4], [seen, 1])
        needed = f"take {seen} channels in two dimensions, and give 1 channel"
    elif model.engine == "joint":
        channels = 2 * int(model.card["context"]) + 1 + 2 * model.priors + ("inpainter" in model.card)
        fits = told == ([4, 4], [channels, 2])
        needed = "take slices in two dimensions, and give 2 channels"
    else:
        fits = told == ([5, 5], [10 if model.priors else 8, 8])
        needed = "take and give one tensor of 8 channels in three dimensions"
    if not fits:
        raise InputError(f"Model {model.path} is not a bids_inpaint network: it must {needed}.")
