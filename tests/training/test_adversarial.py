"""ip-MedGAN: receptive fields, losses, training that resumes, export, and filling."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import card, inpainting, registry, session
from bids_inpaint.training.adversarial import Adversarial, cut, square_around, style_loss
from bids_inpaint.training.architectures.casnet import CasNet, PatchDiscriminator, Vgg19
from bids_inpaint.training.config import Config
from bids_inpaint.training.engines import build
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.missing import SQUARE
from bids_inpaint.training.weights import load_average

TOY_GAN = (
    TOY.replace('intensity = "wm"', 'intensity = "range"\nengine = "ip-medgan"')
    .replace("filters = 4\nlevels = 3\nresidual = true\nfull_resolution = false",
             "channels = [4, 8]\nblocks = 2\nmirror = true\nneighbours = [2]")
    .replace("vary = true", "vary = true\nsquares = 0.5")
    .replace("freeze_normalisation = 3\n", "")
    .replace("patch = 16", "patch = 80")
) + "[adversarial]\nfilters = 2\npixels = 1.0\nalone = 1\n"  # fmt: skip


@pytest.fixture
def config(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY_GAN.format(steps=4, blind="false"))
    return Config.load(tmp_path / "toy.toml")


@pytest.mark.parametrize(("halvings", "width"), [(3, 70), (2, 34)])
def test_discriminators_judge_patches_of_the_papers_size(halvings, width):
    critic = PatchDiscriminator(1, 2, halvings).eval()
    image = torch.rand(1, 1, 160, 160, requires_grad=True)
    logits = critic.features(image)[-1]
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = image.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert seen.max() - seen.min() + 1 == width


def test_the_papers_network_takes_a_slice():
    with torch.device("meta"):
        network = build(Config.load("paper-ip-medgan"))
        assert isinstance(network, CasNet)
        assert len(network.blocks) == 6
        # 16 convolutions in each
        assert all(len(b.down) + len(b.up) + 1 == 16 for b in network.blocks)
        assert network(torch.zeros(2, 2, 256, 256)).shape == (2, 1, 256, 256)


def test_style_does_not_depend_on_the_place_but_on_the_texture():
    vgg = Vgg19()
    torch.manual_seed(0)
    fine = torch.rand(1, 1, 64, 64)
    moved = fine.roll((16, 16), (2, 3))
    coarse = torch.nn.functional.avg_pool2d(fine, 5, 1, 2)
    near, far = (float(style_loss(vgg(other), vgg(fine))) for other in (moved, coarse))
    assert float(style_loss(vgg(fine), vgg(fine))) == 0
    assert near < far / 10
    assert torch.equal(Vgg19()(fine)[-1], vgg(fine)[-1])


def test_weights_of_vgg19_are_read_from_a_file(tmp_path):
    vgg = Vgg19()
    state = {k: 2 * v for k, v in vgg.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg19.pth")
    assert torch.equal(Vgg19(tmp_path / "vgg19.pth").features[0].weight, 2 * vgg.features[0].weight)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of VGG-19"):
        Vgg19(tmp_path / "other.pth")


def test_holes_lie_in_the_squares_the_local_discriminator_sees(config, cache, shapes):
    samples = Adversarial(config, cache, shapes).samples(0, "cpu")
    squares = 0
    for i in range(20):
        image, given, corner = samples.sample(i)
        hole = given[1:2]
        inside = cut(hole[None], corner[None])
        assert not given[0][hole[0] > 0].any()
        assert inside.shape == (1, 1, SQUARE, SQUARE)
        # a hole that fits into the square lies in it as a whole
        whole = inside.sum() == hole.sum()
        assert whole or (hole[0].nonzero().amax(0) - hole[0].nonzero().amin(0)).max() >= SQUARE
        squares += bool(inside.mean() > 0.4)
        assert not hole.any() or inside.any()
        assert 0 <= image.min() <= image.max() <= 1
    assert 3 < squares < 17


def test_batches_of_a_gpu_are_the_samples_of_the_same_numbers(config, cache, shapes):
    """Several at once, and one after the other."""
    samples = Adversarial(config, cache, shapes).samples(3, "cpu")
    batch = next(samples.batches(4, workers=0))
    for made, alone in zip(batch, zip(*(samples.sample(3 + i) for i in range(4)), strict=True), strict=True):
        assert torch.allclose(made, torch.stack(alone), atol=1e-6)


def test_networks_are_scored_on_the_holes_of_people_they_do_not_learn_from(config, cache, shapes):
    data = replace(config.data, train=["toy_sub-01"], validation=["toy_sub-02"])
    task = Adversarial(replace(config, data=data), cache, shapes)
    scores = task.validate(build(config).eval())
    assert set(scores) == {"lesions", "blobs", "squares", "score"}
    assert all(0 < value < 60 for value in scores.values())


def test_a_large_hole_has_the_square_about_one_of_its_voxels():
    holes = torch.zeros(2, 128, 128)
    holes[0, 50:60, 100:128] = 1
    holes[1, :, :2] = 1
    corners = square_around(holes, torch.tensor([0.3, 0.99]))
    assert corners.tolist() == [[55 - SQUARE // 2, 128 - SQUARE], [128 - SQUARE, 0]]


def test_training_resumes_with_its_discriminators(config, cache, shapes, tmp_path):
    def train(steps: int, run: str):
        task = Adversarial(config, cache, shapes)
        return task, fit(
            replace(config, schedule=replace(config.schedule, steps=steps, decay_steps=0)),
            task, tmp_path / run, threads=1, workers=0,
        )  # fmt: skip

    first, _ = train(2, "parts")
    before = [p.clone() for p in first.critics.parameters()]
    resumed, checkpoint = train(4, "parts")
    assert resumed.optimiser.state_dict()["state"][0]["step"] == 3, "the first step is the generator's alone"
    assert all((a != b).any() for a, b in zip(before, resumed.critics.parameters(), strict=True))
    rows = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert {"critics", "adversarial", "style", "perceptual", "hole_mse"} <= set(rows[0].split(","))

    path = export(config, checkpoint, tmp_path / "toy.onnx", None, 0.1)
    model = registry.find(str(path))
    running = session.open_session(model, session.Runtime("cpu"))
    x = torch.rand(2, card.slice_channels(model.card.mirror, model.card.neighbours), 24, 40)
    with torch.no_grad():
        theirs = load_average(config, checkpoint)(x).numpy()
    # weights are stored in half precision
    assert np.abs(running.run(None, {"image": x.numpy()})[0] - theirs).max() < 5e-3

    image = np.zeros((60, 70, 20), np.float32)
    image[10:50, 10:60, 2:18] = np.random.default_rng(0).uniform(200, 300, (40, 50, 16))
    lesion = np.zeros(image.shape, bool)
    lesion[20:24, 30:35, 8:11] = True
    filled = inpainting.inpaint(model, image, image > 0, Scale(300.0), lesion).image
    changed = filled != image
    assert changed[lesion].all()
    assert not changed[~inpainting.to_fill(lesion)].any()
