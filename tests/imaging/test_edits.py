"""A person's changes of a lesion map, on the grid that was edited and on the other."""

import numpy as np
import pytest

from bids_inpaint.imaging.edits import Change, carry, state_of
from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.space import Grid

FINE = Grid.of((60, 60, 60), np.diag([1.0, 1, 1, 1]))
THICK = Grid.of((60, 60, 20), np.diag([1.0, 1, 3, 1]))


def cube(grid: Grid, low, high) -> np.ndarray:
    """Voxels whose centres lie in a box (mm)."""
    world = np.moveaxis(np.indices(grid.shape), 0, -1) * grid.voxel_sizes
    return np.all((world >= low) & (world < high), axis=-1)


def lesions(grid: Grid, *which: str) -> np.ndarray:
    boxes = {
        "a": ((9, 9, 9), (18, 18, 18)),
        "b": ((30, 30, 30), (42, 42, 42)),
        "new": ((9, 40, 9), (15, 46, 18)),
    }
    return np.any([cube(grid, *boxes[name]) for name in which], axis=0)


@pytest.mark.parametrize(("edited", "other"), [(FINE, THICK), (THICK, FINE)])
def test_the_other_map_loses_and_gains_the_same_lesions_and_keeps_the_rest(edited, other):
    before, after = lesions(edited, "a", "b"), lesions(edited, "b", "new")
    change, reached = carry(Change.between(before, after), edited, lesions(other, "a", "b"), other)
    assert not (change.mask & cube(other, (0, 0, 0), (25, 25, 25))).any()
    kept = cube(other, (25, 25, 25), (50, 50, 50))
    assert np.array_equal(change.mask & kept, lesions(other, "b"))
    assert change.added.sum() * other.voxel_volume == pytest.approx(6 * 6 * 9, rel=0.2)
    assert (change.added & lesions(other, "new")).sum() / change.added.sum() > 0.7
    assert not (change.added & ~reached).any()
    assert np.array_equal(change.mask, (lesions(other, "a", "b") & ~change.removed) | change.added)


@pytest.mark.parametrize(("edited", "other"), [(FINE, THICK), (THICK, FINE)])
def test_without_an_edit_the_other_map_stays_voxel_for_voxel(edited, other):
    here, there = lesions(edited, "a", "b"), lesions(other, "a", "b")
    # a lesion that is too small for the other grid is in one map alone
    there[50, 50, 10] = True
    change, _ = carry(Change.between(here, here), edited, there, other)
    assert np.array_equal(change.mask, there)
    assert not change.added.any()
    assert not change.removed.any()


def test_a_map_may_be_emptied_or_made_from_nothing():
    full, none = lesions(FINE, "a", "b"), np.zeros(FINE.shape, bool)
    there = lesions(THICK, "a", "b")
    assert not carry(Change.between(full, none), FINE, there, THICK)[0].mask.any()
    made = carry(Change.between(none, full), FINE, np.zeros(THICK.shape, bool), THICK)[0].mask
    assert (made & there).sum() > 0.9 * there.sum()


def test_a_lesion_of_which_a_part_was_removed_is_changed():
    from scipy import ndimage

    before = lesions(FINE, "a", "b")
    after = before & ~cube(FINE, (30, 30, 30), (36, 42, 42))
    labels, _ = ndimage.label(after, CONNECTIVITY)
    assert state_of(labels, Change.between(before, after)) == ["none", "changed"]
    assert state_of(np.zeros((3, 3, 3), int), Change.between(*[np.zeros((3, 3, 3), bool)] * 2)) == []
