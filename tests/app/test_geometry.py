"""A lesion is found and removed where it was painted, however the voxels of the T1w lie in the world.

Every 13th of the 192 lattices; ``BIDS_INPAINT_NIGHTLY=1`` tries all.
"""

import itertools
import os

import numpy as np
import pytest
from nitransforms.io.itk import ITKLinearTransform

from bids_inpaint.interfaces.images import Normalise, ToWorkingGrid
from bids_inpaint.interfaces.inpaint import Inpaint
from bids_inpaint.interfaces.lesions import MapLesions
from bids_inpaint.interfaces.native import BackToNative
from bids_inpaint.io import images
from bids_inpaint.networks import registry
from bids_inpaint.space import WORKING_GRID, Grid, resample

#: Where the lesion is in the template, in mm: in the right hemisphere, in front and above.
CENTRE = np.array([24.0, 32.0, 18.0])
RADIUS = 7.0
#: From the template to the world of the T1w.
WORLD = np.array([[1.04, 0.08, 0, 6], [-0.07, 0.96, 0.1, -9], [0, -0.1, 1.06, 12], [0, 0, 0, 1]])
SIZES = {"cubes": (1.4, 1.4, 1.4), "thick slices": (1.1, 1.1, 3.0)}
ANGLES = {"straight": 0.0, "oblique": 25.0}
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
CASES = list(itertools.product(ORIENTATIONS, SIZES, ANGLES))


def lattice(orientation, sizes, degrees) -> Grid:
    """Voxels that cover the head, with their axes along the world's in any order, or tilted."""
    order, signs = orientation
    angle = np.deg2rad(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turn = np.array(
        [[np.cos(angle / 2), -np.sin(angle / 2), 0], [np.sin(angle / 2), np.cos(angle / 2), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    for axis, (along, sign, size) in enumerate(zip(order, signs, sizes, strict=True)):
        affine[:3, axis] = tilt @ turn @ (sign * size * np.eye(3)[along])
    extent = np.array([190.0, 220.0, 200.0])
    shape = np.ceil(extent[list(order)] / sizes).astype(int)
    middle = (WORLD @ [0, -18, 10, 1])[:3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid.of(shape, affine)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A brain with white matter at 1, a lesion at 0.7 in it, and grey matter at 0.7 on the left."""
    points = np.indices(WORKING_GRID.shape).reshape(3, -1)
    world = (WORKING_GRID.matrix[:3, :3] @ points + WORKING_GRID.matrix[:3, 3:]).T
    depth = (((world - [0, -18, 10]) / [68, 84, 62]) ** 2).sum(1)
    brain = depth < 1
    left = world[:, 0] < -20
    values = np.where(left, 0.7, 1.0) * brain
    values[((world - CENTRE) ** 2).sum(1) < RADIUS**2] = 0.7
    folder = tmp_path_factory.mktemp("geometry")
    # the toy network also lifts the rim of the brain, where lesions are not looked for
    white = ((depth < 0.7) & (world[:, 0] > -12)).astype(np.float32)
    grey = (brain & left).astype(np.float32)
    paths = {
        "wm": images.save(folder / "wm.nii.gz", white.reshape(WORKING_GRID.shape), WORKING_GRID),
        "gm": images.save(folder / "gm.nii.gz", grey.reshape(WORKING_GRID.shape), WORKING_GRID),
    }
    for name, matrix in (("xfm", WORLD), ("inverse", np.linalg.inv(WORLD))):
        paths[name] = str(folder / f"{name}.txt")
        ITKLinearTransform.from_ras(matrix).to_filename(paths[name])
    return values.reshape(WORKING_GRID.shape).astype(np.float32), brain.reshape(WORKING_GRID.shape), paths


@pytest.mark.parametrize(
    ("orientation", "voxels", "tilt"), CASES if os.environ.get("BIDS_INPAINT_NIGHTLY") else CASES[::13]
)
def test_a_lesion_is_found_and_removed_at_its_place(
    phantom, toy_model, tmp_path, monkeypatch, orientation, voxels, tilt
):
    monkeypatch.chdir(tmp_path)
    values, brain, paths = phantom
    grid = lattice(orientation, SIZES[voxels], ANGLES[tilt])
    back = np.linalg.inv(WORLD)
    t1w = np.round(1000 * resample(values, WORKING_GRID, grid, back, order=1)).astype(np.int16)
    mask = resample(brain, WORKING_GRID, grid, back, order=1) > 0.5
    files = {"t1w": t1w, "mask": mask.astype(np.uint8), "denoised": t1w.astype(np.float32)}
    own = {name: images.save(tmp_path / f"own_{name}.nii.gz", data, grid) for name, data in files.items()}
    moved = ToWorkingGrid(in_file=own["denoised"], mask_file=own["mask"], xfm=paths["xfm"]).run().outputs
    normal = Normalise(in_file=moved.out_file, mask_file=moved.out_mask).run().outputs
    bias = images.save(tmp_path / "bias.nii.gz", np.ones(WORKING_GRID.shape, np.float32), WORKING_GRID)
    model = registry.find(str(toy_model))
    inpainted = Inpaint(
        in_file=normal.out_file, mask_file=moved.out_mask, wm_prior=paths["wm"], gm_prior=paths["gm"],
        model=str(model.path), model_sha256=model.sha256,
    ).run().outputs  # fmt: skip
    found = MapLesions(
        preproc=normal.out_file, inpainted=inpainted.whole_file, wm=paths["wm"], wm_prior=paths["wm"],
        white=inpainted.white, exponent=inpainted.exponent, lesion_map="difference", threshold=0.1,
        min_volume=10.0,
    ).run().outputs  # fmt: skip
    native = BackToNative(
        t1w=own["t1w"], brain_mask=own["mask"], denoised=own["denoised"], preproc=normal.out_file,
        inpainted=inpainted.whole_file, bias=bias, scale=normal.scale, weight=found.weight,
        probability=found.probability, lesion_mask=found.mask, darkening=found.darkening,
        inverse_xfm=paths["inverse"],
    ).run().outputs  # fmt: skip

    truth = (WORLD @ [*CENTRE, 1])[:3]
    lesion = images.read(native.lesion_mask)[0] > 0
    risen = images.read(native.inpainted)[0] - t1w
    for weight in (lesion, np.maximum(risen, 0)):
        index = np.array([(weight * axis).sum() / weight.sum() for axis in np.indices(weight.shape)])
        centre = grid.matrix[:3, :3] @ index + grid.matrix[:3, 3]
        assert np.abs(np.linalg.solve(grid.matrix[:3, :3], centre - truth)).max() < 1
    volume = lesion.sum() * grid.voxel_volume
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS**3 * np.linalg.det(WORLD), rel=0.3)
    assert risen[lesion].mean() > 100
