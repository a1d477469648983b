"""Whether an image is what the networks were made for, as a node."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.base import Bunch, File, TraitedSpec, isdefined, traits

from bids_inpaint.imaging import quality
from bids_inpaint.interfaces.base import FileInterface, InputSpec
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm


class CheckQualityInputSpec(InputSpec):
    preproc = File(exists=True, mandatory=True, desc="preprocessed T1w on the working grid")
    working_mask = File(exists=True, mandatory=True, desc="its brain")
    mask = File(exists=True, mandatory=True, desc="lesion map on the working grid")
    xfm = File(exists=True, mandatory=True, desc="ITK text: takes images from the T1w to the template")
    template = File(exists=True, mandatory=True, desc="brain of the template")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")
    wm_prior = File(exists=True, mandatory=True, desc="probability of white matter, 0-1")
    gm_prior = File(exists=True, mandatory=True, desc="probability of grey matter, 0-1")
    dataset_warnings = traits.List(traits.Str, desc="of the dataset's tables and sidecars")
    input_warnings = traits.List(traits.Str, desc="of the T1w's file")
    mask_warnings = traits.List(traits.Str, desc="of a precomputed brain mask")
    lesion_warnings = traits.List(traits.Str, desc="of a given lesion mask")
    visit_warnings = traits.List(traits.Str, desc="of the other visits of the person")


class CheckQualityOutputSpec(TraitedSpec):
    quality = traits.Dict(desc="QualityMeasures and QualityWarnings for sidecars")


class CheckQuality(FileInterface):
    """Measure a preprocessed brain and warn of what the networks were not made for."""

    input_spec = CheckQualityInputSpec
    output_spec = CheckQualityOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        volumes = {
            name: images.read(getattr(self.inputs, name))[0]
            for name in (
                "preproc", "working_mask", "template", "template_mask", "wm_prior", "gm_prior", "mask",
            )
        }  # fmt: skip
        measures = quality.measure(
            volumes["preproc"], volumes["working_mask"] > 0, volumes["template"], volumes["template_mask"],
            volumes["wm_prior"], volumes["gm_prior"], read_xfm(self.inputs.xfm), volumes["mask"] > 0,
        )  # fmt: skip
        names = ("dataset", "input", "mask", "lesion", "visit")
        earlier = (getattr(self.inputs, f"{name}_warnings") for name in names)
        warnings = quality.judge(measures)
        warnings += [warning for sentences in earlier if isdefined(sentences) for warning in sentences]
        rounded = {name: float(f"{value:.4g}") for name, value in measures.items()}
        return {"quality": {"QualityMeasures": rounded, "QualityWarnings": warnings}}
