"""The command that fits how a real FLAIR is used."""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_inpaint.training.commands.base import Command, add_threads


def _options(c: argparse.ArgumentParser) -> None:
    c.add_argument("model", help="blind network: name or ONNX file, whose card is written")
    c.add_argument("cache", type=Path, help="made by prepare")
    c.add_argument(
        "patients", nargs="+", help="names in the cache, of patients with a FLAIR and a lesion mask"
    )
    c.add_argument(
        "--without",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with a blind network PERSON.onnx for each, which learned nothing from the person",
    )
    add_threads(c)


def _run(args: argparse.Namespace) -> None:
    from bids_inpaint.networks import registry
    from bids_inpaint.training.flair_model import fit_card

    card = registry.find(args.model).path.with_suffix(".json")
    fit_card(card, args.cache, args.patients, args.without, args.threads)


#: By name.
COMMANDS = {
    "flair-model": Command(
        "fit how lesions are told by a T1w and a FLAIR together, for the card", _options, _run
    )
}
