"""Masks that other programs or people made: what they mean, and whether they belong to an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.lesions import transfer
from bids_inpaint.io import headers
from bids_inpaint.io.images import grid_of, load, load_given, read_data
from bids_inpaint.space import Grid, resample

if TYPE_CHECKING:
    import nibabel as nib

#: Labels that a mask may have; an image has more values.
_MOST_LABELS = 256
#: So many values are levels, as those of a probability in per cent or of a smoothed mask, if less of the
#: surface has the median value or more, and more of the neighbours differ (fractions). Of numbered lesions of
#: eight patients, half of the surface does, and next to no neighbours differ.
_LEVELS, _HIGH_SURFACE, _DIFFERENT = 8, 0.4, 0.1
#: So much of a brain is no lesion (fraction), and so much of a lesion mask lies in the brain.
_LARGEST_SHARE, _LEAST_INSIDE, _USUAL_INSIDE = 1 / 3, 0.5, 0.9
#: Given lesions that are so much brighter than their mirror image may have left and right swapped.
BRIGHTER = -0.03


def read_brain(
    path: str | os.PathLike,
    grid: Grid,
    t1w: str | os.PathLike,
    world: np.ndarray | None = None,
    warnings: list[str] | None = None,
) -> np.ndarray:
    """A given brain mask on another grid, resampled by its header.

    Parameters
    ----------
    path : str
    grid : Grid
        Where it is wanted.
    t1w : str
        The image it belongs to, for messages.
    world : array, shape (4, 4), optional
        Affine from the space of the grid to that of the mask (RAS+, mm); the identity by default.
    warnings : list of str, optional
        Takes a sentence on each thing that is unusual.

    Returns
    -------
    array of bool

    Raises
    ------
    InputError
        If it can't be read, is no mask, has nothing on the grid, or has the T1w's voxels in another place.
    """
    if world is None:
        check_place(path, t1w)
    data, mask_grid = _read(path, t1w, warnings)
    mask = resample(_positive(data, path, "brain", warnings), mask_grid, grid, world, order=0) > 0.5
    if not mask.any():
        raise InputError(f"{path} does not overlap {t1w}: give the mask of this image.")
    return mask


def read_lesions(
    path: str | os.PathLike,
    grid: Grid,
    t1w: str | os.PathLike,
    world: np.ndarray | None = None,
    brain: np.ndarray | None = None,
    warnings: list[str] | None = None,
) -> np.ndarray:
    """A given lesion mask on another grid, resampled by its header: :func:`read_lesions_and_reach`."""
    return read_lesions_and_reach(path, grid, t1w, world, brain, warnings)[0]


def read_lesions_and_reach(
    path: str | os.PathLike,
    grid: Grid,
    t1w: str | os.PathLike,
    world: np.ndarray | None = None,
    brain: np.ndarray | None = None,
    warnings: list[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A given lesion mask on another grid, and all voxels that it reaches there.

    Parameters
    ----------
    path : str
    grid : Grid
        Where it is wanted.
    t1w : str
        The image it belongs to, for messages.
    world : array, shape (4, 4), optional
        Affine from the space of the grid to that of the mask (RAS+, mm).
    brain : array of bool, optional
        On the grid; most of the lesions must lie in it.
    warnings : list of str, optional
        Takes a sentence on each thing that is unusual.

    Returns
    -------
    kept, reached : array of bool
        As of :func:`bids_inpaint.imaging.lesions.transfer`.

    Raises
    ------
    InputError
        If it isn't a mask, or has lesions but few of them in the brain, or as much of them as of brain.
    """
    data, mask_grid = _read(path, t1w, warnings)
    mask = _positive(data, path, "lesion", warnings)
    if not mask.any():
        return np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    same = world is None and mask_grid.same_as(grid)
    out, reached = (mask, mask) if same else transfer(mask, mask_grid, grid, world)
    if not (reached if brain is None else reached & brain).any():
        raise InputError(
            f"{path} does not overlap the brain of {t1w}: "
            "check that the mask belongs to this image and space."
        )
    if brain is not None:
        check_amount(out, brain, path, t1w, warnings)
    return out, reached


