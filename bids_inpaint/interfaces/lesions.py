"""Lesion masks that are given, and lesion maps that are made, as nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint import options
from bids_inpaint.dataset import masks
from bids_inpaint.imaging import feathering, lesions
from bids_inpaint.imaging.intensity import Scale, white_level
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID


class LesionMaskInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="binary lesion mask on any grid")
    t1w = File(exists=True, mandatory=True, users=True, desc="image that the mask belongs to")
    xfm = File(exists=True, mandatory=True, desc="ITK text: takes images from the T1w to the template")
    brain_mask = File(exists=True, desc="on the working grid; the lesions must touch it")
    preproc = File(exists=True, desc="on the working grid, to see whether the lesions are dark")
    wm_prior = File(exists=True, desc="for its white-matter level")
    inverse_xfm = File(exists=True, desc="for the mask on the voxels of the T1w, too")
    space = traits.Enum("T1w", "template", usedefault=True, desc="where the given mask lies")


class LesionMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="lesions on the working grid")
    void_file = File(exists=True, desc="all voxels that the lesions reach, which are to be filled")
    native_file = File(desc="on the voxels of the T1w")
    warnings = traits.List(traits.Str, desc="what is unusual about the mask")


class LesionMask(FileInterface):
    """Bring a given lesion mask, in T1w or template space, onto the working grid and back to the T1w's.

    Each is resampled from the given mask, at most once.
    """

    input_spec = LesionMaskInputSpec
    output_spec = LesionMaskOutputSpec

    def process(self, runtime) -> dict:
        world = read_xfm(self.inputs.xfm) if self.inputs.space == "T1w" else None
        brain = None
        if isdefined(self.inputs.brain_mask):
            brain = images.read(self.inputs.brain_mask)[0] > 0
        if self.inputs.space == "T1w":
            masks.check_place(self.inputs.in_file, self.inputs.t1w)
        warnings: list[str] = []
        out, reached = masks.read_lesions_and_reach(
            self.inputs.in_file, WORKING_GRID, self.inputs.t1w, world, brain, warnings
        )
        if isdefined(self.inputs.preproc) and brain is not None:
            image = images.read(self.inputs.preproc)[0]
            white = white_level(image, brain, images.read(self.inputs.wm_prior)[0])
            if masks.darker_side(image, out, white) < masks.BRIGHTER:
                warnings.append(
                    f"{Path(self.inputs.in_file).name}: the given lesions are brighter than the same places "
                    "of the other hemisphere; check that left and right are not swapped."
                )
        out_file, void_file = (within(runtime, f"{name}.nii.gz") for name in ("lesions", "void"))
        outputs: dict[str, Any] = {
            "out_file": images.save(out_file, out, WORKING_GRID, np.uint8, space_code=4),
            "void_file": images.save(void_file, reached, WORKING_GRID, np.uint8, space_code=4),
            "warnings": warnings,
        }
        if isdefined(self.inputs.inverse_xfm):
            grid = images.grid_of(images.load(self.inputs.t1w))
            back = read_xfm(self.inputs.inverse_xfm) if self.inputs.space == "template" else None
            native = masks.read_lesions(self.inputs.in_file, grid, self.inputs.t1w, back)
            outputs["native_file"] = images.save(within(runtime, "native.nii.gz"), native, grid, np.uint8)
        return outputs


class MapLesionsInputSpec(InputSpec):
    preproc = File(exists=True, mandatory=True, desc="preprocessed brain on the working grid")
    inpainted = File(exists=True, mandatory=True, desc="the same without its lesions")
    wm = File(exists=True, mandatory=True, desc="probability of white matter in the inpainted brain")
    wm_prior = File(exists=True, mandatory=True, desc="probability of white matter in the template")
    white = traits.Float(mandatory=True, desc="white-matter level")
    exponent = traits.Float(mandatory=True, desc="of the standard contrast")
    lesion_map = traits.Enum(*options.LESION_MAPS, mandatory=True, desc="what tells lesions")
    lesion_probability = File(exists=True, desc="of a lesion, for a map of it")
    threshold = traits.Float(mandatory=True, desc="probability, or fraction of normal-appearing white matter")
    low = traits.Float(0.0, usedefault=True, desc="least probability of a voxel of a lesion")
    min_volume = traits.Float(mandatory=True, desc="mm³")
    given = File(exists=True, desc="lesion mask (working grid) to use in place of the map")
    decided = File(
        exists=True, desc="lesions (working grid) by the probabilities of all visits of the person"
    )


class MapLesionsOutputSpec(TraitedSpec):
    mask = File(exists=True, desc="lesions on the working grid")
    probability = File(
        exists=True,
        desc="of a lesion, 0-1; from a difference, a graded map with 0.5 at the threshold",
    )
    darkening = File(exists=True, desc="inpainted minus original, as a fraction of white matter")
    weight = File(exists=True, desc="feathered lesion support, 0-1")


class MapLesions(FileInterface):
    """Lesion map from the probability of lesions, or from the difference to the inpainted version."""

    input_spec = MapLesionsInputSpec
    output_spec = MapLesionsOutputSpec

    def process(self, runtime) -> dict:
        preproc, grid = images.read(self.inputs.preproc)
        inpainted = images.read(self.inputs.inpainted)[0]
        wm = images.read(self.inputs.wm)[0]
        scale = Scale(self.inputs.white, self.inputs.exponent)
        dark = lesions.darkening(scale.apply(preproc), scale.apply(inpainted), wm)
        if isdefined(self.inputs.given):
            mask = images.read(self.inputs.given)[0] > 0
            # a person corrects the map, and not what the network told
            told = isdefined(self.inputs.lesion_probability)
            graded = images.read(self.inputs.lesion_probability)[0] if told else mask
        elif self.inputs.lesion_map == "probability":
            graded = images.read(self.inputs.lesion_probability)[0]
            if isdefined(self.inputs.decided):
                mask = images.read(self.inputs.decided)[0] > 0
            else:
                mask = lesions.find_probable(graded, rule_of(self.inputs), grid)
        else:
            prior = images.read(self.inputs.wm_prior)[0]
            graded, mask = lesions.find(dark, wm, prior, rule_of(self.inputs), grid)
        volumes: dict[str, np.ndarray] = {
            "mask": mask.astype(np.uint8),
            "probability": graded.astype(np.float32),
            "darkening": dark,
            "weight": feathering.feather(mask, grid),
        }
        return {
            key: images.save(
                within(runtime, f"{key}.nii.gz"),
                v,
                grid,
                space_code=4,
                scratch=key in ("darkening", "weight"),
            )
            for key, v in volumes.items()
        }


def rule_of(inputs: Any) -> lesions.Rule:
    """What counts as a lesion, by the inputs of a node that looks for them."""
    return lesions.Rule(inputs.lesion_map, inputs.threshold, inputs.low, inputs.min_volume)
