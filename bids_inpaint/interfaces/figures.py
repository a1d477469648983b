"""One node a picture of the report."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
from nipype.interfaces.base import Bunch, File, InputMultiObject, TraitedSpec, isdefined, traits

from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.reports import figures
from bids_inpaint.reports.templates import render

#: What to compare a lesion volume with: measured with both passes of the default networks (docs/networks.md).
HEALTHY = "In healthy people this program maps 0.1 to 1.2 ml in young adults and up to 5.8 ml in older ones."

#: Differences from here on have the last colour, as a fraction of white matter.
_LARGEST_DIFFERENCE = 0.4
#: Rows of the lesion table in the report.
_MOST_LESIONS = 30


class FigureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="picture or table of the report")


class FlickerInputSpec(InputSpec):
    before = File(exists=True, mandatory=True, desc="image that is seen at first")
    after = File(exists=True, mandatory=True, desc="image on the same voxels, under the pointer")
    mask_file = File(exists=True, mandatory=True, desc="brain, for the choice of slices")
    contour = File(exists=True, desc="mask drawn over both; its slices are shown if it isn't empty")
    labels = traits.Tuple(traits.Str, traits.Str, mandatory=True, desc="captions of both")
    shared_range = traits.Bool(False, usedefault=True, desc="both have the grey values of the first")


class Flicker(FileInterface):
    """Two images that alternate under the pointer."""

    input_spec = FlickerInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        brain, grid = images.read(self.inputs.mask_file)
        contour = self.inputs.contour if isdefined(self.inputs.contour) else None
        outlined = images.read(contour)[0] > 0 if contour else np.zeros(brain.shape, bool)
        limits = None
        if self.inputs.shared_range:
            values = images.read(self.inputs.before)[0][brain > 0]
            limits = (0.0, float(np.percentile(values, 99.5)))
        return {
            "out_file": figures.flicker(
                self.inputs.before, self.inputs.after, within(runtime, "flicker.svg"), self.inputs.labels,
                figures.cuts_through(outlined, grid, brain > 0), contour, limits,
                figures.view_box(brain > 0, grid),
            )
        }  # fmt: skip


class ContoursInputSpec(InputSpec):
    background = File(exists=True, mandatory=True, desc="image below the outlines")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="the slices go through the first")
    colours = traits.List(traits.Str, mandatory=True, desc="one of each mask")


class Contours(FileInterface):
    """Outlines of masks over an image."""

    input_spec = ContoursInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        out_file = within(runtime, "contours.svg")
        mask, grid = images.read(self.inputs.masks[0])
        figures.contours(
            self.inputs.background, self.inputs.masks, out_file, self.inputs.colours,
            box=figures.view_box(mask > 0.5, grid),
        )  # fmt: skip
        return {"out_file": out_file}


class DifferenceInputSpec(InputSpec):
    background = File(exists=True, mandatory=True, desc="image below the colours")
    darkening = File(exists=True, mandatory=True, desc="inpainted minus original, white matter is 1")
    mask_file = File(exists=True, mandatory=True, desc="brain, for the choice of slices")
    lesions = File(exists=True, mandatory=True, desc="lesion map; its slices are shown if it isn't empty")


class Difference(FileInterface):
    """Original against inpainted image in units of white matter."""

    input_spec = DifferenceInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        brain, grid = images.read(self.inputs.mask_file)
        cuts = figures.cuts_through(images.read(self.inputs.lesions)[0] > 0, grid, brain > 0)
        out_file = within(runtime, "difference.svg")
        box = figures.view_box(brain > 0, grid)
        figures.overlay(
            self.inputs.background, self.inputs.darkening, out_file, cuts, _LARGEST_DIFFERENCE, box
        )  # fmt: skip
        return {"out_file": out_file}


class LesionTableInputSpec(InputSpec):
    table = File(exists=True, mandatory=True, desc="TSV with a row for each lesion, the largest first")


class LesionTable(FileInterface):
    """The lesion table as HTML."""

    input_spec = LesionTableInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        with open(self.inputs.table, encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        out_file = within(runtime, "lesions.html")
        text = render(
            "lesions.html.j2",
            rows=[list(row.values()) for row in rows],
            total=sum(float(row["volume"]) for row in rows) / 1000,
            most=_MOST_LESIONS,
            healthy=HEALTHY,
        )
        with open(out_file, "w", encoding="utf-8") as file:
            file.write(text)
        return {"out_file": out_file}
