"""One node a picture of the report."""

from __future__ import annotations

import csv
import html

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.reports import figures

#: What to compare a lesion volume with: measured with both passes of the default networks (docs/networks.md).
HEALTHY = "In healthy people this program maps 0.1 to 1.2 ml in young adults and up to 5.8 ml in older ones."


class FigureOutputSpec(TraitedSpec):
    out_file = File(exists=True)


class FlickerInputSpec(InputSpec):
    before = File(exists=True, mandatory=True)
    after = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True, desc="brain, for the choice of slices")
    contour = File(exists=True, desc="mask drawn over both; its slices are shown if it isn't empty")
    labels = traits.Tuple(traits.Str, traits.Str, mandatory=True)
    shared_range = traits.Bool(False, usedefault=True)


class Flicker(FileInterface):
    """Two images that alternate under the pointer."""

    input_spec = FlickerInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime) -> dict:
        brain, grid = images.read(self.inputs.mask_file)
        contour = self.inputs.contour if isdefined(self.inputs.contour) else None
        shown = images.read(contour)[0] > 0 if contour else np.zeros(brain.shape, bool)
        limits = None
        if self.inputs.shared_range:
            values = images.read(self.inputs.before)[0][brain > 0]
            limits = (0.0, float(np.percentile(values, 99.5)))
        return {
            "out_file": figures.flicker(
                self.inputs.before, self.inputs.after, within(runtime, "flicker.svg"), self.inputs.labels,
                figures.cuts_through(shown, grid, brain > 0), contour, limits,
                figures.surroundings(brain > 0, grid),
            )
        }  # fmt: skip


class ContoursInputSpec(InputSpec):
    background = File(exists=True, mandatory=True)
    masks = InputMultiObject(File(exists=True), mandatory=True)
    colours = traits.List(traits.Str, mandatory=True)


class Contours(FileInterface):
    """Outlines of masks over an image."""

    input_spec = ContoursInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime) -> dict:
        out_file = within(runtime, "contours.svg")
        mask, grid = images.read(self.inputs.masks[0])
        figures.contours(
            self.inputs.background, self.inputs.masks, out_file, self.inputs.colours,
            box=figures.surroundings(mask > 0.5, grid),
        )  # fmt: skip
        return {"out_file": out_file}


class DifferenceInputSpec(InputSpec):
    background = File(exists=True, mandatory=True)
    darkening = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    lesions = File(exists=True, mandatory=True)
    limit = traits.Float(0.4, usedefault=True)


class Difference(FileInterface):
    """Original against inpainted image in units of white matter."""

    input_spec = DifferenceInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime) -> dict:
        brain, grid = images.read(self.inputs.mask_file)
        cuts = figures.cuts_through(images.read(self.inputs.lesions)[0] > 0, grid, brain > 0)
        out_file = within(runtime, "difference.svg")
        box = figures.surroundings(brain > 0, grid)
        figures.overlay(
            self.inputs.background, self.inputs.darkening, out_file, cuts, self.inputs.limit, box
        )  # fmt: skip
        return {"out_file": out_file}


class LesionTableInputSpec(InputSpec):
    table = File(exists=True, mandatory=True)
    most = traits.Int(30, usedefault=True)


class LesionTable(FileInterface):
    """The lesion table as HTML."""

    input_spec = LesionTableInputSpec
    output_spec = FigureOutputSpec

    def process(self, runtime) -> dict:
        with open(self.inputs.table, encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        total = sum(float(r["volume"]) for r in rows) / 1000
        parts = [
            f"<p>{len(rows)} lesions, {total:.2f} ml in all. Volumes are measured on the voxels of the T1w "
            f"image, in the person's own head and not in the template's. {HEALTHY}</p>"
        ]
        if rows:
            head = ("Lesion", "Name", "Volume (mm³)", "x (mm)", "y (mm)", "z (mm)", "Darkening")
            parts.append('<table class="table table-sm table-striped"><thead><tr>')
            parts += [f"<th>{html.escape(h)}</th>" for h in head]
            parts.append("</tr></thead><tbody>")
            for row in rows[: self.inputs.most]:
                parts.append("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in row.values()) + "</tr>")
            parts.append("</tbody></table>")
        if len(rows) > self.inputs.most:
            parts.append(f"<p>The {self.inputs.most} largest are shown; the TSV file has all.</p>")
        out_file = within(runtime, "lesions.html")
        with open(out_file, "w", encoding="utf-8") as file:
            file.write("\n".join(parts) + "\n")
        return {"out_file": out_file}
