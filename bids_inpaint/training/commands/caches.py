"""Commands that make the data to train with."""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_inpaint.training.commands.base import (
    Command,
    add_lesions,
    add_threads,
    add_without,
    add_work_dir,
    configuration,
    participants,
)


def _prepare_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("bids_dir", type=Path)
    c.add_argument("cache", type=Path)
    add_work_dir(c)
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--nprocs", type=int, default=2)
    c.add_argument("--lesion-masks", type=Path, help="BIDS derivative with the lesion masks of patients")


def _prepare(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import prepare

    labels = participants(args.participant_label)
    count = prepare(args.bids_dir, args.cache, args.work_dir, args.nprocs, labels, args.lesion_masks)
    print(count, "images cached")


def _prepare_labels_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("labels", type=Path, help="folder of the label maps")
    c.add_argument("cache", type=Path)
    add_work_dir(c)


def _prepare_labels(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import prepare_labels

    args.work_dir.mkdir(parents=True, exist_ok=True)
    print(prepare_labels(args.labels, args.cache, args.work_dir), "label maps cached")


def _targets_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("model", help="name or ONNX file")
    c.add_argument("cache", type=Path)
    add_threads(c)


def _targets(args: argparse.Namespace) -> None:
    from bids_inpaint.training.prepare import make_targets

    print(make_targets(args.model, args.cache, args.threads), "targets made")


def _paint_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("bids_dir", type=Path)
    c.add_argument("output_dir", type=Path, help="BIDS dataset to write; masks go to derivatives/painted")
    add_lesions(c)
    c.add_argument("--patients", nargs="+", default=[], help="those that lend their lesions; all by default")
    c.add_argument("--participant-label", nargs="+", default=[])
    c.add_argument("--seed", type=int, default=0)
    add_work_dir(c)
    c.add_argument("--nprocs", type=int, default=2)


def _paint(args: argparse.Namespace) -> None:
    from bids_inpaint.training.paint import paint_dataset

    count = paint_dataset(
        args.bids_dir,
        args.output_dir,
        args.lesions,
        args.work_dir,
        args.nprocs,
        participants(args.participant_label),
        tuple(args.patients),
        args.seed,
    )
    print(count, "images painted")


def _pack_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("cache", type=Path)
    c.add_argument("folder", type=Path, help="where pack-NN.zip go")
    c.add_argument("subjects", nargs="+")
    c.add_argument(
        "--steps", type=int, default=256, help="intensities are rounded to this fraction of white matter"
    )
    c.add_argument("--without", nargs="+", default=[], choices=["flair", "target"], help="what to leave out")
    c.add_argument("--nprocs", type=int, default=2)


def _pack(args: argparse.Namespace) -> None:
    from bids_inpaint.training.packing import pack

    packs = pack(args.cache, args.subjects, args.folder, args.steps, nprocs=args.nprocs, without=args.without)
    for path in packs:
        print(path, path.stat().st_size)


def _unpack_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("packs", type=Path, nargs="+")
    c.add_argument("cache", type=Path)
    c.add_argument("--nprocs", type=int, default=2)


def _unpack(args: argparse.Namespace) -> None:
    from bids_inpaint.training.packing import unpack

    print(unpack(args.packs, args.cache, args.nprocs), "subjects unpacked")


def _pairs_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("config", help="of a network for a FLAIR, or plan of a campaign of such")
    c.add_argument("cache", type=Path)
    add_lesions(c)
    add_without(c)
    c.add_argument("--nprocs", type=int, default=2)


def _pairs(args: argparse.Namespace) -> None:
    from bids_inpaint.training.campaign import configured, is_plan, read_plan
    from bids_inpaint.training.stored_pairs import pairs_of

    path = Path(args.config)
    if is_plan(path):
        configs = [configured(entry, path, Path(), args.without) for entry in read_plan(path)]
    else:
        configs = [configuration(args)]
    for config in configs:
        if config.task != "flair":
            raise ValueError(f"{args.config}: {config.name} learns from no pairs of T1w and FLAIR")
    print(pairs_of(configs, args.cache, args.lesions, args.nprocs), "pairs stored")


#: By name.
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
    "pack": Command("write subjects of a cache into files below 60 MB", _pack_options, _pack),
    "pairs": Command(
        "make the pairs of T1w and FLAIR that a network learns from, ahead of fit", _pairs_options, _pairs
    ),
    "unpack": Command("make a cache of what pack wrote", _unpack_options, _unpack),
}
