"""The diffusion model: samplers as those of diffusers, training, export, and slices where they belong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TOY, write_nifti

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import diffusion, inpainting, registry, session, slices
from bids_inpaint.networks.engines import ddpm
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions
from bids_inpaint.training.diffusion import Diffusion, bound
from bids_inpaint.training.engines import build
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.missing import draw_missing
from bids_inpaint.training.patches import Place
from bids_inpaint.training.slices import Slices, mirrored
from bids_inpaint.training.weights import load_average

TOY_DDPM = (
    TOY.replace('intensity = "wm"', 'intensity = "range"\nengine = "ddpm"')
    .replace("filters = 4\nlevels = 3\nresidual = true\nfull_resolution = false", "channels = [4, 8]\n"
             "attention = [false, true]\nlayers = 1\nsub_images = {sub_images}")
    .replace("freeze_normalisation = 3\n", "")
)  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(0).uniform(0, 1, (2, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def predict(truth):
    """A network that is a little wrong about the noise."""
    left = diffusion.signal()

    def predict(x, step):
        noise = (x - np.sqrt(left[step]) * truth) / np.sqrt(1 - left[step])
        return (0.97 * noise + 0.02 * np.tanh(x)).astype(np.float32), np.tanh(x).astype(np.float32)

    return predict


def test_samplers_are_those_of_diffusers(predict, truth, monkeypatch):
    from diffusers import DDIMScheduler, DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    common = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample_range": 1.0}
    ddim = DDIMScheduler(1000, **common)
    x = torch.from_numpy(noise)
    ddim.set_timesteps(1000)
    for t in ddim.timesteps:
        eps = torch.from_numpy(predict(x.numpy(), int(t))[0])
        x = ddim.step(eps, int(t), x, use_clipped_model_output=True).prev_sample
    ours = diffusion.sample(predict, noise, "ddim", 1000, limits=(-1, 1))
    assert np.abs(ours - x.numpy()).max() < 1e-4

    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: torch.from_numpy(drawn.pop()))
    ddpm = DDPMScheduler(1000, **common, variance_type="learned_range")
    rng = np.random.default_rng(2)
    drawn = [rng.standard_normal(truth.shape, np.float32) for _ in range(999)][::-1]
    x = torch.from_numpy(noise)
    for t in range(999, -1, -1):
        answer = torch.from_numpy(np.concatenate(predict(x.numpy(), t), 1))
        x = ddpm.step(answer, t, x).prev_sample
    ours = diffusion.sample(predict, noise, "ddpm", 1000, np.random.default_rng(2), limits=(-1, 1))
    assert np.abs(ours - x.numpy()).max() < 1e-3


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS)
def test_the_truth_is_sampled_if_the_network_knows_it(truth, sampler):
    left = diffusion.signal()

    def knows(x, step):
        return (x - np.sqrt(left[step]) * truth) / np.sqrt(1 - left[step]), -np.ones_like(x)

    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    assert np.abs(diffusion.sample(knows, noise, sampler, 10) - truth).max() < 1e-3


def test_more_steps_of_heun_are_nearer_to_many(predict, truth):
    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    best = diffusion.sample(predict, noise, "heun", 500)
    errors = [np.abs(diffusion.sample(predict, noise, "heun", n) - best).max() for n in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_bound_is_least_where_the_variance_is_the_true_one():
    """With the right noise the smaller variance costs nothing, and a larger one something."""
    left = torch.from_numpy(diffusion.signal()).float()
    now, before = left[2].view(1, 1, 1, 1), left[1].view(1, 1, 1, 1)
    image, noise = torch.rand(1, 1, 8, 8), torch.randn(1, 1, 8, 8)
    noisy = now.sqrt() * image + (1 - now).sqrt() * noise
    costs = [bound(image, noisy, noise, torch.full_like(image, s), now, before).mean() for s in (-1.0, 1.0)]
    assert abs(costs[0]) < 1e-3 < 0.01 < costs[1]
    # at the first step it is the likelihood of one of 256 values, about 0 bits if it is met within the noise
    now, before = left[0].view(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    noisy = now.sqrt() * image + (1 - now).sqrt() * noise
    wrong = noise + 5
    right, off = (bound(image, noisy, n, torch.zeros_like(image), now, before).mean() for n in (noise, wrong))
    assert 0 < right < 5
    assert off > right + 5


def test_the_papers_network_has_its_parameters():
    with torch.device("meta"):
        network = build(Config.load("paper-ddpm"))
    assert sum(p.numel() for p in network.parameters()) == 113_672_066


MIRRORED = 'true\nmirror = true\nneighbours = [1, 4]\nprediction = "image"'
TOGETHER = f"{MIRRORED}\ntogether = true"


@pytest.fixture(
    scope="module",
    params=["true", "false", MIRRORED, TOGETHER],
    ids=["sub-images", "whole", "mirrored image", "together"],
)
def trained(request, cache, shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddpm")
    (folder / "toy.toml").write_text(TOY_DDPM.format(steps=4, blind="false", sub_images=request.param))
    config = Config.load(folder / "toy.toml")
    checkpoint = fit(config, Diffusion(config, cache, shapes), folder / "run", threads=1, workers=0)
    export(config, checkpoint, folder / "toy.onnx", None, 0.1)
    return config, checkpoint, registry.find(str(folder / "toy.onnx"))


def test_export_computes_what_was_trained_at_any_size(trained):
    config, checkpoint, model = trained
    network = load_average(config, checkpoint)
    running = session.open_session(model, session.Runtime("cpu"))
    for count, height, width in ((1, 16, 24), (3, 40, 8)):
        x = torch.rand(count, network.inputs, height, width)
        (ours,) = running.run(None, {"image": x.numpy(), "step": np.array([7])})
        with torch.no_grad():
            theirs = network(x, torch.tensor([7])).numpy()
        # weights are stored in half precision
        assert np.abs(ours - theirs).max() < 5e-3


def test_only_the_hole_is_filled_from_the_seed_alone(trained):
    _, _, model = trained
    rng = np.random.default_rng(0)
    image = np.zeros((60, 70, 20), np.float32)
    image[10:50, 10:60, 2:18] = rng.uniform(200, 300, (40, 50, 16))
    lesion = np.zeros(image.shape, bool)
    lesion[20:24, 30:35, 8:11] = True

    def fill(seed: int, **more) -> np.ndarray:
        runtime = session.Runtime("cpu", 1, seed, **more)
        return inpainting.inpaint(model, image, image > 0, Scale(300.0), lesion, runtime).image

    one = fill(0, steps=3)
    changed = one != image
    assert changed.any()
    assert not changed[~inpainting.to_fill(lesion)].any()
    assert one.tobytes() == fill(0, steps=3).tobytes()
    assert (one != fill(1, steps=3)).any()
    assert (fill(0, sampler="heun", steps=3) != fill(0, sampler="ddpm", steps=3)).any()


def test_slices_go_where_they_came_from(trained, monkeypatch):
    """A network that returns what it sees of the surroundings fills each voxel from its place."""
    _, _, model = trained
    image = np.random.default_rng(0).uniform(100, 300, (61, 70, 9)).astype(np.float32)
    limit = slices.upper_limit(image)

    class Session:
        def run(self, _, given):
            seen = np.roll(given["image"][:, 1:2], (1, 2), (2, 3))
            return [np.concatenate([seen, seen], 1)]

    def sample(predict, noise, *_):
        return predict(noise, 0)[1]

    monkeypatch.setattr(ddpm, "open_session", lambda *_: Session())
    monkeypatch.setattr(diffusion, "sample", sample)
    monkeypatch.setattr(slices, "ACROSS", 1e-3)
    hole = np.zeros(image.shape, bool)
    hole[40, 50, 4] = hole[3, 68, 7] = True
    filled = model.engine.fill(model, image, hole, Scale(1.0), session.Runtime("cpu"), ()).image
    assert filled[40, 50, 4] == pytest.approx(min(image[39, 48, 4], limit))
    assert filled[3, 68, 7] == pytest.approx(min(image[2, 66, 7], limit))


def test_a_network_that_tells_the_image_samples_as_one_that_tells_the_noise(truth):
    left = diffusion.signal()
    noise = np.random.default_rng(2).standard_normal(truth.shape)

    def of_noise(x, step):
        return (x - np.sqrt(left[step]) * truth) / np.sqrt(1 - left[step]), 0 * x

    def of_image(x, step):
        return diffusion.noise_of(truth, x, step), 0 * x

    for sampler in diffusion.SAMPLERS:
        drawn = [
            diffusion.sample(p, noise, sampler, 7, np.random.default_rng(3)) for p in (of_noise, of_image)
        ]
        assert np.allclose(*drawn)


def test_the_mirrored_slice_shows_the_other_side_but_not_the_hole():
    size, start, shift = 40, 71, 2
    row = torch.arange(181.0)
    hole = torch.zeros(size, 4)
    hole[25:30] = 1
    # by hand: what is missing of the row, the row turned round and moved, and the square of that
    missing = torch.zeros(181)
    missing[start : start + size] = hole[:, 0]
    turned = (row * (1 - missing)).flip(0).roll(shift)[start : start + size]
    place = Place((start, 0, 0), (size, 4, 1), True)
    other = place.crop(row.numpy()[:, None, None] + np.zeros((1, 4, 1), np.float32), (shift, 0, 0))[..., 0]
    (gone,) = mirrored(hole[None], np.array([start]), np.array([shift]))
    known = other * (1 - gone)
    assert torch.equal(known[:, 0], turned)
    assert (known == 0).any()


def test_inference_mirrors_about_the_middle_of_the_brain(trained, monkeypatch):
    _, _, model = trained
    if not model.card.mirror:
        pytest.skip("this network doesn't look at the mirrored slice")
    shown = []

    class Session:
        def run(self, _, given):
            shown.append(given["image"])
            return [np.zeros((1, 2, *given["image"].shape[2:]), np.float32)]

    monkeypatch.setattr(ddpm, "open_session", lambda *_: Session())
    image = np.zeros((60, 50, 6), np.float32)
    image[12:53] = np.random.default_rng(0).uniform(100, 300, (41, 50, 6))
    hole = np.zeros(image.shape, bool)
    hole[20, 25, 2] = True
    hole[30, 25, 1] = True
    model.engine.fill(model, image, hole, Scale(1.0), session.Runtime("cpu", steps=1), ())
    # the second slice that is filled
    _, seen, marked, *near, other, missing = shown[1][0]
    x, y = np.argwhere(marked)[0]
    # voxel 20 lies as far from the left end, 12, as 44 from the right one, 52
    known = np.minimum(image / slices.upper_limit(np.where(hole, 0, image)), 1)
    assert other[x, y] == pytest.approx(known[44, 25, 2])
    assert seen[x + 24, y] == pytest.approx(other[x, y])
    assert other[x + 24, y] == 0
    assert np.argwhere(missing).tolist() == [[x + 24, y]]
    # one and four slices away, on both sides, and no further than the last one
    assert [v[x, y] for v in near[::2]] == pytest.approx([known[20, 25, z] for z in (1, 3, 0, 5)])
    assert [np.argwhere(v).tolist() for v in near[1::2]] == [[[x + 10, y]], [], [], []]


def test_neighbouring_slices_are_those_of_the_image(trained, cache, shapes):
    config, _, _ = trained
    config = replace(
        config, schedule=replace(config.schedule, patch=96), synthesis=replace(config.synthesis, vary=False)
    )
    slices = Slices(config, cache, Lesions.load(shapes))
    if not config.network.get("neighbours"):
        pytest.skip("this network doesn't look at neighbouring slices")
    subject = slices.subjects[0]
    # brighter from slice to slice
    shape = subject.image.shape
    vars(subject)["image"] = np.broadcast_to(np.linspace(0.5, 1.5, shape[2], dtype=np.float32), shape)
    slices.subjects, slices.brains.images, slices.limits = [subject], [subject.image], np.float32([2])
    for index in range(12):
        image, given = slices.sample(index)
        own, hole, *near = given[:-2]
        assert hole.any()
        assert torch.equal(own, image[0] * (1 - hole))
        levels = [v[m == 0].mean() for v, m in zip(near[::2], near[1::2], strict=True)]
        one_below, one_above, four_below, four_above = levels
        assert four_below < one_below < image.mean() < one_above < four_above


def test_holes_lie_where_lesions_do(shapes):
    stored = Lesions.load(shapes)
    rng = np.random.default_rng(0)
    drawn = [draw_missing(rng, stored, (56, 70, 85), 32) for _ in range(60)]
    assert all(hole.any() for hole, _ in drawn)
    assert np.mean([hole.mean() for hole, _ in drawn]) < 0.5
    lesions = [hole[0] for hole, kind in drawn if kind == "lesions"]
    assert 10 < len(lesions) < 50
    # those of this slice are at 60-70 and 80-90: in the middle of the square
    assert all(hole[:3].sum() < 0.3 * hole.sum() for hole in lesions)


def test_tumours_are_as_large_as_those_of_the_challenge(shapes):
    stored = Lesions.load(shapes)
    rng = np.random.default_rng(0)
    drawn = [draw_missing(rng, stored, (20, 40, 85), 128, (-20, 20), 0.0, 0.5) for _ in range(40)]
    tumours = [hole for hole, kind in drawn if kind == "beyond"]
    assert 12 < len(tumours) < 28
    # any of their slices is the one that is filled, and they go on in the next ones
    assert all(hole[20].any() for hole in tumours)
    assert np.median([hole.sum() for hole in tumours]) > 30_000
    deep = [hole.any((1, 2)).sum() for hole in tumours]
    assert np.median(deep) > 25


def test_what_is_missing_beyond_the_brain_is_to_become_empty(cache, shapes):
    config = Config.load("ddpm-together")
    config = replace(
        config,
        data=replace(config.data, train=["toy_sub-01"]),
        synthesis=replace(config.synthesis, tumours=1.0, squares=0.0, vary=False),
    )
    slices = Slices(config, cache, Lesions.load(shapes))
    beyond = 0.0
    for index in range(8):
        image, visible = slices.sample(index)
        own, hole = visible[:2]
        assert hole.any()
        assert torch.equal(own, image[0] * (1 - hole))
        beyond += float((hole * (image[0] == 0)).sum())
    assert beyond > 0
    within = replace(config, synthesis=replace(config.synthesis, tumours=0.0))
    plain = Slices(within, cache, Lesions.load(shapes))
    for index in range(4):
        image, visible = plain.sample(index)
        assert not (visible[1] * (image[0] == 0)).any()


def test_holes_of_neighbours_are_as_noisy_as_the_one_that_is_drawn(trained, monkeypatch):
    """Slices that are drawn together see what became of each other so far; all else they see as it is."""
    _, _, model = trained
    if not model.card.neighbours:
        pytest.skip("this network doesn't look at neighbouring slices")
    shown = []

    class Session:
        def run(self, _, given):
            shown.append(given["image"][0])
            return [np.zeros((1, 2, *given["image"].shape[2:]), np.float32)]

    monkeypatch.setattr(ddpm, "open_session", lambda *_: Session())
    image = np.zeros((60, 50, 12), np.float32)
    image[12:53] = np.random.default_rng(0).uniform(100, 300, (41, 50, 12))
    hole = np.zeros(image.shape, bool)
    hole[30, 25, 4:7] = True
    model.engine.fill(model, image, hole, Scale(1.0), session.Runtime("cpu", steps=1), ())
    below, middle, above = shown
    x, y = np.argwhere(middle[2])[0]
    # the image and the hole of the slice, and of the first on either side
    assert middle[1, x, y] == 0
    if model.card.together:
        assert [middle[3, x, y], middle[5, x, y]] == [below[0, x, y], above[0, x, y]]
        assert below[0, x, y] != above[0, x, y]
    else:
        assert middle[3, x, y] == middle[5, x, y] == 0
    known = np.minimum(image / slices.upper_limit(np.where(hole, 0, image)), 1)
    assert middle[3, x + 1, y] == pytest.approx(known[31, 25, 4])


def test_half_of_the_samples_are_nothing_but_noise_if_so_asked(trained, cache, shapes):
    config, _, _ = trained
    config = replace(config, synthesis=replace(config.synthesis, noisiest=0.5))
    samples = Diffusion(config, cache, shapes).samples(0, "cpu")
    steps = np.array([samples.sample(i)[3] for i in range(60)])
    last = steps == diffusion.STEPS - 1
    assert 18 < last.sum() < 42
    assert 300 < steps[~last].mean() < 700
    assert steps.min() >= 0


def test_voided_volumes_are_filled_in_any_orientation(trained, tmp_path):
    """The hole of a BraTS volume (left, posterior, superior) is filled as that of the same brain turned."""
    import nibabel as nib

    from bids_inpaint.fill import main

    _, _, model = trained
    data = np.zeros((60, 70, 20), np.float32)
    data[10:50, 10:60, 2:18] = np.random.default_rng(0).uniform(200, 300, (40, 50, 16))
    hole = np.zeros(data.shape, np.uint8)
    hole[20:24, 30:35, 8:11] = 1
    data[hole > 0] = 0
    outputs = []
    for code in ("LPS", "RAS"):
        for name, array in (("voided", data), ("mask", hole)):
            image = nib.Nifti1Image(array, np.diag([-3.0, -3, 6, 1]))
            turned = image.as_reoriented(
                nib.orientations.ornt_transform(
                    nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(code)
                )
            )
            turned.to_filename(tmp_path / f"{code}-{name}.nii.gz")
        paths = [str(tmp_path / f"{code}-{name}.nii.gz") for name in ("voided", "mask", "out")]
        assert main([*paths, "--model", str(model.path), "--sampling-steps", "2"]) == 0
        outputs.append(nib.as_closest_canonical(nib.load(paths[2])).get_fdata())
    assert (outputs[0] == outputs[1]).all()
    known = nib.as_closest_canonical(nib.load(tmp_path / "LPS-voided.nii.gz")).get_fdata()
    changed = outputs[0] != known
    assert changed.sum() == hole.sum()
    assert main([*paths[:2], str(tmp_path / "x.nii.gz"), "--model", "unet"]) == 2


@pytest.mark.parametrize(
    ("steps", "mask", "message"),
    [("0", 1, "out of range"), ("2", 0.5, "not a binary mask"), ("2", -1, "not a mask")],
)
def test_voided_volumes_with_another_mask_or_no_steps_are_refused(
    trained, tmp_path, capsys, steps, mask, message
):
    from bids_inpaint.fill import main

    data = np.random.default_rng(0).uniform(200, 300, (60, 70, 20)).astype(np.float32)
    paths = [str(tmp_path / f"{name}.nii.gz") for name in ("voided", "mask", "out")]
    write_nifti(Path(paths[0]), data)
    hole = np.zeros(data.shape, np.float32)
    hole[20:24, 30, 8], hole[25, 30, 8] = mask, 1
    write_nifti(Path(paths[1]), hole)
    try:
        code = main([*paths, "--model", str(trained[2].path), "--sampling-steps", steps])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not Path(paths[2]).exists()
