"""A FLAIR and a lesion map from a T1w (pure arrays), after Orbes-Arteaga et al. 2018."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.uncertainty import LesionProbability
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.inpainting import inpaint
from bids_inpaint.networks.session import Runtime, open_session
from bids_inpaint.space import bounding_box

Array = np.ndarray

#: Slices that go through the network at once.
BATCH = 8


def synthesise(
    model: Model,
    image: Array,
    mask: Array,
    scale: Scale,
    priors: Sequence[Array],
    runtime: Runtime | None = None,
) -> tuple[Array, Array]:
    """Make the FLAIR of a brain, and find its lesions.

    Parameters
    ----------
    model : Model
        A network for 'flair'.
    image : array of float32, shape (X, Y, Z)
        Preprocessed T1w with axial slices along the last axis, oriented as the working grid, in any unit.
    mask : array of bool
        Brain; both results are 0 outside it.
    scale : Scale
        Of this image.
    priors : sequence of two arrays
        Probability of white and of grey matter in the template, for networks that look at them, themselves
        or through the blind network whose result they look at.
    runtime : Runtime, optional

    Returns
    -------
    flair : array of float32
        White matter is 1. All 0 if the network makes none.
    probability : array of float32
        Of a lesion, 0-1.

    Raises
    ------
    ValueError
        If the network returns values that are not finite.
    """
    context = model.card.context
    box = bounding_box(mask)
    inside = mask[box]
    x = np.where(inside, scale.apply(image[box]), 0).astype(np.float32).transpose(2, 0, 1)
    depth, height, width = x.shape
    frame = [(0, -n % model.card.multiple) for n in (height, width)]
    x = np.pad(x, [(context, context), *frame])
    more_channels = list(priors) if model.card.priors else []
    if model.inpainter:
        told = model.card.inpainter_probability
        more_channels += as_inpainted(model.inpainter, image, mask, scale, priors, runtime, told)
    others = [np.pad(volume[box].transpose(2, 0, 1), [(0, 0), *frame]) for volume in more_channels]
    session = open_session(model, runtime or Runtime())
    parts = []
    for first in range(0, depth, BATCH):
        slices = range(first, min(first + BATCH, depth))
        channels = [[*x[z : z + 2 * context + 1], *(other[z] for other in others)] for z in slices]
        batch = np.array(channels, np.float32)
        parts.append(session.run(None, {"image": batch})[0][:, :, :height, :width])
    answer = np.concatenate(parts).transpose(1, 2, 3, 0)
    if not np.isfinite(answer).all():
        raise ValueError(f"network {model.name} returned values that are not finite")
    flair, probability = (np.zeros(image.shape, np.float32) for _ in range(2))
    np.copyto(flair[box], np.maximum(answer[0], 0), where=inside)
    np.copyto(probability[box], expit(answer[1]), where=inside)
    return flair, probability


def as_inpainted(
    inpainter: Model,
    image: Array,
    mask: Array,
    scale: Scale,
    priors: Sequence[Array],
    runtime: Runtime | None = None,
    probability: bool = False,
) -> list[Array]:
    """What a network sees of a blind one: the inpainted brain, and the lesion probability.

    Parameters
    ----------
    inpainter : Model
        The blind network.
    image, mask, scale, priors, runtime
        Of :func:`synthesise`.
    probability : bool
        Whether it sees the probability, too.

    Returns
    -------
    list of array of float32, shape of `image`
        White matter is 1; and 0-1, not calibrated, so that a new calibration of the blind network does not
        change what the other one sees.

    Raises
    ------
    ValueError
        If the blind network tells no probability.
    """
    if probability:
        if inpainter.card.lesion_probability is None:
            raise ValueError(f"network {inpainter.name} tells no lesion probability")
        inpainter = replace(inpainter, card=replace(inpainter.card, lesion_probability=LesionProbability()))
    filled = inpaint(inpainter, image, mask, scale, None, runtime, priors)
    healthy = np.where(mask, scale.apply(filled.image), 0)
    if filled.probability is None or not probability:
        return [healthy]
    return [healthy, filled.probability]
