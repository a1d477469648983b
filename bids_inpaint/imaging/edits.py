"""What a person changed in a lesion map, on one grid and on another (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.lesions import CONNECTIVITY, transfer
from bids_inpaint.space import Grid, resample

Array = np.ndarray

#: What a person did to a lesion of the edited map.
NONE, CHANGED, ADDED = "none", "changed", "added"


@dataclass(frozen=True)
class Change:
    """An edited map, and how it differs from the one before, on one grid.

    Attributes
    ----------
    mask : array of bool
        The edited map.
    added, removed : array of bool
        Voxels of it that were not in the map before, and the reverse.
    """

    mask: Array
    added: Array
    removed: Array

    @classmethod
    def between(cls, before: Array, after: Array) -> Change:
        """The change from one map to another."""
        return cls(after, after & ~before, before & ~after)


def carry(
    change: Change, source: Grid, before: Array, target: Grid, target_to_source: Array | None = None
) -> tuple[Change, Array]:
    """Make the same change to the lesion map on another grid, where all that was not edited stays.

    Parameters
    ----------
    change : Change
        On the grid that was edited.
    source, target : Grid
    before : array of bool, shape `target.shape`
        The map on the other grid before the edit.
    target_to_source : array, shape (4, 4), optional
        Maps a world point (mm, RAS+) of the target onto the source; identity by default.

    Returns
    -------
    change : Change
        On the target.
    reached : array of bool
        All of its voxels that the added lesions reach.
    """
    staying = change.mask & ~change.added
    removed, kept = (
        resample(part, source, target, target_to_source, order=1) for part in (change.removed, staying)
    )
    withdrawn = before & (removed > kept)
    # of a lesion that is gone as a whole, nothing is left between the voxels of the source
    labels, count = ndimage.label(before, CONNECTIVITY)
    if count:
        lesions = np.arange(1, count + 1)
        lost, left = (ndimage.maximum(part, labels, lesions) for part in (removed, kept))
        gone = np.concatenate([[False], (np.asarray(lost) > 0) & (np.asarray(left) == 0)])
        withdrawn |= gone[labels]
    added, reached = transfer(change.added, source, target, target_to_source)
    return Change.between(before, (before & ~withdrawn) | added), reached


def state_of(labels: Array, change: Change) -> list[str]:
    """What was done to each lesion of an edited map: `NONE`, `CHANGED` or `ADDED`.

    A lesion is changed if some of its voxels were added, or if voxels beside it were removed.

    Parameters
    ----------
    labels : array of int
        The lesions of the edited map, 1 to their number.
    change : Change

    Examples
    --------
    >>> before, after = np.zeros((3, 9, 3), bool), np.zeros((3, 9, 3), bool)
    >>> before[1, 1:3, 1] = before[1, 4:6, 1] = after[1, 1:3, 1] = after[1, 4, 1] = after[1, 7, 1] = True
    >>> state_of(ndimage.label(after)[0], Change.between(before, after))
    ['none', 'changed', 'added']
    """
    count = int(labels.max()) if labels.size else 0
    size, new = (np.bincount(labels[where], minlength=count + 1)[1:] for where in (labels > 0, change.added))
    touched = np.zeros(count + 1, bool)
    touched[np.unique(labels[ndimage.binary_dilation(change.removed, CONNECTIVITY)])] = True
    return [
        ADDED if n == s else CHANGED if n or t else NONE
        for s, n, t in zip(size, new, touched[1:], strict=True)
    ]
