"""The pictures of the report, as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from nipype.interfaces.base import Bunch, File, InputMultiObject, TraitedSpec, isdefined, traits

from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.reports import figures, sheet, zoom

#: Differences from here on have the last colour, as a fraction of white matter.
LARGEST_DIFFERENCE = 0.4


class ViewInputSpec(InputSpec):
    first = File(exists=True, mandatory=True, desc="image that is seen at first")
    second = File(exists=True, desc="image on the same voxels that it alternates with")
    brain = File(exists=True, mandatory=True, desc="brain mask, for the choice of slices")
    focus = File(exists=True, desc="mask whose slices are shown if it isn't empty")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="what is outlined, the first on top")
    colours = traits.List(traits.Str, mandatory=True, desc="one of each mask")
    shared_range = traits.Bool(False, usedefault=True, desc="both have the grey values of the first")


class ViewOutputSpec(TraitedSpec):
    first = File(exists=True, desc="PNG of the first image")
    second = File(desc="PNG of the second image, if there is one")
    contours = File(exists=True, desc="SVG of the outlines")


class View(FileInterface):
    """One image, or two that alternate, and the outlines of masks on the same slices."""

    input_spec = ViewInputSpec
    output_spec = ViewOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        brain, grid = images.read(self.inputs.brain)
        box = figures.view_box(brain > 0.5, grid)
        focus = self.inputs.focus if isdefined(self.inputs.focus) else None
        cuts = figures.cuts_through(self.inputs.brain, box, focus)
        limits = None
        if self.inputs.shared_range:
            values = images.read(self.inputs.first)[0][brain > 0]
            limits = (0.0, float(np.percentile(values, 99.5)))
        out = {"contours": within(runtime, "contours.svg")}
        figures.outlines(self.inputs.masks, self.inputs.colours, out["contours"], cuts, box)
        for name in ("first", "second"):
            if isdefined(source := getattr(self.inputs, name)):
                out[name] = within(runtime, f"{name}.png")
                figures.grey(source, out[name], cuts, box, limits)
        return out


class LesionPictureInputSpec(InputSpec):
    image = File(exists=True, mandatory=True, desc="what is drawn, on the working grid")
    brain = File(exists=True, mandatory=True, desc="brain mask, for the choice of slices")
    lesions = File(exists=True, mandatory=True, desc="lesion map; its slices are shown if it isn't empty")


class PictureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="PNG for the report")


class Difference(FileInterface):
    """Inpainted minus original image in units of white matter, in colour, on the slices of the lesions."""

    input_spec = LesionPictureInputSpec
    output_spec = PictureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        brain, grid = images.read(self.inputs.brain)
        box = figures.view_box(brain > 0.5, grid)
        out_file = within(runtime, "difference.png")
        cuts = figures.cuts_through(self.inputs.brain, box, self.inputs.lesions)
        figures.tint(self.inputs.image, out_file, cuts, LARGEST_DIFFERENCE, box)
        return {"out_file": out_file}


class Thumbnail(FileInterface):
    """A small picture of a brain and its lesions, for lists of images."""

    input_spec = LesionPictureInputSpec
    output_spec = PictureOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        brain, grid = images.read(self.inputs.brain)
        box = figures.view_box(brain > 0.5, grid, margin=2)
        out_file = within(runtime, "thumbnail.png")
        figures.thumbnail(self.inputs.image, self.inputs.brain, self.inputs.lesions, out_file, box)
        return {"out_file": out_file}


class ZoomInputSpec(InputSpec):
    t1w = File(exists=True, mandatory=True, users=True, desc="the raw image")
    inpainted = File(exists=True, mandatory=True, desc="the same without its lesions")
    brain = File(exists=True, mandatory=True, desc="brain mask, on the same voxels")
    labels = File(exists=True, mandatory=True, desc="one integer a lesion, on the same voxels")
    probability = File(exists=True, mandatory=True, desc="lesion probability, on the same voxels")


class ZoomOutputSpec(TraitedSpec):
    first = File(exists=True, desc="PNG with a row of planes for each lesion, before filling")
    second = File(exists=True, desc="the same after filling")
    contours = File(exists=True, desc="SVG of the outlines")
    lesions = File(exists=True, desc="JSON of the lesions of the rows")
    sheet = File(exists=True, desc="PNG for a paper")


class Zoom(FileInterface):
    """Single lesions from near, and a sheet of slices for a paper: what is drawn on the voxels of the T1w."""

    input_spec = ZoomInputSpec
    output_spec = ZoomOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        given = self.inputs
        head = zoom.Head.read(given.t1w, given.inpainted, given.brain, given.labels, given.probability)
        names = ("first.png", "second.png", "contours.svg", "lesions.json")
        paths = [within(runtime, name) for name in names]
        zoom.draw(head, *paths)
        sheet.draw(head, within(runtime, "sheet.png"))
        drawn = dict(zip(("first", "second", "contours", "lesions"), paths, strict=True))
        return {**drawn, "sheet": within(runtime, "sheet.png")}
