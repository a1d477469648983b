"""Lesion maps that people corrected, and the filling by them, as nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint.dataset import masks
from bids_inpaint.imaging import feathering
from bids_inpaint.imaging.edits import Change, carry
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.interfaces.inpaint import FillInputSpec, runtime_of, seen
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import inpainting, registry
from bids_inpaint.networks.card import Filled, Model
from bids_inpaint.space import WORKING_GRID, Grid


class EditLesionsInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="lesion map that a person corrected")
    space = traits.Enum("T1w", "template", usedefault=True, desc="where it lies")
    said = traits.Dict(desc="who edited it, when and why")
    t1w = File(exists=True, mandatory=True, users=True, desc="image that the map belongs to")
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    xfm = File(exists=True, mandatory=True, desc="ITK text: takes images from the T1w to the template")
    inverse_xfm = File(exists=True, mandatory=True, desc="the reverse")
    mask = File(exists=True, mandatory=True, desc="the map before, on the working grid")
    native_mask = File(exists=True, mandatory=True, desc="the map before, on the voxels of the T1w")


class EditLesionsOutputSpec(TraitedSpec):
    mask = File(exists=True, desc="the edited map on the working grid")
    void = File(exists=True, desc="all voxels that the added lesions reach there, which are to be filled")
    native_mask = File(exists=True, desc="the edited map on the voxels of the T1w")
    added = File(exists=True, desc="what was added to the map, on the voxels of the T1w")
    removed = File(exists=True, desc="what was removed from it")
    edit = traits.Dict(desc="who edited the map and when, and how far it moved")
    warnings = traits.List(traits.Str, desc="what is unusual about the edited map")


class EditLesions(FileInterface):
    """Find what a person changed in a lesion map, and change the map on the other grid in the same way."""

    input_spec = EditLesionsInputSpec
    output_spec = EditLesionsOutputSpec

    def process(self, runtime) -> dict:
        warnings: list[str] = []
        path, t1w = self.inputs.in_file, self.inputs.t1w
        grid = images.grid_of(images.load(t1w))
        brain, before, before_native = (
            images.read(file, np.uint8)[0] > 0
            for file in (self.inputs.brain_mask, self.inputs.mask, self.inputs.native_mask)
        )
        if self.inputs.space == "T1w":
            edited = masks.read_edited(path, grid, t1w, warnings)
            native = Change.between(before_native, edited)
            world = read_xfm(self.inputs.xfm)
            change, void = carry(native, grid, before, WORKING_GRID, world)
        else:
            edited = masks.read_edited(path, WORKING_GRID, t1w, warnings)
            change = Change.between(before, edited)
            void = change.added
            world = read_xfm(self.inputs.inverse_xfm)
            native, _ = carry(change, WORKING_GRID, before_native, grid, world)
        if native.mask.any():
            masks.check_amount(native.mask, brain, path, t1w, warnings)
        if outside := int((native.mask & ~brain).sum()):
            warnings.append(
                f"{Path(path).name}: {outside} voxels of the edited lesions lie outside the brain mask, and "
                "are not filled."
            )
        outputs: dict[str, Any] = {"edit": self._moved(native, before_native, grid), "warnings": warnings}
        for name, values in (("mask", change.mask), ("void", void)):
            file = within(runtime, f"{name}.nii.gz")
            outputs[name] = images.save(file, values, WORKING_GRID, np.uint8, space_code=4)
        for name, values in (
            ("native_mask", native.mask), ("added", native.added), ("removed", native.removed)
        ):  # fmt: skip
            outputs[name] = images.save(within(runtime, f"{name}.nii.gz"), values, grid, np.uint8)
        return outputs

    def _moved(self, change: Change, before: np.ndarray, grid: Grid) -> dict[str, Any]:
        """Who edited the map, and by how much."""
        counts = {
            name: int(mask.sum())
            for name, mask in (
                ("Added", change.added), ("Removed", change.removed), ("Automatic", before),
                ("Edited", change.mask),
            )
        }  # fmt: skip
        said = self.inputs.said if isdefined(self.inputs.said) else {}
        return {
            **said,
            **{f"{name}Voxels": count for name, count in counts.items()},
            **{f"{name}Volume": round(count * grid.voxel_volume, 2) for name, count in counts.items()},
            "VolumeUnits": "mm^3",
        }


class RefillInputSpec(FillInputSpec):
    inpainted = File(exists=True, mandatory=True, desc="what the networks made by the map before the edit")
    before = File(exists=True, mandatory=True, desc="this map on the working grid")
    lesion_mask = File(exists=True, mandatory=True, desc="the edited map on the working grid")
    void_file = File(exists=True, mandatory=True, desc="all voxels that the added lesions reach")
    white = traits.Float(mandatory=True, desc="white-matter level")
    exponent = traits.Float(mandatory=True, desc="of the standard contrast")
    spread = File(exists=True, desc="standard deviation among the fillings before")


class RefillOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the brain without the lesions of the edited map")
    whole_file = File(exists=True, desc="the same with what the networks changed elsewhere")
    spread = File(desc="standard deviation among the fillings")


class Refill(FileInterface):
    """Fill the lesions that a person added with a non-blind network; those that were there stay filled.

    The network sees the other lesions filled, and what is no lesion by the edited map as it is.
    """

    input_spec = RefillInputSpec
    output_spec = RefillOutputSpec

    def process(self, runtime) -> dict:
        model = registry.find(self.inputs.model, sha256=self.inputs.model_sha256)
        brain, grid = images.read(self.inputs.mask_file)
        data, filled = (images.read(path)[0].copy() for path in (self.inputs.in_file, self.inputs.inpainted))
        before, lesions, void = (
            images.read(path, np.uint8)[0] > 0
            for path in (self.inputs.before, self.inputs.lesion_mask, self.inputs.void_file)
        )
        kept = lesions & before
        hole = inpainting.to_fill(void) & (brain > 0) & ~kept if void.any() else void
        again = self._fill(model, feathering.confine(data, filled, kept, grid), brain > 0, hole)
        filled[hole] = again.image[hole]

        def save(name: str, values: np.ndarray) -> str:
            return images.save(within(runtime, name), values, grid, np.float32, space_code=4)

        outputs = {
            "whole_file": save("whole.nii.gz", filled),
            "out_file": save("inpainted.nii.gz", feathering.confine(data, filled, lesions, grid)),
        }
        if isdefined(self.inputs.spread):
            spread = images.read(self.inputs.spread)[0].copy()
            spread[hole] = 0 if again.spread is None else again.spread[hole]
            outputs["spread"] = save("spread.nii.gz", spread)
        return outputs

    def _fill(self, model: Model, image: np.ndarray, brain: np.ndarray, hole: np.ndarray) -> Filled:
        """What the network makes of the brain, on the whole grid."""
        box = seen(self.inputs, model, brain)
        priors = [images.read(path)[0][box] for path in (self.inputs.wm_prior, self.inputs.gm_prior)]
        image, brain, hole = (np.ascontiguousarray(part[box]) for part in (image, brain, hole))
        scale = Scale(self.inputs.white, self.inputs.exponent)
        out = inpainting.inpaint(
            model, image, brain, scale, hole, runtime_of(self.inputs), priors, exact=True
        )

        def spread_out(inside: np.ndarray) -> np.ndarray:
            volume = np.zeros(WORKING_GRID.shape, np.float32)
            volume[box] = inside
            return volume

        spread = None if out.spread is None else spread_out(out.spread)
        return Filled(spread_out(out.image), spread=spread)
