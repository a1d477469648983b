"""A volume through a network with ONNX Runtime (arrays in, arrays out)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_inpaint.diffusion import check_steps
from bids_inpaint.images import InputError
from bids_inpaint.intensity import Scale
from bids_inpaint.models import Model
from bids_inpaint.space import bounding_box

if TYPE_CHECKING:
    import onnxruntime

Array = np.ndarray

#: Value of the voxels to fill in the input of a non-blind network (Manjón 2020, section 2.3).
MASKED = -1.0

#: Voxels around what is wanted that a network sees: around the brain is nothing, around lesions there is.
MARGIN = {"blind": 8, "filling": 24}


def space_to_depth(volume: Array) -> Array:
    """Split a volume into its 8 parity sub-volumes (Manjón 2020, section 2.3).

    Parameters
    ----------
    volume : array, shape (2·D, 2·H, 2·W)

    Returns
    -------
    array, shape (8, D, H, W)
        Channel ``4·i + 2·j + k`` holds ``volume[i::2, j::2, k::2]``.

    Examples
    --------
    >>> v = np.arange(2 * 4 * 6).reshape(2, 4, 6)
    >>> bool((space_to_depth(v)[5] == v[1::2, 0::2, 1::2]).all())
    True
    >>> bool((depth_to_space(space_to_depth(v)) == v).all())
    True
    """
    d, h, w = (n // 2 for n in volume.shape)
    return volume.reshape(d, 2, h, 2, w, 2).transpose(1, 3, 5, 0, 2, 4).reshape(8, d, h, w)


def depth_to_space(channels: Array) -> Array:
    """Undo :func:`space_to_depth` exactly: (8, D, H, W) to (2·D, 2·H, 2·W)."""
    _, d, h, w = channels.shape
    parts = channels.reshape(2, 2, 2, d, h, w)
    return parts.transpose(3, 0, 4, 1, 5, 2).reshape(2 * d, 2 * h, 2 * w)


def pad_to_multiple(channels: Array, multiple: int) -> tuple[Array, tuple[slice, ...]]:
    """Pad the spatial axes with zeros at their end; also return the slices that crop it back."""
    shape = channels.shape[1:]
    pads = [(0, 0)] + [(0, -n % multiple) for n in shape]
    return np.pad(channels, pads), (slice(None), *(slice(0, n) for n in shape))


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs.

    Attributes
    ----------
    device : {'auto', 'cpu', 'cuda'}
    threads : int
        Number of CPU threads.
    seed : int
        Of networks that draw what they fill.
    sampler : str, optional
        One of :data:`bids_inpaint.diffusion.SAMPLERS`; that of the network's card if none is given.
    steps : int, optional
        Of the sampler; those of the network's card if none are given.
    """

    device: str = "auto"
    threads: int = 1
    seed: int = 0
    sampler: str | None = None
    steps: int | None = None

    def __post_init__(self):
        if self.steps is not None:
            check_steps(self.steps)

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """ONNX Runtime's execution providers to use and their options, best first: CUDA, OpenVINO, its own.

        Raises
        ------
        ValueError
            If CUDA is asked for and this ONNX Runtime has none.
        """
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if self.device == "cuda" and "CUDAExecutionProvider" not in available:
            raise ValueError(
                "--device cuda needs onnxruntime-gpu and a CUDA driver, but this ONNX Runtime offers "
                f"only {', '.join(available)}: install onnxruntime-gpu, or use --device cpu."
            )
        usable: dict[str, dict[str, str]] = {}
        if self.device != "cpu":
            usable["CUDAExecutionProvider"] = {}
        usable["OpenVINOExecutionProvider"] = {"device_type": "CPU", "load_config": self._openvino()}
        usable["CPUExecutionProvider"] = {}
        return [(name, options) for name, options in usable.items() if name in available]

    def _openvino(self) -> str:
        precision = "bf16" if _has_amx() else "f32"
        options = {
            "INFERENCE_NUM_THREADS": str(self.threads),
            "INFERENCE_PRECISION_HINT": precision,
            # the cores that it would choose may not be this process's
            "ENABLE_CPU_PINNING": "NO",
        }
        return json.dumps({"CPU": options})


def _has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8", errors="replace")


