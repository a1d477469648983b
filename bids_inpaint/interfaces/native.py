"""The way back to the voxels of the T1w as a node."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint import options
from bids_inpaint.imaging import feathering, lesion_table, lesions
from bids_inpaint.imaging.edits import Change, state_of
from bids_inpaint.imaging.uncertainty import VolumeModel, expected_volume
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID, Grid, bounding_box, resample


class BackToNativeInputSpec(InputSpec):
    t1w = File(exists=True, mandatory=True, users=True, desc="the raw image")
    brain_mask = File(exists=True, mandatory=True, desc="on the voxels of the T1w")
    denoised = File(exists=True, mandatory=True, desc="T1w on the voxels of the T1w")
    preproc = File(exists=True, mandatory=True, desc="preprocessed brain on the working grid")
    inpainted = File(exists=True, mandatory=True, desc="the same without its lesions")
    bias = File(exists=True, mandatory=True, desc="multiplicative field on the working grid")
    scale = traits.Float(mandatory=True, desc="mean that `preproc` was divided by")
    weight = File(exists=True, mandatory=True, desc="feathered lesion support on the working grid, 0-1")
    probability = File(exists=True, mandatory=True, desc="graded lesion map on the working grid")
    lesion_mask = File(exists=True, mandatory=True, desc="lesions on the working grid")
    darkening = File(
        exists=True, mandatory=True, desc="inpainted minus original, as a fraction of white matter"
    )
    inverse_xfm = File(
        exists=True, mandatory=True, desc="ITK text: takes images from the template to the T1w"
    )
    spread = File(exists=True, desc="standard deviation of `inpainted` on the working grid")
    doubt = File(exists=True, desc="standard deviation of the lesion probability on the working grid")
    offset = traits.Float(0, usedefault=True, desc="what was subtracted from the intensities of the T1w")
    fill = traits.Enum(
        *options.FILLS, usedefault=True, desc="change the T1w at the lesions alone, or in the whole brain"
    )
    min_volume = traits.Float(0.0, usedefault=True, desc="of a lesion on these voxels, mm³")
    keep_volume = traits.Bool(
        False, usedefault=True, desc="give the lesions the volume that they have on the working grid"
    )
    given = File(exists=True, desc="lesions on the voxels of the T1w, which replace the resampled map")
    added = File(exists=True, desc="those of them that a person added to a map")
    removed = File(exists=True, desc="what a person removed from it, which is to stay as it is")
    told = traits.Bool(desc="whether `probability` is one, and not a graded map")
    volumes = traits.Dict(desc="what is known of the true volumes behind the map, as cards have it")


class BackToNativeOutputSpec(TraitedSpec):
    inpainted = File(exists=True, desc="the T1w without its lesions, in its own unit and data type")
    preproc = File(exists=True, desc="denoised brain without its bias, on the voxels of the T1w")
    lesion_mask = File(exists=True, desc="on the voxels of the T1w")
    probability = File(exists=True, desc="on the voxels of the T1w")
    labels = File(exists=True, desc="one integer a lesion, as in the table")
    table = File(exists=True, desc="one row a lesion (TSV)")
    spread = File(desc="standard deviation of what is inpainted, in the unit of the T1w")
    doubt = File(desc="standard deviation of the lesion probability, on the voxels of the T1w")
    volume_interval = traits.List(traits.Float, desc="of the true volume of all lesions, mm³")


class BackToNative(FileInterface):
    """The original minus the resampled difference, and the lesion maps, on the voxels of the T1w."""

    input_spec = BackToNativeInputSpec
    output_spec = BackToNativeOutputSpec

    def process(self, runtime) -> dict:
        raw, stored, slope, grid = images.stored_values(self.inputs.t1w)
        brain = images.read(self.inputs.brain_mask, np.uint8)[0] > 0
        # nothing is done beyond, and an image of small voxels is large; an edited map is kept as it is
        box = bounding_box(brain | (self._mask("given") if self._edited else False))
        brain, part = brain[box].copy(), grid.part(box)
        to_template = read_xfm(self.inputs.inverse_xfm)

        def native(path_or_data, order=1, outside="zero", inside=brain):
            data = path_or_data
            if isinstance(data, (str, os.PathLike)):
                data = images.read(data)[0]
            return resample(data, WORKING_GRID, grid, to_template, order, outside, inside, box)

        def save(name: str, values: np.ndarray, dtype: Any) -> str:
            whole = np.zeros(grid.shape, dtype, order="F")
            whole[box] = values
            return images.save(within(runtime, f"{name}.nii.gz"), whole, grid)

        mask = self._lesions(brain, part, native, box)
        change, weight = self._change(raw, mask, brain, part, native, box)
        stored = np.require(stored, requirements="W")
        stored[box] = feathering.compose(stored[box], change, weight, slope)
        outputs: dict[str, Any] = {
            "inpainted": images.write_like(raw, stored, within(runtime, "inpainted.nii.gz")),
            "lesion_mask": save("lesions", mask, np.uint8),
            "table": within(runtime, "lesions.tsv"),
        }
        if isdefined(self.inputs.spread):
            unit = images.read(self.inputs.bias)[0] * self.inputs.scale
            spread = weight * native(images.read(self.inputs.spread)[0] * unit, inside=weight > 0)
            outputs["spread"] = save("spread", spread, np.float32)
        del raw, stored, change, weight
        field = np.where(brain, native(self.inputs.bias, outside="nearest"), 1)
        preproc = images.read(self.inputs.denoised)[0][box] / field * brain
        outputs["preproc"] = save("preproc", preproc, np.float32)
        del field, preproc
        graded = np.clip(native(self.inputs.probability), 0, 1)
        outputs["probability"] = save("probability", graded, np.float32)
        doubt = None
        if isdefined(self.inputs.doubt):
            doubt = native(self.inputs.doubt)
            outputs["doubt"] = save("doubt", doubt, np.float32)
        dark = native(self.inputs.darkening, inside=mask)
        labels, measured = lesion_table.tabulate(
            mask, dark, part, graded if self.inputs.told else None, doubt
        )
        outputs["labels"] = save("labels", labels, np.int32)
        edited = None
        if self._edited:
            edited = state_of(labels, Change(mask, self._mask("added")[box], self._mask("removed")[box]))
        if isdefined(self.inputs.volumes):
            model = VolumeModel.read(self.inputs.volumes)
            scale = float(abs(np.linalg.det(to_template[:3, :3])))
            measured = lesion_table.with_intervals(measured, model.lesion, scale)
            outputs["volume_interval"] = self._interval(model, scale, bool(measured))
        write_table(outputs["table"], measured, edited, self._more_columns())
        return outputs

    def _more_columns(self) -> list[str]:
        """Columns of the table that not all tables have."""
        return [
            *(["probability"] if self.inputs.told else []),
            *(["probability_sd"] if isdefined(self.inputs.doubt) else []),
            *(["volume_low", "volume_high"] if isdefined(self.inputs.volumes) else []),
        ]

    def _interval(self, model: VolumeModel, scale: float, found: bool) -> list[float]:
        """Ends of the interval of the volume of all lesions (mm³); without any in the map, it begins at 0."""
        probability = images.read(self.inputs.probability)[0]
        low, high = model.load.interval(expected_volume(probability, WORKING_GRID.voxel_volume))
        return [round(1000 * float(end) / scale, 2) for end in (low if found else 0.0, high)]

    @property
    def _edited(self) -> bool:
        """Whether a person corrected the map."""
        return isdefined(self.inputs.added)

    def _mask(self, name: str) -> np.ndarray:
        return images.read(getattr(self.inputs, name), np.uint8)[0] > 0

    def _lesions(self, brain: np.ndarray, grid: Grid, native: Callable, box: tuple) -> np.ndarray:
        """Lesions in the box of the brain."""
        if isdefined(self.inputs.given):
            given = self._mask("given")[box]
            return given if self._edited else brain & given
        least = lesions.least_voxels(self.inputs.min_volume, grid)
        if self.inputs.keep_volume:
            mask = images.read(self.inputs.lesion_mask)[0] > 0
            to_template = read_xfm(self.inputs.inverse_xfm)
            kept = lesions.transfer(mask, WORKING_GRID, grid, to_template)[0]
            return lesions.remove_small(brain & kept, least)
        # resampling shrinks lesions
        return lesions.remove_small(native(self.inputs.lesion_mask) > 0.5, least)

    def _change(
        self, raw: Any, mask: np.ndarray, brain: np.ndarray, grid: Grid, native: Callable, box: tuple
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is subtracted from the T1w in the box of the brain, and its weight."""
        bias, inpainted = (images.read(path)[0] for path in (self.inputs.bias, self.inputs.inpainted))
        unit = bias * self.inputs.scale
        if self.inputs.fill == "lesions":
            # a lesion too small for the voxels of the T1w is in no map, and isn't filled either
            reach = feathering.FEATHER_MM[1] + grid.voxel_sizes.max()
            around = brain & feathering.neighbourhood(mask, grid, reach)
            change = native((images.read(self.inputs.preproc)[0] - inpainted) * unit, inside=around)
            weight = native(self.inputs.weight, inside=around)
            if self._edited:
                # lesions that were not edited are filled as before
                weight[brain & self._mask("added")[box]] = 1
                weight[self._mask("removed")[box]] = 0
            elif isdefined(self.inputs.given):
                weight[mask] = 1
            return change, weight
        plain = images.read_data(raw, self.inputs.t1w)[box] - np.float32(self.inputs.offset)
        change = plain - native(inpainted * unit, order=3)
        # the network saw nothing beyond the working grid
        return change, brain * np.float32(native(np.ones_like(bias)) > 0.999)


