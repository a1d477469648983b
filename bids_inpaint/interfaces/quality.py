"""Whether an image is what the networks were made for, as a node."""

from __future__ import annotations

import html

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint.imaging import quality
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm


class CheckQualityInputSpec(InputSpec):
    preproc = File(exists=True, mandatory=True)
    working_mask = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True, desc="lesion map on the working grid")
    xfm = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    wm_prior = File(exists=True, mandatory=True)
    gm_prior = File(exists=True, mandatory=True)
    told = traits.List(traits.Str, desc="what the dataset says")
    input_warnings = traits.List(traits.Str, desc="of the T1w's file")
    mask_warnings = traits.List(traits.Str, desc="of a precomputed brain mask")
    lesion_warnings = traits.List(traits.Str, desc="of a given lesion mask")


class CheckQualityOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="HTML for the report")
    found = traits.Dict(desc="measures and warnings for sidecars")


class CheckQuality(FileInterface):
    """Measure a preprocessed brain and warn of what the networks were not made for."""

    input_spec = CheckQualityInputSpec
    output_spec = CheckQualityOutputSpec

    def process(self, runtime) -> dict:
        read = {
            name: images.read(getattr(self.inputs, name))[0]
            for name in (
                "preproc",
                "working_mask",
                "template",
                "template_mask",
                "wm_prior",
                "gm_prior",
                "mask",
            )
        }
        measures = quality.measure(
            read["preproc"], read["working_mask"] > 0, read["template"], read["template_mask"],
            read["wm_prior"], read["gm_prior"], read_xfm(self.inputs.xfm), read["mask"] > 0,
        )  # fmt: skip
        others = [getattr(self.inputs, f"{name}_warnings") for name in ("input", "mask", "lesion")]
        others = [warning for found in others if isdefined(found) for warning in found]
        warnings = [*quality.judge(measures), *self.inputs.told, *others]
        out_file = within(runtime, "quality.html")
        items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        with open(out_file, "w", encoding="utf-8") as file:
            file.write(
                f'<div class="alert alert-warning"><p>Look at this image before you use its results:</p>'
                f"<ul>{items}</ul></div>\n"
                if warnings
                else "<p>All measures are as expected of a T1w image of an adult's brain.</p>\n"
            )
        rounded = {name: float(f"{value:.4g}") for name, value in measures.items()}
        return {"out_file": out_file, "found": {"QualityMeasures": rounded, "QualityWarnings": warnings}}