def read_edited(
    path: str | os.PathLike, grid: Grid, t1w: str | os.PathLike, warnings: list[str] | None = None
) -> np.ndarray:
    """A lesion map that a person corrected, voxel for voxel.

    Its axes may have another order or direction than those of the grid, as viewers store them.

    Parameters
    ----------
    path : str
    grid : Grid
        Where it must lie.
    t1w : str
        The image it belongs to, for messages.
    warnings : list of str, optional
        Takes a sentence on each thing that is unusual.

    Returns
    -------
    array of bool

    Raises
    ------
    InputError
        If it isn't a mask, or lies on other voxels.
    """
    data, mask_grid = _read(path, t1w, warnings)
    mask = _positive(data, path, "lesion", warnings)
    if mask_grid.same_as(grid):
        return mask
    same_size = sorted(mask_grid.shape) == sorted(grid.shape)
    apart = headers.same_box(mask_grid.matrix, grid.matrix, mask_grid.shape, grid.shape)
    if not same_size or apart > 0.5 * float(grid.voxel_sizes.min()):
        sizes = [" × ".join(map(str, shape)) for shape in (mask_grid.shape, grid.shape)]
        how = f"up to {apart:.1f} mm away" if same_size else f"{sizes[0]} in place of {sizes[1]} voxels"
        raise InputError(
            f"{path} is not on the voxels of the lesion map of {t1w} that it corrects ({how}): save it on "
            "the voxels of the map."
        )
    return resample(mask, mask_grid, grid, order=0) > 0.5


def check_place(path: str | os.PathLike, t1w: str | os.PathLike) -> None:
    """Raise `InputError` for a mask with the voxels of a T1w whose header places them elsewhere.

    A mask on a lattice of its own is resampled by its header; one with as many voxels as the T1w was drawn on
    it, and one of both headers is wrong.
    """
    mask, image = load_given(path), load(t1w)
    apart = _apart(mask, image)
    if apart is not None and apart > _rounding(image):
        raise InputError(
            f"{path} has the voxels of {t1w}, but its header places them up to {apart:.1f} mm away (affine "
            f"{headers.written(mask.affine)}, T1w {headers.written(image.affine)}): copy the header of the "
            "T1w if it was drawn on it, or resample it onto the T1w."
        )


def _read(
    path: str | os.PathLike, t1w: str | os.PathLike, warnings: list[str] | None
) -> tuple[np.ndarray, Grid]:
    """Stored labels and grid of a mask whose place is certain, or that has the lattice of its T1w."""
    mask = load_given(path, warnings)
    if doubt := headers.doubt(mask.header):
        image = load(t1w)
        apart = _apart(mask, image)
        if apart is None or apart > _rounding(image):
            raise InputError(
                f"{path} {doubt}, and is not on the voxels of {t1w}: correct its header, or resample it onto "
                "the T1w with the program that drew it."
            )
    return read_data(mask, path, None), grid_of(mask)


def _apart(mask: nib.Nifti1Image, image: nib.Nifti1Image) -> float | None:
    """Distance (mm) between the places of a mask and an image with as many voxels, or None for others."""
    if sorted(mask.shape[:3]) != sorted(image.shape[:3]):
        return None
    return headers.same_box(mask.affine, image.affine, mask.shape, image.shape)


def _rounding(image: nib.Nifti1Image) -> float:
    """Distance (mm) that is none: half a voxel."""
    return 0.5 * float(grid_of(image).voxel_sizes.min())


