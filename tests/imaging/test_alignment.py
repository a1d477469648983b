"""The affine of a brain is a property of the brain, not of how it is stored or where the search begins."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_inpaint.dataset import template
from bids_inpaint.imaging.alignment import refine
from bids_inpaint.imaging.itk import affine
from bids_inpaint.imaging.processes import alone
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, Grid, resample

CORNERS = np.array([[x, y, z, 1] for x in (-70, 70) for y in (-105, 75) for z in (-60, 85)]).T


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(((one - other) @ CORNERS)[:3], axis=0).max())


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """The template, a brain that was made from it by a known affine, its grid, and that affine."""
    t1w, grid = images.read(template.prepare(template.DEFAULT, tmp_path_factory.mktemp("template")).t1w)
    true = np.eye(4)
    true[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() @ np.diag(
        [0.9, 0.95, 0.88]
    )
    true[:3, 3] = 6, -9, 14
    native = Grid.of(
        (150, 190, 100), np.array([[-1.2, 0, 0, 95], [0, 1.1, 0, -120], [0, 0, 1.7, -80], [0, 0, 0, 1]])
    )
    data = resample(t1w, grid, native, np.linalg.inv(true), order=1)
    # a bias field, noise, and a lesion: none of them is in the template
    place = np.linspace(-1, 1, 150)[:, None, None]
    data *= 1 + 0.25 * place
    data += (data > 0) * np.random.default_rng(0).normal(0, 0.03 * data.max(), data.shape).astype(np.float32)
    data[60:72, 90:102, 50:58] *= 0.5
    return t1w, np.clip(data, 0, None), native, true


@pytest.mark.parametrize(
    ("turn", "shift", "size"), [(0, (0, 0, 0), 1), (3, (4, -3, 2), 1.03), (-4, (-2, 5, 3), 0.96)]
)
def test_the_search_ends_at_the_true_affine(brain, turn, shift, size):
    t1w, data, grid, true = brain
    start = true.copy()
    start[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix() @ true[:3, :3] * size
    start[:3, 3] += shift
    assert apart(refine(start, t1w, WORKING_GRID, data, grid)[0], true) < 0.5


def test_storage_is_no_matter(brain):
    """Another order and direction of the axes, another unit of intensity, and room around the head."""
    t1w, data, grid, true = brain
    plain, likeness = refine(true, t1w, WORKING_GRID, data, grid)
    assert likeness > 0.9
    turned = nib.as_closest_canonical(nib.Nifti1Image(data.transpose(2, 0, 1), grid.matrix[:, [2, 0, 1, 3]]))
    for image in (turned, nib.Nifti1Image(1e-5 * np.pad(data, 20), grid.part((slice(-20, 170),) * 3).matrix)):
        values = image.get_fdata(dtype=np.float32)
        other, _ = refine(true, t1w, WORKING_GRID, values, Grid.of(values.shape, image.affine))
        assert apart(other, plain) < 0.1


def test_what_is_cut_off_counts_nothing(brain):
    t1w, data, grid, true = brain
    cut = data.copy()
    cut[:, :, :25] = 0
    start = true.copy()
    start[:3, 3] += 2
    assert apart(refine(start, t1w, WORKING_GRID, cut, grid)[0], true) < 1.5


@pytest.mark.parametrize("factor", [0, 1])
def test_where_nothing_fits_the_affine_stays(brain, factor):
    """Without signal, or with the head far from the template."""
    t1w, data, grid, true = brain
    start = true.copy()
    start[:3, 3] += 400 * factor
    matrix, likeness = refine(start, t1w, WORKING_GRID, factor * data, grid)
    assert (matrix == start).all()
    assert likeness == 0


@pytest.mark.slow
@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (20, 15, -20)])
def test_a_head_may_be_turned(brain, tmp_path, angles):
    """Where the quick registration does not find the way, the thorough one does."""
    t1w, data, grid, true = brain
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    turned = Grid.of(grid.shape, turn @ grid.matrix)
    files = [
        images.save(str(tmp_path / f"{name}.nii.gz"), values, its)
        for name, values, its in (
            ("head", data, turned), ("mask", (data > 0).astype(np.uint8), turned),
            ("template", t1w, WORKING_GRID),
        )
    ]  # fmt: skip
    found = alone(affine, *files, "fast", str(tmp_path), 0)
    assert apart(np.linalg.inv(turn) @ found, true) < 0.5
