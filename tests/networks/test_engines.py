"""A new kind of network is one new file."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import write_dataset
from scipy import ndimage

import bids_inpaint
from bids_inpaint.demo import LESIONS, LEVEL, acquire, tilted
from bids_inpaint.io import images
from bids_inpaint.networks.engines import ENGINES

onnx = pytest.importorskip("onnx")

#: Its network returns what it is shown, and the engine paints what is to be filled as white matter.
ENGINE = '''
"""Paints lesions white."""

import numpy as np

from bids_inpaint.networks.card import Engine, Filled, Signature
from bids_inpaint.networks.session import open_session


def _fill(model, image, wanted, scale, runtime, priors):
    session = open_session(model, runtime)
    ones = session.run(None, {"x": np.ones((1, 1, *image.shape), np.float32)})[0][0, 0]
    return Filled(np.where(wanted, scale.white * ones, image).astype(np.float32))


ENGINE = Engine(
    name="painter",
    describes="a painter that knows one colour",
    intensities={"inpaint": ("wm",)},
    signature=lambda card: Signature((5, 5), (1, 1), "take and give one volume"),
    fill=_fill,
)
'''


@pytest.fixture
def package(tmp_path) -> Path:
    """The folder of a copy of the package, with one more file in it."""
    source = Path(bids_inpaint.__file__).parent
    copy = tmp_path / "tree/bids_inpaint"
    for folder in (copy, copy / "networks", copy / "networks/engines"):
        folder.mkdir(parents=True)
        for path in (source / folder.relative_to(copy)).iterdir():
            if path.name not in ("networks", "engines", "__pycache__"):
                (folder / path.name).symlink_to(path)
    (copy / "networks/engines/painter.py").write_text(ENGINE)
    return copy.parent


def write_network(path: Path) -> None:
    shape = [1, 1, "x", "y", "z"]
    ins, outs = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("x", "out"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["out"])], "g", [ins], [outs])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )
    card = {
        "software": "bids_inpaint",
        "name": "painter",
        "engine": "painter",
        "blind": False,
        "intensity": "wm",
        "multiple": 1,
        "lesion_threshold": 0.1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card))


def test_a_new_engine_is_one_new_file(package, tmp_path):
    assert "painter" not in ENGINES
    write_network(tmp_path / "painter.onnx")
    grid = tilted((80, 100, 80), (2.0, 2.0, 2.0), 5)
    head, lesion = acquire(grid, LESIONS, folder=tmp_path)
    bids, masks = tmp_path / "bids", tmp_path / "masks"
    for root in (bids, masks):
        (write_dataset(root) / "sub-01/anat").mkdir(parents=True)
    images.save(str(bids / "sub-01/anat/sub-01_T1w.nii.gz"), head, grid, np.int16)
    images.save(str(masks / "sub-01/anat/sub-01_label-lesion_mask.nii.gz"), lesion, grid, np.uint8)
    ran = subprocess.run(
        [
            sys.executable, "-m", "bids_inpaint", str(bids), str(tmp_path / "out"), "participant",
            "--model", str(tmp_path / "painter.onnx"), "--lesion-masks", str(masks), "--sloppy",
            "--segmentation", "none", "-w", str(tmp_path / "work"), "--skip-bids-validation",
        ],
        env={**os.environ, "PYTHONPATH": str(package)}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    anat = tmp_path / "out/sub-01/anat"
    sidecar = json.loads((anat / "sub-01_desc-inpainted_T1w.json").read_text())
    assert sidecar["Model"] == "painter"
    assert "a painter that knows one colour" in (tmp_path / "out/logs/CITATION.md").read_text()
    before = nib.load(bids / "sub-01/anat/sub-01_T1w.nii.gz").get_fdata()
    after = nib.load(anat / "sub-01_desc-inpainted_T1w.nii.gz").get_fdata()
    ratio = float(np.median(after[lesion] / before[lesion]))
    assert ratio == pytest.approx(1 / LEVEL, rel=0.1)
    far = ndimage.distance_transform_edt(~lesion) * 2 > 8
    assert (after[far] == before[far]).all()
