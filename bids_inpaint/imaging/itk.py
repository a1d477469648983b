"""Filters of ANTs through antspyx, each called in a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from bids_inpaint.errors import FilterFailed
from bids_inpaint.imaging.alignment import refine
from bids_inpaint.imaging.conform import ordinary_factor
from bids_inpaint.imaging.processes import alone, each_alone
from bids_inpaint.io import images
from bids_inpaint.space import Grid, bounding_box, resample, upright


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


def _to_ants(ants: Any, data: np.ndarray, grid: Grid) -> Any:
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


def _run_filter(name: str, **options: Any) -> None:
    """Run a filter of ANTs on its command-line options.

    antspyx's functions for these filters ignore the exit status, and give the input back as the result.

    Raises
    ------
    FilterFailed
        If it failed.
    """
    from ants.internal import get_lib_fn, process_arguments

    if status := get_lib_fn(name)(process_arguments(options)):
        raise FilterFailed(f"{name} ended with status {status}")


def _nearest_rotation(direction: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(direction)
    return u @ vt


def denoise(data: np.ndarray, mask: np.ndarray, threads: int = 1) -> np.ndarray:
    """Adaptive non-local means with Rician noise inside a mask (Manjón 2010).

    Parameters
    ----------
    data : array of float32, three-dimensional
        In any unit; left as it is outside the mask.
    mask : array of bool
    threads : int
        So many processes share the work. The result does not depend on it.
    """
    box = bounding_box(mask, margin=4)
    slabs = _slabs(data[box], mask[box], threads)
    denoised = np.concatenate(each_alone(_denoise, slabs), axis=1)
    out = data.copy()
    out[box] = np.where(mask[box], denoised, data[box])
    return out


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


def _denoise(data: np.ndarray, mask: np.ndarray, core: slice) -> np.ndarray:
    import ants

    grid = Grid.of(data.shape, np.eye(4))
    # the filter takes means and variances below a constant as none
    factor = ordinary_factor(data)
    image, inside = _to_ants(ants, data * factor, grid), _to_ants(ants, mask, grid).clone("unsigned char")
    out = image.clone()
    _run_filter("DenoiseImage", d=3, i=image, n="Rician", x=inside, s=1, p=1, r=1, o=out)
    return out.numpy()[:, core] / factor


#: Ways to an affine: transform, and iterations, shrink factors and smoothing (voxels) of each level.
SCHEDULES = {
    "full": ("Affine", "2100x1200x1200x10", "6x4x2x1", "3x2x1x0"),
    "fast": ("Affine", "2100x1200", "6x4", "3x2"),
    "coarse": ("Affine", "2100", "6", "3"),
    "sloppy": ("Rigid", "20", "6", "3"),
    "rigid": ("Rigid", "1000x500x250", "4x2x1", "2x1x0"),
}
#: Correlation of a brain with the template after a fit. In three people, upright and turned by up to 30° in
#: four ways, it is at least 0.92 where the fit is right; where it is wrong, it ends too far away to count.
_LIKE = 0.8


def affine(in_file: str, mask_file: str, template: str, schedule: str, folder: str, seed: int) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) from a template to a brain.

    Parameters
    ----------
    in_file, mask_file, template : str
    schedule : str
        One of `SCHEDULES`. For "fast", the first of its levels is tried alone: from there the refinement
        ends, to some micrometres, where it does from the second, or in a place that is plainly wrong.
    folder : str
        For temporary files.
    seed : int
        Of the points that are sampled.
    """
    data, grid = images.read(in_file)
    mask = images.read(mask_file)[0] > 0
    brain, standard = np.where(mask, data, 0), images.read(template)
    box = bounding_box(mask, margin=2)
    moving = _unsheared(brain[box], grid.part(box))
    if schedule == "fast":
        matrix, likeness = refine(register(standard, moving, "coarse", folder, seed), *standard, brain, grid)
        if likeness > _LIKE:
            return matrix
    return refine(register(standard, moving, schedule, folder, seed), *standard, brain, grid)[0]


