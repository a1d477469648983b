"""The command that fits how a real FLAIR is used."""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_inpaint.training.commands.base import Command, add_threads


def _options(c: argparse.ArgumentParser) -> None:
    c.add_argument("model", help="blind network: name or ONNX file, whose card is written")
    c.add_argument("cache", type=Path, help="made by prepare")
    c.add_argument(
        "--left-out",
        nargs="+",
        type=_named,
        required=True,
        metavar="PATIENT=FILE",
        help="patients of the cache, and the ONNX file of a network that learned nothing from each",
    )
    add_threads(c)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not PATIENT=FILE")
    return name, Path(path)


def _run(args: argparse.Namespace) -> None:
    from bids_inpaint.networks import registry
    from bids_inpaint.training.flair_model import fit_card

    card = registry.find(args.model).path.with_suffix(".json")
    fit_card(card, args.cache, dict(args.left_out), args.threads)


#: By name.
COMMANDS = {
    "flair-model": Command(
        "fit how lesions are told by a T1w and a FLAIR together, for the card", _options, _run
    )
}
