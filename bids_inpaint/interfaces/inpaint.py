"""The network, the lesion map and the way back to the T1w as nodes."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint import headers, images, inference, lesions, masks, models
from bids_inpaint.intensity import Scale, white_level
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.space import WORKING_GRID, Grid, resample
from bids_inpaint.transforms import read_xfm


class InpaintInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    wm_prior = File(exists=True, mandatory=True)
    gm_prior = File(exists=True, mandatory=True)
    lesion_mask = File(exists=True, desc="lesions for a non-blind network (working grid)")
    model = traits.Str(mandatory=True)
    model_sha256 = traits.Str(mandatory=True, desc="so that another file of that name is another run")
    threshold = traits.Float(desc="λ of the lesions that a blind network found")
    min_volume = traits.Float(10.0, usedefault=True, desc="of these lesions, mm³")
    confine = traits.Bool(False, usedefault=True, desc="undo changes away from these lesions")
    second_model = traits.Str(desc="non-blind network that fills these lesions again")
    second_sha256 = traits.Str(desc="as model_sha256")
    second_alone = traits.Bool(False, usedefault=True, desc="its filling is the result, not the mean of both")
    random_seed = traits.Int(0, usedefault=True, desc="of a network that draws what it fills")
    sampler = traits.Str(desc="of such a network")
    sampling_steps = traits.Int(desc="of the sampler")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True)
    num_threads = traits.Int(1, usedefault=True, nohash=True)


class InpaintOutputSpec(TraitedSpec):
    out_file = File(exists=True)
    whole_file = File(exists=True, desc="what the networks made, with nothing undone")
    white = traits.Float(desc="white-matter level")
    exponent = traits.Float(desc="of the standard contrast")


class Inpaint(FileInterface):
    """Replace lesions by healthy-looking tissue with a network."""

    input_spec = InpaintInputSpec
    output_spec = InpaintOutputSpec

    def process(self, runtime) -> dict:
        model = models.find(self.inputs.model)
        mask, whole_grid = images.read(self.inputs.mask_file)
        box = inference.surroundings(mask > 0, model)
        grid = whole_grid.part(box)

        def read(path: str) -> np.ndarray:
            return np.ascontiguousarray(images.read(path)[0][box])

        data, mask = read(self.inputs.in_file), mask[box] > 0
        masked = read(self.inputs.lesion_mask) > 0 if isdefined(self.inputs.lesion_mask) else None
        priors = [read(path) for path in (self.inputs.wm_prior, self.inputs.gm_prior)]
        scale = Scale.measure(data, mask, *priors)
        where = inference.Runtime(
            self.inputs.device,
            self.inputs.num_threads,
            self.inputs.random_seed,
            self.inputs.sampler or None,
            self.inputs.sampling_steps or None,
        )
        out = inference.inpaint(model, data, mask, scale, masked, where, priors)

        def found() -> np.ndarray:
            limits = self.inputs.threshold, self.inputs.min_volume
            return lesions.find_unsegmented(data, out, scale, priors[0], *limits, grid)

        if isdefined(self.inputs.second_model):
            second = models.find(self.inputs.second_model)
            alone = self.inputs.second_alone
            out = inference.fill_again(second, out, found(), mask, scale, where, priors, alone)

        def save(name: str, inside: np.ndarray) -> str:
            volume = np.zeros(whole_grid.shape, np.float32)
            volume[box] = inside
            return images.save(within(runtime, name), volume, whole_grid, space_code=4)

        whole_file = out_file = save("whole.nii.gz", out)
        if self.inputs.confine:
            out_file = save("inpainted.nii.gz", lesions.confine(data, out, found(), grid))
        return {
            "out_file": out_file,
            "whole_file": whole_file,
            "white": scale.white,
            "exponent": scale.exponent,
        }


class LesionMaskInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="binary lesion mask on any grid")
    t1w = File(exists=True, mandatory=True, users=True)
    xfm = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, desc="on the working grid; the lesions must touch it")
    preproc = File(exists=True, desc="on the working grid, to see whether the lesions are dark")
    wm_prior = File(exists=True, desc="for its white-matter level")
    inverse_xfm = File(exists=True, desc="for the mask on the voxels of the T1w, too")
    space = traits.Enum("T1w", "template", usedefault=True)


class LesionMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True)
    void_file = File(exists=True, desc="all voxels that the lesions reach, which are to be filled")
    native_file = File(desc="on the voxels of the T1w")
    warnings = traits.List(traits.Str, desc="what is unusual about the mask")


class LesionMask(FileInterface):
    """Bring a given lesion mask, in T1w or template space, onto the working grid and back to the T1w's.

    Each is resampled from the given mask, at most once.
    """

    input_spec = LesionMaskInputSpec
    output_spec = LesionMaskOutputSpec

    def process(self, runtime) -> dict:
        world = read_xfm(self.inputs.xfm) if self.inputs.space == "T1w" else None
        brain = None
        if isdefined(self.inputs.brain_mask):
            brain = images.read(self.inputs.brain_mask)[0] > 0
        if self.inputs.space == "T1w":
            masks.check_place(self.inputs.in_file, self.inputs.t1w)
        warnings: list[str] = []
        out, reached = masks.read_lesions_and_reach(
            self.inputs.in_file, WORKING_GRID, self.inputs.t1w, world, brain, warnings
        )
        if isdefined(self.inputs.preproc) and brain is not None:
            image = images.read(self.inputs.preproc)[0]
            white = white_level(image, brain, images.read(self.inputs.wm_prior)[0])
            if masks.darker_side(image, out, white) < masks.BRIGHTER:
                warnings.append(
                    f"{Path(self.inputs.in_file).name}: the given lesions are brighter than the same places "
                    "of the other hemisphere; check that left and right are not swapped."
                )
        out_file, void_file = (within(runtime, f"{name}.nii.gz") for name in ("lesions", "void"))
        outputs: dict[str, Any] = {
            "out_file": images.save(out_file, out, WORKING_GRID, np.uint8, space_code=4),
            "void_file": images.save(void_file, reached, WORKING_GRID, np.uint8, space_code=4),
            "warnings": warnings,
        }
        if isdefined(self.inputs.inverse_xfm):
            grid = images.grid_of(images.load(self.inputs.t1w))
            back = read_xfm(self.inputs.inverse_xfm) if self.inputs.space == "template" else None
            native = masks.read_lesions(self.inputs.in_file, grid, self.inputs.t1w, back)
            outputs["native_file"] = images.save(within(runtime, "native.nii.gz"), native, grid, np.uint8)
        return outputs


class MapLesionsInputSpec(InputSpec):
    preproc = File(exists=True, mandatory=True)
    inpainted = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    wm_prior = File(exists=True, mandatory=True)
    white = traits.Float(mandatory=True, desc="white-matter level")
    exponent = traits.Float(mandatory=True, desc="of the standard contrast")
    threshold = traits.Float(mandatory=True, desc="fraction of normal-appearing white matter")
    min_volume = traits.Float(mandatory=True, desc="mm³")
    given = File(exists=True, desc="lesion mask (working grid) to use in place of the map")


class MapLesionsOutputSpec(TraitedSpec):
    mask = File(exists=True)
    probability = File(exists=True)
    darkening = File(exists=True)
    weight = File(exists=True, desc="feathered lesion support, 0-1")


class MapLesions(FileInterface):
    """Lesion map from the difference of the image and its inpainted version in white matter."""

    input_spec = MapLesionsInputSpec
    output_spec = MapLesionsOutputSpec

    def process(self, runtime) -> dict:
        preproc, grid = images.read(self.inputs.preproc)
        inpainted = images.read(self.inputs.inpainted)[0]
        wm = images.read(self.inputs.wm)[0]
        scale = Scale(self.inputs.white, self.inputs.exponent)
        if isdefined(self.inputs.given):
            graded = images.read(self.inputs.given)[0]
            mask = graded > 0
        else:
            graded, mask = lesions.find(
                preproc,
                inpainted,
                scale,
                wm,
                images.read(self.inputs.wm_prior)[0],
                self.inputs.threshold,
                self.inputs.min_volume,
                grid,
            )
        volumes: dict[str, np.ndarray] = {
            "mask": mask.astype(np.uint8),
            "probability": graded.astype(np.float32),
            "darkening": lesions.darkening(scale.apply(preproc), scale.apply(inpainted), wm),
            "weight": lesions.feather(mask, grid),
        }
        return {
            key: images.save(within(runtime, f"{key}.nii.gz"), v, grid, space_code=4)
            for key, v in volumes.items()
        }


class BackToNativeInputSpec(InputSpec):
    t1w = File(exists=True, mandatory=True, users=True, desc="the raw image")
    brain_mask = File(exists=True, mandatory=True)
    denoised = File(exists=True, mandatory=True)
    preproc = File(exists=True, mandatory=True)
    inpainted = File(exists=True, mandatory=True)
    bias = File(exists=True, mandatory=True)
    scale = traits.Float(mandatory=True)
    weight = File(exists=True, mandatory=True)
    probability = File(exists=True, mandatory=True)
    lesion_mask = File(exists=True, mandatory=True)
    darkening = File(exists=True, mandatory=True)
    inverse_xfm = File(exists=True, mandatory=True)
    offset = traits.Float(0, usedefault=True, desc="what was subtracted from the intensities of the T1w")
    fill = traits.Enum("lesions", "full", usedefault=True)
    min_volume = traits.Float(0.0, usedefault=True, desc="of a lesion on these voxels, mm³")
    given = File(exists=True, desc="lesions on the voxels of the T1w, which replace the resampled map")


class BackToNativeOutputSpec(TraitedSpec):
    inpainted = File(exists=True)
    preproc = File(exists=True)
    lesion_mask = File(exists=True)
    probability = File(exists=True)
    labels = File(exists=True, desc="one integer a lesion, as in the table")
    table = File(exists=True)


class BackToNative(FileInterface):
    """The original minus the resampled difference, and the lesion maps, on the voxels of the T1w."""

    input_spec = BackToNativeInputSpec
    output_spec = BackToNativeOutputSpec

    def process(self, runtime) -> dict:
        raw, stored, slope, grid = stored_values(self.inputs.t1w)
        to_template = read_xfm(self.inputs.inverse_xfm)
        brain = images.read(self.inputs.brain_mask)[0] > 0

        def native(path_or_data, order=1, outside="zero", where=brain):
            data = path_or_data
            if isinstance(data, (str, os.PathLike)):
                data = images.read(data)[0]
            return resample(data, WORKING_GRID, grid, to_template, order, outside, where)

        bias = images.read(self.inputs.bias)[0]
        if isdefined(self.inputs.given):
            mask = brain & (images.read(self.inputs.given)[0] > 0)
        else:
            # resampling shrinks lesions
            least = lesions.least_voxels(self.inputs.min_volume, grid)
            mask = lesions.remove_small(native(self.inputs.lesion_mask) > 0.5, least)
        inpainted = images.read(self.inputs.inpainted)[0]
        unit = bias * self.inputs.scale
        if self.inputs.fill == "lesions":
            # a lesion too small for the voxels of the T1w is in no map, and isn't filled either
            reach = lesions.FEATHER_MM[1] + grid.voxel_sizes.max()
            around = brain & lesions.near(mask, grid, reach)
            change = native((images.read(self.inputs.preproc)[0] - inpainted) * unit, where=around)
            weight = native(self.inputs.weight, where=around)
            if isdefined(self.inputs.given):
                weight[mask] = 1
        else:
            plain = images.read_data(raw, self.inputs.t1w) - np.float32(self.inputs.offset)
            change = plain - native(inpainted * unit, order=3)
            # the network saw nothing beyond the working grid
            weight = brain * np.float32(native(np.ones_like(bias)) > 0.999)
        filled = lesions.compose(stored, change, weight, slope)
        field = np.where(brain, native(bias, outside="nearest"), 1)
        preproc = images.read(self.inputs.denoised)[0] / field * brain
        outputs = {
            "inpainted": write_like(raw, filled, within(runtime, "inpainted.nii.gz")),
            "preproc": images.save(within(runtime, "preproc.nii.gz"), preproc, grid, np.float32),
            "lesion_mask": images.save(within(runtime, "lesions.nii.gz"), mask, grid, np.uint8),
            "probability": images.save(
                within(runtime, "probability.nii.gz"),
                np.clip(native(self.inputs.probability), 0, 1), grid, np.float32,
            ),
            "table": within(runtime, "lesions.tsv"),
        }  # fmt: skip
        labels, found = lesions.tabulate(mask, native(self.inputs.darkening, where=mask), grid)
        outputs["labels"] = images.save(within(runtime, "labels.nii.gz"), labels, grid, np.int32)
        write_table(outputs["table"], found)
        return outputs


def write_table(path: str, found: list[lesions.Lesion]) -> None:
    """Write lesions as the lookup table of their labelled image (BIDS ``_dseg.tsv``)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", "volume", "x", "y", "z", "contrast"])
        for lesion in found:
            centre = (f"{c:.2f}" for c in lesion.centroid)
            name = f"lesion {lesion.label}"
            writer.writerow([lesion.label, name, f"{lesion.volume:.2f}", *centre, f"{lesion.contrast:.4f}"])


def stored_values(path: str) -> tuple[Any, np.ndarray, float, Grid]:
    """An image, its three-dimensional values as stored (unscaled), their scale factor, and its grid."""
    raw: Any = images.load(path)
    stored = np.asanyarray(raw.dataobj.get_unscaled()).reshape(raw.shape[:3])
    return raw, stored, float(raw.dataobj.slope or 1.0), images.grid_of(raw)


def write_like(raw, stored: np.ndarray, path: str) -> str:
    """Write stored values with the data type, scaling and affines of an image, and nothing else of it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    image = nib.Nifti1Image(stored, None, header)
    for form, other in (("qform", "sform"), ("sform", "qform")):
        matrix = headers.usable_form(raw.header, form)
        code = int(raw.header[f"{form}_code"]) or int(raw.header[f"{other}_code"])
        more = {"strip_shears": True} if form == "qform" else {}
        getattr(image, f"set_{form}")(raw.affine if matrix is None else matrix, code, **more)
    image.header.set_xyzt_units("mm", "sec")
    slope, inter = raw.dataobj.slope, raw.dataobj.inter
    image.header.set_slope_inter(slope, inter)
    return images.write(image, path)
