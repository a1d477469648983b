"""Filling a volume slice by slice (pure arrays): the diffusion model of Durrer et al. 2023."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_inpaint import diffusion
from bids_inpaint.inference import Runtime, open_session
from bids_inpaint.models import Model
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: Voxels around what is wanted of a slice that the network sees.
MARGIN = 32
#: Standard deviation, in slices, of the filter across the borders of filled slices (Durrer 2023, section 3).
ACROSS = 1.075


def upper_limit(brain: Array) -> float:
    """The intensity that becomes 1: the top 0.1 % of the brain is cut off.

    Parameters
    ----------
    brain : array
        0 outside the brain and where it is not known.
    """
    return float(np.percentile(brain[brain > 0], 99.9))


def fill(model: Model, image: Array, wanted: Array, runtime: Runtime) -> Array:
    """Fill a hole of a brain.

    Parameters
    ----------
    model : Model
        A network that fills slices.
    image : array of float32, shape (X, Y, Z)
        Brain with axial slices along the last axis, oriented as the working grid, 0 outside; what it holds
        where it is wanted is not looked at.
    wanted : array of bool
    runtime : Runtime
        Its seed, sampler and steps are those of a diffusion model.

    Returns
    -------
    array of float32
        The image, with another content where it was wanted.
    """
    known = np.where(wanted, 0, image).astype(np.float32)
    limit = upper_limit(known)
    known = np.minimum(known / limit, 1)
    sampling = model.card["sampling"]
    sampler, steps = runtime.sampler or sampling["sampler"], runtime.steps or int(sampling["steps"])
    session = open_session(model, runtime)
    # what all slices begin from is the same, so that neighbours become alike
    start = np.random.default_rng(runtime.seed).standard_normal(image.shape[:2], np.float32)
    filled = known.copy()
    for z in np.flatnonzero(wanted.any((0, 1))):
        hole = wanted[:, :, z]
        box = bounding_box(hole, MARGIN)
        parts = [_padded(v[box], model.multiple) for v in (start, known[:, :, z], hole.astype(np.float32))]
        noise, seen, where = (part[None, None] for part in parts)

        def predict(x: Array, step: int, seen=seen, where=where) -> tuple[Array, Array]:
            given = {"image": np.concatenate([x, seen, where], 1), "step": np.array([step], np.int64)}
            noise, share = np.split(session.run(None, given)[0], 2, axis=1)
            return noise, share

        rng = np.random.default_rng([runtime.seed, int(z)])
        drawn = diffusion.sample(predict, noise, sampler, steps, rng)[0, 0]
        inside = hole[box]
        filled[box][..., z][inside] = drawn[tuple(slice(n) for n in inside.shape)][inside]
    smooth = ndimage.gaussian_filter1d(filled, ACROSS, axis=2, mode="nearest")
    return np.where(wanted, smooth * limit, image).astype(np.float32)


def _padded(plane: Array, multiple: int) -> Array:
    """Pad with zeros at the end of both axes."""
    return np.pad(plane, [(0, -n % multiple) for n in plane.shape]).astype(np.float32)
