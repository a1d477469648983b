"""``python -m bids_inpaint.training COMMAND``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bids_inpaint import options


def parser() -> argparse.ArgumentParser:
    """The argument parser of the training tools."""
    p = argparse.ArgumentParser(prog="python -m bids_inpaint.training", description=__doc__)
    commands = p.add_subparsers(dest="command", required=True)

    c = commands.add_parser("prepare", help="preprocess a BIDS dataset with the app's graph and cache it")
    c.add_argument("bids_dir", type=Path)
    c.add_argument("cache", type=Path)
    c.add_argument("-w", "--work-dir", type=Path, default=Path("work"))
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--nprocs", type=int, default=2)
    c.add_argument("--lesion-masks", type=Path, help="BIDS derivative with the lesion masks of patients")

    c = commands.add_parser(
        "prepare-labels", help="bring head label maps onto the working grid and cache them"
    )
    c.add_argument("labels", type=Path, help="folder of the label maps")
    c.add_argument("cache", type=Path)
    c.add_argument("-w", "--work-dir", type=Path, default=Path("work"))

    c = commands.add_parser("targets", help="fill the lesions of cached patients with a non-blind network")
    c.add_argument("model", help="name or ONNX file")
    c.add_argument("cache", type=Path)
    c.add_argument("--threads", type=int, default=2)

    c = commands.add_parser("paint", help="paint lesions into the raw images of a BIDS dataset")
    c.add_argument("bids_dir", type=Path)
    c.add_argument("output_dir", type=Path, help="BIDS dataset to write; masks go to derivatives/painted")
    c.add_argument("--lesions", type=Path, required=True, help="folder with patients/ and shapes.npz")
    c.add_argument("--patients", nargs="+", default=[], help="those that lend their lesions; all by default")
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--seed", type=int, default=0)
    c.add_argument("-w", "--work-dir", type=Path, default=Path("work"))
    c.add_argument("--nprocs", type=int, default=2)

    c = commands.add_parser("fit", help="train a network; resumes if it was interrupted")
    c.add_argument("config", help="TOML file, or name of a shipped configuration")
    c.add_argument("cache", type=Path, help="made by prepare, or folder of head label maps (brain)")
    c.add_argument("run", type=Path, help="where checkpoints and logs go")
    c.add_argument(
        "--start",
        default="",
        metavar="NETWORK",
        help="checkpoint to start from; of engine unet also ONNX file or name",
    )
    c.add_argument("--lesions", type=Path, help="folder with patients/ and shapes.npz, to inpaint")
    c.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    c.add_argument("--threads", type=int, default=2)
    c.add_argument("--workers", type=int, default=1)

    c = commands.add_parser("evaluate", help="score a network on painted lesions of subjects kept apart")
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("model", help="name or ONNX file")
    c.add_argument("--lesions", type=Path, help="folder with patients/ and shapes.npz, to inpaint")
    c.add_argument(
        "--second-pass",
        default="none",
        metavar="MODEL",
        help="non-blind network that fills again what a blind one found",
    )
    c.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    c.add_argument("--subjects", nargs="+", help="subjects of the cache in place of a split (inpainting)")
    c.add_argument("--threads", type=int, default=2)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figure", type=Path, help="image file for the three worst subjects (inpainting)")

    c = commands.add_parser("compare", help="score networks and classical ways on the same holes")
    c.add_argument("config", help="names the subjects, and the patients that lend their lesions")
    c.add_argument("cache", type=Path)
    c.add_argument("models", nargs="+", help="names or ONNX files")
    c.add_argument("--lesions", type=Path, required=True, help="folder with patients/ and shapes.npz")
    c.add_argument("--holes", choices=["lesions", "blobs", "squares"], default="lesions")
    c.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    c.add_argument("--sampler", choices=options.SAMPLERS)
    c.add_argument("--sampling-steps", type=int)
    c.add_argument("--threads", type=int, default=2)
    c.add_argument("--output", type=Path, help="JSON file for the scores")
    c.add_argument("--figures", type=Path, help="folder for pictures of three subjects")

    c = commands.add_parser(
        "cross-validate",
        help="train FLAIR synthesis and its baselines on all patients but a fold's, and score",
    )
    c.add_argument("config")
    c.add_argument("cache", type=Path)
    c.add_argument("run", type=Path, help="where the runs of all modes and folds go")
    c.add_argument("--lesions", type=Path, required=True, help="folder with patients/ and shapes.npz")
    c.add_argument("--folds", type=int, default=2)
    c.add_argument("--modes", nargs="+", choices=["joint", "offline", "unimodal"], default=[])
    c.add_argument("--start", type=Path, help="folder with MODE/checkpoint.pt to start from")
    c.add_argument("--threads", type=int, default=2)

    c = commands.add_parser("export", help="write a checkpoint as ONNX with its card")
    c.add_argument("config")
    c.add_argument("checkpoint", type=Path)
    c.add_argument("output", type=Path, help="the ONNX file; the card goes beside it")
    c.add_argument("--scores", type=Path, help="JSON of evaluate, for the card")
    c.add_argument("--lesion-threshold", type=float, default=0.12)
    return p


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, or 1 after a sentence about what was wrong."""
    command = parser()
    args = command.parse_args(argv)
    try:
        _run(command, args)
    except ValueError as error:
        print(f"bids_inpaint.training: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    labels = tuple(label.removeprefix("sub-") for label in getattr(args, "participant_label", ()))
    if args.command == "prepare":
        from bids_inpaint.training.prepare import prepare

        count = prepare(
            args.bids_dir, args.cache, args.work_dir, args.nprocs, labels, args.lesion_masks
        )  # fmt: skip
        print(count, "images cached")
        return
    if args.command == "paint":
        from bids_inpaint.training.paint import paint_dataset

        count = paint_dataset(
            args.bids_dir, args.output_dir, args.lesions, args.work_dir, args.nprocs, labels,
            tuple(args.patients), args.seed,
        )  # fmt: skip
        print(count, "images painted")
        return
    if args.command == "targets":
        from bids_inpaint.training.prepare import make_targets

        print(make_targets(args.model, args.cache, args.threads), "targets made")
        return
    if args.command == "prepare-labels":
        from bids_inpaint.training.prepare import prepare_labels

        args.work_dir.mkdir(parents=True, exist_ok=True)
        print(prepare_labels(args.labels, args.cache, args.work_dir), "label maps cached")
        return
    from bids_inpaint.training.config import Config

    config = Config.load(args.config)
    if args.command in ("fit", "evaluate") and config.task != "brain" and not args.lesions:
        command.error(f"{args.command} of this network needs --lesions")
    if args.command == "fit":
        from bids_inpaint.training.adversarial import Adversarial
        from bids_inpaint.training.diffusion import Diffusion
        from bids_inpaint.training.extraction import BrainExtraction
        from bids_inpaint.training.fit import Task, fit
        from bids_inpaint.training.inpainting import Inpainting
        from bids_inpaint.training.joint import JointSynthesis

        if args.start:
            config = replace(config, fit=replace(config.fit, start=args.start))
        task: Task
        if config.task == "brain":
            task = BrainExtraction(config, args.cache)
        elif config.engine == "joint":
            task = JointSynthesis(config, args.cache, args.lesions)
        elif config.engine == "ddpm":
            task = Diffusion(config, args.cache, args.lesions)
        elif config.engine == "ip-medgan":
            task = Adversarial(config, args.cache, args.lesions, args.device)
        else:
            task = Inpainting(config, args.cache, args.lesions)
        print(fit(config, task, args.run, args.device, args.threads, args.workers))
    elif args.command == "evaluate" and config.task == "brain":
        from bids_inpaint.training.evaluate import evaluate_brain

        evaluate_brain(config, args.cache, args.model, args.split, args.threads, args.output)
    elif args.command == "evaluate" and config.task == "flair":
        from bids_inpaint.training.cross_validation import score

        names = args.subjects or getattr(config.data, args.split)
        score(
            config, args.cache, args.lesions, args.model, names, args.threads, args.output, args.figure
        )  # fmt: skip
    elif args.command == "cross-validate":
        from bids_inpaint.training.cross_validation import cross_validate
        from bids_inpaint.training.joint import MODES

        cross_validate(
            config, args.cache, args.lesions, args.run, args.folds, args.modes or MODES, args.start,
            args.threads,
        )  # fmt: skip
    elif args.command == "evaluate":
        from bids_inpaint.training.evaluate import evaluate

        names = args.subjects or getattr(config.data, args.split)
        evaluate(
            config, args.cache, args.lesions, args.model, names, args.threads, args.output, args.figure,
            args.second_pass,
        )  # fmt: skip
    elif args.command == "compare":
        from bids_inpaint.inference import Runtime
        from bids_inpaint.training.compare import compare

        runtime = Runtime(threads=args.threads, sampler=args.sampler, steps=args.sampling_steps)
        names = getattr(config.data, args.split)
        compare(
            config, args.cache, args.lesions, names, args.models, args.holes, runtime, args.output,
            args.figures,
        )  # fmt: skip
    else:
        from bids_inpaint.training.export import export

        export(config, args.checkpoint, args.output, args.scores, args.lesion_threshold)


if __name__ == "__main__":
    sys.exit(main())
