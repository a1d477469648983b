import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bids_inpaint.training import synthesis
from bids_inpaint.training.parameters import LesionParameters, draw_image


def test_lesions_grow_in_deep_grey_matter_but_not_in_the_cortex():
    grey = 0.7
    tissue = torch.full((24, 24, 24), 0.75)
    voxels = np.argwhere(np.ones((8, 8, 8))).astype(float) + 8
    deep, cortex = np.array([60, 100, 70]), np.array([20, 40, 110])
    support = {}
    for corner in (deep, cortex):
        lesion = LesionParameters(voxels + corner, 0.55, 0.3, 0.7)
        _, support[tuple(corner)] = synthesis.paint(tissue, grey, [lesion], corner.tolist(), seed=1)
    assert support[tuple(deep)][12, 12, 12] > 0.9
    assert support[tuple(cortex)].max() == 0


@pytest.mark.parametrize("distance", [-2.0, 0.5, 2.0])
def test_borders_of_masks_move_unevenly_but_nothing_else_does(distance):
    mask = torch.zeros(48, 48, 48)
    mask[:24] = 1
    lattice = torch.rand((1, 4, 4, 4), generator=torch.Generator().manual_seed(1))
    (moved,) = synthesis.shift_border(mask[None], torch.full((1, 1, 1, 1), distance), lattice)
    thickness = moved.sum(0)
    assert thickness.mean() == pytest.approx(24 + distance, abs=0.8)
    assert thickness.std() > 0
    assert (moved[:18] == 1).all()
    assert (moved[30:] == 0).all()


def test_contrast_leaves_white_matter_alone():
    parameters = draw_image(np.random.default_rng(0), 0.8)
    image = torch.tensor([0.0, 0.7, 1.0])
    out = synthesis.change_contrast(image, 0.7, parameters)
    assert out.tolist() == pytest.approx([0, parameters.grey, 1], abs=1e-5)


def test_degradation_is_shared_by_both_versions():
    parameters = draw_image(np.random.default_rng(5), 0.8)
    healthy = torch.rand(16, 16, 16) + 0.5
    lesioned = healthy.clone()
    lesioned[4:8] *= 0.7
    one, two = (v[0] for v in synthesis.degrade([lesioned[None], healthy[None]], [parameters]))
    assert torch.equal(one[14:], two[14:])
