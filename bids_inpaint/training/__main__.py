"""``python -m bids_inpaint.training COMMAND``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_inpaint import options

if TYPE_CHECKING:
    from bids_inpaint.training.config import Config

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


def _prepare_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("bids_dir", type=Path)
    c.add_argument("cache", type=Path)
    _add_work_dir(c)
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--nprocs", type=int, default=2)
    c.add_argument("--lesion-masks", type=Path, help="BIDS derivative with the lesion masks of patients")


def _prepare(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import prepare

    labels = _labels(args.participant_label)
    count = prepare(args.bids_dir, args.cache, args.work_dir, args.nprocs, labels, args.lesion_masks)
    print(count, "images cached")


def _prepare_labels_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("labels", type=Path, help="folder of the label maps")
    c.add_argument("cache", type=Path)
    _add_work_dir(c)


def _prepare_labels(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import prepare_labels

    args.work_dir.mkdir(parents=True, exist_ok=True)
    print(prepare_labels(args.labels, args.cache, args.work_dir), "label maps cached")


def _targets_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("model", help="name or ONNX file")
    c.add_argument("cache", type=Path)
    _add_threads(c)


def _targets(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import make_targets

    print(make_targets(args.model, args.cache, args.threads), "targets made")


def _paint_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("bids_dir", type=Path)
    c.add_argument("output_dir", type=Path, help="BIDS dataset to write; masks go to derivatives/painted")
    _add_lesions(c)
    c.add_argument("--patients", nargs="+", default=[], help="those that lend their lesions; all by default")
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--seed", type=int, default=0)
    _add_work_dir(c)
    c.add_argument("--nprocs", type=int, default=2)


def _paint(args: argparse.Namespace) -> None:
    from bids_inpaint.training.paint import paint_dataset

    count = paint_dataset(
        args.bids_dir,
        args.output_dir,
        args.lesions,
        args.work_dir,
        args.nprocs,
        _labels(args.participant_label),
        tuple(args.patients),
        args.seed,
    )
    print(count, "images painted")


def _fit_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="TOML file, or name of a shipped configuration")
    c.add_argument("cache", type=Path, help="made by prepare, or folder of head label maps (brain)")
    c.add_argument("run", type=Path, help="where checkpoints and logs go")
    c.add_argument(
        "--start",
        default="",
        metavar="NETWORK",
        help="checkpoint to start from; of engine unet also ONNX file or name",
    )
    _add_lesions(c, to="to inpaint")
    c.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    _add_threads(c)
    c.add_argument("--workers", type=int, default=1)
    c.add_argument(
        "--minutes", type=float, help="train for so long, and validate each minute, in place of steps"
    )


def _fit(args: argparse.Namespace) -> None:
    from bids_inpaint.training.engines import make_task
    from bids_inpaint.training.fit import fit

    config = _config(args)
    _need_lesions(args, config)
    if args.start:
        config = replace(config, schedule=replace(config.schedule, start=args.start))
    task = make_task(config, args.cache, args.lesions)
    print(fit(config, task, args.run, args.device, args.threads, args.workers, args.minutes))


def _campaign_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("plan", type=Path, help="TOML file with tables [[network]]")
    c.add_argument("cache", type=Path)
    c.add_argument("out", type=Path, help="where the runs go, a folder each")
    _add_lesions(c, to="for networks that inpaint")
    c.add_argument("--minutes", type=float, required=True, help="for all networks together")
    c.add_argument("--jobs", type=int, default=1, help="networks at a time")
    c.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    _add_threads(c)
    c.add_argument("--workers", type=int, default=1, help="processes that draw samples, for each network")


def _campaign(args: argparse.Namespace) -> None:
    from bids_inpaint.training.campaign import Machine, campaign

    machine = Machine(args.device, args.jobs, args.workers, args.threads)
    scores = campaign(args.plan, args.cache, args.out, args.lesions, args.minutes, machine)
    for name, row in scores.items():
        print(name, row)


def _pack_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("cache", type=Path)
    c.add_argument("folder", type=Path, help="where pack-NN.zip go")
    c.add_argument("subjects", nargs="+")
    c.add_argument("--steps", type=int, default=256, help="intensities are rounded to this fraction of white matter")
    c.add_argument("--without", nargs="+", default=[], choices=["flair", "target"], help="what to leave out")
    c.add_argument("--nprocs", type=int, default=2)


def _pack(args: argparse.Namespace) -> None:
    from bids_inpaint.training.packing import pack

    packs = pack(
        args.cache, args.subjects, args.folder, args.steps, nprocs=args.nprocs, without=args.without
    )
    for path in packs:
        print(path, path.stat().st_size)


def _unpack_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("packs", type=Path, nargs="+")
    c.add_argument("cache", type=Path)
    c.add_argument("--nprocs", type=int, default=2)


def _unpack(args: argparse.Namespace) -> None:
    from bids_inpaint.training.packing import unpack

    print(unpack(args.packs, args.cache, args.nprocs), "subjects unpacked")


def _evaluate_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("model", help="name or ONNX file")
    _add_lesions(c, to="to inpaint")
    c.add_argument(
        "--second-pass",
        default="none",
        metavar="MODEL",
        help="non-blind network that fills again what a blind one found",
    )
    c.add_argument("--split", choices=SPLITS, default="validation")
    c.add_argument("--subjects", nargs="+", help="subjects of the cache in place of a split (inpainting)")
    _add_threads(c)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figure", type=Path, help="image file for the three worst subjects (inpainting)")


def _evaluate(args: argparse.Namespace) -> None:
    config = _config(args)
    _need_lesions(args, config)
    EVALUATIONS[config.task](args, config)


def _evaluate_inpainting(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.data import find_subjects
    from bids_inpaint.training.evaluate import Scorer, evaluate

    subjects = find_subjects(args.cache, args.subjects or getattr(config.data, args.split))
    scorer = Scorer(config, args.cache, args.lesions, args.model, args.threads, args.second_pass)
    evaluate(scorer, subjects, args.output, args.figure)


def _evaluate_brain(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.evaluate_brain import evaluate_brain

    evaluate_brain(config, args.cache, args.model, args.split, args.threads, args.output)


def _evaluate_flair(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.data import find_subjects
    from bids_inpaint.training.evaluate_flair import FlairScorer, evaluate_flair

    subjects = find_subjects(args.cache, args.subjects or getattr(config.data, args.split))
    scorer = FlairScorer(config, args.cache, args.lesions, args.model, args.threads)
    evaluate_flair(scorer, subjects, args.output, args.figure)


#: How a network is evaluated, by the task of its configuration.
EVALUATIONS = {"inpaint": _evaluate_inpainting, "brain": _evaluate_brain, "flair": _evaluate_flair}


def _compare_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="names the subjects, and the patients that lend their lesions")
    c.add_argument("cache", type=Path)
    c.add_argument("models", nargs="+", help="names or ONNX files")
    _add_lesions(c)
    c.add_argument("--holes", choices=["lesions", "blobs", "squares"], default="lesions")
    c.add_argument("--split", choices=SPLITS, default="validation")
    c.add_argument("--sampler", choices=options.SAMPLERS)
    c.add_argument("--sampling-steps", type=int)
    _add_threads(c)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figures", type=Path, help="folder for pictures of three subjects")


def _compare(args: argparse.Namespace) -> None:
    from bids_inpaint.networks.session import Runtime
    from bids_inpaint.training.compare import compare

    config = _config(args)
    runtime = Runtime(threads=args.threads, sampler=args.sampler, steps=args.sampling_steps)
    names = getattr(config.data, args.split)
    comparison = compare(config, args.cache, args.lesions, names, args.models, args.holes, runtime)
    print(f"\n{comparison.table()}")
    if args.output:
        comparison.save(args.output)
    if args.figures:
        comparison.draw(args.figures)


def _cross_validate_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("run", type=Path, help="where the runs of all modes and folds go")
    _add_lesions(c)
    c.add_argument("--folds", type=int, default=2)
    c.add_argument("--modes", nargs="+", choices=["joint", "offline", "unimodal"], default=[])
    c.add_argument("--start", type=Path, help="folder with MODE/checkpoint.pt to start from")
    _add_threads(c)


def _cross_validate(args: argparse.Namespace) -> None:
    from bids_inpaint.training.architectures.slice_unet import MODES
    from bids_inpaint.training.cross_validation import cross_validate

    modes = args.modes or MODES
    config = _config(args)
    cross_validate(config, args.cache, args.lesions, args.run, args.folds, modes, args.start, args.threads)


def _export_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("checkpoint", type=Path)
    c.add_argument("output", type=Path, help="the ONNX file; the card goes beside it")
    c.add_argument("--scores", type=Path, help="JSON of evaluate, for the card")
    c.add_argument("--lesion-threshold", type=float, default=0.12)


def _export(args: argparse.Namespace) -> None:
    from bids_inpaint.training.export import export

    export(_config(args), args.checkpoint, args.output, args.scores, args.lesion_threshold)


COMMANDS = {
    "prepare": Command(
        "preprocess a BIDS dataset with the app's graph and cache it", _prepare_options, _prepare
    ),
    "prepare-labels": Command(
        "bring head label maps onto the working grid and cache them",
        _prepare_labels_options,
        _prepare_labels,
    ),
    "targets": Command(
        "fill the lesions of cached patients with a non-blind network", _targets_options, _targets
    ),
    "paint": Command("paint lesions into the raw images of a BIDS dataset", _paint_options, _paint),
    "fit": Command("train a network; resumes if it was interrupted", _fit_options, _fit),
    "campaign": Command("train the networks of a plan side by side in a given time", _campaign_options, _campaign),
    "pack": Command("write subjects of a cache into files below 60 MB", _pack_options, _pack),
    "unpack": Command("make a cache of what pack wrote", _unpack_options, _unpack),
    "evaluate": Command(
        "score a network on painted lesions of subjects kept apart", _evaluate_options, _evaluate
    ),
    "compare": Command("score networks and classical ways on the same holes", _compare_options, _compare),
    "cross-validate": Command(
        "train FLAIR synthesis and its baselines on all patients but a fold's, and score",
        _cross_validate_options,
        _cross_validate,
    ),
    "export": Command("write a checkpoint as ONNX with its card", _export_options, _export),
}


def _add_work_dir(c: argparse.ArgumentParser) -> None:
    c.add_argument("-w", "--work-dir", type=Path, default=Path("work"))


def _add_threads(c: argparse.ArgumentParser) -> None:
    c.add_argument("--threads", type=int, default=2)


def _add_lesions(c: argparse.ArgumentParser, to: str = "") -> None:
    """Add ``--lesions``, which is required unless it is needed `to` do one thing alone."""
    text = "folder with patients/ and shapes.npz" + (f", {to}" if to else "")
    c.add_argument("--lesions", type=Path, required=not to, help=text)


def _labels(participants: Sequence[str]) -> tuple[str, ...]:
    return tuple(label.removeprefix("sub-") for label in participants)


def _config(args: argparse.Namespace) -> Config:
    """The configuration that the command names, if its engine can do what it asks for."""
    from bids_inpaint.training.config import Config
    from bids_inpaint.training.engines import engine_of

    config = Config.load(args.config)
    try:
        engine_of(config)
    except ValueError as error:
        raise ValueError(f"{args.config}: {error}") from None
    return config


def _need_lesions(args: argparse.Namespace, config: Config) -> None:
    """End the program if the task needs lesion shapes but ``--lesions`` is missing."""
    from bids_inpaint.training.engines import task_type

    if task_type(config).needs_lesions and not args.lesions:
        raise argparse.ArgumentError(None, f"{args.command} of this network needs --lesions")


if __name__ == "__main__":
    sys.exit(main())
