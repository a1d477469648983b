"""A brain without its lesions, by one network or two (arrays in, arrays out)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.lesions import Rule, find_probable, find_unsegmented
from bids_inpaint.networks import slices
from bids_inpaint.networks.card import Filled, Model
from bids_inpaint.networks.session import Runtime
from bids_inpaint.space import WORKING_GRID, Grid

Array = np.ndarray


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
) -> Filled:
    """Replace the lesions of a brain by healthy-looking tissue.

    Parameters
    ----------
    model : Model
        A registered or user-given network.
    image : array of float32, shape (182, 218, 182)
        Preprocessed brain on the working grid, in any unit; or its
        :func:`bids_inpaint.networks.volumes.surroundings` alone.
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
    Filled
        The brain in the unit of `image`, and what else the network tells of it.

    Raises
    ------
    ValueError
        If a non-blind network gets no lesion mask, or one that looks at the template no priors.
    """
    if model.card.intensity == "mean":
        scale = Scale(float(image[mask].mean(dtype=np.float64)))
    wanted = mask
    if not model.blind:
        if lesions is None:
            raise ValueError(f"network {model.name} needs a lesion mask")
        wanted = (lesions if exact else to_fill(lesions)) & mask
    if model.card.priors and priors is None:
        raise ValueError(f"network {model.name} needs the tissue priors of the template")
    brain = np.where(mask, image, 0).astype(np.float32)
    if not wanted.any():
        return Filled(brain)
    if model.engine.fill is None:
        raise ValueError(f"network {model.name} fills nothing")
    return model.engine.fill(model, brain, wanted, scale, runtime or Runtime(), priors or ())


def fill_slices(
    model: Model, voided: Array, hole: Array, grid: Grid, runtime: Runtime, beyond: bool = False
) -> Array:
    """Fill a hole of a brain in any orientation by a network that fills slices.

    Parameters
    ----------
    model : Model
    voided : array of float32
        Brain in any unit, 0 outside.
    hole : array of bool, of the same shape
    grid : Grid
        Its voxels; axes that are oblique count as the nearest of the world's.
    runtime : Runtime
    beyond : bool
        Whether the hole may reach beyond the brain. What lies outside of the mirror image of the brain
        (:func:`bids_inpaint.networks.slices.outline`) then becomes 0; else all of the hole is tissue.

    Returns
    -------
    array of float32

    Raises
    ------
    InputError
        If the network fills whole brains.
    """
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    if not model.engine.slices or model.engine.fill is None:
        raise InputError(
            f"Network {model.name} fills brains on the MNI grid, not slices: use the participant level."
        )
    trained, stored = io_orientation(WORKING_GRID.matrix), io_orientation(grid.matrix)
    there, back = ornt_transform(stored, trained), ornt_transform(trained, stored)
    turned, wanted = apply_orientation(voided, there), apply_orientation(hole, there).astype(bool)
    if beyond:
        turned = np.where(wanted, 0, turned)
        wanted &= slices.outline(turned, wanted)
    filled = turned
    if wanted.any():
        filled = model.engine.fill(model, turned, wanted, Scale(1.0), runtime, ()).image
    return np.where(hole, apply_orientation(filled, back), voided)


def found(filled: Filled, image: Array, scale: Scale, white: Array, rule: Rule, grid: Grid) -> Array:
    """The lesions that a blind network found, before there is a segmentation.

    Parameters
    ----------
    filled : Filled
        What it made of the brain.
    image : array
        The brain.
    scale : Scale
        Of the brain.
    white : array
        White-matter probability of the template, 0-1.
    rule : Rule
    grid : Grid

    Returns
    -------
    array of bool
    """
    if rule.kind == "probability":
        assert filled.probability is not None
        return find_probable(filled.probability, rule, grid)
    return find_unsegmented(image, filled.image, scale, white, rule, grid)


def fill_again(
    model: Model,
    first: Filled,
    lesions: Array,
    mask: Array,
    scale: Scale,
    runtime: Runtime | None = None,
    priors: Sequence[Array] | None = None,
    alone: bool = False,
) -> Filled:
    """Second pass: the lesions that a blind network found are filled by a non-blind one, too.

    The non-blind network sees what the blind one made of the surroundings, so that a lesion that was found
    in part does not spread into the filling. The result is the mean of both fillings: their errors differ.

    Parameters
    ----------
    model : Model
        A non-blind network.
    first : Filled
        What the blind one made.
    lesions : array of bool
        What it found.
    mask, scale, runtime, priors
        Of :func:`inpaint`.
    alone : bool
        Whether the second filling is the result instead.

    Returns
    -------
    Filled
        With the lesion probability of the first, and the spread of all fillings that have a part in it.
    """
    if not lesions.any():
        return first
    again = inpaint(model, first.image, mask, scale, lesions, runtime, priors)
    if alone:
        return replace(first, image=again.image, spread=again.spread)
    mean = (first.image + again.image) / 2
    if first.spread is None or again.spread is None:
        return replace(first, image=mean)
    variance = (first.spread**2 + again.spread**2) / 2 + (first.image - mean) ** 2
    return replace(first, image=mean, spread=np.sqrt(variance))