def write_table(
    path: str,
    measured: list[lesion_table.Lesion],
    edited: list[str] | None = None,
    more: Sequence[str] = (),
) -> None:
    """Write lesions as the lookup table of their labelled image (BIDS ``_dseg.tsv``).

    Parameters
    ----------
    path : str
    measured : list of Lesion
    edited : list of str, optional
        What a person did to each.
    more : sequence of str
        Columns that not all tables have: 'probability', 'probability_sd', 'volume_low', 'volume_high'.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        column = [] if edited is None else ["edit"]
        writer.writerow(["index", "name", "volume", "x", "y", "z", "contrast", *more, *column])
        for number, lesion in enumerate(measured):
            low, high = lesion.interval or (None, None)
            known = {
                "probability": (lesion.probability, 3),
                "probability_sd": (lesion.probability_sd, 3),
                "volume_low": (low, 2),
                "volume_high": (high, 2),
            }
            cells = ["n/a" if v is None else f"{v:.{digits}f}" for v, digits in map(known.__getitem__, more)]
            centre = (f"{c:.2f}" for c in lesion.centroid)
            name = f"lesion {lesion.label}"
            volume, contrast = f"{lesion.volume:.2f}", f"{lesion.contrast:.4f}"
            state = [] if edited is None else [edited[number]]
            writer.writerow([lesion.label, name, volume, *centre, contrast, *cells, *state])
