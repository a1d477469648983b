"""The BraTS challenge: its scores, its masks, and its files."""

import json

import nibabel as nib
import numpy as np
import pytest
from helpers import write_card

pytest.importorskip("torch")

from scipy import ndimage

from bids_inpaint.imaging.challenge import challenge_scores
from bids_inpaint.training.__main__ import main
from bids_inpaint.training.brats import SHAPE, cached_cases
from bids_inpaint.training.data import subjects
from bids_inpaint.training.tumours import draw_compartment, draw_masks, draw_size


def filled_block(shift: int = 0):
    """A brain of random tissue, a filling that is wrong by noise, and a hole at the border of the volume."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1000, (30, 40, 35))
    truth[:8] = 0
    hole = np.zeros(truth.shape, bool)
    hole[5:20, 0:15, 20:35] = True
    filled = truth + rng.normal(0, 150, truth.shape) + shift
    return filled, truth, np.where(hole, 0, truth), hole


def test_scores_are_those_of_the_challenge():
    """The values are those of the challenge's package `inpainting`, with torchmetrics 1.1.2 and 1.9.0."""
    scores = challenge_scores(*filled_block())
    assert scores.ssim == pytest.approx(0.720994, abs=2e-6)
    assert scores.psnr == pytest.approx(17.491096, abs=2e-5)
    assert scores.mse == pytest.approx(0.017819, abs=1e-6)
    rng = np.random.default_rng(1)
    truth = ndimage.gaussian_filter(rng.normal(0, 1, (40, 40, 40)), 3)
    truth = (truth - truth.min()) / np.ptp(truth) * 800
    truth[:20] = 0
    hole = np.zeros(truth.shape, bool)
    hole[22:34, 5:20, 8:20] = True
    truth[hole] = truth[hole] * 0.3 + 40
    filled = np.where(hole, ndimage.gaussian_filter(truth, 2) - 60, truth)
    dark = challenge_scores(filled, truth, np.where(hole, 0, truth), hole)
    told = (dark.ssim, dark.psnr, dark.psnr_clamped, dark.mse)
    assert told == pytest.approx((0.799276, 11.837655, 10.54934, 0.005655), abs=1e-5)


def test_only_the_healthy_mask_counts():
    filled, truth, voided, hole = filled_block()
    elsewhere = np.where(hole, filled, filled + 500)
    assert challenge_scores(filled, truth, voided, hole) == challenge_scores(elsewhere, truth, voided, hole)
    perfect = challenge_scores(truth, truth, voided, hole)
    assert (perfect.ssim, perfect.psnr, perfect.mse) == (pytest.approx(1), np.inf, 0)


def test_what_has_no_score_is_refused():
    filled, truth, voided, hole = filled_block()
    with pytest.raises(ValueError, match="no voxel"):
        challenge_scores(filled, truth, voided, np.zeros_like(hole))
    with pytest.raises(ValueError, match="the truth is 0"):
        challenge_scores(filled, np.zeros_like(truth), voided, hole)
    with pytest.raises(ValueError, match="no scale"):
        challenge_scores(filled, truth, np.zeros_like(voided), hole)


def test_compartments_have_the_sizes_of_tumours():
    rng = np.random.default_rng(0)
    for voxels in (800, 20_000):
        shape = draw_compartment(rng, voxels)
        assert 0.9 * voxels < shape.sum() < 1.1 * voxels
        assert ndimage.label(shape)[1] == 1
        assert 0.2 < shape.mean() < 0.5
    sizes = [draw_size(rank, 1_400_000) for rank in np.linspace(0, 1, 101)]
    assert (sizes[0], sizes[-1]) == (770, 315_000)
    assert sizes == sorted(sizes)


