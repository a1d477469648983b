"""ANTs steps through antspyx: every call is made in a process of its own.

ITK reads its number of threads at the first filter of a process, and can't change it later. With more than
one, filters give another result each time or by their number: registration and N4 add up in another order,
and the threads of the denoising filter write into each other's borders.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from bids_inpaint import images, tissues
from bids_inpaint.alignment import refine
from bids_inpaint.conform import ordinary_factor
from bids_inpaint.interfaces.base import (
    AffineOutputSpec,
    FileInterface,
    InputSpec,
    SegmentationOutputSpec,
    within,
)
from bids_inpaint.space import Grid, bounding_box, resample, upright


def alone(function: Callable, *args):
    """Call a function in a process of its own, with one thread."""
    return each_alone(function, [args])[0]


def each_alone(function: Callable, calls: list[tuple]) -> list:
    """Make calls at the same time, each in a process of its own, with one thread."""
    # the script of a batch job does nothing but this step, and a spawned process would run it again
    in_batch_job = Path(sys.argv[0]).name.startswith("pyscript_")
    fork = in_batch_job or multiprocessing.parent_process() is not None
    if fork:
        # this process runs no filter itself, and what it imports once serves every step
        import ants  # noqa: F401
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    jobs: list = []
    try:
        for args in calls:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_answer, args=(sender, function, args))
            process.start()
            sender.close()
            jobs.append((process, receiver))
        return [_outcome(process, receiver) for process, receiver in jobs]
    finally:
        # where one failed, another would wait for ever for its answer to be taken
        for process, _ in jobs:
            process.kill()
            process.join()


def _answer(sender: Connection, function: Callable, args: tuple) -> None:
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    try:
        answer = function(*args)
    except Exception as error:
        answer = error
    sender.send(answer)


def _outcome(process, receiver: Connection):
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"A worker process was killed (exit code {process.exitcode}), probably for want of memory."
        ) from None
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _scratch(folder: str) -> Iterator[None]:
    """Work in a new folder inside this one, which is removed at the end, and let it hold temporary files.

    ANTs and antspyx put names of files into options and patterns, of which commas, brackets and per cents
    are a part: they see nothing but plain names, relative to the current folder.
    """
    before, here = tempfile.tempdir, os.getcwd()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.chdir(scratch)
        tempfile.tempdir = os.curdir
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.chdir(here)


def _to_ants(ants, data: np.ndarray, grid: Grid):
    """An ANTs image in memory: NIfTI is RAS+, ITK is LPS+ and knows no shear (:func:`_unsheared`)."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ grid.matrix[:3]
    sizes = grid.voxel_sizes
    return ants.from_numpy(
        np.asarray(data, dtype=np.float32),
        origin=lps[:, 3].tolist(),
        spacing=sizes.tolist(),
        direction=_nearest_rotation(lps[:, :3] / sizes),
    )


def _unsheared(data: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """A volume on a lattice that ITK can place: itself, or resampled if its axes are not at right angles."""
    axes = grid.matrix[:3, :3] / grid.voxel_sizes
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        return data, grid
    cubes = upright(grid, float(grid.voxel_sizes.min()))
    return resample(data, grid, cubes, order=1), cubes


def _run_filter(name: str, **options) -> None:
    """Run a filter of ANTs on its command-line options.

    antspyx's functions for these filters ignore the exit status, and give the input back as the result.

    Raises
    ------
    RuntimeError
        If it failed.
    """
    from ants.internal import get_lib_fn, process_arguments

    if status := get_lib_fn(name)(process_arguments(options)):
        raise RuntimeError(f"{name} exited with non-zero status {status}")


def _nearest_rotation(direction: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(direction)
    return u @ vt


class DenoiseInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    num_threads = traits.Int(1, usedefault=True, nohash=True)


class DenoiseOutputSpec(TraitedSpec):
    out_file = File(exists=True)


class Denoise(FileInterface):
    """Adaptive non-local means with Rician noise inside a mask (Manjón 2010), the same every time."""

    input_spec = DenoiseInputSpec
    output_spec = DenoiseOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        box = bounding_box(mask, margin=4)
        slabs = _slabs(data[box], mask[box], self.inputs.num_threads)
        out = np.concatenate(each_alone(_denoise, slabs), axis=1)
        data[box] = np.where(mask[box], out, data[box])
        return {"out_file": images.save(within(runtime, "denoised.nii.gz"), data, grid)}


#: Voxels beyond a slab that its denoised values depend on, rounded up.
_HALO = 12


def _slabs(data: np.ndarray, mask: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray, slice]]:
    """Cut a volume along its second axis into overlapping slabs of about equal numbers of brain voxels.

    Each comes with the slice that is its own. The filter also depends on the extremes of the whole image,
    so every slab carries them, beyond its halo.
    """
    share = np.cumsum(mask.sum((0, 2))) / mask.sum()
    n = mask.shape[1]
    cuts = [0, *(int(np.searchsorted(share, k / count)) for k in range(1, count)), n]
    slabs = []
    for start, stop in pairwise(cuts):
        low, high = max(start - _HALO, 0), min(stop + _HALO, n)
        part, inside = (np.pad(v[:, low:high], ((0, 0), (0, _HALO), (0, 0))) for v in (data, mask))
        part[0, -1, 0], part[1, -1, 0] = data.min(), data.max()
        slabs.append((part, inside, slice(start - low, stop - low)))
    return slabs


def _denoise(data: np.ndarray, mask: np.ndarray, own: slice) -> np.ndarray:
    import ants

    grid = Grid.of(data.shape, np.eye(4))
    # the filter takes means and variances below a constant as none
    factor = ordinary_factor(data)
    image, inside = _to_ants(ants, data * factor, grid), _to_ants(ants, mask, grid).clone("unsigned char")
    out = image.clone()
    _run_filter("DenoiseImage", d=3, i=image, n="Rician", x=inside, s=1, p=1, r=1, o=out)
    return out.numpy()[:, own] / factor


class RegisterAffineInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True, desc="brain-only template")
    random_seed = traits.Int(0, usedefault=True)
    sloppy = traits.Bool(False, usedefault=True)


