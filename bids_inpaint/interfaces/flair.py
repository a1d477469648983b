"""FLAIR images as nodes: a real one beside its T1w, and one made from the T1w."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from bids_inpaint.errors import FilterFailed, InputError
from bids_inpaint.imaging import bias, brain
from bids_inpaint.imaging.conform import conform
from bids_inpaint.imaging.flair import Both, lacking, why_not_flair
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.lesions import Rule, find_probable
from bids_inpaint.imaging.multimodal import rigid
from bids_inpaint.imaging.processes import alone
from bids_inpaint.interfaces.base import FileInterface, InputSpec, NetworkInputSpec, within
from bids_inpaint.interfaces.visits import write_xfm
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import flair, inpainting, registry, session
from bids_inpaint.space import WORKING_GRID, Grid, resample


class FlairToWorkingGridInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="FLAIR of the same head")
    t1w = File(exists=True, mandatory=True, users=True, desc="the T1w that the affine is of")
    xfm = File(exists=True, mandatory=True, desc="ITK text: takes images from the T1w to the template")
    mask_file = File(exists=True, mandatory=True, desc="brain on the working grid")


class FlairToWorkingGridOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR of the brain without its bias, on the working grid")
    native_file = File(exists=True, desc="FLAIR as it is, on the voxels of the T1w")
    out_xfm = File(exists=True, desc="ITK text: takes images from the FLAIR to the T1w")
    stripped = traits.Bool(desc="whether it shows the brain alone")
    warnings = traits.List(traits.Str, desc="what is unusual about the file")


class FlairToWorkingGrid(FileInterface):
    """Register a FLAIR rigidly to its T1w, resample it once onto the working grid, and correct its bias."""

    input_spec = FlairToWorkingGridInputSpec
    output_spec = FlairToWorkingGridOutputSpec

    def process(self, runtime) -> dict:
        warnings: list[str] = []
        data, grid = images.load_t1w(self.inputs.in_file, warnings)
        conformed = conform(data)
        name = Path(self.inputs.in_file).name
        t1w, t1w_grid = images.read(self.inputs.t1w)
        mask = images.read(self.inputs.mask_file)[0] > 0
        to_t1w = read_xfm(self.inputs.xfm)
        inside = (
            resample(mask.astype(np.float32), WORKING_GRID, t1w_grid, np.linalg.inv(to_t1w), order=1) > 0.5
        )
        try:
            to_flair = alone(rigid, t1w, inside, t1w_grid, conformed.data, grid, runtime.cwd)
        except FilterFailed as error:
            raise InputError(
                f"{self.inputs.in_file} can't be registered to {self.source} ({error}): check that both are "
                "of one head, or remove it."
            ) from None
        plain = np.maximum(conformed.data, 0)
        out = resample(plain, grid, WORKING_GRID, to_flair @ to_t1w, order=3, mask=mask)
        corrected = bias.correct(out, mask, bias.n4)[0]
        native = resample(data, grid, t1w_grid, to_flair, order=3)
        return {
            "out_file": _save(runtime, "flair", corrected, WORKING_GRID, np.float32, 4),
            "native_file": _save(runtime, "native_flair", native, t1w_grid, np.float32, 1),
            "out_xfm": write_xfm(within(runtime, "flair_to_t1w.txt"), to_flair),
            "stripped": brain.stripped_mask(conformed.data, grid) is not None,
            "warnings": [*warnings, *(f"{name}: {clause}." for clause in conformed.warnings)],
        }


class FindByFlairInputSpec(NetworkInputSpec):
    flair = File(exists=True, mandatory=True, desc="without its bias, on the working grid")
    flair_source = File(exists=True, mandatory=True, desc="as the user has it, for messages")
    working_mask = File(exists=True, mandatory=True, desc="the brain on the working grid")
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    inverse_xfm = File(exists=True, mandatory=True, desc="takes the template to the T1w")
    min_volume = traits.Float(mandatory=True, desc="of a lesion (mm³)")
    flair_warnings = traits.List(traits.Str, desc="what is unusual about the file of the FLAIR")


class FindByFlairOutputSpec(TraitedSpec):
    mask = File(exists=True, desc="lesions on the working grid")
    native_mask = File(exists=True, desc="lesions on the voxels of the T1w")
    native_probability = File(exists=True, desc="of a lesion, on the voxels of the T1w, 0-1")
    warnings = traits.List(traits.Str, desc="what is unusual about the FLAIR")


class FindByFlair(FileInterface):
    """Find the lesions by a T1w and a FLAIR together."""

    input_spec = FindByFlairInputSpec
    output_spec = FindByFlairOutputSpec

    def process(self, runtime) -> dict:
        model = registry.find(self.inputs.model, sha256=self.inputs.model_sha256)
        data, source = images.read(self.inputs.in_file)
        seen = images.read(self.inputs.flair)[0]
        mask = images.read(self.inputs.working_mask)[0] > 0
        white, grey = (images.read(path)[0] for path in (self.inputs.wm_prior, self.inputs.gm_prior))
        scale = Scale.measure(data, mask, white, grey)
        standard = scale.apply(data)
        if reason := why_not_flair(seen, standard, mask, grey, white):
            raise self._unusable(reason)
        options = session.Runtime(self.inputs.device, self.inputs.num_threads)
        filled = inpainting.inpaint(model, data, mask, scale, None, options, (white, grey))
        by_flair = model.card.lesion_by_flair
        assert filled.probability is not None
        assert by_flair is not None
        both = Both(standard, scale.apply(filled.image), filled.probability, seen, mask, white)
        try:
            probability = both.lesion_probability(by_flair)
        except ValueError as error:
            raise self._unusable(str(error)) from None
        rule = Rule("probability", by_flair.threshold, by_flair.threshold, self.inputs.min_volume)
        native, grid = images.read(self.inputs.brain_mask)
        world = read_xfm(self.inputs.inverse_xfm)
        likely = resample(probability, source, grid, world, order=1, mask=native > 0)

        return {
            "mask": _save(runtime, "mask", find_probable(probability, rule, source), source, np.uint8, 4),
            "native_mask": _save(
                runtime, "native_mask", find_probable(likely, rule, grid), grid, np.uint8, 1
            ),
            "native_probability": _save(runtime, "native_probability", likely, grid, np.float32, 1),
            "warnings": [*self.inputs.flair_warnings, *lacking(seen, mask)],
        }

    def _unusable(self, reason: str) -> InputError:
        return InputError(
            f"{self.inputs.flair_source} {reason}, and is not used: check that it is a FLAIR of the head of "
            f"{self.source}, or rename or remove it."
        )


class SynthesiseFlairInputSpec(NetworkInputSpec):
    working_mask = File(exists=True, mandatory=True, desc="the brain on the working grid")
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    inverse_xfm = File(exists=True, mandatory=True, desc="takes the template to the T1w")


class SynthesiseFlairOutputSpec(TraitedSpec):
    flair = File(exists=True, desc="on the working grid, white matter 1")
    mask = File(exists=True, desc="lesions on the working grid")
    native_flair = File(exists=True, desc="on the voxels of the T1w")
    native_mask = File(exists=True, desc="lesions on the voxels of the T1w")


class SynthesiseFlair(FileInterface):
    """Make a FLAIR and a lesion map from a T1w."""

    input_spec = SynthesiseFlairInputSpec
    output_spec = SynthesiseFlairOutputSpec

    def process(self, runtime) -> dict:
        model = registry.find(self.inputs.model, "flair", self.inputs.model_sha256)
        data, source = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.working_mask)[0] > 0
        priors = [images.read(path)[0] for path in (self.inputs.wm_prior, self.inputs.gm_prior)]
        scale = Scale.measure(data, mask, *priors)
        options = session.Runtime(self.inputs.device, self.inputs.num_threads)
        image, probability = flair.synthesise(model, data, mask, scale, priors, options)
        native, grid = images.read(self.inputs.brain_mask)
        brain = native > 0
        world = read_xfm(self.inputs.inverse_xfm)
        native_flair = resample(image, source, grid, world, order=3, mask=brain)
        lesions = resample(probability, source, grid, world, order=1, mask=brain) > 0.5

        return {
            "flair": _save(runtime, "flair", image, source, np.float32, 4),
            "mask": _save(runtime, "mask", probability > 0.5, source, np.uint8, 4),
            "native_flair": _save(runtime, "native_flair", native_flair, grid, np.float32, 1),
            "native_mask": _save(runtime, "native_mask", lesions, grid, np.uint8, 1),
        }


def _save(runtime, name: str, values: np.ndarray, grid: Grid, dtype, space_code: int) -> str:
    return images.save(within(runtime, f"{name}.nii.gz"), values, grid, dtype, space_code)
