"""``python -m bids_inpaint.training COMMAND``: see ``--help``."""

from __future__ import annotations

import argparse
import sys

from bids_inpaint.training.commands import COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, or 1 after a sentence about what was wrong."""
    p = parser()
    args = p.parse_args(argv)
    try:
        COMMANDS[args.command].run(args)
    except argparse.ArgumentError as error:
        p.error(str(error))
    except ValueError as error:
        print(f"bids_inpaint.training: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The argument parser of the training tools."""
    p = argparse.ArgumentParser(prog="python -m bids_inpaint.training", description=__doc__)
    subparsers = p.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_options(subparsers.add_parser(name, help=command.help))
    return p


if __name__ == "__main__":
    sys.exit(main())
