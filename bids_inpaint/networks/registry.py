"""The networks that ship, and those users bring: looked up, and checked before they are run."""

from __future__ import annotations

from pathlib import Path

from bids_inpaint import options
from bids_inpaint.errors import InputError, first_line
from bids_inpaint.io.files import read_json
from bids_inpaint.models import FOLDER, shipped
from bids_inpaint.networks.card import Card, Model, Task
from bids_inpaint.networks.engines import ENGINES

DEFAULT = options.MODEL
#: Fills given lesions, for the images that others are compared with.
REFERENCE = options.SECOND_PASS
#: Those that don't inpaint, by their tasks.
BRAIN = "brain"
FLAIR = options.FLAIR
OTHERS = {"brain": BRAIN, "flair": FLAIR}
#: Bytes of a network that are read at most.
LARGEST = 1e9

_REMEDY = "export it with 'python -m bids_inpaint.training export', and keep both files together"


def available() -> list[str]:
    """Names of the inpainting networks that ship.

    Examples
    --------
    >>> "blind-unet" in available()
    True
    """
    return sorted(shipped() - set(OTHERS.values()))


def find(name: str, task: Task = "inpaint", sha256: str | None = None) -> Model:
    """Look up a shipped network by name, or one of the user's by the path of its ONNX file.

    Parameters
    ----------
    name : str
    task : {'inpaint', 'brain', 'flair'}
        What it must have been trained for.
    sha256 : str, optional
        What it had when it was looked up before, and its graph was checked.

    Raises
    ------
    InputError
        If there is no such network, if the file is not a bids_inpaint network with its card intact, or if it
        was changed since.
    """
    ships = name in available() if task == "inpaint" else name == OTHERS[task]
    path = FOLDER / f"{name}.onnx" if ships else Path(name)
    if not path.is_file():
        shipping = f"one of {', '.join(available())}" if task == "inpaint" else OTHERS[task]
        raise InputError(
            f"Model {name} is neither shipped nor a file: use {shipping}, or the path of an ONNX network "
            "exported by bids_inpaint."
        )
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"Model {path} has {size / 1e9:.1f} GB: a network of at most 1 GB can be used.")
    card = _read_card(path)
    model = Model(card, path, ENGINES[card.engine], ships)
    if card.task != task:
        raise InputError(f"Model {path} was trained for '{card.task}', not for '{task}': use another one.")
    if card.sha256 != model.sha256:
        raise InputError(
            f"Model {path} has another SHA-256 than its card says: it was changed or damaged; {_REMEDY}."
        )
    if sha256 and model.sha256 != sha256:
        raise InputError(f"Model {path} was changed during the run: run the same command again.")
    if card.inpainter:
        model = Model(card, path, model.engine, ships, _inpainter_of(card, path))
    if not sha256:
        _check_graph(model)
    return model


def _read_card(path: Path) -> Card:
    """The card beside an ONNX file."""
    card_path = path.with_suffix(".json")
    try:
        content = read_json(card_path)
    except FileNotFoundError:
        raise InputError(f"Model {path} has no card {card_path.name} beside it: {_REMEDY}.") from None
    except (ValueError, OSError):
        raise InputError(f"The model card {card_path} can't be read: {_REMEDY}.") from None
    try:
        card = Card.read(content)
        engine = ENGINES[card.engine]
        needed = {*engine.needs, *(("lesion_threshold",) if card.task == "inpaint" else ())}
        known = card.intensity in engine.intensities.get(card.task, ()) and needed <= content.keys()
    except (KeyError, TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise InputError(f"Model {path} is not a bids_inpaint network by its card: {_REMEDY}.")
    return card


def _inpainter_of(card: Card, path: Path) -> Model:
    """The network that ships whose output another one was trained on."""
    inpainter = find(card.inpainter) if card.inpainter in available() else None
    tells = inpainter is not None and inpainter.card.lesion_probability is not None
    wants = card.inpainter_probability
    if inpainter is None or inpainter.sha256 != card.inpainter_sha256 or (wants and not tells):
        raise InputError(
            f"Model {path} needs the output of another version of {card.inpainter}: use the version of "
            "bids_inpaint that it was trained with, or train it again."
        )
    return inpainter


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
    signature = model.engine.signature(model.card)
    shapes = [tensor.shape for tensor in (*ins, *outs)]
    axes = tuple(len(shape) for shape in shapes)
    channels = tuple(shape[1] if len(shape) > 1 else None for shape in (*shapes[:1], *shapes[len(ins) :]))
    if (axes, channels) != (signature.axes, signature.channels):
        raise InputError(f"Model {model.path} is not a bids_inpaint network: it must {signature.described}.")
