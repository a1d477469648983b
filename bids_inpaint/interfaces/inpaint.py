"""The inpainting networks as a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_inpaint import options
from bids_inpaint.imaging import feathering
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.interfaces.base import FileInterface, NetworkInputSpec, within
from bids_inpaint.interfaces.lesions import rule_of
from bids_inpaint.io import images
from bids_inpaint.networks import inpainting, registry, volumes
from bids_inpaint.networks.card import Filled, Model
from bids_inpaint.networks.session import Runtime
from bids_inpaint.space import Grid

Array = np.ndarray
#: Reads the part of a volume on the working grid that the networks see.
Reader = Callable[[str], Array]


class FillInputSpec(NetworkInputSpec):
    """Inputs of whatever fills lesions."""

    mask_file = File(exists=True, mandatory=True, desc="the brain on the working grid")
    mirror = traits.Bool(False, usedefault=True, desc="show networks the mirror image, too")
    random_seed = traits.Int(0, usedefault=True, desc="of a network that draws what it fills")
    sampler = traits.Str(desc="of such a network")
    sampling_steps = traits.Int(desc="of the sampler")


class InpaintInputSpec(FillInputSpec):
    lesion_mask = File(exists=True, desc="lesions for a non-blind network (working grid)")
    lesion_map = traits.Enum(*options.LESION_MAPS, desc="what tells the lesions that a blind network found")
    threshold = traits.Float(desc="of their probability, or λ")
    low = traits.Float(0.0, usedefault=True, desc="least probability of their voxels")
    min_volume = traits.Float(options.LESION_MIN_VOLUME, usedefault=True, desc="of these lesions, mm³")
    confine = traits.Bool(False, usedefault=True, desc="undo changes away from these lesions")
    second_model = traits.Str(desc="non-blind network that fills these lesions again")
    second_sha256 = traits.Str(desc="as model_sha256")
    second_alone = traits.Bool(False, usedefault=True, desc="its filling is the result, not the mean of both")


class InpaintOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="inpainted brain on the working grid, in the unit of the input")
    whole_file = File(exists=True, desc="what the networks made, with nothing undone")
    probability = File(desc="of a lesion, calibrated, if the network tells it")
    spread = File(desc="standard deviation among the fillings that the result is the mean of")
    doubt = File(desc="standard deviation of the lesion probability between the brain and its mirror image")
    white = traits.Float(desc="white-matter level")
    exponent = traits.Float(desc="of the standard contrast")


class Inpaint(FileInterface):
    """Replace lesions by healthy-looking tissue with a network."""

    input_spec = InpaintInputSpec
    output_spec = InpaintOutputSpec

    def process(self, runtime) -> dict:
        model = registry.find(self.inputs.model, sha256=self.inputs.model_sha256)
        mask, whole_grid = images.read(self.inputs.mask_file)
        box = seen(self.inputs, model, mask > 0)
        grid = whole_grid.part(box)

        def read(path: str) -> np.ndarray:
            return np.ascontiguousarray(images.read(path)[0][box])

        data, mask = read(self.inputs.in_file), mask[box] > 0
        priors = [read(path) for path in (self.inputs.wm_prior, self.inputs.gm_prior)]
        scale = Scale.measure(data, mask, *priors)
        options = runtime_of(self.inputs)
        out = self._first(model, data, mask, scale, priors, read)

        def lesion_map() -> np.ndarray:
            return self._found(out, data, scale, priors[0], grid, read)

        if isdefined(self.inputs.second_model):
            second = registry.find(self.inputs.second_model, sha256=self.inputs.second_sha256)
            alone = self.inputs.second_alone
            out = inpainting.fill_again(second, out, lesion_map(), mask, scale, options, priors, alone)

        def save(name: str, inside: np.ndarray, scratch: bool = False) -> str:
            volume = np.zeros(whole_grid.shape, np.float32)
            volume[box] = inside
            return images.save(within(runtime, name), volume, whole_grid, space_code=4, scratch=scratch)

        whole_file = out_file = save("whole.nii.gz", out.image, scratch=self.inputs.confine)
        if self.inputs.confine:
            out_file = save("inpainted.nii.gz", feathering.confine(data, out.image, lesion_map(), grid))
        told = {name: getattr(out, name) for name in ("probability", "spread", "doubt")}
        return {
            "out_file": out_file,
            "whole_file": whole_file,
            "white": scale.white,
            "exponent": scale.exponent,
            **{name: save(f"{name}.nii.gz", v, scratch=True) for name, v in told.items() if v is not None},
        }

    def _first(
        self, model: Model, data: Array, mask: Array, scale: Scale, priors: list[Array], read: Reader
    ) -> Filled:
        """What the first network makes of the brain."""
        masked = read(self.inputs.lesion_mask) > 0 if isdefined(self.inputs.lesion_mask) else None
        return inpainting.inpaint(model, data, mask, scale, masked, runtime_of(self.inputs), priors)

    def _found(
        self, filled: Filled, data: Array, scale: Scale, white: Array, grid: Grid, read: Reader
    ) -> Array:
        """The lesions that it found."""
        return inpainting.found(filled, data, scale, white, rule_of(self.inputs), grid)


class FillDecidedInputSpec(InpaintInputSpec):
    first_file = File(exists=True, mandatory=True, desc="what the first network made, with nothing undone")
    decided = File(exists=True, mandatory=True, desc="lesions (working grid), as all visits decided")
    probability = File(exists=True, desc="of a lesion, that the first network told")
    spread = File(exists=True, desc="standard deviation among the fillings of the first network")
    doubt = File(exists=True, desc="standard deviation of its lesion probability")


class FillDecided(Inpaint):
    """The rest of :class:`Inpaint` where the first network has run and all visits have decided."""

    input_spec = FillDecidedInputSpec

    def _first(
        self, model: Model, data: Array, mask: Array, scale: Scale, priors: list[Array], read: Reader
    ) -> Filled:
        told = (getattr(self.inputs, name) for name in ("probability", "spread", "doubt"))
        return Filled(read(self.inputs.first_file), *(read(v) if isdefined(v) else None for v in told))

    def _found(
        self, filled: Filled, data: Array, scale: Scale, white: Array, grid: Grid, read: Reader
    ) -> Array:
        return read(self.inputs.decided) > 0


def seen(inputs: Any, model: Model, brain: np.ndarray) -> tuple[slice, ...]:
    """What of the working grid a network sees; a mirror image is that of the whole grid."""
    whole = tuple(slice(0, n) for n in brain.shape)
    return whole if inputs.mirror else volumes.surroundings(brain, model)


def runtime_of(inputs: Any) -> Runtime:
    """How a network runs, by the inputs of a node that fills."""
    sampler, steps = inputs.sampler, inputs.sampling_steps
    return Runtime(
        inputs.device,
        inputs.num_threads,
        inputs.random_seed,
        sampler if isdefined(sampler) else None,
        steps if isdefined(steps) else None,
        inputs.mirror,
    )