def test_healthy_masks_are_in_the_brain_and_away_from_the_tumour():
    brain = np.zeros((100, 110, 90), bool)
    brain[10:90, 10:100, 10:80] = True
    tumour = np.zeros(brain.shape, bool)
    tumour[20:45, 20:45, 20:45] = True
    for seed in range(3):
        healthy, unhealthy = draw_masks(np.random.default_rng(seed), brain, tumour)
        assert (healthy & brain).sum() >= 0.75 * healthy.sum()
        assert ndimage.distance_transform_edt(~tumour)[unhealthy].max() < 5
        assert (unhealthy & tumour).sum() == tumour.sum()
        assert ndimage.distance_transform_edt(~unhealthy)[healthy].min() >= 5
    with pytest.raises(ValueError, match="no room"):
        draw_masks(np.random.default_rng(0), brain, brain)


def test_cached_brains_get_the_same_holes_every_time(cache):
    one = list(cached_cases(subjects(cache)[:1], 2))
    assert [case.name for case in one] == ["toy_sub-01_1", "toy_sub-01_2"]
    assert (one[0].mask == next(cached_cases(subjects(cache)[:1], 1)).mask).all()
    for case in one:
        assert case.truth.shape == SHAPE
        assert not case.voided[case.mask].any()
        assert (case.healthy & ~case.mask).sum() == 0
        assert case.healthy.sum() < case.mask.sum()
    assert (one[0].healthy != one[1].healthy).any()
    # a voxel is where it is in the working grid
    z, y, x = 40, 90, 80
    assert one[0].truth[x + 29, y + 11, z] == np.asarray(subjects(cache)[0].image)[x, y, z]
    inside = next(cached_cases(subjects(cache)[:1], 1, inside=True))
    assert not inside.healthy[inside.truth == 0].any()


@pytest.fixture
def network(tmp_path):
    """A network that fills every voxel of a slice with half of the brightest one."""
    from onnx import TensorProto, helper, save

    shape = [1, "c", "h", "w"]
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["known"]),
        helper.make_node("Mul", ["known", "nothing"], ["dark"]),
        helper.make_node("Add", ["dark", "half"], ["out"]),
    ]
    numbers = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("one", 1), ("axis", 1))
    ] + [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
        for name, value in (("nothing", 0.0), ("half", 0.5))
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, "h", "w"])
    told = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, *shape[2:]])
    graph = helper.make_graph(nodes, "grey", [given], [told], numbers)
    path = tmp_path / "grey.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_card(path, engine="ip-medgan", blind=False, intensity="range", edge=64, multiple=8)
    return path


@pytest.fixture
def case(tmp_path):
    """A case in the challenge's format: a brain of 1000 and 500, which the network fills with 500."""
    folder = tmp_path / "challenge" / "BraTS-GLI-00000-000"
    folder.mkdir(parents=True)
    brain = np.zeros(SHAPE, bool)
    brain[60:180, 50:190, 20:130] = True
    truth = np.where(brain, 1000, 0)
    truth[100:140] = np.minimum(truth[100:140], 500)
    truth = (truth + brain * np.random.default_rng(0).integers(-5, 6, SHAPE)).astype(np.int16)
    tumour, healthy = np.zeros((2, *SHAPE), np.uint8)
    tumour[70:80, 70:90, 50:70] = 1
    healthy[108:128, 90:110, 60:80] = 1
    volumes = {
        "t1n": truth,
        "t1n-voided": np.where(tumour | healthy, 0, truth).astype(np.int16),
        "mask": tumour | healthy,
        "mask-healthy": healthy,
        "mask-unhealthy": tumour,
    }
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for name, data in volumes.items():
        nib.Nifti1Image(data, affine).to_filename(folder / f"{folder.name}-{name}.nii.gz")
    return folder


