"""Nodes that read, check and move images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint import errors, options
from bids_inpaint.dataset import masks
from bids_inpaint.imaging import brain
from bids_inpaint.imaging.conform import conform
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.interfaces.base import AffineOutputSpec, FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import extraction, registry
from bids_inpaint.networks.session import Runtime
from bids_inpaint.space import WORKING_GRID, Grid, Misplaced, bounding_box, resample

#: Brain masks of other tools agree with ours at least so well (Dice); a mask of another session has 0.7.
BRAIN_AGREEMENT = 0.85
#: No head is larger or smaller than the template's by this factor.
MOST_SCALED = 4


class ConformInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, users=True, desc="raw T1w")


class ConformOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="T1w on its own voxels, 0 without signal, without spikes")
    offset = traits.Float(desc="what was subtracted from the intensities")
    warnings = traits.List(traits.Str, desc="what is unusual about the file")


class Conform(FileInterface):
    """Check a T1w and rewrite it as float32 with one affine and plain intensities, on its own voxels."""

    input_spec = ConformInputSpec
    output_spec = ConformOutputSpec

    def process(self, runtime) -> dict:
        warnings: list[str] = []
        data, grid = images.load_t1w(self.inputs.in_file, warnings)
        conformed = conform(data)
        name = Path(self.inputs.in_file).name
        return {
            "out_file": images.save(within(runtime, "conformed.nii.gz"), conformed.data, grid, scratch=True),
            "offset": conformed.offset,
            "warnings": [*warnings, *(f"{name}: {clause}." for clause in conformed.warnings)],
        }


class BrainMaskInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="conformed T1w")
    precomputed = File(exists=True, users=True, desc="mask of an earlier run or another tool")
    precomputed_xfm = File(
        exists=True, users=True, desc="ITK text: takes images from the T1w to the space of that mask"
    )
    skull_strip = traits.Enum(
        *options.SKULL_STRIP,
        usedefault=True,
        desc="recognise stripped images, always extract the brain, or never",
    )
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="of the network")


class BrainMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="brain mask on the voxels of the T1w")
    method = traits.Str(desc="precomputed, stripped, skipped or extracted")
    warnings = traits.List(traits.Str, desc="what is unusual about a precomputed mask")


class BrainMask(FileInterface):
    """Brain mask on the voxels of the T1w."""

    input_spec = BrainMaskInputSpec
    output_spec = BrainMaskOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        warnings: list[str] = []
        if isdefined(self.inputs.precomputed):
            mask, method = self._precomputed(data, grid, warnings), "precomputed"
        else:
            mask, method = self._extracted(data, grid)
        out_file = images.save(within(runtime, "mask.nii.gz"), mask, grid, np.uint8)
        return {"out_file": out_file, "method": method, "warnings": warnings}

    def _precomputed(self, data, grid, warnings):
        """A mask of another tool, compared with what this program takes for the brain."""
        path = self.inputs.precomputed
        # of points it is the inverse
        xfm = self.inputs.precomputed_xfm
        world = np.linalg.inv(read_xfm(xfm)) if isdefined(xfm) else None
        mask = masks.read_brain(path, grid, self.source, world, warnings)
        litres = mask.sum() * grid.voxel_volume / 1e6
        low, high = (volume / 1e6 for volume in brain.BRAIN_VOLUME)
        if not low < litres < high:
            raise errors.InputError(
                f"The brain mask {path} has {litres:.2f} l on {self.source}, which no brain has: give "
                "the brain mask of this image."
            )
        try:
            expected, _ = self._extracted(data, grid)
        except errors.InputError:
            # a mask is given where no brain is found
            return mask
        agreement = dice(mask, expected)
        if agreement < BRAIN_AGREEMENT:
            warnings.append(
                f"{Path(path).name}: the given brain mask differs from the brain that this program finds "
                f"(Dice {agreement:.2f}); check that it belongs to this image."
            )
        return mask

    def _extracted(self, data, grid):
        if self.inputs.skull_strip == "skip":
            return brain.largest_component(brain.foreground(data)), "skipped"
        largest = brain.largest_part(data)
        if self.inputs.skull_strip == "auto":
            stripped = brain.stripped_mask(data, grid, largest)
            if stripped is not None:
                return stripped, "stripped"
        model = registry.find(registry.BRAIN, "brain")
        try:
            runtime = Runtime("cpu", self.inputs.num_threads)
            return extraction.extract(data, grid, model, runtime, largest[0]), "extracted"
        except ValueError as error:
            # want of memory, and what the network's library hits, are no fault of the image
            extent = "×".join(f"{v:.0f}" for v in grid.voxel_sizes * grid.shape)
            raise errors.InputError(
                f"No brain was found in {self.source} ({error}; its voxels span {extent} mm): check "
                "that it is a whole-head T1w with the right voxel size, or give a brain mask with -d."
            ) from error


class GivenAffineInputSpec(InputSpec):
    xfm = File(
        exists=True, mandatory=True, users=True, desc="ITK text: takes images from the T1w to the template"
    )
    inverse_xfm = File(
        exists=True, mandatory=True, users=True, desc="ITK text: takes images from the template to the T1w"
    )


class GivenAffine(FileInterface):
    """Check an affine of another tool and its inverse."""

    input_spec = GivenAffineInputSpec
    output_spec = AffineOutputSpec

    def process(self, runtime) -> dict:
        paths = self.inputs.xfm, self.inputs.inverse_xfm
        forward, back = map(read_xfm, paths)
        for path, matrix in zip(paths, (forward, back), strict=True):
            scales = np.linalg.svd(matrix[:3, :3], compute_uv=False) if np.isfinite(matrix).all() else [0]
            if min(scales) < 1 / MOST_SCALED or max(scales) > MOST_SCALED or np.linalg.det(matrix) < 0:
                raise errors.InputError(
                    f"{path} is no affine between a head and the template (a scale beyond "
                    f"1/{MOST_SCALED} to {MOST_SCALED}, or a mirror): register again, or leave it out."
                )
        # of what lies in a head, in mm
        corners = np.array([[x, y, z, 1] for x in (-100, 100) for y in (-100, 100) for z in (-100, 100)]).T
        away = np.abs(back @ forward @ corners - corners).max()
        if away > 0.5:
            raise errors.InputError(
                f"{paths[1]} is not the inverse of {paths[0]} (they lead {away:.1f} mm away): "
                "give both of one registration, or leave them out."
            )
        return {"out_xfm": paths[0], "out_inverse": paths[1]}


class TrimMaskInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain mask on the voxels of the T1w")
    method = traits.Str(mandatory=True, desc="how the mask came about")
    template_mask = File(exists=True, mandatory=True, desc="brain of the template on the working grid")
    inverse_xfm = File(
        exists=True, mandatory=True, desc="ITK text: takes images from the template to the T1w"
    )


class TrimMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="brain mask on the voxels of the T1w")


class TrimMask(FileInterface):
    """Cut an extracted brain mask to the surroundings of the template's brain; leave others alone."""

    input_spec = TrimMaskInputSpec
    output_spec = TrimMaskOutputSpec

    def process(self, runtime) -> dict:
        if self.inputs.method != "extracted":
            return {"out_file": self.inputs.in_file}
        mask, grid = images.read(self.inputs.in_file, np.uint8)
        template, template_grid = images.read(self.inputs.template_mask)
        world = read_xfm(self.inputs.inverse_xfm)
        out = brain.trim(mask > 0, grid, template > 0, template_grid, world)
        return {"out_file": images.save(within(runtime, "mask.nii.gz"), out, grid, np.uint8)}


class ToWorkingGridInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="denoised T1w")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the voxels of the T1w")
    xfm = File(exists=True, mandatory=True, desc="ITK text: takes images from the T1w to the template")
    working_mask = File(exists=True, desc="brain mask on the working grid to use in place of that of the T1w")


class ToWorkingGridOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="brain on the working grid")
    out_mask = File(exists=True, desc="brain mask on the working grid")


_OUTSIDE = "lies outside the template after the affine"


class ToWorkingGrid(FileInterface):
    """Resample a brain and its mask once onto the working grid."""

    input_spec = ToWorkingGridInputSpec
    output_spec = ToWorkingGridOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file, np.uint8)[0]
        xfm = read_xfm(self.inputs.xfm)
        # the spline reaches a few voxels beyond the brain
        if not mask.any():
            raise Misplaced(_OUTSIDE)
        box = bounding_box(mask, margin=8)
        data, mask, grid = data[box].copy(), mask[box], grid.part(box)
        if isdefined(self.inputs.working_mask):
            mask_out = images.read(self.inputs.working_mask)[0] > 0
        else:
            mask_out = resample(mask, grid, WORKING_GRID, xfm, order=1) > 0.5
        if mask_out.sum() * WORKING_GRID.voxel_volume < 0.4 * brain.BRAIN_VOLUME[0]:
            raise Misplaced(_OUTSIDE)
        out = resample(data * (mask > 0), grid, WORKING_GRID, xfm, order=3, mask=mask_out)
        return {
            "out_file": images.save(
                within(runtime, "working.nii.gz"), out, WORKING_GRID, np.float32, space_code=4, scratch=True
            ),
            "out_mask": images.save(
                within(runtime, "mask.nii.gz"), mask_out, WORKING_GRID, np.uint8, space_code=4
            ),
        }


class NormaliseInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain on the working grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the working grid")


class NormaliseOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="brain on the working grid, of mean 1")
    scale = traits.Float(desc="mean over the mask that the image was divided by")


class Normalise(FileInterface):
    """Divide by the mean over the brain mask (Manjón 2020, section 2.2)."""

    input_spec = NormaliseInputSpec
    output_spec = NormaliseOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        scale = float(data[mask].mean(dtype=np.float64))
        out_file = within(runtime, "normalised.nii.gz")
        out = (data / scale).astype(np.float32)
        return {"out_file": images.save(out_file, out, grid, space_code=4), "scale": scale}


class TissuesToNativeInputSpec(InputSpec):
    gm = File(exists=True, mandatory=True, desc="probability of grey matter on the working grid")
    wm = File(exists=True, mandatory=True, desc="probability of white matter on the working grid")
    csf = File(exists=True, mandatory=True, desc="probability of cerebrospinal fluid on the working grid")
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    inverse_xfm = File(
        exists=True, mandatory=True, desc="ITK text: takes images from the template to the T1w"
    )


class TissuesToNativeOutputSpec(TraitedSpec):
    gm = File(exists=True, desc="on the voxels of the T1w")
    wm = File(exists=True, desc="on the voxels of the T1w")
    csf = File(exists=True, desc="on the voxels of the T1w")
    dseg = File(exists=True, desc="1 GM, 2 WM, 3 CSF")
    volumes = traits.Dict(desc="tissue to the sum of its probabilities, in mm³")


class TissuesToNative(FileInterface):
    """Tissue probabilities on the voxels of the T1w, and the likeliest tissue there."""

    input_spec = TissuesToNativeInputSpec
    output_spec = TissuesToNativeOutputSpec

    def process(self, runtime) -> dict:
        mask, grid = images.read(self.inputs.brain_mask, np.uint8)
        box = bounding_box(mask)
        inside = mask[box] > 0
        world = read_xfm(self.inputs.inverse_xfm)
        maps = []
        for tissue in ("gm", "wm", "csf"):
            data, source = images.read(getattr(self.inputs, tissue))
            values = resample(data, source, grid, world, order=1, mask=inside, part=box)
            maps.append(np.clip(values, 0, 1, out=values))
        outputs: dict[str, Any] = save_tissues(runtime, maps, inside, grid, box=box)
        outputs["volumes"] = {
            tissue: round(float(values.sum(dtype=np.float64)) * grid.voxel_volume, 1)
            for tissue, values in zip(("GM", "WM", "CSF"), maps, strict=True)
        }
        return outputs


def save_tissues(
    runtime,
    maps: Sequence[np.ndarray],
    mask: np.ndarray,
    grid: Grid,
    space_code: int | None = None,
    box: tuple[slice, ...] = (),
) -> dict[str, str]:
    """Write probabilities of GM, WM and CSF, and the likeliest of them where there is any.

    The arrays are those of a box of the grid, or of all of it.
    """

    def save(name: str, values: np.ndarray, dtype: Any) -> str:
        whole = np.zeros(grid.shape, dtype, order="F")
        whole[box or ...] = values
        return images.save(within(runtime, f"{name}.nii.gz"), whole, grid, space_code=space_code)

    outputs = {
        tissue: save(tissue, values, np.float32)
        for tissue, values in zip(("gm", "wm", "csf"), maps, strict=True)
    }
    inside = np.stack([values[mask] for values in maps])
    labels = np.zeros(mask.shape, np.uint8)
    labels[mask] = np.where(inside.sum(0) > 0, inside.argmax(0) + 1, 0)
    return outputs | {"dseg": save("dseg", labels, np.uint8)}
