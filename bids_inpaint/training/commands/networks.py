"""Commands that train networks, score them, and write them for the app."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_inpaint.training.commands.base import (
    SPLITS,
    Command,
    add_lesions,
    add_threads,
    add_without,
    at_least_one,
    configuration,
    need_lesions,
    positive,
)
from bids_inpaint.training.config import PAINTERS

if TYPE_CHECKING:
    from bids_inpaint.training.config import Config


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
    add_lesions(c, to="to inpaint")
    add_without(c)
    c.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_threads(c)
    c.add_argument("--workers", type=int, default=1)
    c.add_argument(
        "--minutes", type=positive, help="train for so long, and validate each minute, in place of steps"
    )


def _fit(args: argparse.Namespace) -> None:
    from bids_inpaint.training.engines import make_task
    from bids_inpaint.training.fit import fit

    config = configuration(args)
    need_lesions(args, config)
    if args.start:
        config = replace(config, schedule=replace(config.schedule, start=args.start, start_sha256=""))
    task = make_task(config, args.cache, args.lesions)
    print(fit(config, task, args.run, args.device, args.threads, args.workers, args.minutes))


def _campaign_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("plan", type=Path, help="TOML file with tables [[network]]")
    c.add_argument("cache", type=Path)
    c.add_argument("out", type=Path, help="where the runs go, a folder each")
    add_lesions(c, to="for networks that inpaint")
    add_without(c)
    c.add_argument("--minutes", type=positive, required=True, help="for all networks together")
    c.add_argument("--jobs", type=at_least_one, default=1, help="networks at a time")
    c.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_threads(c)
    c.add_argument("--workers", type=int, default=1, help="processes that draw samples, for each network")


def _campaign(args: argparse.Namespace) -> None:
    from bids_inpaint.training.campaign import Machine, campaign

    machine = Machine(args.device, args.jobs, args.workers, args.threads)
    scores = campaign(args.plan, args.cache, args.out, args.lesions, args.minutes, machine, args.without)
    for name, row in scores.items():
        print(name, row)


def _evaluate_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("model", help="name or ONNX file")
    add_lesions(c, to="to inpaint")
    add_without(c)
    c.add_argument(
        "--second-pass",
        default="none",
        metavar="MODEL",
        help="non-blind network that fills again what a blind one found",
    )
    c.add_argument(
        "--painter", choices=PAINTERS, default="parametric", help="of the painted lesions (inpainting)"
    )
    c.add_argument("--split", choices=SPLITS, default="validation")
    c.add_argument("--subjects", nargs="+", help="subjects of the cache in place of a split (inpainting)")
    add_threads(c)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figure", type=Path, help="image file for the three worst subjects (inpainting)")
    c.add_argument(
        "--diagram",
        type=Path,
        help="image file for the reliability of the lesion probability (blind networks)",
    )


def _evaluate(args: argparse.Namespace) -> None:
    config = configuration(args)
    need_lesions(args, config)
    EVALUATIONS[config.task](args, config)


def _evaluate_inpainting(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.data import find_subjects
    from bids_inpaint.training.evaluate import Scorer, evaluate

    subjects = find_subjects(args.cache, args.subjects or getattr(config.data, args.split))
    scorer = Scorer(
        config, args.cache, args.lesions, args.model, args.threads, args.second_pass, args.painter
    )
    evaluate(scorer, subjects, args.output, args.figure, args.diagram)


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


def _calibrate_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="names the validation subjects, and the patients that lend their lesions")
    c.add_argument("cache", type=Path)
    c.add_argument("model", help="name or ONNX file, whose card is written")
    add_lesions(c)
    c.add_argument(
        "--subjects",
        nargs="+",
        help="subjects of the cache that nothing was learned from, not of the validation",
    )
    c.add_argument(
        "--held",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="patients, too, as networks that saw nothing of them saw them: RUN/held/*.npz of cross-validate",
    )
    add_threads(c)
    c.add_argument("--figure", type=Path, help="image file for the reliability diagram")


def _calibrate(args: argparse.Namespace) -> None:
    from bids_inpaint.training.calibrate import calibrate
    from bids_inpaint.training.evaluate import Scorer

    config = configuration(args)
    scorer = Scorer(config, args.cache, args.lesions, args.model, args.threads)
    names = args.subjects or config.data.validation
    calibrate(scorer, config, args.cache, names, args.held, args.figure)


def _intervals_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="names the subjects, and the patients that lend their lesions")
    c.add_argument("cache", type=Path)
    c.add_argument("model", help="name or ONNX file, whose card is written")
    add_lesions(c)
    c.add_argument("--split", choices=SPLITS, default="validation", help="the test is scored, not fitted to")
    c.add_argument("--subjects", nargs="+", help="subjects of the cache in place of a split")
    c.add_argument(
        "--held", nargs="+", type=Path, default=[], metavar="FILE", help="patients, too: see calibrate"
    )
    c.add_argument("--loads", type=at_least_one, default=4, help="images of each person and painter")
    add_threads(c)


def _intervals(args: argparse.Namespace) -> None:
    from bids_inpaint.training.calibrate import fit_intervals, score_intervals
    from bids_inpaint.training.evaluate import Scorer

    config = configuration(args)
    scorer = Scorer(config, args.cache, args.lesions, args.model, args.threads)
    names = args.subjects or getattr(config.data, args.split)
    run = score_intervals if args.split == "test" else fit_intervals
    run(scorer, config, args.cache, names, args.held, args.loads)


def _cross_validate_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("run", type=Path, help="where the runs of all modes and folds go")
    add_lesions(c)
    add_without(c)
    c.add_argument("--folds", type=int, help="one for each patient by default")
    c.add_argument(
        "--modes", nargs="+", choices=["joint", "offline", "unimodal"], default=[], help="of FLAIR"
    )
    c.add_argument(
        "--start",
        type=Path,
        help="checkpoint of a network that saw no patient, or folder with MODE/checkpoint.pt (FLAIR)",
    )
    add_threads(c)
    blind = c.add_argument_group("blind networks")
    blind.add_argument(
        "--share", type=float, default=1.0, help="of the trained weights beside those of --start"
    )
    blind.add_argument("--minutes", type=positive, help="train each fold for so long, in place of steps")
    blind.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    blind.add_argument("--workers", type=int, default=1)


def _cross_validate(args: argparse.Namespace) -> None:
    config = configuration(args)
    if config.task == "brain":
        raise ValueError(f"{args.config}: brain extraction learns from no patients to leave out")
    CROSS_VALIDATIONS[config.task](args, config)


def _cross_validate_flair(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.architectures.slice_unet import MODES
    from bids_inpaint.training.cross_validation import cross_validate

    modes = args.modes or MODES
    cross_validate(config, args.cache, args.lesions, args.run, args.folds, modes, args.start, args.threads)


def _cross_validate_inpainting(args: argparse.Namespace, config: Config) -> None:
    from bids_inpaint.training.leave_out import Fitting, leave_out

    fitting = Fitting(args.start, args.share, args.minutes, args.device, args.threads, args.workers)
    leave_out(config, args.cache, args.lesions, args.run, fitting, args.folds)


#: How a network is cross-validated, by the task of its configuration.
CROSS_VALIDATIONS = {"inpaint": _cross_validate_inpainting, "flair": _cross_validate_flair}


def _mix_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("one", type=Path, help="checkpoint of a run")
    c.add_argument("other", type=Path, help="checkpoint of a run that went on from it")
    c.add_argument("output", type=Path, help="checkpoint to write")
    c.add_argument("--share", type=float, default=0.5, help="of the other's weights, 0-1")


def _mix(args: argparse.Namespace) -> None:
    from bids_inpaint.training.weights import mix

    print(mix(args.one, args.other, args.share, args.output))


def _export_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config")
    c.add_argument("checkpoint", type=Path)
    c.add_argument("output", type=Path, help="the ONNX file; the card goes beside it")
    c.add_argument("--scores", type=Path, help="JSON of evaluate, for the card")
    c.add_argument("--lesion-threshold", type=float, default=0.1)


def _export(args: argparse.Namespace) -> None:
    from bids_inpaint.training.export import export

    export(configuration(args), args.checkpoint, args.output, args.scores, args.lesion_threshold)


#: By name.
COMMANDS = {
    "fit": Command("train a network; resumes if it was interrupted", _fit_options, _fit),
    "campaign": Command(
        "train the networks of a plan side by side in a given time", _campaign_options, _campaign
    ),
    "evaluate": Command(
        "score a network on painted lesions of subjects kept apart", _evaluate_options, _evaluate
    ),
    "calibrate": Command(
        "measure what a lesion probability means, and write it into the card", _calibrate_options, _calibrate
    ),
    "intervals": Command(
        "fit intervals of lesion volumes for the card, or score them", _intervals_options, _intervals
    ),
    "cross-validate": Command(
        "train FLAIR synthesis or a blind network on all patients but a fold's, and score",
        _cross_validate_options,
        _cross_validate,
    ),
    "mix": Command(
        "write a checkpoint between that of a run and of one that went on from it", _mix_options, _mix
    ),
    "export": Command("write a checkpoint as ONNX with its card", _export_options, _export),
}