def open_session(model: Model, runtime: Runtime) -> onnxruntime.InferenceSession:
    """Load a network.

    Raises
    ------
    InputError
        If CUDA is asked for and can't be started.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # the defaults keep the peak allocated for ever, and pin threads to cores that SLURM may not own
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    # failures are raised; names in a network may hold anything
    options.log_severity_level = 4
    # a fold of the same sums in another order would change the last bits from run to run
    options.use_deterministic_compute = True
    providers = runtime.providers()
    if providers[0][0].startswith("CUDA") and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's libraries come as Python packages
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(os.fspath(model.path), options, providers=providers)
    if runtime.device == "cuda" and session.get_providers()[0] != providers[0][0]:
        raise InputError(
            "--device cuda was asked for, but ONNX Runtime can't start CUDA: show the GPU to the container "
            "(--gpus all, --nv), or use --device cpu."
        )
    return session


def run_network(model: Model, channels: Array, runtime: Runtime) -> Array:
    """Feed channels (C, D, H, W) through a network and return its channels (8, D, H, W)."""
    session = open_session(model, runtime)
    name = session.get_inputs()[0].name
    return session.run(None, {name: channels[None].astype(np.float32)})[0][0]


def run_on_volume(
    model: Model, volume: Array, runtime: Runtime | None = None, priors: Sequence[Array] = ()
) -> Array:
    """Feed a volume with even numbers of voxels through a network and return one of its shape.

    Parameters
    ----------
    model : Model
    volume : array
    runtime : Runtime, optional
    priors : sequence of array, optional
        Of the shape of the volume; each is a channel more, averaged to the resolution of the sub-volumes.
    """
    channels = [space_to_depth(volume), *(space_to_depth(p).mean(0, keepdims=True) for p in priors)]
    padded, crop = pad_to_multiple(np.concatenate(channels), model.multiple)
    return depth_to_space(run_network(model, padded, runtime or Runtime())[crop])


def surroundings(wanted: Array, model: Model) -> tuple[slice, ...]:
    """The box that a network sees to make the voxels that are wanted.

    It begins where the network pools over the same voxels as in the whole volume, and has even sizes.
    """
    box = bounding_box(wanted, MARGIN["blind" if model.blind else "filling"])
    step = 2 * model.multiple
    return tuple(slice(s.start // step * step, s.stop + s.stop % 2) for s in box)


def to_fill(lesions: Array) -> Array:
    """What a non-blind network fills: a lesion mask dilated by a voxel, as its border is partly lesion."""
    return ndimage.binary_dilation(lesions)


def inpaint(
    model: Model,
    image: Array,
    mask: Array,
    scale: Scale,
    lesions: Array | None = None,
    runtime: Runtime | None = None,
    priors: Sequence[Array] | None = None,
    exact: bool = False,
) -> Array:
    """Replace the lesions of a brain by healthy-looking tissue.

    Parameters
    ----------
    model : Model
        A registered or user-given network.
    image : array of float32, shape (182, 218, 182)
        Preprocessed brain on the working grid, in any unit; or its :func:`surroundings` alone.
    mask : array of bool
        Brain; the result is 0 outside it.
    scale : Scale
        Of this image.
    lesions : array of bool, optional
        The lesions; needed by non-blind networks, which fill them (:func:`to_fill`) and leave the rest of
        the image as it is; ignored by blind ones.
    runtime : Runtime, optional
    priors : sequence of two arrays, optional
        Probability of white and of grey matter in the template; needed by networks that look at them.
    exact : bool
        Whether a non-blind network fills these voxels alone, without the dilation.

    Returns
    -------
    array of float32
        In the unit of `image`.

    Raises
    ------
    ValueError
        If a non-blind network gets no lesion mask, or one that looks at the template no priors.
    """
    if model.intensity == "mean":
        scale = Scale(float(image[mask].mean(dtype=np.float64)))
    wanted = mask
    if not model.blind:
        if lesions is None:
            raise ValueError(f"network {model.name} needs a lesion mask")
        wanted = (lesions if exact else to_fill(lesions)) & mask
    if model.priors and priors is None:
        raise ValueError(f"network {model.name} needs the tissue priors of the template")
    out = np.where(mask, image, 0).astype(np.float32)
    if not wanted.any():
        return out
    if model.engine != "unet":
        from bids_inpaint import slices

        return slices.fill(model, out, wanted, runtime or Runtime())
    box = surroundings(wanted, model)
    volume = scale.apply(out[box])
    if not model.blind:
        volume[wanted[box]] = MASKED
    seen = [prior[box] for prior in priors or ()] if model.priors else []
    output = run_on_volume(model, volume, runtime, seen)
    if not np.isfinite(output).all():
        raise ValueError(f"network {model.name} returned values that are not finite")
    np.copyto(out[box], scale.undo(output), where=wanted[box])
    return out


def fill_again(
    model: Model,
    inpainted: Array,
    lesions: Array,
    mask: Array,
    scale: Scale,
    runtime: Runtime | None = None,
    priors: Sequence[Array] | None = None,
    alone: bool = False,
) -> Array:
    """Second pass: the lesions that a blind network found are filled by a non-blind one, too.

    The non-blind network sees what the blind one made of the surroundings, so that a lesion that was found
    in part does not spread into the filling. The result is the mean of both fillings: their errors differ.

    Parameters
    ----------
    model : Model
        A non-blind network.
    inpainted : array of float32, shape (182, 218, 182)
        Output of the blind one.
    lesions : array of bool
        What it found.
    mask, scale, runtime, priors
        Of :func:`inpaint`.
    alone : bool
        Whether the second filling is the result instead.

    Returns
    -------
    array of float32
    """
    if not lesions.any():
        return inpainted
    again = inpaint(model, inpainted, mask, scale, lesions, runtime, priors)
    return again if alone else (inpainted + again) / 2