class RegisterAffine(FileInterface):
    """Affine of the brain onto a template: ANTs' and then the best one near it, the same every time."""

    input_spec = RegisterAffineInputSpec
    output_spec = AffineOutputSpec

    def process(self, runtime) -> dict:
        from nitransforms.io.itk import ITKLinearTransform

        matrix = alone(
            affine, self.inputs.in_file, self.inputs.mask_file, self.inputs.template,
            "QuickRigid" if self.inputs.sloppy else "AffineFast",
            runtime.cwd, self.inputs.random_seed,
        )  # fmt: skip
        outputs = {}
        for name, xfm in (("out_xfm", matrix), ("out_inverse", np.linalg.inv(matrix))):
            outputs[name] = within(runtime, f"{name}.txt")
            ITKLinearTransform.from_ras(xfm).to_filename(outputs[name])
        return outputs


def affine(in_file: str, mask_file: str, template: str, kind: str, folder: str, seed: int) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) from a template to a brain."""
    import ants

    ants.config._random_seed = seed + 1  # 0 would mean the clock
    data, grid = images.read(in_file)
    mask = images.read(mask_file)[0] > 0
    brain, standard = np.where(mask, data, 0), images.read(template)
    box = bounding_box(mask, margin=2)
    fixed, moving = _to_ants(ants, *standard), _to_ants(ants, *_unsheared(brain[box], grid.part(box)))
    with _scratch(folder):
        result = ants.registration(fixed, moving, kind, outprefix="ants_")
        matrix = itk_matrix(ants.read_transform(result["fwdtransforms"][0]))
    return refine(matrix, *standard, brain, grid)


def rigid(
    fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid, folder: str
) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) from one image of a head to another of any contrast."""
    import ants

    ants.config._random_seed = 1
    both = (_unsheared(fixed, fixed_grid), _unsheared(moving, moving_grid))
    images_of_ants = [_to_ants(ants, *one) for one in both]
    with _scratch(folder):
        result = ants.registration(*images_of_ants, "Rigid", outprefix="ants_")
        return itk_matrix(ants.read_transform(result["fwdtransforms"][0]))


