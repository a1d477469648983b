"""Hostile files: whatever a NIfTI file or a dataset holds, it is used or refused in one sentence.

200 cases of each kind; ``BIDS_INPAINT_NIGHTLY=1`` tries 10,000.
"""

import gzip
import json
import os
import re
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from helpers import write_card

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_inpaint import errors
from bids_inpaint.dataset import bids, masks
from bids_inpaint.interfaces.images import GivenAffine
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import registry
from bids_inpaint.space import Grid

NIGHTLY = bool(os.environ.get("BIDS_INPAINT_NIGHTLY"))
fuzz = settings(
    max_examples=10_000 if NIGHTLY else 200,
    deadline=None,
    derandomize=not NIGHTLY,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: Bytes that reading may take beside the image itself.
SLACK = 64e6

strange = st.sampled_from([0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 1.0, 2.5])
number = st.one_of(strange, st.floats(-300, 300))
extents = st.sampled_from([-1, 0, 1, 2, 15, 16, 24, 40, 255, 32767])
#: Those of float32, int16, uint8, float64, int64, complex64, RGB, float128, and of nothing.
types = st.sampled_from([16, 4, 2, 64, 1024, 32, 128, 1536, 0, 7, 255])


@st.composite
def headers(draw):
    """A NIfTI header that is right in most fields, and anything in the others."""
    header = nib.Nifti1Header()
    header.set_data_shape((24, 24, 24))
    header.set_data_dtype(np.float32)
    header["pixdim"][:4] = 1, 4, 4, 4
    header.set_sform(np.diag([4.0, 4, 4, 1]), 1)
    header.set_qform(np.diag([4.0, 4, 4, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    for field in draw(
        st.lists(
            st.sampled_from(
                [
                    "dim",
                    "ndim",
                    "type",
                    "pixdim",
                    "slope",
                    "sform",
                    "qform",
                    "codes",
                    "offset",
                    "magic",
                    "size",
                    "bitpix",
                ]
            ),
            max_size=3,
        )
    ):
        match field:
            case "dim":
                header["dim"][draw(st.integers(1, 7))] = draw(extents)
            case "ndim":
                header["dim"][0] = draw(st.integers(-1, 9))
            case "type":
                header["datatype"] = draw(types)
            case "pixdim":
                header["pixdim"][draw(st.integers(0, 4))] = draw(number)
            case "slope":
                header["scl_slope"], header["scl_inter"] = draw(number), draw(number)
            case "sform":
                header[draw(st.sampled_from(["srow_x", "srow_y", "srow_z"]))] = [
                    draw(number) for _ in range(4)
                ]
            case "qform":
                header[draw(st.sampled_from(["quatern_b", "quatern_c", "qoffset_x"]))] = draw(number)
            case "codes":
                header["sform_code"], header["qform_code"] = (
                    draw(st.integers(-1, 9)),
                    draw(st.integers(-1, 9)),
                )
            case "offset":
                header["vox_offset"] = draw(number)
            case "magic":
                header["magic"] = draw(st.sampled_from([b"n+1", b"ni1", b"n+2", b"\0\0\0", b"xyz"]))
            case "size":
                header["sizeof_hdr"] = draw(st.sampled_from([0, 347, 348, 540, -1]))
            case "bitpix":
                header["bitpix"] = draw(st.integers(-8, 300))
    return header.binaryblock


@st.composite
def voxels(draw):
    """Voxels of 24³ float32, or fewer bytes, with whatever values."""
    kind = draw(st.sampled_from(["image", "constant", "strange", "bytes", "short", "none"]))
    data = np.random.default_rng(draw(st.integers(0, 9))).uniform(0, 100, 24**3).astype("<f4")
    if kind == "none":
        return b""
    if kind == "bytes":
        return draw(st.binary(max_size=500))
    if kind == "constant":
        data[:] = draw(number)
    if kind == "strange":
        data[:: draw(st.integers(1, 5000))] = draw(number)
    return data.tobytes()[: draw(st.integers(0, data.nbytes)) if kind == "short" else None]


@st.composite
def files(draw):
    """Name and bytes of an image file; packed ones may be cut off or damaged."""
    content = draw(headers()) + bytes(4) + draw(voxels())
    if draw(st.booleans()):
        return "sub-01_T1w.nii", content
    packed = bytearray(gzip.compress(content, 1))
    damage = draw(st.sampled_from(["none", "none", "cut", "flip", "tail", "raw"]))
    if damage == "cut":
        packed = packed[: draw(st.integers(0, len(packed)))]
    elif damage == "flip":
        packed[draw(st.integers(0, len(packed) - 1))] ^= draw(st.integers(1, 255))
    elif damage == "tail":
        packed += draw(st.binary(max_size=50))
    elif damage == "raw":
        packed = bytearray(content)
    return "sub-01_T1w.nii.gz", bytes(packed)


def assert_sentence(error, path):
    """One sentence that names what it is about and says what to do."""
    text = str(error)
    assert text.isprintable()
    assert str(path) in text
    assert text.endswith(".")
    assert len(text) < 1000


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(files())
def test_images_are_used_or_refused(file):
    name, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        tracemalloc.start()
        try:
            data, grid = images.load_t1w(path)
        except errors.InputError as error:
            assert_sentence(error, path)
            # gzip packs at most so many bytes into one
            honest = len(content) * (1032 if name.endswith("gz") else 1)
        else:
            honest = data.nbytes
            assert data.dtype == np.float32
            assert data.ndim == 3
            assert np.isfinite(data).all()
            assert np.isfinite(grid.matrix).all()
            assert grid.shape == data.shape
            assert abs(np.linalg.det(grid.matrix[:3, :3])) > 0
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 6 * honest + SLACK


@pytest.mark.parametrize("read", [masks.read_lesions, masks.read_brain])
@pytest.mark.filterwarnings("ignore")
@fuzz
@given(file=files())
def test_masks_are_used_or_refused(read, file):
    name, content = file
    grid = Grid.of((24, 24, 24), np.diag([4.0, 4, 4, 1]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            mask = read(path, grid, images.save(Path(folder) / "t1w.nii", np.zeros(grid.shape), grid))
        except errors.InputError as error:
            assert_sentence(error, path)
        else:
            assert mask.dtype == bool
            assert mask.shape == grid.shape


@st.composite
def affines(draw):
    """ITK's text of an affine, right in most lines, and of its inverse."""
    near = draw(st.floats(0.5, 2))
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        f"Parameters: {near} 0 0 0 {near} 0 0 0 {near} 0 0 0",
        "FixedParameters: 0 0 0",
        "",
    ]
    back = [line.replace(str(near), str(1 / near)) for line in lines]
    for part in (lines, back):
        for i in draw(st.lists(st.integers(0, 5), max_size=2)):
            numbers = " ".join(map(str, draw(st.lists(number, max_size=13))))
            part[i] = draw(
                st.sampled_from(
                    [f"Parameters: {numbers}", f"FixedParameters: {numbers}", numbers, "", part[i]]
                )
            )
    cut = draw(st.integers(0, 300))
    return [draw(st.sampled_from([text, text, text[:cut]])) for text in map("\n".join, (lines, back))]


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(affines())
def test_affines_are_used_or_refused(texts):
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{i}.txt" for i in range(2)]
        for path, text in zip(paths, texts, strict=True):
            Path(path).write_text(text)
        node = GivenAffine(xfm=paths[0], inverse_xfm=paths[1])
        try:
            node.process(None)
        except errors.InputError as error:
            assert_sentence(error, folder)
        else:
            world = read_xfm(paths[0])
            np.testing.assert_allclose(read_xfm(paths[1]) @ world, np.eye(4), atol=0.5)
            assert 1e-3 < np.linalg.det(world) < 1e3


values = st.one_of(
    number, st.integers(-3, 10**9), st.booleans(), st.none(), st.text(max_size=80), st.just([]), st.just({})
)
CARD = [
    "software", "name", "blind", "intensity", "multiple", "lesion_threshold", "sha256", "task", "engine",
    "priors", "mirror", "neighbours", "edge", "context", "prediction", "sampling", "inpainter",
    "inpainter_probability",
]  # fmt: skip


@fuzz
@given(changes=st.dictionaries(st.sampled_from(CARD), st.one_of(values, st.lists(values)), max_size=3))
def test_cards_of_networks_are_used_or_refused(toy_model, changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.symlink_to(toy_model)
        write_card(path, **changes)
        try:
            model = registry.find(str(path))
        except errors.InputError as error:
            assert_sentence(error, folder)
        else:
            # what is shown, and what is calculated with
            assert re.fullmatch(r"[\w.+-]+", model.name)
            assert 0 < model.card.threshold < 1
            assert 0 < model.card.multiple < 1000


words = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)
labels = st.one_of(
    st.sampled_from(["01", "a", "01x", "ä", "0 1", "-", "_", "ses", "..", "*", "\n", "\udcff"]), words
)


@st.composite
def names(draw):
    """A path of a file in a dataset, mostly of a T1w."""
    subject = f"sub-{draw(labels)}"
    session = draw(st.one_of(st.none(), labels))
    more = draw(
        st.lists(st.tuples(st.sampled_from(["acq", "run", "ce", "rec", "echo", "x"]), labels), max_size=3)
    )
    suffix = draw(st.sampled_from(["T1w", "T1w", "T1w", "FLAIR", "bold"]))
    ending = draw(st.sampled_from([".nii.gz", ".nii", ".json", ".nii.GZ", ""]))
    pairs = [subject, *([f"ses-{session}"] if session else []), *(f"{k}-{v}" for k, v in more)]
    folders = [
        subject,
        *([f"ses-{session}"] if session else []),
        draw(st.sampled_from(["anat", "anat", "func"])),
    ]
    return "/".join([*folders, f"{'_'.join(pairs)}_{suffix}{ending}"])


@st.composite
def trees(draw):
    """Paths to what lies there: bytes, a folder (None), or the target of a link."""
    tree = {}
    for name in draw(st.lists(names(), max_size=5)):
        tree[name] = draw(st.sampled_from([b"", b"x" * 400, None, "link:.", "link:nowhere", "link:../.."]))
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    tree["dataset_description.json"] = draw(
        st.sampled_from(
            [json.dumps(description).encode()] * 8 + [b"", b"[]", b"{", b"\xff\xfe", None, b'{"Name": 1}']
        )
    )
    for name in draw(st.lists(st.sampled_from([".bidsignore", "participants.tsv", "sub-02", "sub-", "a"]))):
        tree.setdefault(name, draw(st.one_of(st.binary(max_size=30), st.none(), st.just("link:."))))
    return tree


def plant(root: Path, tree) -> None:
    """Write what a file system takes of a tree."""
    for name, content in tree.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str):
                path.symlink_to(content.removeprefix("link:"))
            else:
                path.write_bytes(content)
        except (OSError, ValueError):
            continue


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(trees(), st.sampled_from([(), ("01",), ("a",), ("ä",)]), st.sampled_from([(), ("01",)]))
def test_datasets_are_used_or_refused(tree, participants, sessions):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bids"
        root.mkdir()
        plant(root, tree)
        options = SimpleNamespace(
            bids_dir=root, participant_label=participants, session_label=sessions, bids_filter_file=None,
            bids_database_dir=None, derivatives={}, lesion_masks=None, edits=None, template="T",
            flair="joint",
        )  # fmt: skip
        try:
            found = bids.collect(options).images
        except errors.InputError as error:
            assert_sentence(error, root)
        else:
            assert found
            for image in found:
                assert image.path.endswith(("_T1w.nii", "_T1w.nii.gz"))
                assert Path(image.path).is_relative_to(root)
                assert not participants or image.subject in participants
                # what is written stays in its folder
                assert ".." not in Path(f"{image.folder}/{image.prefix}").parts
                assert "/" not in image.prefix
            assert len({image.prefix for image in found}) == len(found)
