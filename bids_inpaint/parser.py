"""The argument parser of the command line. Nothing heavy is imported for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bids_inpaint import __version__, options


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of an option that has a value, and only then."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.nargs == 0 or action.default in (None, []):
            return action.help
        return super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The argument parser of ``bids_inpaint``."""
    p = argparse.ArgumentParser(
        prog="bids_inpaint",
        description="Make brain MRI with lesions usable by tools made for healthy brains: inpainted "
        "T1w images, lesion maps and tissue maps, without lesion masks and without network access.",
        formatter_class=_HelpFormatter,
    )
    p.add_argument("bids_dir", type=Path, help="root of the BIDS dataset")
    p.add_argument("output_dir", type=Path, help="where derivatives and reports are written")
    p.add_argument(
        "analysis_level",
        choices=options.LEVELS,
        help="work on each participant, gather the results of those that are finished, or export them as a "
        "raw dataset for other tools",
    )
    p.add_argument("--version", action="version", version=f"bids_inpaint {__version__}")
    for add in (*_SHARED, *_PARTICIPANT_LEVEL, *_EXPORT_LEVEL):
        add(p)
    return p


def _add_selection(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Data (all levels)")
    g.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        default=[],
        type=options.label("sub-"),
        help="participants, with or without 'sub-' (default: all)",
    )
    g.add_argument(
        "--session-label",
        "--session_label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        default=[],
        type=options.label("ses-"),
        help="sessions, with or without 'ses-' (default: all)",
    )
    g.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON with PyBIDS filters for T1w, such as {"t1w": {"acquisition": "mprage"}}',
    )
    g.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="folder of a PyBIDS database; made there if missing, reused otherwise",
    )
    g.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="don't check the dataset with the BIDS validator (the group level never does)",
    )


def _add_derivatives(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Derivatives and standard space (both levels)")
    g.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        action="extend",
        metavar="[NAME=]PATH",
        default=[],
        type=options.named_path,
        help="BIDS derivatives whose brain masks (desc-brain_mask) and affines to the "
        "template (from-T1w_to-TEMPLATE_mode-image_xfm.txt) are used instead of our own; a folder without "
        "NAME= has its own name",
    )
    g.add_argument(
        "--lesion-masks",
        type=Path,
        metavar="DIR",
        help="BIDS derivative with lesion masks (label-L_mask or label-lesion_mask, or another label of the "
        "Type Lesion in its sidecar) on the T1w or in the space of --template. A non-blind "
        "network fills these lesions; beside a blind one they lead to a second, non-blind filling, the "
        "reference. The group level compares the lesion maps with these masks, or without them with those "
        "of the participant level",
    )
    g.add_argument(
        "--template",
        metavar="NAME",
        default=options.TEMPLATE,
        help="standard space in MNI152 coordinates, by its TemplateFlow identifier",
    )