def itk_matrix(transform) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) of an ANTs affine, as it maps fixed points to moving ones."""
    parameters = np.asarray(transform.parameters, dtype=float)
    centre = np.asarray(transform.fixed_parameters, dtype=float)
    linear = parameters[:9].reshape(3, 3)
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = parameters[9:] + centre - linear @ centre
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ lps @ flip


class CorrectBiasInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    sloppy = traits.Bool(False, usedefault=True)


class CorrectBiasOutputSpec(TraitedSpec):
    out_file = File(exists=True)
    bias_file = File(exists=True, desc="multiplicative field: in_file = out_file × bias")


class CorrectBias(FileInterface):
    """N4 bias field correction inside the brain mask (Tustison 2010)."""

    input_spec = CorrectBiasInputSpec
    output_spec = CorrectBiasOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        out, field = correct_bias(data, mask, grid, 8 if self.inputs.sloppy else 4)
        return {
            "out_file": images.save(within(runtime, "corrected.nii.gz"), out, grid, np.float32),
            "bias_file": images.save(within(runtime, "bias.nii.gz"), field, grid, np.float32),
        }


def correct_bias(
    data: np.ndarray, mask: np.ndarray, grid: Grid, shrink: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """An image without its bias, 0 outside the mask, and the field."""
    box = bounding_box(mask, margin=4)
    # the log of N4 needs positive values
    positive = np.maximum(data[box], 1e-3 * data[mask].mean())
    inside = alone(_bias, positive * ordinary_factor(positive), mask[box], grid.matrix, shrink)
    # beyond the box the field goes on as at its border
    margins = [(s.start, n - s.stop) for s, n in zip(box, data.shape, strict=True)]
    field = np.pad(np.maximum(inside, 1e-3), margins, mode="edge")
    return np.where(mask, data / field, 0), field


def _bias(data: np.ndarray, mask: np.ndarray, matrix: np.ndarray, shrink: int) -> np.ndarray:
    import ants
    from ants.internal import get_pointer_string

    grid = Grid.of(data.shape, matrix)
    image, inside = _to_ants(ants, data, grid), _to_ants(ants, mask, grid)
    out, field = image.clone(), image.clone()
    _run_filter(
        "N4BiasFieldCorrection",
        d=3, i=image, x=inside, s=shrink, c="[50x50x50x50,0.0000001000]", b="[1x1x1]",
        o=f"[{get_pointer_string(out)},{get_pointer_string(field)}]",
    )  # fmt: skip
    return field.numpy()


class SegmentAtroposInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    priors = InputMultiObject(File(exists=True), mandatory=True, desc="CSF, GM, WM")
    sloppy = traits.Bool(False, usedefault=True)


class SegmentAtropos(FileInterface):
    """Three-tissue segmentation with a Markov random field and template priors (Avants 2011).

    Atropos gains next to nothing from a second thread.
    """

    input_spec = SegmentAtroposInputSpec
    output_spec = SegmentationOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        box = bounding_box(mask, margin=1)
        expected = [images.read(path)[0] for path in self.inputs.priors]
        priors = [np.clip(prior[box], 1e-3, 1) for prior in expected]
        # every voxel and three iterations, or one of every eight and one iteration
        step, iterations = (2, 1) if self.inputs.sloppy else (1, 3)
        thin = (slice(None, None, step),) * 3
        posteriors = alone(
            _atropos,
            data[box][thin], mask[box][thin], [p[thin] for p in priors], iterations, runtime.cwd,
        )  # fmt: skip
        full = []
        for posterior in posteriors:
            for axis in range(3):
                posterior = np.repeat(posterior, step, axis)
            inside = mask[box]
            volume = np.zeros(data.shape, np.float32)
            volume[box] = np.clip(posterior[tuple(slice(n) for n in inside.shape)], 0, 1) * inside
            full.append(volume)
        try:
            tissues.check(full, mask, expected)
        except tissues.Implausible as error:
            raise images.InputError(
                f"Atropos failed to segment the brain of {self.source}, and did not notice ({error}): look "
                "at the images of the report, or choose --segmentation none."
            ) from None
        outputs = {
            key: images.save(within(runtime, f"{key}.nii.gz"), v, grid, space_code=4)
            for key, v in zip(("csf", "gm", "wm"), full, strict=True)
        }
        csf, gm, wm = full
        labels = np.where(mask, np.stack([gm, wm, csf]).argmax(0) + 1, 0)
        outputs["dseg"] = images.save(within(runtime, "dseg.nii.gz"), labels, grid, np.uint8, space_code=4)
        outputs["method"] = f"Atropos (antspyx {version('antspyx')})"
        return outputs


def _atropos(
    data: np.ndarray, mask: np.ndarray, priors: list[np.ndarray], iterations: int, folder: str
) -> list[np.ndarray]:
    import ants

    grid = Grid.of(data.shape, np.eye(4))
    with _scratch(folder):
        result = ants.atropos(
            a=_to_ants(ants, data, grid),
            x=_to_ants(ants, mask, grid),
            i=[_to_ants(ants, p, grid) for p in priors],
            priorweight=0.25,
            m="[0.1,1x1x1]",
            c=f"[{iterations},0]",
            # distances from the tissues are computed, though only priors that are labels need them; by fast
            # marching, the default, that takes as long as half of the rest
            e=1,
            # all voxels are updated at once: one after another takes half as long again
            g="0",
            # a constant seed
            r=0,
        )
    return [p.numpy() for p in result["probabilityimages"]]