def register(
    fixed: tuple[np.ndarray, Grid],
    moving: tuple[np.ndarray, Grid],
    schedule: str,
    folder: str,
    seed: int,
    mask: tuple[np.ndarray, Grid] | None = None,
    centred: bool = True,
) -> np.ndarray:
    """ANTs' registration, without the images that antspyx's function resamples besides.

    It looks at the mask alone, if there is one, and begins with the centres of mass on one another, or else
    where the headers place the images.
    """
    import ants
    from ants.internal import get_pointer_string

    both = [_to_ants(ants, *one) for one in (fixed, moving)]
    pair = ",".join(get_pointer_string(one) for one in both)
    inside = _to_ants(ants, *mask).clone("unsigned char") if mask else None
    transform, iterations, shrinks, sigmas = SCHEDULES[schedule]
    with _scratch(folder):
        options = {
            "dimensionality": 3, "metric": f"mattes[{pair},1,32,regular,0.2]",
            "transform": f"{transform}[0.25]", "convergence": iterations, "smoothing-sigmas": sigmas,
            "shrink-factors": shrinks, "u": 0, "z": 1, "output": "ants_", "float": 1,
            # 0 would mean the clock
            "random-seed": seed + 1,
        }  # fmt: skip
        if centred:
            options["r"] = f"[{pair},1]"
        if inside:
            options["x"] = f"[{get_pointer_string(inside)},NA]"
        _run_filter("antsRegistration", **options)
        return itk_matrix(ants.read_transform("ants_0GenericAffine.mat"))


def itk_matrix(transform: Any) -> np.ndarray:
    """4x4 world-to-world matrix (RAS+, mm) of an ANTs affine, as it maps fixed points to moving ones."""
    parameters = np.asarray(transform.parameters, dtype=float)
    centre = np.asarray(transform.fixed_parameters, dtype=float)
    linear = parameters[:9].reshape(3, 3)
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = parameters[9:] + centre - linear @ centre
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ lps @ flip


def n4(data: np.ndarray, mask: np.ndarray, shrink: int = 4) -> np.ndarray:
    """Multiplicative bias field of an image by ANTs, as :func:`bids_inpaint.imaging.bias.n4` gives it."""
    return alone(_n4, data * ordinary_factor(data), mask, shrink)


def _n4(data: np.ndarray, mask: np.ndarray, shrink: int) -> np.ndarray:
    import ants
    from ants.internal import get_pointer_string

    # it works on the lattice of voxels, wherever that lies
    grid = Grid.of(data.shape, np.eye(4))
    image, inside = _to_ants(ants, data, grid), _to_ants(ants, mask, grid)
    out, field = image.clone(), image.clone()
    _run_filter(
        "N4BiasFieldCorrection",
        d=3, i=image, x=inside, s=shrink, c="[50x50x50x50,0.0000001000]", b="[1x1x1]",
        o=f"[{get_pointer_string(out)},{get_pointer_string(field)}]",
    )  # fmt: skip
    return field.numpy()


def atropos(
    data: np.ndarray, mask: np.ndarray, priors: Sequence[np.ndarray], folder: str, sloppy: bool = False
) -> list[np.ndarray]:
    """Segment a brain into as many tissues as there are priors, by a Markov random field (Avants 2011).

    Parameters
    ----------
    data : array of float32, three-dimensional
    mask : array of bool
        The brain.
    priors : sequence of arrays
        Probabilities (0-1) of the tissues.
    folder : str
        For temporary files.
    sloppy : bool
        One of every eight voxels and one iteration in place of all and three.

    Returns
    -------
    list of arrays of float32
        Probabilities (0-1) of the tissues, 0 outside the brain.

    Notes
    -----
    Atropos gains next to nothing from a second thread.
    """
    box = bounding_box(mask, margin=1)
    inside = mask[box]
    step, iterations = (2, 1) if sloppy else (1, 3)
    thin = (slice(None, None, step),) * 3
    clipped = [np.clip(prior[box], 1e-3, 1)[thin] for prior in priors]
    out = []
    for posterior in alone(_atropos, data[box][thin], inside[thin], clipped, iterations, folder):
        for axis in range(3):
            posterior = np.repeat(posterior, step, axis)
        volume = np.zeros(data.shape, np.float32)
        volume[box] = np.clip(posterior[tuple(slice(n) for n in inside.shape)], 0, 1) * inside
        out.append(volume)
    return out


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
