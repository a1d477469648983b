"""Bias field correction as a node."""

from __future__ import annotations

from functools import partial

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from bids_inpaint import options
from bids_inpaint.imaging import bias, itk
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images

#: What gives the field by each of the methods.
_ESTIMATES = {"n4": bias.n4, "ants": itk.n4}


class CorrectBiasInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain on the working grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the working grid")
    method = traits.Enum(*options.BIAS_CORRECTIONS, usedefault=True, desc="N4 of the app or of ANTs")
    sloppy = traits.Bool(False, usedefault=True, desc="fit the field on fewer voxels, for tests")


class CorrectBiasOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="brain without its bias, on the working grid")
    bias_file = File(exists=True, desc="multiplicative field: in_file = out_file × bias")


class CorrectBias(FileInterface):
    """N4 bias field correction inside the brain mask (Tustison 2010)."""

    input_spec = CorrectBiasInputSpec
    output_spec = CorrectBiasOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        estimate = partial(_ESTIMATES[self.inputs.method], shrink=8 if self.inputs.sloppy else 4)
        out, field = bias.correct(data, mask, estimate)
        return {
            "out_file": images.save(within(runtime, "corrected.nii.gz"), out, grid, np.float32, scratch=True),
            "bias_file": images.save(within(runtime, "bias.nii.gz"), field, grid, np.float32, scratch=True),
        }
