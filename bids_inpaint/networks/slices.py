"""Filling a volume slice by slice (pure arrays).

With the diffusion model of Durrer et al. 2023 or the generator of Armanious et al. 2019 (ip-MedGAN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_inpaint.networks.card import Model
from bids_inpaint.networks.session import Runtime, open_session
from bids_inpaint.space import bounding_box

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    #: From the session, the channels (1, C, H, W) of a window, the window and the index of its slice to the
    #: content (1, 1, H, W) of the window.
    Draw = Callable[[InferenceSession, np.ndarray, "Window", int], np.ndarray]

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
    """Offsets of the slices that a network sees, by the distances of its neighbours.

    Examples
    --------
    >>> offsets([1, 4])
    [0, -1, 1, -4, 4]
    """
    return [0, *(side * distance for distance in neighbours for side in (-1, 1))]


def fill(model: Model, image: Array, wanted: Array, runtime: Runtime, draw: Draw) -> Array:
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
    draw : callable
        How the network makes the content of a window.

    Returns
    -------
    array of float32
        The image, with another content where it was wanted.
    """
    known = np.where(wanted, 0, image).astype(np.float32)
    limit = upper_limit(known)
    known = np.minimum(known / limit, 1)
    session = open_session(model, runtime)
    # a missing voxel is as dark as fluid: where they are must be said
    volumes = [known, wanted]
    channels = [(v, offset) for offset in offsets(model.card.neighbours) for v in volumes]
    if model.card.mirror:
        channels += [(_mirrored(v, (known > 0) | wanted), 0) for v in volumes]
    last = image.shape[2] - 1
    filled = known.copy()
    for z in np.flatnonzero(wanted.any((0, 1))):
        window = Window.around(wanted[:, :, z], model)
        window_channels = np.stack([window.cut(v[:, :, min(max(z + o, 0), last)]) for v, o in channels])[None]
        drawn = draw(session, window_channels, window, int(z))
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
class Window:
    """What a network sees of a slice; it may reach beyond it, where all is 0."""

    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def around(cls, hole: Array, model: Model) -> Window:
        """As wide as the squares of the training, and `MARGIN` around the hole."""
        assert model.card.edge is not None
        corner, size = [], []
        for part in bounding_box(hole):
            wide = max(part.stop - part.start + 2 * MARGIN, model.card.edge)
            size.append(wide + -wide % model.card.multiple)
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

    def paste(self, window: Array, plane: Array, wanted: Array) -> None:
        """Put what a window shows into a slice, where it is wanted."""
        there, here = self._inside(plane.shape)
        np.copyto(plane[there], window[here], where=wanted[there])
