"""Filters of ANTs as nodes."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from bids_inpaint.errors import InputError
from bids_inpaint.imaging import itk, tissues
from bids_inpaint.imaging.processes import alone
from bids_inpaint.interfaces.base import (
    AffineOutputSpec,
    FileInterface,
    InputSpec,
    SegmentationOutputSpec,
    within,
)
from bids_inpaint.io import images


class DenoiseInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="conformed T1w")
    mask_file = File(exists=True, mandatory=True, desc="brain on the voxels of the T1w")
    num_threads = traits.Int(
        1,
        usedefault=True,
        nohash=True,
        desc="processes that share the work; the result does not depend on it",
    )


class DenoiseOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="denoised inside the brain, on the voxels of the T1w")


class Denoise(FileInterface):
    """Adaptive non-local means with Rician noise inside a mask (Manjón 2010), the same every time."""

    input_spec = DenoiseInputSpec
    output_spec = DenoiseOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file, np.uint8)[0] > 0
        data = itk.denoise(data, mask, self.inputs.num_threads)
        return {"out_file": images.save(within(runtime, "denoised.nii.gz"), data, grid, scratch=True)}


class RegisterAffineInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="denoised T1w")
    mask_file = File(exists=True, mandatory=True, desc="brain on the voxels of the T1w")
    template = File(exists=True, mandatory=True, desc="brain-only template")
    random_seed = traits.Int(0, usedefault=True, desc="of the points that ANTs samples")
    sloppy = traits.Bool(False, usedefault=True, desc="rigid, and of low quality, for tests")


class RegisterAffine(FileInterface):
    """Affine of the brain onto a template: ANTs' and then the best one near it, the same every time."""

    input_spec = RegisterAffineInputSpec
    output_spec = AffineOutputSpec

    def process(self, runtime) -> dict:
        from nitransforms.io.itk import ITKLinearTransform

        matrix = alone(
            itk.affine, self.inputs.in_file, self.inputs.mask_file, self.inputs.template,
            "sloppy" if self.inputs.sloppy else "fast", runtime.cwd, self.inputs.random_seed,
        )  # fmt: skip
        outputs = {}
        for name, xfm in (("out_xfm", matrix), ("out_inverse", np.linalg.inv(matrix))):
            outputs[name] = within(runtime, f"{name}.txt")
            ITKLinearTransform.from_ras(xfm).to_filename(outputs[name])
        return outputs


class SegmentAtroposInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain on the working grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the working grid")
    priors = InputMultiObject(File(exists=True), mandatory=True, desc="CSF, GM, WM")
    sloppy = traits.Bool(False, usedefault=True, desc="fewer voxels and iterations, for tests")


class SegmentAtropos(FileInterface):
    """Three-tissue segmentation with a Markov random field and template priors (Avants 2011)."""

    input_spec = SegmentAtroposInputSpec
    output_spec = SegmentationOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        priors = [images.read(path)[0] for path in self.inputs.priors]
        maps = itk.atropos(data, mask, priors, runtime.cwd, self.inputs.sloppy)
        try:
            tissues.check(maps, mask, priors)
        except tissues.Implausible as error:
            raise InputError(
                f"Atropos failed to segment the brain of {self.source}, and did not notice ({error}): look "
                "at the images of the report, or choose --segmentation gmm."
            ) from None
        outputs = {
            key: images.save(within(runtime, f"{key}.nii.gz"), v, grid, space_code=4)
            for key, v in zip(("csf", "gm", "wm"), maps, strict=True)
        }
        csf, gm, wm = maps
        labels = np.where(mask, np.stack([gm, wm, csf]).argmax(0) + 1, 0)
        outputs["dseg"] = images.save(within(runtime, "dseg.nii.gz"), labels, grid, np.uint8, space_code=4)
        outputs["method"] = f"Atropos (antspyx {version('antspyx')})"
        return outputs
