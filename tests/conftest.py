"""Small images and a toy network, made on the fly; real data where ``BIDS_INPAINT_TEST_DATA`` names it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import TESTS, write_card

from bids_inpaint.space import WORKING_GRID


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real datasets, or skip."""
    folder = os.environ.get("BIDS_INPAINT_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BIDS_INPAINT_TEST_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """A valid network that lifts everything above 0.5 to at least 0.9."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape = [1, 8, "d", "h", "w"]
    graph = helper.make_graph(
        [
            helper.make_node("Greater", ["image", "half"], ["bright"]),
            helper.make_node("Cast", ["bright"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["mask", "level"], ["floor"]),
            helper.make_node("Max", ["image", "floor"], ["inpainted"]),
        ],
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("inpainted", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5]),
            helper.make_tensor("level", TensorProto.FLOAT, [1], [0.9]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("models") / "toy.onnx"
    onnx.save(model, path)
    write_card(path)
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    import nibabel as nib

    folder = tmp_path_factory.mktemp("lesions")
    (folder / "patients").mkdir()
    for i, name in enumerate(("a", "b")):
        mask = np.zeros(WORKING_GRID.shape, np.uint8)
        mask[60 + 9 * i : 70, 80:90, 80:90] = 1
        mask[100:104, 80:90, 80:90] = 1
        nib.Nifti1Image(mask, WORKING_GRID.matrix).to_filename(folder / "patients" / f"{name}_mask.nii.gz")
    voxels = np.ravel_multi_index(np.nonzero(mask), mask.shape).astype(np.int32)
    np.savez(
        folder / "shapes.npz", voxels=voxels, offsets=[0, len(voxels)], shape=mask.shape,
        affine=WORKING_GRID.matrix,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Two prepared subjects whose brain is a box of white matter, with grey matter on the left."""
    from bids_inpaint.training.data import cache_subject

    folder = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    image = np.zeros(WORKING_GRID.shape, np.float32)
    image[30:150, 30:190, 30:150] = 700 + 10 * rng.standard_normal((120, 160, 120))
    image[30:40, 30:190, 30:150] = 450
    prior = {"WM": (image > 600).astype(np.float32), "GM": ((image > 100) & (image < 600)).astype(np.float32)}
    for name in ("toy_sub-01", "toy_sub-02"):
        cache_subject(folder / name, image, image > 0, prior)
    return folder


#: Below ``tests/``: what runs the app or a training, or takes ITK, for more than some seconds.
SLOW = (
    "app/test_disguises.py", "app/test_edits.py", "app/test_fuzz.py", "app/test_geometry.py",
    "app/test_lesion_maps.py", "app/test_longitudinal.py", "app/test_participant.py",
    "app/test_real.py", "app/test_sentences.py",
    "dataset/test_irregular.py", "dataset/test_output_folder.py", "dataset/test_tables.py",
    "dataset/test_template.py", "export", "group/test_group.py", "imaging/test_alignment.py",
    "imaging/test_brain.py", "imaging/test_quality.py", "interfaces", "networks/test_diffusion.py",
    "networks/test_engines.py", "participant", "reports/test_pages.py", "spm", "training", "workflows",
)  # fmt: skip
#: Those that do more where ``BIDS_INPAINT_NIGHTLY`` is set.
NIGHTLY = ("app/test_disguises.py", "app/test_fuzz.py", "app/test_geometry.py", "participant/test_faults.py")


def pytest_collection_modifyitems(items) -> None:
    """Mark tests by where they are and what they need."""
    for item in items:
        try:
            path = item.path.relative_to(TESTS).as_posix()
        except ValueError:
            continue
        if path.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if path.startswith(NIGHTLY):
            item.add_marker(pytest.mark.nightly)
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
