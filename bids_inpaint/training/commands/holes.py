"""Commands that compare what networks and classical ways make of holes in healthy brains."""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_inpaint import options
from bids_inpaint.training.commands.base import (
    SPLITS,
    Command,
    add_lesions,
    add_threads,
    at_least_one,
    configuration,
)

#: Kinds of holes that `compare` knows, in the order of its table.
HOLES = ("lesions", "blobs", "squares")


def _compare_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="names the subjects, and the patients that lend their lesions")
    c.add_argument("cache", type=Path)
    c.add_argument("models", nargs="+", help="names or ONNX files")
    add_lesions(c)
    c.add_argument("--holes", nargs="+", choices=HOLES, default=HOLES, help="all kinds by default")
    c.add_argument("--split", choices=SPLITS, default="validation")
    c.add_argument("--sampler", choices=options.SAMPLERS)
    c.add_argument("--sampling-steps", type=int)
    add_threads(c)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figures", type=Path, help="folder for a picture of each kind of holes")


def _compare(args: argparse.Namespace) -> None:
    from bids_inpaint.networks.session import Runtime
    from bids_inpaint.training.compare import compare

    config = configuration(args)
    runtime = Runtime(threads=args.threads, sampler=args.sampler, steps=args.sampling_steps)
    names = getattr(config.data, args.split)
    comparison = compare(config, args.cache, args.lesions, names, args.models, args.holes, runtime)
    print(f"\n{comparison.table()}")
    if args.output:
        comparison.save(args.output)
    if args.figures:
        comparison.draw(args.figures)


def _brats_options(c: argparse.ArgumentParser) -> None:
    cases = c.add_mutually_exclusive_group(required=True)
    cases.add_argument("--cache", type=Path, help="made by prepare; holes like the challenge's are drawn")
    cases.add_argument(
        "--folder",
        type=Path,
        help="the challenge's own cases: CASE-t1n-voided.nii.gz, CASE-mask.nii.gz, CASE-t1n.nii.gz and, "
        "where only a part of the mask is healthy, CASE-mask-healthy.nii.gz",
    )
    c.add_argument("--config", default="ddpm", help="names the subjects of the cache")
    c.add_argument("--split", choices=SPLITS, default="validation")
    c.add_argument("--subjects", nargs="+", help="subjects of the cache in place of a split")
    c.add_argument("--masks", type=at_least_one, default=1, help="drawn in each brain of the cache")
    c.add_argument("--inside", action="store_true", help="end the masks where the brain does")
    c.add_argument(
        "--beyond-brain", action="store_true", help="what lies outside of the brain's mirror image becomes 0"
    )
    c.add_argument("--model", nargs="+", default=["ddpm"], help="names or ONNX files of networks of slices")
    c.add_argument("--sampler", choices=options.SAMPLERS)
    c.add_argument("--sampling-steps", type=int)
    add_threads(c)
    c.add_argument("--output", type=Path, help="JSON file for the scores")


def _brats(args: argparse.Namespace) -> None:
    from bids_inpaint.networks.session import Runtime
    from bids_inpaint.training.brats import cached_cases, run_challenge, stored_cases
    from bids_inpaint.training.data import find_subjects

    runtime = Runtime(threads=args.threads, sampler=args.sampler, steps=args.sampling_steps)
    if args.folder:
        cases = stored_cases(args.folder)
    else:
        names = args.subjects or getattr(configuration(args).data, args.split)
        cases = cached_cases(find_subjects(args.cache, names), args.masks, args.inside)
    challenge = run_challenge(cases, args.model, runtime, args.beyond_brain)
    print(f"\n{challenge.table()}")
    if args.output:
        challenge.save(args.output)


#: By name.
COMMANDS = {
    "compare": Command("score networks and classical ways on the same holes", _compare_options, _compare),
    "brats": Command("score networks as the BraTS challenge on inpainting does", _brats_options, _brats),
}
