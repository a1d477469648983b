"""The brain extractor's training: pictures of heads from label maps."""

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.networks import extraction, registry
from bids_inpaint.space import Grid
from bids_inpaint.training.config import Config
from bids_inpaint.training.export import export
from bids_inpaint.training.extraction import BrainExtraction, load_heads
from bids_inpaint.training.fit import fit
from bids_inpaint.training.heads import brain_of, draw_head, make_head

SHAPE = (80, 80, 80)
TOY = """
name = "brain"
task = "brain"
seed = 1
intensity = "percentiles"
[network]
filters = 4
levels = 3
full_resolution = false
[data]
train = ["map"]
validation = ["map2"]
test = []
[fit]
patch = 32
steps = 2
"""


def ball(shape, centre, radii):
    index = np.indices(shape) - np.array(centre)[:, None, None, None]
    return ((index / np.array(radii)[:, None, None, None]) ** 2).sum(0) < 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A head stored in LIA: skin, skull, fluid, cortex, white matter and a ventricle."""
    shape, centre = (160, 200, 180), (80, 110, 100)
    labels = np.zeros(shape, np.int16)
    for label, radii in ((507, (75, 90, 78)), (515, (68, 82, 70)), (24, (62, 76, 64)), (3, (60, 74, 62))):
        labels[ball(shape, centre, radii)] = label
    labels[ball(shape, centre, (52, 66, 54))] = 2
    labels[:80][labels[:80] == 2] = 41
    labels[ball(shape, centre, (8, 20, 8))] = 4
    image = nib.Nifti1Image(labels, np.diag([1.0, 1, 1, 1]))
    stored = image.as_reoriented(nib.io_orientation(np.diag([-1.0, 1, 1, 1])[[0, 2, 1, 3]]))
    root = tmp_path_factory.mktemp("heads")
    stored.to_filename(root / "map.nii.gz")
    return root


@pytest.fixture(scope="module")
def head(folder):
    return load_heads(folder, ["map"])[0]


def test_label_maps_are_read_in_ras_with_both_sides_alike(head):
    assert head.classes == [0, 2, 3, 4, 24, 507, 515]
    where = np.argwhere(head.brain.numpy())
    lengths = where.max(0) - where.min(0) + 1
    assert lengths == pytest.approx([120, 148, 124], abs=3)
    # the ventricle is brain
    assert head.brain[tuple(where.mean(0).round().astype(int))]


def test_sulci_are_closed():
    tissue = ball((60, 60, 60), (30, 30, 30), (20, 20, 20))
    tissue[29:32, :, 40:] = False
    closed = brain_of(tissue)
    assert closed[30, 30, 45]
    assert not closed[30, 30, 55]


@pytest.mark.parametrize("seed", range(4))
def test_picture_and_mask_belong_together(head, seed):
    """Where brain tissue has an intensity of its own, the mask is where that intensity is."""
    drawn = draw_head(np.random.default_rng(seed), head, SHAPE)
    means = np.array([1.0 if label in (2, 3, 4) else 0.2 * (label > 0) for label in head.classes])
    plain = replace(
        drawn, means=means, deviations=0 * means, bias=0 * drawn.bias, blur=(0, 0, 0), thickness=(1, 1, 1),
        noise=0.0, gamma=1.0, surroundings=None,
    )  # fmt: skip
    image, truth = make_head(head, plain, SHAPE)
    assert image.min() >= 0
    assert image.max() <= 1
    assert truth.sum() > 1000
    assert dice(image.numpy() > 0.6, truth.numpy() > 0.5) > 0.97


def test_pictures_depend_on_their_parameters_alone(head):
    drawn = draw_head(np.random.default_rng(7), head, SHAPE)
    one, two = make_head(head, drawn, SHAPE), make_head(head, drawn, SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_trained_extractor_is_no_inpainting_network(folder, tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    config = Config.load(path)
    checkpoint = fit(config, BrainExtraction(config, folder), tmp_path / "run", threads=1, workers=0)
    onnx = export(config, checkpoint, tmp_path / "toy.onnx", None, 0.1)
    model = registry.find(str(onnx), "brain")
    assert model.card.lesion_threshold is None
    with pytest.raises(InputError, match="trained for 'brain', not for 'inpaint'"):
        registry.find(str(onnx))
    # an untrained one finds no brain of a brain's volume
    grid = Grid.of((40, 48, 40), np.diag([4.0, 4, 4, 1]))
    with pytest.raises(ValueError, match="the brain extracted measures"):
        extraction.extract(np.random.default_rng(0).random(grid.shape).astype(np.float32), grid, model)


def test_missing_label_maps_are_named(folder):
    with pytest.raises(ValueError, match=r"map3\.nii\.gz"):
        load_heads(folder, ["map3"])