def _add_ratings(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Ratings (group level)")
    g.add_argument(
        "--ratings",
        nargs="+",
        action="extend",
        metavar="FILE",
        default=[],
        type=Path,
        help="tables of ratings that the reports saved; images that they exclude stay out of statistics "
        "(default: all tables in the folder ratings of the output folder)",
    )


def _add_running(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Running (both levels)")
    g.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        default=Path(options.WORK_DIR),
        help="intermediate results; a rerun continues from them",
    )
    g.add_argument("--nprocs", type=int, metavar="N", help="processors in all (default: those available)")
    g.add_argument("-v", "--verbose", action="count", default=0, help="more log lines; repeat for debug")


def _add_execution(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group(
        "Running (participant level)",
        "The group level accepts these options, so that both levels may have the same command line, and has "
        "no use for them.",
    )
    g.add_argument(
        "--clean-workdir",
        action="store_true",
        help="first remove from the work folder what earlier runs of this program left there; what other "
        "runs are working on, and the files of others, stay",
    )
    g.add_argument(
        "--omp-nthreads",
        type=int,
        metavar="N",
        help="threads of one step (default: processors divided by images, 1 to 8)",
    )
    g.add_argument(
        "--mem-gb", type=float, metavar="GB", help="memory in all (default: 90%% of what is available)"
    )
    g.add_argument(
        "--use-plugin", type=Path, metavar="FILE", help="YAML with a Nipype plugin and its arguments"
    )
    g.add_argument(
        "--device", choices=options.DEVICES, default=options.DEVICES[0], help="where the network runs"
    )
    g.add_argument("--stop-on-first-crash", action="store_true", help="stop everything at the first failure")


def _add_inpainting(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Inpainting (participant level alone)")
    g.add_argument(
        "--model",
        metavar="MODEL",
        default=options.MODEL,
        help="network by name, or path of an exported ONNX file; one that isn't blind fills the lesions of "
        "--lesion-masks, or those that the default network finds",
    )
    g.add_argument(
        "--second-pass",
        metavar="MODEL",
        default=options.SECOND_PASS,
        help="non-blind network that fills again what a blind one found (the result is the mean of both "
        f"fillings), or '{options.NO_SECOND_PASS}'",
    )
    g.add_argument(
        "--sampler",
        choices=options.SAMPLERS,
        help="how a diffusion model draws (default: the network's own)",
    )
    g.add_argument(
        "--sampling-steps",
        type=int,
        metavar="N",
        help="steps of the sampler, 1 to 1000 (default: the network's own)",
    )
    g.add_argument(
        "--tta",
        action="store_true",
        help="also show each network the mirror image of the brain and take the mean (test-time "
        "augmentation), and write how far fillings and lesion probabilities differ (desc-uncertainty)",
    )
    g.add_argument(
        "--edits",
        type=Path,
        metavar="DIR",
        help="folder with lesion maps that people corrected (label-L_desc-edited_mask), on the voxels of the "
        "T1w or on those of the map in standard space: images that have one are filled by it",
    )
    g.add_argument(
        "--fill",
        choices=options.FILLS,
        default=options.FILLS[0],
        help="change the T1w only at the lesions, or take the network's whole output",
    )
    g.add_argument(
        "--flair",
        nargs="?",
        const=options.FLAIR,
        metavar="MODEL",
        help="also make a second lesion map, by the T1w and the FLAIR beside it; where there is none, make "
        f"one of the T1w with '{options.FLAIR}' or the ONNX file of a network trained to do so",
    )
    g.add_argument(
        "--random-seed", type=int, metavar="N", default=options.RANDOM_SEED, help="seed of everything random"
    )
    g.add_argument("--sloppy", action="store_true", help="low quality, for tests only")


def _add_maps(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("Brain, lesions and tissues (participant level alone)")
    g.add_argument(
        "--skull-strip",
        choices=options.SKULL_STRIP,
        default=options.SKULL_STRIP[0],
        help="recognise stripped images, always extract the brain, or never",
    )
    g.add_argument(
        "--bias-correction",
        choices=options.BIAS_CORRECTIONS,
        default=options.BIAS_CORRECTIONS[0],
        help="remove the bias field with the app's N4, or with that of ANTs, which is slower",
    )
    g.add_argument(
        "--lesion-map",
        choices=options.LESION_MAPS,
        help="map lesions by the probability that the blind network tells, or by the difference of the "
        "original and the inpainted image in white matter (default: probability, if the network tells it and "
        "--lesion-threshold isn't given alone)",
    )
    g.add_argument(
        "--lesion-threshold",
        type=float,
        metavar="X",
        help="with --lesion-map probability: how probable a lesion must be. With --lesion-map difference, "
        "or alone: λ, how much darker than its inpainted value a voxel must be to count as lesion, as a "
        "fraction of normal-appearing white matter (default: the network's own)",
    )
    g.add_argument(
        "--lesion-min-volume",
        type=float,
        default=options.LESION_MIN_VOLUME,
        metavar="MM3",
        help="smallest lesion kept, in mm³",
    )
    g.add_argument(
        "--segmentation",
        choices=options.SEGMENTATIONS,
        default=options.SEGMENTATIONS[0],
        help="what segments the inpainted image into tissues: the app's Gaussian mixture, Atropos of ANTs or "
        "SPM12; with none, lesions are looked for in the template's white matter",
    )
    together = "process the sessions of a person together; keep those that are finished, or process all anew"
    g.add_argument("--longitudinal", nargs="?", const="keep", choices=options.LONGITUDINAL, help=together)
    g.add_argument(
        "--compare-segmentation", action="store_true", help="segment the original image too, lesions and all"
    )
    g.add_argument(
        "--spm12",
        type=Path,
        metavar="DIR",
        help="folder of SPM12, run by MATLAB or GNU Octave (default: $BIDS_INPAINT_SPM12; without a folder, "
        "the standalone SPM12 of $SPMMCRCMD)",
    )


def _add_outcomes(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("What comes out (participant level alone)")
    g.add_argument(
        "--strict", action="store_true", help="end with exit code 1 if there is a warning about any image"
    )
    g.add_argument("--write-graph", action="store_true", help="write the graph of the workflow and go on")
    g.add_argument(
        "--reports-only", action="store_true", help="only write the reports of finished work again"
    )
    g.add_argument("--boilerplate-only", action="store_true", help="only write the methods text")


def _add_export(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group(
        "Export (export level alone)",
        "The export is a raw BIDS dataset with the inpainted T1w images, and with all else of the dataset.",
    )
    g.add_argument(
        "--export-dir", type=Path, metavar="DIR", help="new folder, or one of an earlier export, to write to"
    )
    g.add_argument(
        "--export-files",
        choices=options.EXPORT_FILES,
        default=options.EXPORT_FILES[0],
        help="how all else comes there. Links take no space: a tool that writes into a hard link changes the "
        "original, and symbolic links lead nowhere in a container that doesn't have the original",
    )
    g.add_argument("--unzipped", action="store_true", help="write images as .nii, as SPM and CAT12 read them")
    g.add_argument(
        "--lesion-rois",
        action="store_true",
        help="also write the lesion map beside each T1w, as fMRIPrep reads it (T1w_label-lesion_roi)",
    )
    g.add_argument(
        "--include-warned",
        action="store_true",
        help="also export images with quality warnings, which are left out otherwise",
    )


#: What adds the options that all levels accept: what is worked on, and where and how a run goes.
_SHARED = (_add_selection, _add_derivatives, _add_ratings, _add_running, _add_execution)
#: What adds the options that decide over the results or the exit code of the participant level.
_PARTICIPANT_LEVEL = (_add_inpainting, _add_maps, _add_outcomes)
_EXPORT_LEVEL = (_add_export,)


def options_of_others(argv: Sequence[str], level: str) -> list[str]:
    """Options on a command line that a level does not have, as ``--model`` at the group level."""
    alone = argparse.ArgumentParser(add_help=False)
    for its, adds in (("participant", _PARTICIPANT_LEVEL), ("export", _EXPORT_LEVEL)):
        for add in adds if its != level else ():
            add(alone)
    names = list(vars(alone.parse_args([])))
    # the parser replaces what is there already only where an option was given, be it by its default
    untouched = object()
    args = parser().parse_args(argv, argparse.Namespace(**dict.fromkeys(names, untouched)))
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not untouched]
