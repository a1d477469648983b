"""A volume through a network of eight parity sub-volumes (Manjón 2020, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.networks.card import Model
from bids_inpaint.networks.session import Runtime, open_session
from bids_inpaint.space import MIRROR, bounding_box, mirrored

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

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


def run_network(
    model: Model, channels: Array, runtime: Runtime, session: InferenceSession | None = None
) -> list[Array]:
    """Feed channels (C, D, H, W) through a network and return its outputs, (8, D, H, W) each."""
    session = session or open_session(model, runtime)
    name = session.get_inputs()[0].name
    return [output[0] for output in session.run(None, {name: channels[None].astype(np.float32)})]


def run_on_volume(
    model: Model,
    volume: Array,
    runtime: Runtime | None = None,
    priors: Sequence[Array] = (),
    session: InferenceSession | None = None,
) -> list[Array]:
    """Feed a volume with even numbers of voxels through a network and return its outputs, of its shape.

    Parameters
    ----------
    model : Model
    volume : array
    runtime : Runtime, optional
    priors : sequence of array, optional
        Of the shape of the volume; each is a channel more, averaged to the resolution of the sub-volumes.
    session : InferenceSession, optional
        Of the network; opened for this volume alone by default.
    """
    channels = [space_to_depth(volume), *(space_to_depth(p).mean(0, keepdims=True) for p in priors)]
    padded, crop = pad_to_multiple(np.concatenate(channels), model.card.multiple)
    outputs = run_network(model, padded, runtime or Runtime(), session)
    return [depth_to_space(output[crop]) for output in outputs]


def run_both_ways(
    model: Model,
    volume: Array,
    wanted: Array,
    runtime: Runtime | None = None,
    priors: Sequence[Array] = (),
) -> tuple[list[list[Array]], tuple[slice, ...]]:
    """What a network makes of a brain, and of its mirror image, which is mirrored back.

    Both go through one session, one after the other: a batch of both would need twice the memory, and the
    networks that ship take one volume at a time.

    Parameters
    ----------
    model : Model
    volume : array, shape (182, 218, 182)
        Brain on the working grid, in the unit of the network.
    wanted : array of bool, shape (182, 218, 182)
        What the network is to make.
    runtime : Runtime, optional
    priors : sequence of array, shape (182, 218, 182), optional
        Of :func:`run_on_volume`; they are mirrored with the brain.

    Returns
    -------
    outputs : two lists of array
        Of the brain and of the mirror image, on a part of the working grid that holds all that is wanted.
    box : tuple of slice
        That part.

    Notes
    -----
    A voxel and its opposite have the same parity (:data:`bids_inpaint.space.MIRROR` is even), so that the
    mirror image is split into sub-volumes as the brain is.
    """
    runtime = runtime or Runtime()
    box = surroundings(wanted | mirrored(wanted), model)
    session = open_session(model, runtime)

    def run(turn: Callable[[Array], Array]) -> list[Array]:
        channels = [turn(prior)[box] for prior in priors]
        return run_on_volume(model, turn(volume)[box], runtime, channels, session)

    plain, turned = run(np.asarray), run(mirrored)
    first = box[0]
    opposite = MIRROR - np.arange(first.start, first.stop)
    # the box may reach farther to one side, where nothing is wanted
    inside = (first.start <= opposite) & (opposite < first.stop)
    for one, other in zip(plain, turned, strict=True):
        back = one.copy()
        back[inside] = other[opposite[inside] - first.start]
        other[...] = back
    return [plain, turned], box


def surroundings(wanted: Array, model: Model) -> tuple[slice, ...]:
    """The box that a network sees to make the voxels that are wanted.

    It begins where the network pools over the same voxels as in the whole volume, and has even sizes.
    """
    box = bounding_box(wanted, MARGIN["blind" if model.blind else "filling"])
    step = 2 * model.card.multiple
    return tuple(slice(s.start // step * step, s.stop + s.stop % 2) for s in box)
