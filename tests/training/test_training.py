import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import inpainting, registry, session, volumes
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training import parameters, synthesis
from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.config import FOLDER, Config
from bids_inpaint.training.data import Lesions, subjects
from bids_inpaint.training.engines import engine_of
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.inpainting import Inpainting, fill_mask
from bids_inpaint.training.lesioned import Batch, Patches, Recipe
from bids_inpaint.training.patches import Place
from bids_inpaint.training.weights import load_average, load_exported


def config(folder: Path, steps=4, blind="true") -> Config:
    path = folder / "toy.toml"
    path.write_text(TOY.format(steps=steps, blind=blind))
    return Config.load(path)


def fit_toy(settings: Config, cache: Path, shapes: Path, run: Path) -> Path:
    return fit(settings, Inpainting(settings, cache, shapes), run, threads=1, workers=0)


def test_exported_weights_start_another_run(cache, shapes, tmp_path):
    settings = config(tmp_path)
    path = export(
        settings, fit_toy(settings, cache, shapes, tmp_path / "one"), tmp_path / "toy.onnx", None, 0.1
    )
    network = UNet(**settings.network)
    load_exported(network, path)
    x = torch.rand(1, 8, 16, 16, 16)
    ours = volumes.run_network(registry.find(str(path)), x[0].numpy(), session.Runtime("cpu"))[0]
    assert np.abs(network.eval()(x)[0].detach().numpy() - ours).max() < 1e-5
    with pytest.raises(ValueError, match="another architecture"):
        load_exported(UNet(), path)


def test_a_network_that_sees_the_template_begins_as_one_that_does_not(cache, shapes, tmp_path):
    settings = config(tmp_path)
    first = tmp_path / "toy.onnx"
    export(settings, fit_toy(settings, cache, shapes, tmp_path / "one"), first, None, 0.1)
    wider = replace(settings, network=settings.network | {"priors": True})
    network = UNet(**wider.network).eval()
    load_exported(network, first)
    x = torch.rand(1, 10, 16, 16, 16)
    before = volumes.run_network(registry.find(str(first)), x[0, :8].numpy(), session.Runtime("cpu"))[0]
    assert np.abs(network(x)[0].detach().numpy() - before).max() < 1e-5

    second = tmp_path / "wider.onnx"
    export(wider, fit_toy(wider, cache, shapes, tmp_path / "two"), second, None, 0.1)
    model = registry.find(str(second))
    assert model.card.priors
    image = np.ones(WORKING_GRID.shape, np.float32)
    with pytest.raises(ValueError, match="needs the tissue priors"):
        inpainting.inpaint(model, image, image > 0, Scale(1.0))


def test_template_is_shown_alike_in_training_and_inference(cache, shapes, tmp_path, monkeypatch):
    settings = config(tmp_path)
    settings = replace(
        settings,
        network=settings.network | {"priors": True},
        schedule=replace(settings.schedule, patch=0),
    )
    patches = Patches(settings, cache, Lesions.load(shapes))
    place = Place.whole()
    crops = torch.stack([place.crop(p) for p in patches.priors])
    shown = torch.nn.functional.avg_pool3d(crops, 2).numpy()
    seen = {}

    def capture(model, channels, *_):
        seen["priors"] = channels[8:, :91, :109, :91]  # the brain fills the grid
        return [channels[:8], channels[:8]]

    monkeypatch.setattr(volumes, "run_network", capture)
    model = registry.find(registry.DEFAULT)
    model = replace(model, card=replace(model.card, priors=True))
    image = np.ones(WORKING_GRID.shape, np.float32)
    inpainting.inpaint(model, image, image > 0, Scale(1.0), priors=patches.priors)
    np.testing.assert_allclose(seen["priors"], shown, atol=1e-6)
    assert patches.sample(0)[3].shape == shown.shape


def test_patches_are_cut_where_they_lie():
    volume = np.arange(np.prod(WORKING_GRID.shape), dtype=np.float32).reshape(WORKING_GRID.shape)
    straight = Place((20, 30, 40), (8, 8, 8), False).crop(volume).numpy()
    assert (straight == volume[20:28, 30:38, 40:48]).all()
    moved = Place((20, 30, 40), (8, 8, 8), False).crop(volume, (2, -1, 0)).numpy()
    assert (moved == volume[18:26, 31:39, 40:48]).all()
    mirrored = Place((153, 30, 40), (8, 8, 8), True).crop(volume).numpy()
    assert (mirrored[::-1] == volume[20:28, 30:38, 40:48]).all()


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
    patches = Patches(settings, tmp_path / "cache", Lesions.load(shapes))
    plain = parameters.draw_image(np.random.default_rng(0), subject.grey_level, vary=False)
    for flip in (False, True):
        place = replace(Place.whole(), flip=flip)
        made = patches.make(Batch.of([Recipe(0, place, plain, [], (0, 0, 0))]))
        image, healthy, support = (t[0] for t in made)
        assert torch.equal(image != healthy, support > 0)
        at = support.nonzero().float().mean(0).tolist()
        assert at == pytest.approx([115.5 if flip else 64.5, 84.5, 84.5])


