"""What the options of the program may be, and what they are by default. Nothing heavy is imported for it.

The parser, :class:`bids_inpaint.settings.Settings` and the nodes take their choices and defaults from here.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from bids_inpaint.errors import InputError

#: Levels of analysis, as BIDS Apps have them, and one that hands their results to other tools.
Level = Literal["participant", "group", "export"]
#: Where a network runs.
Device = Literal["auto", "cpu", "cuda"]
#: How a diffusion model draws.
Sampler = Literal["ddim", "heun", "ddpm"]
#: What of the T1w is changed: the lesions, or all that a network changes.
Fill = Literal["lesions", "full"]
#: What lesions are mapped by: how probable a network finds them, or how much darker than inpainted they are.
LesionMap = Literal["probability", "difference"]
#: What becomes of visits that are finished if others are added: they are kept, or all are processed anew.
Longitudinal = Literal["keep", "anew"]
#: What segments brains into tissues.
Segmentation = Literal["gmm", "atropos", "spm12", "none"]
#: Whose N4 removes the bias field: the app's or that of ANTs.
BiasCorrection = Literal["n4", "ants"]
#: How the files of a dataset come into its export.
ExportFiles = Literal["copy", "hardlink", "symlink"]
#: Whether brains are extracted: if the image is not stripped yet, always or never.
SkullStrip = Literal["auto", "force", "skip"]

# the first of each is the default, but where networks differ (samplers and lesion maps), and --longitudinal
LEVELS: tuple[Level, ...] = get_args(Level)
DEVICES: tuple[Device, ...] = get_args(Device)
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
FILLS: tuple[Fill, ...] = get_args(Fill)
LESION_MAPS: tuple[LesionMap, ...] = get_args(LesionMap)
LONGITUDINAL: tuple[Longitudinal, ...] = get_args(Longitudinal)
SEGMENTATIONS: tuple[Segmentation, ...] = get_args(Segmentation)
BIAS_CORRECTIONS: tuple[BiasCorrection, ...] = get_args(BiasCorrection)
SKULL_STRIP: tuple[SkullStrip, ...] = get_args(SkullStrip)
EXPORT_FILES: tuple[ExportFiles, ...] = get_args(ExportFiles)
#: The choices of each option that has some, by the name of its setting.
CHOICES: dict[str, tuple[str, ...]] = {
    "device": DEVICES,
    "sampler": SAMPLERS,
    "fill": FILLS,
    "lesion_map": LESION_MAPS,
    "longitudinal": LONGITUDINAL,
    "segmentation": SEGMENTATIONS,
    "skull_strip": SKULL_STRIP,
    "bias_correction": BIAS_CORRECTIONS,
    "export_files": EXPORT_FILES,
}

#: Shipped networks: the default one, which is blind; the non-blind one of the second pass, which also fills
#: the lesions of given masks; the one that makes a FLAIR.
MODEL = "blind-unet"
SECOND_PASS = "unet"
FLAIR = "joint"
#: For --second-pass: there is none.
NO_SECOND_PASS = "none"
#: TemplateFlow identifier of the standard space.
TEMPLATE = "MNI152NLin2009aSym"
#: Volume of the smallest lesion, mm³.
LESION_MIN_VOLUME = 10.0
RANDOM_SEED = 0
WORK_DIR = "work"
#: Steps of the noising of a diffusion model, of which a sampler takes some.
SAMPLING_STEPS = 1000


def check_steps(steps: int) -> None:
    """Raise `InputError` for a number of steps that can't be taken."""
    if not 1 <= steps <= SAMPLING_STEPS:
        raise InputError(f"--sampling-steps {steps} is out of range: 1 to {SAMPLING_STEPS}.")


def label(prefix: str) -> Callable[[str], str]:
    """What reads a label of BIDS on the command line, with or without its prefix."""

    def strip(text: str) -> str:
        return text.removeprefix(prefix)

    strip.__name__ = "label"
    return strip


def named_path(text: str) -> tuple[str, Path]:
    """Name and folder of a derivative: a folder alone has its own name, as for fMRIPrep."""
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, path = re.sub(r"[^A-Za-z0-9_.-]", "-", os.path.basename(os.path.abspath(text))), text
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH or PATH")
    return name, Path(path)
