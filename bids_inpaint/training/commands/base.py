"""What the commands of the training tools are made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bids_inpaint.training.config import Config


#: Of the subjects of a configuration.
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes
    ----------
    help : str
        One line for ``--help``.
    add_options : callable
        Adds its arguments and options to a parser.
    run : callable
        Does it. It alone imports what it needs, so that ``--help`` is fast.
    """

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def positive(text: str) -> float:
    """An argument above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def at_least_one(text: str) -> int:
    """An argument of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def add_work_dir(c: argparse.ArgumentParser) -> None:
    """Add ``--work-dir``."""
    c.add_argument("-w", "--work-dir", type=Path, default=Path("work"))


def add_threads(c: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    c.add_argument("--threads", type=int, default=2)


def add_lesions(c: argparse.ArgumentParser, to: str = "") -> None:
    """Add ``--lesions``, which is required unless it is needed `to` do one thing alone."""
    text = "folder with patients/ and shapes.npz" + (f", {to}" if to else "")
    c.add_argument("--lesions", type=Path, required=not to, help=text)


def add_without(c: argparse.ArgumentParser) -> None:
    """Add ``--without``, of commands that have a configuration."""
    c.add_argument(
        "--without",
        type=Path,
        metavar="FOLDER",
        help="blind networks PERSON.onnx that learned nothing from this person, whose output is seen (FLAIR)",
    )


def participants(names: Sequence[str]) -> tuple[str, ...]:
    """Labels of participants, with or without ``sub-``."""
    return tuple(label.removeprefix("sub-") for label in names)


def configuration(args: argparse.Namespace) -> Config:
    """The configuration that the command names, if its engine can do what it asks for."""
    from bids_inpaint.training.config import Config
    from bids_inpaint.training.engines import engine_of

    config = Config.load(args.config)
    if without := getattr(args, "without", None):
        config = replace(config, data=replace(config.data, without=str(without)))
    try:
        engine_of(config)
    except ValueError as error:
        raise ValueError(f"{args.config}: {error}") from None
    return config


def need_lesions(args: argparse.Namespace, config: Config) -> None:
    """End the program if the task needs lesion shapes but ``--lesions`` is missing."""
    from bids_inpaint.training.engines import task_type

    if task_type(config).needs_lesions and not args.lesions:
        raise argparse.ArgumentError(None, f"{args.command} of this network needs --lesions")