def test_files_of_the_challenge_are_filled_and_scored(network, case, tmp_path, capsys):
    command = ["brats", "--folder", str(case.parent), "--model", str(network), "--output", "OUT"]
    command[-1] = str(tmp_path / "scores.json")
    assert main(command) == 0
    stored = json.loads((tmp_path / "scores.json").read_text())
    scores = stored["cases"][str(network)][case.name][case.name]
    # the hole is filled with what the truth is, but for noise
    wrong = 10 + 2.5**2
    assert scores["mse"] == pytest.approx(wrong / 1005**2, rel=0.1)
    assert scores["psnr"] == pytest.approx(10 * np.log10(505**2 / wrong), abs=0.5)
    assert scores["ssim"] > 0.9
    assert stored["networks"][str(network)]["mean"]["mse"] == scores["mse"]
    out = capsys.readouterr().out
    assert f"grey, {case.name}" in out
    assert "grey, mean" in out
    # with the tumour among what is scored, there is an error, but for what is smoothed into it across slices
    (case / f"{case.name}-mask-healthy.nii.gz").unlink()
    assert main(command) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["cases"][str(network)][case.name][case.name]
    assert scores["mse"] == pytest.approx(0.25 * 4000 / 12000, rel=0.1)


def test_what_lies_beyond_the_brain_is_left_empty_if_asked_for(network, case, tmp_path):
    mse = []
    # half of the hole is background
    beside = np.zeros(SHAPE, np.uint8)
    beside[170:190, 90:110, 60:80] = 1
    for name in ("mask", "mask-healthy"):
        change(case / f"{case.name}-{name}.nii.gz", lambda data: beside)
    truth = np.asarray(nib.load(case / f"{case.name}-t1n.nii.gz").dataobj)
    change(case / f"{case.name}-t1n-voided.nii.gz", lambda data: np.where(beside, 0, truth))
    for more in ([], ["--beyond-brain"]):
        output = tmp_path / "scores.json"
        command = ["brats", "--folder", str(case.parent), "--model", str(network), "--output", str(output)]
        assert main(command + more) == 0
        mse.append(json.loads(output.read_text())["networks"][str(network)]["mean"]["mse"])
    # 500 in place of 1000 in both halves, or in one
    assert mse == [pytest.approx(0.25, rel=0.1), pytest.approx(0.125, rel=0.1)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, n: (f / f"{n}-t1n.nii.gz").unlink(), "has no truth to be scored against"),
        (lambda f, n: (f / f"{n}-mask.nii.gz").unlink(), "does not exist"),
        (lambda f, n: (f / f"{n}-t1n-voided.nii.gz").unlink(), "name the folder that holds"),
        (lambda f, n: (f / f"{n}-mask-unhealthy.nii.gz").rename(f / f"{n}-mask.nii.gz"), "reaches beyond"),
        (lambda f, n: (f / f"{n}-t1n.nii.gz").rename(f / f"{n}-t1n-voided.nii.gz"), "no truth"),
        (lambda f, n: swap(f / f"{n}-t1n.nii.gz", f / f"{n}-t1n-voided.nii.gz"), "with 0 in"),
        (lambda f, n: change(f / f"{n}-mask-healthy.nii.gz", lambda d: d * 0), "is empty"),
        (lambda f, n: change(f / f"{n}-mask.nii.gz", lambda d: d[1:]), "other voxels"),
        (lambda f, n: change(f / f"{n}-t1n.nii.gz", lambda d: d[1:]), "other voxels"),
        (
            lambda f, n: [change(p, lambda d: d[1:]) for p in f.iterdir()],
            "instead of the challenge's 240 × 240",
        ),
    ],
)
def test_other_files_are_refused_in_a_sentence(network, case, capsys, spoil, message):
    spoil(case, case.name)
    assert main(["brats", "--folder", str(case.parent), "--model", str(network)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def swap(one, other):
    third = one.with_name("third.nii.gz")
    for a, b in ((one, third), (other, one), (third, other)):
        a.rename(b)


def change(path, how):
    image = nib.load(path)
    nib.Nifti1Image(how(np.asarray(image.dataobj)), image.affine).to_filename(path)


def test_networks_that_fill_no_slices_are_refused(case, capsys):
    assert main(["brats", "--folder", str(case.parent), "--model", "unet"]) == 1
    assert "fills brains on the MNI grid" in capsys.readouterr().err
