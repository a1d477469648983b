import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset

torch = pytest.importorskip("torch")

from bids_inpaint import images, inference, models, template  # noqa: E402
from bids_inpaint.intensity import Scale  # noqa: E402
from bids_inpaint.space import WORKING_GRID  # noqa: E402
from bids_inpaint.training import networks, synthesis  # noqa: E402
from bids_inpaint.training.config import Config, Synthesis  # noqa: E402
from bids_inpaint.training.data import Lesions, cache_subject, subjects  # noqa: E402
from bids_inpaint.training.export import load_average, to_onnx  # noqa: E402
from bids_inpaint.training.fit import fit, load_exported  # noqa: E402
from bids_inpaint.training.inpainting import (  # noqa: E402
    Inpainting,
    Patches,
    Place,
    draw_place,
    given_mask,
    make_sample,
    sub_volumes,
)

TOY = """
name = "toy"
seed = 3
blind = {blind}
intensity = "wm"
[network]
filters = 4
levels = 3
residual = true
full_resolution = false
[data]
train = ["toy_sub-01", "toy_sub-02"]
validation = []
test = []
leave_out_patients = []
[fit]
patch = 16
batch = 2
steps = {steps}
decay_steps = 2
warmup_steps = 1
learning_rate = 1e-3
ema = 0.5
freeze_normalisation = 3
lesion_weight = 5.0
gate_weight = 0.02
checkpoint_every = 2
[synthesis]
mix = {{none = 0.1, patient = 0.3, singles = 0.3, both = 0.3}}
vary = true
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    image = np.zeros(WORKING_GRID.shape, np.float32)
    image[30:150, 30:190, 30:150] = 700 + 10 * rng.standard_normal((120, 160, 120))
    image[30:40, 30:190, 30:150] = 450
    prior = {"WM": (image > 600).astype(np.float32), "GM": ((image > 100) & (image < 600)).astype(np.float32)}
    for name in ("toy_sub-01", "toy_sub-02"):
        cache_subject(folder / name, image, image > 0, prior)
    return folder


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


def config(folder: Path, steps=4, blind="true") -> Config:
    path = folder / "toy.toml"
    path.write_text(TOY.format(steps=steps, blind=blind))
    return Config.load(path)


def fit_toy(settings: Config, cache: Path, shapes: Path, run: Path) -> Path:
    return fit(settings, Inpainting(settings, cache, shapes), run, threads=1, workers=0)


def test_paper_architecture():
    network = networks.UNet()
    outputs = list(network.outputs(torch.zeros(1, 8, 16, 24, 16)))
    assert [tuple(o.shape) for o in outputs] == [(1, 8, 16, 24, 16)] * 2
    assert network.multiple == 8
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    assert [c.out_channels for c in convolutions] == [40, 80, 160, 320, 160, 80, 40, 8, 8, 1]
    kernels = (
        27 * (8 * 40 + 40 * 80 + 80 * 160 + 160 * 320 + 480 * 160 + 240 * 80 + 120 * 40 + 40 * 8) + 40 * 8 + 8
    )
    biases = 2 * (40 + 80 + 160) + 320 + 8 + 8 + 1
    normalisation = 2 * (2 * (40 + 80 + 160) + 320)
    assert sum(p.numel() for p in network.parameters()) == kernels + biases + normalisation


def test_receptive_field_of_the_paper():
    """A voxel influences the output as far as the convolutions reach, and no farther."""
    network = networks.UNet(filters=2).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.abs_().add_(0.1)
        x = torch.zeros(1, 8, 96, 8, 8)
        low, full = network.outputs(x)
        x[0, :, 48] = 1
        reached = [
            (a != b).amax((0, 1, 3, 4)).nonzero().flatten()
            for a, b in zip(network.outputs(x), (low, full), strict=True)
        ]
    # 2 · (1 + 2 + 4) + 8 voxels of convolutions and one of pooling; the second output adds one
    assert [(48 - int(r[0]), int(r[-1]) - 48) for r in reached] == [(23, 22), (24, 23)]


def test_exported_weights_start_another_run(cache, shapes, tmp_path):
    from bids_inpaint.training.export import export

    settings = config(tmp_path)
    path = export(
        settings, fit_toy(settings, cache, shapes, tmp_path / "one"), tmp_path / "toy.onnx", None, 0.1
    )
    network = networks.UNet(**settings.network)
    load_exported(network, path)
    x = torch.rand(1, 8, 16, 16, 16)
    ours = inference.run_network(models.find(str(path)), x[0].numpy(), inference.Runtime("cpu"))
    assert np.abs(network.eval()(x)[0].detach().numpy() - ours).max() < 1e-5
    with pytest.raises(ValueError, match="another architecture"):
        load_exported(networks.UNet(), path)


def test_a_network_that_sees_the_template_begins_as_one_that_does_not(cache, shapes, tmp_path):
    from dataclasses import replace

    from bids_inpaint.training.export import export

    settings = config(tmp_path)
    first = tmp_path / "toy.onnx"
    export(settings, fit_toy(settings, cache, shapes, tmp_path / "one"), first, None, 0.1)
    wider = replace(settings, network=settings.network | {"priors": True})
    network = networks.UNet(**wider.network).eval()
    load_exported(network, first)
    x = torch.rand(1, 10, 16, 16, 16)
    before = inference.run_network(models.find(str(first)), x[0, :8].numpy(), inference.Runtime("cpu"))
    assert np.abs(network(x)[0].detach().numpy() - before).max() < 1e-5

    second = tmp_path / "wider.onnx"
    export(wider, fit_toy(wider, cache, shapes, tmp_path / "two"), second, None, 0.1)
    model = models.find(str(second))
    assert model.priors
    image = np.ones(WORKING_GRID.shape, np.float32)
    with pytest.raises(ValueError, match="needs the tissue priors"):
        inference.inpaint(model, image, image > 0, Scale(1.0))


def test_template_is_shown_alike_in_training_and_inference(cache, shapes, tmp_path, monkeypatch):
    from dataclasses import replace

    settings = config(tmp_path)
    settings = replace(
        settings,
        network=settings.network | {"priors": True},
        fit=replace(settings.fit, patch=0),
    )
    patches = Patches(settings, cache, Lesions.load(shapes))
    place = Place((0, 0, 0), WORKING_GRID.shape, False)
    crops = torch.stack([place.crop(p) for p in patches.priors])
    shown = torch.nn.functional.avg_pool3d(crops, 2).numpy()
    seen = {}

    def capture(model, channels, runtime):
        seen["priors"] = channels[8:, :91, :109, :91]  # the brain fills the grid
        return channels[:8]

    monkeypatch.setattr(inference, "run_network", capture)
    model = replace(models.find(models.DEFAULT), priors=True)
    image = np.ones(WORKING_GRID.shape, np.float32)
    inference.inpaint(model, image, image > 0, Scale(1.0), priors=patches.priors)
    np.testing.assert_allclose(seen["priors"], shown, atol=1e-6)
    assert patches.sample(0)[3].shape == shown.shape


def test_a_residual_network_fills_with_white_matter_to_begin_with():
    network = networks.UNet(4, 3, residual=True, gated=True, full_resolution=False).eval()
    torch.nn.init.zeros_(network.low.weight)
    torch.nn.init.zeros_(network.low.bias)
    x = torch.rand(1, 8, 8, 8, 8)
    masked = torch.rand(x.shape) < 0.1
    out = network(torch.where(masked, inference.MASKED, x))
    assert torch.equal(out, torch.where(masked, 1.0, x))


def test_patches_are_cut_where_they_lie():
    volume = np.arange(np.prod(WORKING_GRID.shape), dtype=np.float32).reshape(WORKING_GRID.shape)
    straight = Place((20, 30, 40), (8, 8, 8), False).crop(volume).numpy()
    assert (straight == volume[20:28, 30:38, 40:48]).all()
    moved = Place((20, 30, 40), (8, 8, 8), False).crop(volume, (2, -1, 0)).numpy()
    assert (moved == volume[18:26, 31:39, 40:48]).all()
    mirrored = Place((153, 30, 40), (8, 8, 8), True).crop(volume).numpy()
    assert (mirrored[::-1] == volume[20:28, 30:38, 40:48]).all()


def test_whole_volumes_are_padded_as_at_inference():
    volume = torch.rand(1, 1, 182, 218, 182)
    padded, crop = inference.pad_to_multiple(inference.space_to_depth(volume[0, 0].numpy()), 8)
    ours = sub_volumes(volume, 8)
    assert ours.shape == (1, 8, 96, 112, 96)
    assert (ours[0].numpy() == padded).all()
    assert (inference.depth_to_space(ours[0].numpy()[crop]) == volume[0, 0].numpy()).all()


def test_patients_teach_their_targets(cache, shapes, tmp_path):
    """The second step of the paper: what is given is the image, what is wanted its lesion-free target."""
    folder = tmp_path / "cache" / "toy_sub-01"
    shutil.copytree(cache / "toy_sub-01", folder)
    shutil.copytree(cache / "toy_sub-02", tmp_path / "cache" / "toy_sub-02")
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[60:70, 80:90, 80:90] = True
    np.save(folder / "lesions.npy", lesions)
    settings = config(tmp_path)
    with pytest.raises(ValueError, match="toy_sub-01 is a patient without a lesion-free target"):
        [Patches(settings, tmp_path / "cache", Lesions.load(shapes)).sample(i) for i in range(10)]
    subject = subjects(tmp_path / "cache")[0]
    np.save(folder / "target.npy", np.where(lesions, 1.2, subject.image).astype(np.float16))
    rng = np.random.default_rng(0)
    shape_store = Lesions.load(shapes)
    place = draw_place(rng, shape_store, 0)
    image, healthy, support = make_sample(rng, subject, shape_store, place, Synthesis())
    assert torch.equal(image != healthy, support > 0)
    mirrored = not torch.equal(support > 0, torch.from_numpy(lesions))
    at = support.nonzero().float().mean(0).tolist()
    assert at == pytest.approx([115.5 if mirrored else 64.5, 84.5, 84.5])


def test_both_space_to_depths_agree():
    volume = np.random.default_rng(0).random((8, 6, 4)).astype(np.float32)
    ours = inference.space_to_depth(volume)
    assert (networks.space_to_depth(torch.from_numpy(volume)[None, None])[0].numpy() == ours).all()


def test_training_resumes_to_the_same_weights(cache, shapes, tmp_path):
    """Stopped after its checkpoint and started again, a run ends with the weights of one in a piece."""
    whole = fit_toy(config(tmp_path, 4), cache, shapes, tmp_path / "whole")
    half = config(tmp_path, 4)
    object.__setattr__(half.fit, "steps", 2)
    object.__setattr__(half.fit, "decay_steps", 0.001)
    fit_toy(half, cache, shapes, tmp_path / "parts")
    again = config(tmp_path, 4)
    resumed = fit_toy(again, cache, shapes, tmp_path / "parts")
    one, two = (load_average(again, p).state_dict() for p in (whole, resumed))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=2e-3) for k in one)
    rows = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert rows[0].startswith("step,loss")


def test_a_patch_depends_on_seed_and_index_alone(cache, shapes, tmp_path):
    data = Patches(config(tmp_path), cache, Lesions.load(shapes))
    one, two = data.sample(11), data.sample(11)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], data.sample(12)[0])


def test_lesions_are_dark_inside_their_support_alone(cache, shapes):
    subject = subjects(cache)[0]
    healthy = torch.from_numpy(np.asarray(subject.image[50:82, 70:102, 70:102], np.float32))
    lesion = synthesis.LesionParameters(Lesions.load(shapes).patients[0][0].astype(float), 0.6, 0.3, 0.7)
    image, support = synthesis.paint(healthy, subject.grey_level, [lesion], (50, 70, 70), seed=1)
    assert torch.equal(image[support == 0], healthy[support == 0])
    assert (image <= healthy).all()
    assert image[support > 0.9].mean() == pytest.approx(0.6, abs=0.06)
    again, _ = synthesis.paint(healthy, subject.grey_level, [lesion], (50, 70, 70), seed=1)
    assert torch.equal(image, again)


def test_lesions_grow_in_deep_grey_matter_but_not_in_the_cortex():
    grey = 0.7
    tissue = torch.full((24, 24, 24), 0.75)
    voxels = np.argwhere(np.ones((8, 8, 8))).astype(float) + 8
    deep, cortex = np.array([60, 100, 70]), np.array([20, 40, 110])
    support = {}
    for corner in (deep, cortex):
        lesion = synthesis.LesionParameters(voxels + corner, 0.55, 0.3, 0.7)
        _, support[tuple(corner)] = synthesis.paint(tissue, grey, [lesion], corner.tolist(), seed=1)
    assert support[tuple(deep)][12, 12, 12] > 0.9
    assert support[tuple(cortex)].max() == 0


@pytest.mark.parametrize("distance", [-2.0, 0.5, 2.0])
def test_borders_of_masks_move_unevenly_but_nothing_else_does(distance):
    mask = torch.zeros(48, 48, 48)
    mask[:24] = 1
    moved = synthesis.shift_border(mask, distance, torch.Generator().manual_seed(1))
    thickness = moved.sum(0)
    assert thickness.mean() == pytest.approx(24 + distance, abs=0.8)
    assert thickness.std() > 0
    assert (moved[:18] == 1).all()
    assert (moved[30:] == 0).all()


def test_lesions_left_out_are_left_out(shapes):
    assert len(Lesions.load(shapes).patients) == 2
    assert len(Lesions.load(shapes, leave_out=["a"]).patients) == 1
    assert len(Lesions.load(shapes, only=["a"]).patients[0]) == 2


def test_contrast_leaves_white_matter_alone():
    parameters = synthesis.draw_image(np.random.default_rng(0), 0.8)
    image = torch.tensor([0.0, 0.7, 1.0])
    out = synthesis.change_contrast(image, 0.7, parameters)
    assert out.tolist() == pytest.approx([0, parameters.grey, 1], abs=1e-5)


def test_degradation_is_shared_by_both_versions():
    parameters = synthesis.draw_image(np.random.default_rng(5), 0.8)
    healthy = torch.rand(16, 16, 16) + 0.5
    lesioned = healthy.clone()
    lesioned[4:8] *= 0.7
    one, two = synthesis.degrade([lesioned, healthy], parameters)
    assert torch.equal(one[14:], two[14:])


def test_non_blind_networks_fill_the_same_in_training_and_in_use():
    rng = np.random.default_rng(0)
    support = torch.from_numpy(rng.random((2, 1, 9, 10, 11))) ** 8
    brain = torch.from_numpy(rng.random(support.shape) < 0.9).float()
    masks = given_mask(support, brain)
    for mask, lesion, inside in zip(masks, support, brain, strict=True):
        used = inference.to_fill(lesion[0].numpy() > 0.5) & (inside[0].numpy() > 0)
        assert (mask[0].numpy() == used).all()
        assert 0 < used.mean() < 1


def test_export_computes_what_was_trained(cache, shapes, tmp_path):
    settings = config(tmp_path, 4)
    checkpoint = fit_toy(settings, cache, shapes, tmp_path / "run")
    from bids_inpaint.training.export import export

    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"split": "validation"}))
    path = export(settings, checkpoint, tmp_path / "toy.onnx", scores, 0.12)
    model = models.find(str(path))
    assert model.card["lesion_threshold"] == 0.12
    assert model.card["scores"] == {"split": "validation"}
    assert model.multiple == 4
    x = np.random.default_rng(0).random((8, 24, 16, 20)).astype(np.float32)
    ours = inference.run_network(model, x, inference.Runtime("cpu"))
    with torch.no_grad():
        theirs = load_average(settings, checkpoint)(torch.from_numpy(x)[None])[0].numpy()
    # weights are stored in half precision
    assert np.abs(ours - theirs).max() < 1e-3


def test_onnx_takes_any_size(tmp_path):
    import onnxruntime

    to_onnx(networks.UNet(filters=2).eval(), tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"))
    for shape in ((16, 16, 16), (24, 8, 32)):
        x = np.zeros((1, 8, *shape), np.float32)
        assert session.run(None, {"image": x})[0].shape == x.shape


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TOY.replace("seed = 3", "sed = 3"), "sed"),
        (TOY.replace("validation = []", 'validation = ["toy_sub-01"]'), "toy_sub-01 is in two sets"),
        (TOY.replace("seed = 3", ""), "seed"),
        (TOY.replace("none = 0.1", "healthy = 0.1"), "unknown share healthy"),
    ],
)
def test_wrong_configurations(tmp_path, text, reason):
    path = tmp_path / "c.toml"
    path.write_text(text.format(steps=1, blind="true"))
    with pytest.raises(ValueError, match=reason):
        Config.load(path)


def test_shipped_configurations_keep_subjects_apart():
    from bids_inpaint.training.config import FOLDER

    for path in FOLDER.glob("*.toml"):
        loaded = Config.load(path.stem)
        assert loaded.name == path.stem
        assert not set(loaded.data.train) & {*loaded.data.validation, *loaded.data.test}
        # the tested patient lends no lesions
        assert loaded.task == "brain" or "openms26" in loaded.data.leave_out_patients


def test_evaluation_scores_what_a_network_does(shapes, toy_model, tmp_path):
    """The toy lifts dark tissue to 0.9 of white matter: lesions gain, and are left too dark."""
    from bids_inpaint.training.__main__ import main

    files = template.prepare(template.DEFAULT, tmp_path / "template")
    brain, mask = images.read(files.t1w)[0], images.read(files.mask)[0] > 0
    priors = {tissue: images.read(files.priors[tissue])[0] for tissue in ("GM", "WM")}
    cache_subject(tmp_path / "cache/toy_sub-03", brain, mask, priors)
    # half of what the expert of this patient marked is not to be seen
    expert = np.zeros_like(mask)
    expert[60:70, 140:150, 88:100] = priors["WM"][60:70, 140:150, 88:100] > 0.95
    dark = expert.copy()
    dark[65:] = False
    cache_subject(tmp_path / "cache/toy_sub-04", np.where(dark, 0.65 * brain, brain), mask, priors, expert)
    path = tmp_path / "toy.toml"
    text = TOY.format(steps=1, blind="true").replace("test = []", 'test = ["toy_sub-03", "toy_sub-04"]')
    path.write_text(text.replace("leave_out_patients = []", 'leave_out_patients = ["a", "b"]'))
    output, figure = tmp_path / "scores.json", tmp_path / "worst.png"
    command = ["evaluate", str(path), str(tmp_path / "cache"), str(toy_model), "--lesions", str(shapes)]
    assert main([*command, "--split", "test", "--output", str(output), "--figure", str(figure)]) == 0
    scores = json.loads(output.read_text())
    assert scores["subjects"] == ["toy_sub-03"]
    mean = {
        key: value["mean"] for key, value in scores.items() if isinstance(value, dict) and "mean" in value
    }
    # where a lesion lies in deep grey matter, it makes white matter of it
    assert -0.13 < mean["bias"] < -0.02
    assert mean["psnr"] == pytest.approx(-20 * np.log10(mean["rmse"]))
    assert mean["gain"] > 3
    # it makes grey matter white as well
    assert mean["whole_psnr"] < mean["voided_psnr"]
    found = {key: value["mean"] for key, value in scores["threshold_sweep"]["0.15"].items()}
    assert found["sensitivity"] > 0.7
    # which is told as lesions in the healthy image, as the app would do
    assert found["false_ml"] > 1
    assert found["precision"] < 0.5
    patients = scores["patients"]
    assert patients["subjects"] == ["toy_sub-04"]
    share = dark.sum() / expert.sum()
    assert patients["visible_share"]["mean"] == pytest.approx(share, abs=0.05)
    reached = patients["threshold_sweep"]["0.15"]
    assert reached["sensitivity"]["mean"] == pytest.approx(share, abs=0.15)
    assert reached["dice"]["mean"] <= patients["dice_ceiling"]["mean"] + 0.05
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_images_that_cannot_be_prepared_are_named(tmp_path, capfd):
    from bids_inpaint.training.__main__ import main

    name = "sub-01/anat/sub-01_T1w.nii.gz"
    dataset = write_dataset(tmp_path / "bids", name)
    (dataset / name).write_bytes(b"\x1f\x8b not an image")
    cache, work = tmp_path / "cache", tmp_path / "work"
    assert main(["prepare", str(dataset), str(cache), "-w", str(work)]) == 1
    said = capfd.readouterr().err
    assert "1 of 1 images could not be preprocessed" in said
    assert "sub-01_T1w.nii.gz" in said
    assert "Traceback" not in said
    assert list((work / "crashes").glob("crash*"))
    assert not subjects(cache)


def test_lesions_are_painted_into_raw_images(shapes, tmp_path):
    """At their place in the world, in the unit and type of the raw image, which is else as it was."""
    from bids_inpaint import bids
    from bids_inpaint.demo import acquire, tilted
    from bids_inpaint.settings import Settings
    from bids_inpaint.training.__main__ import main

    centre = np.array([24.0, 20.0, 22.0, 1.0])
    voxel = np.linalg.inv(WORKING_GRID.matrix) @ centre
    lesion = np.zeros(WORKING_GRID.shape, np.uint8)
    lesion[tuple(slice(int(v) - 4, int(v) + 5) for v in voxel[:3])] = 1
    own = shutil.copytree(shapes, tmp_path / "lesions")
    images.save(own / "patients/c_mask.nii.gz", lesion, WORKING_GRID)
    grid = tilted((96, 110, 80), (2.0, 2.0, 2.2), degrees=10)
    raw, _ = acquire(grid, folder=tmp_path / "template")
    name = "sub-01/anat/sub-01_T1w.nii.gz"
    dataset = write_dataset(tmp_path / "bids", name)
    images.save(dataset / name, raw, grid)
    output, work = tmp_path / "out", tmp_path / "work"
    command = ["paint", str(dataset), str(output), "--lesions", str(own), "--patients", "c"]
    assert main([*command, "-w", str(work)]) == 0
    settings = Settings(output, tmp_path / "x", tmp_path / "y", lesion_masks=output / "derivatives/painted")
    (found,) = bids.collect(settings)
    assert found.lesion_mask is not None
    mask = images.read(found.lesion_mask)[0] > 0
    painted = np.asanyarray(images.load(found.path).dataobj)
    assert painted.dtype == raw.dtype
    assert not (painted > raw).any()
    at = tuple(np.round(np.linalg.inv(grid.matrix) @ centre)[:3].astype(int))
    assert mask[at]
    assert painted[at] < 0.9 * raw[at]
    changed = painted != raw
    assert changed[mask].mean() > 0.95
    # partial volume reaches a little farther
    assert changed.sum() < 5 * mask.sum()
