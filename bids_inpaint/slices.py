"""Filling a volume slice by slice (pure arrays).

With the diffusion model of Durrer et al. 2023 or the generator of Armanious et al. 2019 (ip-MedGAN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def offsets(neighbours: Sequence[int]) -> list[int]:
    """Offsets of the slices that a network sees which also looks at those at some distances.

    Examples
    --------
    >>> offsets([1, 4])
    [0, -1, 1, -4, 4]
    """
    return [0, *(side * distance for distance in neighbours for side in (-1, 1))]


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
    session = open_session(model, runtime)
    if model.engine == "ddpm":
        of_image = model.card.get("prediction") == "image"
        sampling = model.card["sampling"]
        sampler = runtime.sampler or str(sampling["sampler"])
        steps = runtime.steps or int(sampling["steps"])
        # what all slices begin from is the same, so that neighbours become alike
        start = np.random.default_rng(runtime.seed).standard_normal(image.shape[:2], np.float32)
    # a missing voxel is as dark as fluid: where they are must be said
    volumes = [known, wanted]
    seen = [(v, offset) for offset in offsets(model.neighbours) for v in volumes]
    if model.mirror:
        seen += [(_mirrored(v, (known > 0) | wanted), 0) for v in volumes]
    last = image.shape[2] - 1
    filled = known.copy()
    for z in np.flatnonzero(wanted.any((0, 1))):
        window = _Window.around(wanted[:, :, z], model)
        given = np.stack([window.cut(v[:, :, min(max(z + o, 0), last)]) for v, o in seen])[None]
        if model.engine == "ddpm":

            def predict(x: Array, step: int, given=given) -> tuple[Array, Array]:
                seen = np.concatenate([x, given], 1)
                answer = session.run(None, {"image": seen, "step": np.array([step], np.int64)})[0]
                told, share = answer[:, :1], answer[:, 1:]
                return diffusion.noise_of(told, x, step) if of_image else told, share

            rng = np.random.default_rng([runtime.seed, int(z)])
            drawn = diffusion.sample(predict, window.cut(start)[None, None], sampler, steps, rng)
        else:
            drawn = session.run(None, {"image": given})[0]
        window.paste(drawn[0, 0], filled[:, :, z], wanted[:, :, z])
    smooth = ndimage.gaussian_filter1d(filled, ACROSS, axis=2, mode="nearest")
    return np.where(wanted, smooth * limit, image).astype(np.float32)


def _mirrored(volume: Array, brain: Array) -> Array:
    """A volume mirrored left to right about the middle of the brain's bounding box."""
    first = bounding_box(brain)[0]
    out = np.zeros_like(volume)
    out[first] = volume[first][::-1]
    return out


@dataclass(frozen=True)
class _Window:
    """What a network sees of a slice; it may reach beyond it, where all is 0."""

    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def around(cls, hole: Array, model: Model) -> _Window:
        """As wide as the squares of the training, and `MARGIN` around the hole."""
        corner, size = [], []
        for part in bounding_box(hole):
            wide = max(part.stop - part.start + 2 * MARGIN, int(model.card["edge"]))
            size.append(wide + -wide % model.multiple)
            corner.append((part.start + part.stop - size[-1]) // 2)
        return cls((corner[0], corner[1]), (size[0], size[1]))

    def _inside(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where slice and window overlap, in the one and in the other."""
        bounds = [
            (max(c, 0), min(c + n, m), c) for c, n, m in zip(self.corner, self.size, shape, strict=True)
        ]
        return (
            tuple(slice(a, b) for a, b, _ in bounds),
            tuple(slice(a - c, b - c) for a, b, c in bounds),
        )

    def cut(self, plane: Array) -> Array:
        """What the window shows of a slice."""
        out = np.zeros(self.size, np.float32)
        there, here = self._inside(plane.shape)
        out[here] = plane[there]
        return out

    def paste(self, window: Array, plane: Array, where: Array) -> None:
        """Put what a window shows into a slice, where it is wanted."""
        there, here = self._inside(plane.shape)
        np.copyto(plane[there], window[here], where=where[there])
