"""What the visits of a person have in common, as nodes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    File,
    InputMultiObject,
    OutputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint.errors import InputError
from bids_inpaint.imaging import bias, evidence, person
from bids_inpaint.imaging.history import CHANGES, LesionHistory, Limits, follow, numbered
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.imaging.rigid import Visit
from bids_inpaint.interfaces.base import FileInterface, InputSpec, PersonInputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID, Grid, resample


class AlignVisitsInputSpec(InputSpec):
    conformed = InputMultiObject(
        File(exists=True), mandatory=True, desc="T1w of each visit, in the order of time"
    )
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="brain of each, on its voxels")
    names = traits.List(traits.Str, mandatory=True, desc="of the images, for messages")
    methods = traits.List(traits.Str, mandatory=True, desc="how the masks came about")
    sloppy = traits.Bool(False, usedefault=True, desc="fit bias fields on fewer voxels, for tests")


class AlignVisitsOutputSpec(TraitedSpec):
    template = File(exists=True, desc="brain of the person: the median of all visits")
    template_mask = File(exists=True, desc="brain mask of all visits")
    method = traits.Str(desc="how it came about: extracted if any is")
    to_template = OutputMultiObject(
        File(exists=True), desc="ITK text for each visit: takes images from it to the template"
    )
    from_template = OutputMultiObject(
        File(exists=True), desc="ITK text for each visit: takes images from the template to it"
    )
    warnings = traits.List(traits.List(traits.Str), desc="on each visit")
    facts = traits.Dict(desc="how well the visits agree, for sidecars")


class AlignVisits(FileInterface):
    """Rigid transforms of all visits of a person into their middle space, and the template there."""

    input_spec = AlignVisitsInputSpec
    output_spec = AlignVisitsOutputSpec

    def process(self, runtime) -> dict:
        visits = [
            read_visit(*paths, self.inputs.sloppy)
            for paths in zip(self.inputs.conformed, self.inputs.masks, strict=True)
        ]
        try:
            middle = person.middle_space(visits)
            self._check(middle.likeness)
            template = person.build(visits, middle.to_template)
        except ValueError as error:
            raise InputError(
                f"The visits of {self.source} can't be aligned ({error}): check the images and their brain "
                "masks, or leave out --longitudinal."
            ) from error
        out: dict[str, Any] = {
            "template": images.save(
                within(runtime, "template.nii.gz"), template.image, template.grid, space_code=2
            ),
            "template_mask": images.save(
                within(runtime, "mask.nii.gz"), template.mask, template.grid, np.uint8
            ),
            "method": min(self.inputs.methods, key=lambda method: method != "extracted"),
            "to_template": [],
            "from_template": [],
            "warnings": self._doubts(middle.likeness),
            "facts": {
                "Likeness": np.round(middle.likeness, 4).tolist(),
                "LikenessDescription": "Correlation of each two visits after their alignment",
                "Disagreement": round(middle.apart, 3),
                "DisagreementUnits": "mm",
            },
        }
        for number, matrix in enumerate(middle.to_template):
            # resampling takes the points of what is made to those of what there is
            for key, points in (("to_template", np.linalg.inv(matrix)), ("from_template", matrix)):
                out[key].append(write_xfm(within(runtime, f"{key}_{number}.txt"), points))
        return out

    def _check(self, likeness: np.ndarray) -> None:
        """Refuse visits of which two do not fit upon each other."""
        worst = np.unravel_index(np.argmin(likeness), likeness.shape)
        if likeness[worst] < person.ALIGNED:
            one, other = sorted(self.inputs.names[i] for i in worst)
            raise ValueError(
                f"the correlation of {one} and {other} is {likeness[worst]:.2f} then, and that of two visits "
                "of a person 0.95"
            )

    def _doubts(self, likeness: np.ndarray) -> list[list[str]]:
        return [
            [
                f"{name} and {other} are as unlike after their alignment as images of two people (their "
                f"correlation is {like:.2f}): check that both are of {self.source}."
                for other, like in zip(self.inputs.names, row, strict=True)
                if like < person.SAME_PERSON
            ]
            for name, row in zip(self.inputs.names, likeness, strict=True)
        ]


def read_visit(conformed: str, mask_file: str, sloppy: bool) -> Visit:
    """The brain of a visit without its bias field; with `sloppy`, that is fitted on fewer voxels."""
    data, grid = images.read(conformed)
    mask = images.read(mask_file, np.uint8)[0] > 0
    estimate = partial(bias.n4, shrink=8 if sloppy else 4)
    return Visit(bias.correct(data, mask, estimate)[0], grid, mask)


class ShareAffineInputSpec(PersonInputSpec):
    to_template = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc="ITK text for each visit: takes images from it to the template",
    )


class ShareAffineOutputSpec(TraitedSpec):
    xfms = OutputMultiObject(File(exists=True), desc="ITK text: takes images of each visit to the standard")
    inverse_xfms = OutputMultiObject(File(exists=True), desc="the inverse of each")


class ShareAffine(FileInterface):
    """The affine of each visit to the standard space: the rigid one to the template, and that of all."""

    input_spec = ShareAffineInputSpec
    output_spec = ShareAffineOutputSpec

    def process(self, runtime) -> dict:
        standard = read_xfm(self.inputs.standard_xfm)
        out: dict[str, list[str]] = {"xfms": [], "inverse_xfms": []}
        for number, path in enumerate(self.inputs.to_template):
            matrix = read_xfm(path) @ standard
            for key, points in (("xfms", matrix), ("inverse_xfms", np.linalg.inv(matrix))):
                out[key].append(write_xfm(within(runtime, f"{key}_{number}.txt"), points))
        return out


class DecideLesionsInputSpec(PersonInputSpec):
    probabilities = InputMultiObject(
        File(exists=True), mandatory=True, desc="of a lesion at each visit (working grid), in order of time"
    )
    images = InputMultiObject(
        File(exists=True), mandatory=True, desc="brain of each visit on the working grid, in one unit"
    )
    brain_masks = InputMultiObject(File(exists=True), mandatory=True, desc="brain of each visit")
    wm_prior = File(exists=True, mandatory=True, desc="probability of white matter in the template")
    sessions = traits.List(traits.Str, mandatory=True, desc="of the visits, as ses-1")
    template = File(exists=True, mandatory=True, desc="of the person; the volumes are those in its space")
    threshold = traits.Float(mandatory=True, desc="probability of the surest voxel of a lesion at any visit")
    low = traits.Float(mandatory=True, desc="probability from which a voxel is lesion by itself")
    min_volume = traits.Float(mandatory=True, desc="of a lesion, mm³")
    stages = traits.List(
        traits.List(traits.Int),
        desc="numbers of the visits that are finished, as they came; their masks stay",
    )
    kept_masks = InputMultiObject(File(exists=True), desc="lesions of those visits, in that order")


class DecideLesionsOutputSpec(TraitedSpec):
    masks = OutputMultiObject(
        File(exists=True), desc="lesions of each visit on the working grid that is not finished"
    )
    all_masks = OutputMultiObject(File(exists=True), desc="the same of all visits")
    standard_labels = File(exists=True, desc="one integer a lesion over time, on the working grid")
    labels = File(exists=True, desc="the same on the voxels of the person's template")
    table = File(exists=True, desc="a row for each lesion, with its volumes (TSV)")
    facts = traits.Dict(desc="volumes and numbers, for sidecars")


class DecideLesions(FileInterface):
    """What is lesion at each visit by the probabilities of all, and what became of each lesion."""

    input_spec = DecideLesionsInputSpec
    output_spec = DecideLesionsOutputSpec

    def process(self, runtime) -> dict:
        inputs = self.inputs
        template = images.grid_of(images.load(inputs.template))
        # the voxels of the working grid where they are in the person, with their true volume
        from_standard = read_xfm(inputs.standard_xfm)
        true = Grid.of(WORKING_GRID.shape, from_standard @ WORKING_GRID.matrix)
        rule = Rule("probability", inputs.threshold, inputs.low, inputs.min_volume)
        paths = self._kept()
        kept = {number: images.read(path)[0] > 0 for number, path in paths.items()}
        stages = inputs.stages if isdefined(inputs.stages) else []
        numbers = numbered([[kept[number] for number in stage] for stage in stages], true, Limits.of(rule))
        masks, labels, lesions = follow(self._probabilities(), rule, true, kept, numbers)

        def save(name: str, values: np.ndarray, dtype: Any = np.uint8) -> str:
            return images.save(within(runtime, f"{name}.nii.gz"), values, WORKING_GRID, dtype, space_code=4)

        moved = resample(labels, WORKING_GRID, template, np.linalg.inv(from_standard), order=0)
        native = images.save(within(runtime, "template_labels.nii.gz"), np.rint(moved), template, np.int32, 2)
        table = within(runtime, "lesions.tsv")
        write_histories(table, lesions, inputs.sessions)
        found = Counter(lesion.change for lesion in lesions)
        volumes = [round(float(mask.sum()) * true.voxel_volume, 1) for mask in masks]
        for number, mask in enumerate(masks):
            if number not in kept:
                paths[number] = save(f"lesions_{number}", mask)
        return {
            "masks": [paths[number] for number in range(len(masks)) if number not in kept],
            "all_masks": [paths[number] for number in range(len(masks))],
            "standard_labels": save("labels", labels, np.int32),
            "labels": native,
            "table": table,
            "facts": {
                "LesionVolumes": dict(zip(inputs.sessions, volumes, strict=True)),
                "LesionVolumesUnits": "mm^3",
                "Changes": {change: found[change] for change in CHANGES},
            },
        }

    def _kept(self) -> dict[int, str]:
        """Files of the lesions of finished visits, by their numbers."""
        if not isdefined(self.inputs.stages):
            return {}
        numbers = [number for stage in self.inputs.stages for number in stage]
        return dict(zip(numbers, self.inputs.kept_masks, strict=True))

    def _probabilities(self) -> list[np.ndarray]:
        """Of a lesion at each visit, by all of them."""
        inputs = self.inputs
        told, brains, masks = (
            [images.read(path)[0] for path in paths]
            for paths in (inputs.probabilities, inputs.images, inputs.brain_masks)
        )
        white = images.read(inputs.wm_prior)[0]
        return evidence.weigh(told, brains, np.all(masks, axis=0), white, WORKING_GRID, self._kept())


def write_xfm(path: str, points: np.ndarray) -> str:
    """Write an affine in the text format of ITK.

    Parameters
    ----------
    path : str
    points : array, shape (4, 4)
        World (RAS+, mm) of the image that is resampled onto to that of the image that is resampled.
    """
    ITKLinearTransform.from_ras(points).to_filename(path)
    return path


def write_histories(path: str, lesions: Sequence[LesionHistory], sessions: Sequence[str]) -> None:
    """Write lesions over time as the lookup table of their labelled image (BIDS ``_dseg.tsv``)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        header = ["index", "name", "change", "x", "y", "z", *(f"volume_{name}" for name in sessions)]
        writer.writerow([*header, *(f"change_{name}" for name in sessions[1:])])
        for lesion in lesions:
            centre = (f"{c:.2f}" for c in lesion.centroid)
            volumes = (f"{volume:.2f}" for volume in lesion.volumes)
            name = f"lesion {lesion.label}"
            writer.writerow([lesion.label, name, lesion.change, *centre, *volumes, *lesion.steps])
