"""What makes the visits of a person comparable, as nodes: one brain, one unit, one filling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nipype.interfaces.base import (
    File,
    InputMultiObject,
    OutputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_inpaint.imaging import agreement, feathering
from bids_inpaint.interfaces.base import FileInterface, InputSpec, PersonInputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID, resample


class ShareMaskInputSpec(PersonInputSpec):
    mask_file = File(exists=True, mandatory=True, desc="brain of all visits on the voxels of the template")
    conformed = InputMultiObject(File(exists=True), mandatory=True, desc="T1w of each visit")
    from_template = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc="ITK text for each visit: takes images from the template to it",
    )


class ShareMaskOutputSpec(TraitedSpec):
    masks = OutputMultiObject(File(exists=True), desc="brain mask on the voxels of each T1w")
    working_masks = OutputMultiObject(
        File(exists=True), desc="on the working grid: the same for all, but for what a T1w has not seen"
    )


class ShareMask(FileInterface):
    """One brain mask for all visits of a person."""

    input_spec = ShareMaskInputSpec
    output_spec = ShareMaskOutputSpec

    def process(self, runtime) -> dict:
        mask, grid = images.read(self.inputs.mask_file)
        standard = read_xfm(self.inputs.standard_xfm)
        common = resample(mask, grid, WORKING_GRID, standard, order=1) > 0.5
        out: dict[str, list[str]] = {"masks": [], "working_masks": []}
        for number, (path, xfm) in enumerate(
            zip(self.inputs.conformed, self.inputs.from_template, strict=True)
        ):
            of_visit, to_template = images.grid_of(images.load(path)), read_xfm(xfm)
            native = resample(mask, grid, of_visit, to_template, order=1) > 0.5
            seen = resample(
                np.ones(of_visit.shape, bool),
                of_visit,
                WORKING_GRID,
                np.linalg.inv(to_template) @ standard,
                0,
            )
            file, working = (within(runtime, f"{name}_{number}.nii.gz") for name in ("mask", "working"))
            out["masks"].append(images.save(file, native, of_visit, np.uint8))
            out["working_masks"].append(
                images.save(working, common & (seen > 0), WORKING_GRID, np.uint8, space_code=4)
            )
        return out


class MatchIntensitiesInputSpec(InputSpec):
    in_files = InputMultiObject(
        File(exists=True), mandatory=True, desc="brain of each visit on the working grid, without its bias"
    )
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="brain masks on the working grid")
    biases = InputMultiObject(File(exists=True), mandatory=True, desc="the bias fields that were removed")
    wm_prior = File(exists=True, mandatory=True, desc="probability of white matter in the template")
    kept_files = InputMultiObject(File(exists=True), desc="the brain of each finished visit, in their unit")
    kept_masks = InputMultiObject(File(exists=True), desc="their brain masks")


class MatchIntensitiesOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True), desc="the brains in one unit")
    biases = OutputMultiObject(File(exists=True), desc="the bias fields with what was removed here")


class MatchIntensities(FileInterface):
    """Give all visits of a person the same intensity in the white matter that is stable.

    Finished visits have one already, and others get it, each for itself.
    """

    input_spec = MatchIntensitiesInputSpec
    output_spec = MatchIntensitiesOutputSpec

    def process(self, runtime) -> dict:
        brains = [images.read(path)[0] for path in self.inputs.in_files]
        masks = [images.read(path)[0] > 0 for path in self.inputs.masks]
        white = images.read(self.inputs.wm_prior)[0]
        if isdefined(self.inputs.kept_files):
            kept = [images.read(path)[0] for path in self.inputs.kept_files]
            seen = [images.read(path)[0] > 0 for path in self.inputs.kept_masks]
            fields = [
                agreement.field_towards(kept, brain, [*seen, mask], white, WORKING_GRID)
                for brain, mask in zip(brains, masks, strict=True)
            ]
        else:
            fields = agreement.matching_fields(brains, masks, white, WORKING_GRID)
        out: dict[str, list[str]] = {"out_files": [], "biases": []}
        for number, (brain, field, path) in enumerate(zip(brains, fields, self.inputs.biases, strict=True)):
            matched = (("out_files", brain / field), ("biases", images.read(path)[0] * field))
            for key, values in matched:
                file = within(runtime, f"{key}_{number}.nii.gz")
                out[key].append(images.save(file, values, WORKING_GRID, np.float32, space_code=4))
        return out


class AgreeFillingsInputSpec(InputSpec):
    in_files = InputMultiObject(
        File(exists=True), mandatory=True, desc="brain of each visit on the working grid, in one unit"
    )
    fillings = InputMultiObject(File(exists=True), mandatory=True, desc="what the networks made of each")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="lesions of each visit")
    spreads = InputMultiObject(File(exists=True), desc="standard deviation among the fillings of each visit")
    confine = traits.Bool(False, usedefault=True, desc="undo changes away from the lesions")
    kept_files = InputMultiObject(File(exists=True), desc="brain of each finished visit, in the same unit")
    kept_inpainted = InputMultiObject(File(exists=True), desc="the same, inpainted")
    kept_masks = InputMultiObject(File(exists=True), desc="their lesions")


class AgreeFillingsOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True), desc="inpainted brain of each visit")
    whole_files = OutputMultiObject(File(exists=True), desc="the same with nothing undone")
    spreads = OutputMultiObject(File(), desc="standard deviation among all fillings")


class AgreeFillings(FileInterface):
    """Give what is a lesion at several visits one filling, the mean of those of these visits.

    Where finished visits have a lesion, it is the mean of theirs.
    """

    input_spec = AgreeFillingsInputSpec
    output_spec = AgreeFillingsOutputSpec

    def process(self, runtime) -> dict:
        inputs = self.inputs
        fillings = [images.read(path)[0] for path in inputs.fillings]
        masks = [images.read(path)[0] > 0 for path in inputs.masks]
        weights = [feathering.feather(mask, WORKING_GRID) for mask in masks]

        def save(name: str, volumes: Sequence[np.ndarray], scratch: bool = False) -> list[str]:
            return [
                images.save(
                    within(runtime, f"{name}_{number}.nii.gz"), v, WORKING_GRID, space_code=4, scratch=scratch
                )
                for number, v in enumerate(volumes)
            ]

        whole = agreement.agreed(fillings, weights)
        spreads: list[np.ndarray] = []
        if isdefined(inputs.spreads):
            spreads = [images.read(path)[0] for path in inputs.spreads]
            spreads = agreement.agreed_spread(spreads, fillings, weights)
        if isdefined(inputs.kept_files):
            kept, kept_weights = self._kept()
            own = whole
            whole = [agreement.joined(o, w, kept, kept_weights) for o, w in zip(own, weights, strict=True)]
            # how far the networks' fillings of the visit are from the one that it gets
            spreads = [np.hypot(s, o - w) for s, o, w in zip(spreads, own, whole, strict=False)]
        out = {"whole_files": save("whole", whole, scratch=inputs.confine)}
        out["out_files"] = out["whole_files"]
        if spreads:
            out["spreads"] = save("spread", spreads, scratch=True)
        if inputs.confine:
            confined = [
                feathering.confine(images.read(path)[0], filling, mask, WORKING_GRID)
                for path, filling, mask in zip(inputs.in_files, whole, masks, strict=True)
            ]
            out["out_files"] = save("inpainted", confined)
        return out

    def _kept(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Fillings of finished visits, and where each is filled."""
        inputs = self.inputs
        brains, inpainted = (
            [images.read(p)[0] for p in ps] for ps in (inputs.kept_files, inputs.kept_inpainted)
        )
        weights = [feathering.feather(images.read(path)[0] > 0, WORKING_GRID) for path in inputs.kept_masks]
        if not inputs.confine:
            return inpainted, weights
        return list(map(agreement.unconfined, brains, inpainted, weights)), weights
