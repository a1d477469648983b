"""Holes that reach beyond the brain."""

import numpy as np
import pytest

from bids_inpaint.networks.slices import outline


@pytest.mark.parametrize("middle", [40, 43])
def test_a_brain_ends_where_its_other_half_does(middle):
    x, y, z = np.mgrid[:90, :100, :60]
    brain = ((x - middle) / 30) ** 2 + ((y - 50) / 40) ** 2 + ((z - 30) / 25) ** 2 < 1
    hole = (x > middle + 15) & (y > 20) & (y < 60) & (z > 10) & (z < 40)
    assert (hole & ~brain).sum() > 5000
    found = outline(np.where(hole, 0, brain.astype(np.float32)), hole)
    assert (found & hole == brain & hole).all()


def test_a_hole_in_both_halves_is_all_brain():
    x, y, z = np.mgrid[:80, :60, :40]
    brain = ((x - 40) / 30) ** 2 + ((y - 30) / 25) ** 2 + ((z - 20) / 15) ** 2 < 1
    hole = (abs(x - 40) < 10) & (abs(y - 30) < 10) & (abs(z - 20) < 5)
    assert outline(np.where(hole, 0, brain.astype(np.float32)), hole)[hole].all()