def darker_side(image: np.ndarray, lesions: np.ndarray, white: float) -> float:
    """How much darker an image is in given lesions than at the same places of the other hemisphere.

    Below 0, the mask may have left and right swapped: it is 0.04 to 0.18 in the masks of four patients, and
    the same below 0 once they are mirrored.

    Parameters
    ----------
    image, lesions : array, shape of the working grid
        A brain, 0 outside, and where its lesions are.
    white : float
        White-matter level of the image.

    Returns
    -------
    float
        As a fraction of white matter; 0 where too few lesion voxels have none opposite.

    Examples
    --------
    >>> image = np.ones((182, 10, 10)); image[100:110] = 0.8
    >>> mask = np.zeros(image.shape, bool); mask[100:110] = True
    >>> mirrored = np.roll(image[::-1], -1, axis=0)
    >>> round(darker_side(image, mask, 1.0), 2), round(darker_side(mirrored, mask, 1.0), 2)
    (0.2, -0.2)
    """
    # the middle of the template's brain, x = 0, is voxel 90
    opposite = np.roll(lesions[::-1], -1, axis=0)
    here, there = (m & (image > 0) for m in (lesions & ~opposite, opposite & ~lesions))
    if min(here.sum(), there.sum()) < 100:
        return 0.0
    return float(image[there].mean() - image[here].mean()) / white


def _positive(data: np.ndarray, path: str | os.PathLike, what: str, warnings: list[str] | None) -> np.ndarray:
    """Where the labels of a mask are above 0; NaN is 0, and numbers are whole but for rounding."""
    if data.dtype.kind == "f":
        data = np.where(np.isnan(data), 0, data)
    low, high = float(data.min()), float(data.max())
    if low < -1e-3 or not np.isfinite(high):
        raise InputError(
            f"{path} is not a mask, as it has values from {low:g} to {high:g}: set it to 1 in the {what} "
            "and to 0 elsewhere."
        )
    if data.dtype.kind == "f":
        whole = np.rint(data)
        if np.abs(data - whole).max() > 1e-3:
            raise InputError(
                f"{path} is not a binary mask, as it has fractions ({low:g} to {high:g}), as probabilities "
                "and interpolated masks do: threshold it to 0 and 1."
            )
        data = whole
    labels = np.unique(data[data > 0])
    if labels.size > _MOST_LABELS:
        raise InputError(
            f"{path} is not a binary mask ({labels.size} values up to {high:g}): set it to 1 in the {what} "
            "and to 0 elsewhere."
        )
    if labels.size >= _LEVELS and _are_levels(data):
        raise InputError(
            f"{path} is not a binary mask, as its {labels.size} values up to {high:g} fall towards its "
            "surface like those of a probability or of a smoothed mask: threshold it to 0 and 1."
        )
    if labels.size > 1 and warnings is not None:
        listed = ", ".join(f"{label:g}" for label in labels[:8]) + (", …" if labels.size > 8 else "")
        warnings.append(f"{Path(path).name}: it has labels {listed}; all of them were taken as {what}.")
    return data > 0


def _are_levels(data: np.ndarray) -> bool:
    """Whether values fall from inside a mask to its surface, instead of being the same in each part of it."""
    mask = data > 0
    surface = mask & ~ndimage.binary_erosion(mask, border_value=1)
    if (data[surface] >= np.median(data[mask])).mean() >= _HIGH_SURFACE:
        return False
    pairs = different = 0
    for axis in range(3):
        one, other = (np.moveaxis(data, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        both = (one > 0) & (other > 0)
        pairs += int(both.sum())
        different += int((both & (one != other)).sum())
    return different > _DIFFERENT * pairs


def check_amount(
    lesions: np.ndarray,
    brain: np.ndarray,
    path: str | os.PathLike,
    t1w: str | os.PathLike,
    warnings: list[str] | None,
) -> None:
    """Raise `InputError` for lesions that are mostly outside the brain, or as large as a part of it."""
    inside = float((lesions & brain).sum() / lesions.sum())
    if inside < _LEAST_INSIDE:
        raise InputError(
            f"{path} has only {inside:.0%} of its lesions in the brain of {t1w}: check that the mask belongs "
            "to this image and space."
        )
    share = float((lesions & brain).sum() / brain.sum())
    if share > _LARGEST_SHARE:
        raise InputError(
            f"{path} covers {share:.0%} of the brain of {t1w}, which no lesion does: check that it is a "
            "lesion mask."
        )
    if inside < _USUAL_INSIDE and warnings is not None:
        warnings.append(f"{Path(path).name}: {1 - inside:.0%} of the given lesions lie outside the brain.")
