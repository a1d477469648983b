"""The pictures of a person's visits, as a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import Bunch, File, InputMultiObject, OutputMultiObject, TraitedSpec, traits

from bids_inpaint.dataset.courses import read_histories
from bids_inpaint.imaging.history import LesionHistory
from bids_inpaint.imaging.person import match
from bids_inpaint.interfaces.base import FileInterface, PersonInputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.reports import figures
from bids_inpaint.reports.changes import COLOURS, cuts_through_lesions, name_lesions, ranked
from bids_inpaint.space import WORKING_GRID, resample

Array = np.ndarray


class ChangePicturesInputSpec(PersonInputSpec):
    before = InputMultiObject(
        File(exists=True), mandatory=True, desc="preprocessed brain of each visit (working grid), by time"
    )
    after = InputMultiObject(File(exists=True), mandatory=True, desc="the same, inpainted")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="lesions of each (working grid)")
    labels = File(exists=True, mandatory=True, desc="one integer a lesion over time (working grid)")
    table = File(exists=True, mandatory=True, desc="what became of each lesion (TSV)")
    sessions = traits.List(traits.Str, mandatory=True, desc="of the visits, as ses-1")
    template_mask = File(exists=True, mandatory=True, desc="brain of the person, on the template's voxels")


class ChangePicturesOutputSpec(TraitedSpec):
    before = OutputMultiObject(File(exists=True), desc="PNG of each visit")
    after = OutputMultiObject(File(exists=True), desc="PNG of each visit, inpainted")
    outlines = OutputMultiObject(
        File(exists=True), desc="SVG of each visit: its lesions, and where those of other visits are"
    )


class ChangePictures(FileInterface):
    """The visits of a person on the same slices of their middle space, in one unit of intensity.

    What is drawn was resampled twice, onto the working grid and to the person: for pictures, that will do.
    """

    input_spec = ChangePicturesInputSpec
    output_spec = ChangePicturesOutputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        inputs = self.inputs
        mask, whole = images.read(inputs.template_mask, np.uint8)
        box = figures.view_box(mask > 0, whole)
        brain, grid = mask[box] > 0, whole.part(box)
        to_standard = np.linalg.inv(read_xfm(inputs.standard_xfm))

        def here(values: Array, order: int) -> Array:
            return resample(values, WORKING_GRID, grid, to_standard, order)

        lesions = read_histories(Path(inputs.table), inputs.sessions)
        standard = images.read(inputs.labels, np.int32)[0]
        labels = here(standard, 0).astype(np.int32)
        before, after = [], []
        for original, filled in zip(inputs.before, inputs.after, strict=True):
            values = images.read(original)[0]
            before.append(here(values, 3))
            # quicker than cubic splines, as there is little of it
            after.append(before[-1] + here(images.read(filled)[0] - values, 1))
        # one window shows all visits alike only if they have one unit
        scales = match(before, brain & (labels == 0))
        bright = [np.percentile(b[brain] / s, 99.5) for b, s in zip(before, scales, strict=True)]
        limits = (0.0, float(np.median(bright)))
        cuts = cuts_through_lesions(labels, [one.label for one in ranked(lesions)], brain, grid.voxel_sizes)
        out: dict[str, list[str]] = {"before": [], "after": [], "outlines": []}
        for number, scale in enumerate(scales):
            for name, brains in (("before", before), ("after", after)):
                volume = images.save(within(runtime, f"{name}{number}.nii"), brains[number] / scale, grid)
                picture = within(runtime, f"{name}{number}.png")
                out[name].append(figures.grey(volume, picture, cuts, limits=limits))
                Path(volume).unlink()
            at_visit = images.read(inputs.masks[number], np.uint8)[0] > 0
            groups = list(_groups(standard, at_visit, lesions, number))
            paths = [
                images.save(within(runtime, f"group{i}.nii"), here(group, 1), grid)
                for i, (_, group) in enumerate(groups)
            ]
            classes = [name for name, _ in groups]
            svg = within(runtime, f"visit{number}.svg")
            colours = [COLOURS[name.split()[0]] for name in classes]
            out["outlines"].append(figures.outlines(paths, colours, svg, cuts, classes=classes))
            name_lesions(svg, labels, grid.matrix, lesions, cuts)
            for path in paths:
                Path(path).unlink()
        return out


def _groups(
    labels: Array, at_visit: Array, lesions: Sequence[LesionHistory], visit: int
) -> Iterator[tuple[str, Array]]:
    """Voxels that are outlined alike: lesions of one change that are there, and places of the others."""
    for change in COLOURS:
        there = [one.label for one in lesions if one.change == change and one.volumes[visit] > 0]
        absent = [one.label for one in lesions if one.change == change and one.volumes[visit] == 0]
        if there:
            yield change, np.isin(labels, there) & at_visit
        if absent:
            yield f"{change} absent", np.isin(labels, absent)
