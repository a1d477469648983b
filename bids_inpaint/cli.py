"""Command line: arguments, Settings, exit code. Heavy imports wait until there is work."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bids_inpaint.environment import settle, use_utf8
from bids_inpaint.parser import options_of_others, parser

if TYPE_CHECKING:
    from bids_inpaint.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    0: all done; 1: some images failed, or have warnings with ``--strict``; 2: nothing was run, as the input
    or the options are wrong; 128 and the number of a signal: it ended the run.
    """
    if argv is None:
        use_utf8()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        argv = sys.argv[1:]
    args = parser().parse_args(argv)
    if flags := options_of_others(argv, args.analysis_level):
        print(
            f"bids_inpaint: error: The {args.analysis_level} level has no {', '.join(flags)}: "
            f"leave {'it' if len(flags) == 1 else 'them'} out, or run the level that has.",
            file=sys.stderr,
        )
        return 2
    try:
        settle()
    except OSError as error:
        print(f"bids_inpaint: error: {error.strerror}", file=sys.stderr)
        return 2
    from bids_inpaint.errors import InputError
    from bids_inpaint.settings import check, check_export

    try:
        settings = settings_of(args)
        if args.analysis_level == "export":
            check_export(settings)
            from bids_inpaint.export.level import run_export

            return run_export(settings)
        check(settings)
        if args.analysis_level == "participant":
            from bids_inpaint.participant.run import run_participants

            return run_participants(settings)
        from bids_inpaint.group.level import run_group

        return run_group(settings)
    except InputError as error:
        print(f"bids_inpaint: error: {error}", file=sys.stderr)
        return 2


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that parsed arguments stand for.

    Raises
    ------
    InputError
        If they contradict each other.
    """
    from bids_inpaint.settings import Settings

    values = {name: value for name, value in vars(args).items() if name != "analysis_level"}
    for name in ("participant_label", "session_label"):
        values[name] = tuple(dict.fromkeys(values[name]))
    values["ratings"] = tuple(values["ratings"])
    values["derivatives"] = _by_name(values["derivatives"])
    if values["nprocs"] is None:
        del values["nprocs"]
    return Settings(**values)


def _stop(number: int, _: FrameType | None) -> None:
    """End at once, as schedulers kill what is left after some seconds; the workers end with this process."""
    from bids_inpaint.io.files import discard_unfinished

    discard_unfinished()
    message = (
        f"bids_inpaint: error: stopped by {signal.Signals(number).name}: what is finished stays; "
        "run the same command again to go on.\n"
    )
    os.write(2, message.encode())
    os._exit(128 + number)


def _by_name(pairs: list[tuple[str, Path]]) -> dict[str, Path]:
    """Derivatives by their names, each of which stands for one folder."""
    from bids_inpaint.errors import InputError

    named: dict[str, Path] = {}
    for name, path in pairs:
        if name in named:
            raise InputError(
                f"-d names two folders {name} ({named[name]} and {path}): give each its own name."
            )
        named[name] = path
    return named
