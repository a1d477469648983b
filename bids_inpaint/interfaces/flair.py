"""FLAIR images as nodes: a real one beside its T1w, and one made from the T1w."""

from __future__ import annotations

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from bids_inpaint import flair, images, inference, models, options
from bids_inpaint.intensity import Scale
from bids_inpaint.interfaces.ants import alone, correct_bias, rigid
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.space import WORKING_GRID, resample
from bids_inpaint.transforms import read_xfm


class FlairToWorkingGridInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="FLAIR of the same head")
    t1w = File(exists=True, mandatory=True, users=True, desc="the T1w that the affine is of")
    xfm = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True, desc="brain on the working grid")


class FlairToWorkingGridOutputSpec(TraitedSpec):
    out_file = File(exists=True)


class FlairToWorkingGrid(FileInterface):
    """Register a FLAIR rigidly to its T1w, resample it once onto the working grid, and correct its bias."""

    input_spec = FlairToWorkingGridInputSpec
    output_spec = FlairToWorkingGridOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.load_t1w(self.inputs.in_file)
        t1w, t1w_grid = images.read(self.inputs.t1w)
        mask = images.read(self.inputs.mask_file)[0] > 0
        to_flair = alone(rigid, t1w, t1w_grid, data, grid, runtime.cwd)
        world = to_flair @ read_xfm(self.inputs.xfm)
        out = resample(np.maximum(data, 0), grid, WORKING_GRID, world, order=3, where=mask)
        corrected = correct_bias(out, mask, WORKING_GRID)[0]
        out_file = within(runtime, "flair.nii.gz")
        return {"out_file": images.save(out_file, corrected, WORKING_GRID, np.float32, space_code=4)}


class SynthesiseFlairInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed T1w on the working grid")
    working_mask = File(exists=True, mandatory=True)
    wm_prior = File(exists=True, mandatory=True)
    gm_prior = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    inverse_xfm = File(exists=True, mandatory=True)
    model = traits.Str(mandatory=True)
    model_sha256 = traits.Str(mandatory=True, desc="so that another file of that name is another run")
    device = traits.Enum(*options.DEVICES, usedefault=True)
    num_threads = traits.Int(1, usedefault=True, nohash=True)


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
        model = models.find(self.inputs.model, "flair")
        data, source = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.working_mask)[0] > 0
        priors = [images.read(path)[0] for path in (self.inputs.wm_prior, self.inputs.gm_prior)]
        scale = Scale.measure(data, mask, *priors)
        where = inference.Runtime(self.inputs.device, self.inputs.num_threads)
        made, probability = flair.synthesise(model, data, mask, scale, priors, where)
        native, grid = images.read(self.inputs.brain_mask)
        brain = native > 0
        world = read_xfm(self.inputs.inverse_xfm)
        native_flair = resample(made, source, grid, world, order=3, where=brain)
        lesions = resample(probability, source, grid, world, order=1, where=brain) > 0.5

        def save(name: str, values: np.ndarray, on, dtype, code: int) -> str:
            return images.save(within(runtime, f"{name}.nii.gz"), values, on, dtype, code)

        return {
            "flair": save("flair", made, source, np.float32, 4),
            "mask": save("mask", probability > 0.5, source, np.uint8, 4),
            "native_flair": save("native_flair", native_flair, grid, np.float32, 1),
            "native_mask": save("native_mask", lesions, grid, np.uint8, 1),
        }