def test_training_resumes_to_the_same_weights(cache, shapes, tmp_path):
    """Stopped after its checkpoint and started again, a run ends with the weights of one in a piece."""
    whole = fit_toy(config(tmp_path, 4), cache, shapes, tmp_path / "whole")
    half = config(tmp_path, 4)
    object.__setattr__(half.schedule, "steps", 2)
    object.__setattr__(half.schedule, "decay_steps", 0.001)
    fit_toy(half, cache, shapes, tmp_path / "parts")
    again = config(tmp_path, 4)
    resumed = fit_toy(again, cache, shapes, tmp_path / "parts")
    one, two = (load_average(again, p).state_dict() for p in (whole, resumed))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-6) for k in one)
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
    lesion = parameters.LesionParameters(Lesions.load(shapes).patients[0][0].astype(float), 0.6, 0.3, 0.7)
    image, support = synthesis.paint(healthy, subject.grey_level, [lesion], (50, 70, 70), seed=1)
    assert torch.equal(image[support == 0], healthy[support == 0])
    assert (image <= healthy).all()
    assert image[support > 0.9].mean() == pytest.approx(0.6, abs=0.06)
    again, _ = synthesis.paint(healthy, subject.grey_level, [lesion], (50, 70, 70), seed=1)
    assert torch.equal(image, again)


def test_lesions_left_out_are_left_out(shapes):
    assert len(Lesions.load(shapes).patients) == 2
    assert len(Lesions.load(shapes, leave_out=["a"]).patients) == 1
    assert len(Lesions.load(shapes, only=["a"]).patients[0]) == 2


def test_non_blind_networks_fill_the_same_in_training_and_in_use():
    rng = np.random.default_rng(0)
    support = torch.from_numpy(rng.random((2, 1, 9, 10, 11))) ** 8
    brain = torch.from_numpy(rng.random(support.shape) < 0.9).float()
    masks = fill_mask(support, brain)
    for mask, lesion, inside in zip(masks, support, brain, strict=True):
        used = inpainting.to_fill(lesion[0].numpy() > 0.5) & (inside[0].numpy() > 0)
        assert (mask[0].numpy() == used).all()
        assert 0 < used.mean() < 1


def test_export_computes_what_was_trained(cache, shapes, tmp_path):
    settings = config(tmp_path, 4)
    checkpoint = fit_toy(settings, cache, shapes, tmp_path / "run")
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"split": "validation"}))
    path = export(settings, checkpoint, tmp_path / "toy.onnx", scores, 0.12)
    model = registry.find(str(path))
    assert model.card.lesion_threshold == 0.12
    assert model.card.more["scores"] == {"split": "validation"}
    assert model.card.multiple == 4
    x = np.random.default_rng(0).random((8, 24, 16, 20)).astype(np.float32)
    ours = volumes.run_network(model, x, session.Runtime("cpu"))[0]
    with torch.no_grad():
        theirs = load_average(settings, checkpoint)(torch.from_numpy(x)[None])[0].numpy()
    # weights are stored in half precision
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TOY.replace("seed = 3", "sed = 3"), "sed"),
        (TOY.replace("validation = []", 'validation = ["toy_sub-01"]'), "toy_sub-01 is in two sets"),
        (TOY.replace("seed = 3", ""), "seed"),
        (TOY.replace("[fit]", "[schedule]"), "the tables and keys are name, seed, network, data, fit,"),
        (TOY.replace("none = 0.1", "healthy = 0.1"), "unknown share healthy"),
        (TOY.replace('name = "toy"', 'name = "my toy"'), "name 'my toy' is not one of letters"),
    ],
)
def test_wrong_configurations(tmp_path, text, reason):
    path = tmp_path / "c.toml"
    path.write_text(text.format(steps=1, blind="true"))
    with pytest.raises(ValueError, match=reason):
        Config.load(path)


def test_shipped_configurations_keep_subjects_apart():
    for path in FOLDER.glob("*.toml"):
        loaded = Config.load(path.stem)
        assert loaded.name == path.stem
        assert engine_of(loaded).name == loaded.engine
        assert not set(loaded.data.train) & {*loaded.data.validation, *loaded.data.test}
        # the tested patient lends no lesions
        assert loaded.task == "brain" or "openms26" in loaded.data.leave_out_patients
