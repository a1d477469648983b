"""A FLAIR and lesions from a T1w: made pairs, networks, cross-validation, and the way through ONNX."""

import json
from dataclasses import replace

import numpy as np
import pytest
from nitransforms.io.itk import ITKLinearTransform

torch = pytest.importorskip("torch")

from bids_inpaint import errors
from bids_inpaint.errors import InputError
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.uncertainty import LesionProbability
from bids_inpaint.interfaces.flair import SynthesiseFlair
from bids_inpaint.io import images
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.networks.flair import synthesise
from bids_inpaint.space import WORKING_GRID, Grid, resample
from bids_inpaint.training.architectures.slice_unet import Joint
from bids_inpaint.training.config import Config
from bids_inpaint.training.cross_validation import cross_validate
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.engines import build
from bids_inpaint.training.evaluate_flair import pair_of
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.joint import JointSynthesis
from bids_inpaint.training.paired_slices import Pairs
from bids_inpaint.training.pairs import by_kind
from bids_inpaint.training.weights import load_average

PEOPLE = ["map", "ms_sub-01", "ms_sub-02", "toy_sub-01"]


def test_lesions_are_dark_in_the_t1w_and_bright_in_the_flair(people, shapes):
    stored = Lesions.load(shapes)
    for subject in find_subjects(people, PEOPLE):
        t1w, flair, lesion = pair_of(subject, stored)
        around = np.zeros_like(lesion)
        around[50:110, 70:100, 70:100] = True
        white = around & ~lesion & (t1w > 0.95)
        assert lesion.any(), subject.name
        assert np.median(t1w[lesion]) < 0.95 * np.median(t1w[white]), subject.name
        assert np.median(flair[lesion]) > 1.05 * np.median(flair[white]), subject.name
        assert np.median(flair[white]) == pytest.approx(1, abs=0.1)
        again = pair_of(subject, stored)
        assert all((a == b).all() for a, b in zip((t1w, flair, lesion), again, strict=True))


def test_a_label_map_has_dark_fluid_and_its_own_lesions(people, shapes):
    (subject,) = find_subjects(people, ["map"])
    t1w, flair, lesion = pair_of(subject, Lesions.load(shapes))
    fluid, own = (np.asarray(subject.labels) == label for label in (4, 77))
    assert max(np.median(t1w[fluid]), np.median(flair[fluid])) < 0.7
    assert lesion[own].mean() > 0.5


def test_samples_are_slices_of_all_kinds_and_the_same_every_time(people, shapes, config):
    assert list(by_kind(find_subjects(people, PEOPLE))) == ["healthy", "label maps", "patients"]
    samples = Pairs(config, people, Lesions.load(shapes))
    for i in range(6):
        t1w, flair, lesion, real = samples.sample(i)
        assert t1w.shape == (4, 5, 32, 32)
        assert flair.shape == lesion.shape == (4, 1, 32, 32)
        assert real.shape == (4, 1, 1, 1)
        again = samples.sample(i)
        assert all(torch.equal(a, b) for a, b in zip(again, (t1w, flair, lesion, real), strict=True))
        assert all(torch.isfinite(v).all() for v in (t1w, flair, lesion))


def test_slices_whose_lesions_nobody_marked_teach_the_flair_alone(people, shapes, config, tmp_path):
    patient = people / "ms_sub-01"
    (tmp_path / "ms_sub-03").mkdir()
    for name in ("image.npy", "levels.json", "flair.npy"):
        (tmp_path / "ms_sub-03" / name).symlink_to(patient / name)
    (tmp_path / "template").symlink_to(people / "template")
    config = replace(config, data=replace(config.data, train=["ms_sub-03"]))
    task = JointSynthesis(config, tmp_path, shapes)
    samples = task.samples(0, "cpu")
    batch = [torch.stack(parts) for parts in zip(*(samples.sample(i) for i in range(4)), strict=True)]
    network = build(config)
    task.loss(network, batch)[0].backward()
    reached = {
        name: any(p.grad is not None and p.grad.any() for p in part.parameters())
        for name, part in (("generator", network.generator), ("classifier", network.classifier))
    }
    assert reached == {"generator": True, "classifier": False}


def test_the_inpainted_slice_lies_on_the_t1w(people, shapes, config):
    """Through storing, cropping and mirroring."""
    config = replace(config, network={**config.network, "inpainter": "blind-unet"})
    samples = Pairs(config, people, Lesions.load(shapes))
    near = 0
    for i in range(12):
        t1w, _, lesion, _ = samples.sample(i)
        assert t1w.shape == (4, 6, 32, 32)
        healthy = (t1w[:, 1] > 0) & (lesion[:, 0] == 0)
        if healthy.sum() > 500:
            assert (t1w[:, 1] - t1w[:, 5])[healthy].abs().mean() < 0.05
            near += 1
    assert near > 3


def test_the_papers_generator_ends_in_a_leaky_relu_and_its_classifier_sees_both_images():
    config = Config.load("paper-joint")
    assert config.schedule.learning_rate == 2e-4
    with torch.device("meta"):
        network = build(config)
        assert network.generator.down[0][0].weight.shape == (64, 1, 5, 5)
        assert network.classifier.down[0][0].weight.shape == (64, 2, 5, 5)
        assert network(torch.zeros(1, 1, 192, 224)).shape == (1, 2, 192, 224)
    small = Joint([4, 8])
    small.generator.last[-1].bias.data.fill_(-10)
    made = small(torch.zeros(1, 1, 8, 8))[:, 0]
    assert float(made.detach().max()) == pytest.approx(-2, abs=0.5)


@pytest.mark.parametrize("mode", ["joint", "offline", "unimodal"])
def test_the_lesions_teach_the_generator_of_a_joint_network_alone(mode):
    torch.manual_seed(0)
    network = Joint([4, 8], mode)
    network(torch.rand(2, 1, 16, 16))[:, 1].sum().backward()
    if mode == "unimodal":
        assert network.generator is None
        assert not network(torch.rand(2, 1, 16, 16))[:, 0].any()
        return
    reached = network.generator.last[-1].weight.grad.any()
    assert bool(reached) == (mode == "joint")


def test_a_trained_network_is_exported_and_started_from(people, shapes, config, tmp_path):
    checkpoint = fit(config, JointSynthesis(config, people, shapes), tmp_path / "run", threads=1, workers=0)
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert {"flair_mse", "lesion_flair_mse", "dice"} <= set(rows[0].split(","))
    model = registry.find(str(export(config, checkpoint, tmp_path / "toy.onnx", None, 0.5)), "flair")
    with pytest.raises(errors.InputError, match="trained for 'flair'"):
        registry.find(str(model.path))
    network = load_average(config, checkpoint)
    x = torch.rand(2, 5, 24, 40)
    with torch.no_grad():
        theirs = network(x).numpy()
    running = session.open_session(model, session.Runtime("cpu"))
    assert np.abs(running.run(None, {"image": x.numpy()})[0] - theirs).max() < 2e-2

    later = replace(config, schedule=replace(config.schedule, steps=0, start=str(checkpoint)))
    started = fit(
        replace(later, schedule=replace(later.schedule, steps=1, learning_rate=0.0)),
        JointSynthesis(later, people, shapes), tmp_path / "later", threads=1, workers=0,
    )  # fmt: skip
    weights = load_average(config, started).generator.last[-1].weight
    assert torch.equal(weights, network.generator.last[-1].weight)


@pytest.mark.parametrize(("inpainter", "told"), [("", False), ("blind-unet", False), ("blind-unet", True)])
def test_the_way_through_onnx_puts_every_slice_where_it_was(
    people, shapes, config, tmp_path, inpainter, told
):
    config = replace(config, network={**config.network, "inpainter": inpainter, "probability": told})
    checkpoint = fit(config, JointSynthesis(config, people, shapes), tmp_path / "run", threads=1, workers=0)
    model = registry.find(str(export(config, checkpoint, tmp_path / "toy.onnx", None, 0.5)), "flair")
    rng = np.random.default_rng(0)
    image = np.zeros((40, 50, 30), np.float32)
    image[5:36, 8:43, 3:22] = rng.uniform(100, 200, (31, 35, 19))
    priors = rng.uniform(0, 1, (2, *image.shape)).astype(np.float32)
    flair, probability = synthesise(model, image, image > 0, Scale(150.0), list(priors))
    assert not flair[image == 0].any()
    assert not probability[image == 0].any()
    running = session.open_session(model, session.Runtime("cpu"))
    # by hand: the tenth slice between its neighbours, in a frame of zeros to a multiple of 4
    x = np.zeros((1, 5 + bool(inpainter) + told, 32, 36), np.float32)
    x[0, :3, :31, :35] = image[5:36, 8:43, 12:15].transpose(2, 0, 1) / 150
    x[0, 3:5, :31, :35] = priors[:, 5:36, 8:43, 13]
    if inpainter:
        blind = registry.find(inpainter)
        # not calibrated
        blind = replace(blind, card=replace(blind.card, lesion_probability=LesionProbability()))
        filled = inpainting.inpaint(blind, image, image > 0, Scale(150.0), priors=list(priors))
        x[0, 5, :31, :35] = filled.image[5:36, 8:43, 13] / 150
        if told:
            x[0, 6, :31, :35] = filled.probability[5:36, 8:43, 13]
    answer = running.run(None, {"image": x})[0][0, :, :31, :35]
    assert np.abs(flair[5:36, 8:43, 13] - np.maximum(answer[0], 0)).max() < 1e-4
    assert np.abs(probability[5:36, 8:43, 13] - 1 / (1 + np.exp(-answer[1]))).max() < 1e-4


@pytest.mark.parametrize("change", [{"inpainter_sha256": "0"}, {"inpainter": "../blind-unet"}])
def test_a_network_is_shown_what_it_was_trained_to_see(tmp_path, change):
    """Not what another version of the blind network would make, nor any other file's network."""
    shipped = registry.find("joint", "flair").path
    path = tmp_path / "joint.onnx"
    path.write_bytes(shipped.read_bytes())
    card = json.loads(shipped.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | change))
    with pytest.raises(InputError, match="needs the output of another version of"):
        registry.find(str(path), "flair")


def test_native_flair_and_lesions_lie_where_the_t1w_has_them(people, shapes, config, tmp_path, monkeypatch):
    """On voxels of another size, orientation and place, through an affine."""
    monkeypatch.chdir(tmp_path)
    (patient,) = find_subjects(people, ["ms_sub-01"])
    data, lesion = (np.asarray(v, np.float32) for v in (patient.image, patient.lesions))
    near = (np.abs(data - 1) < 0.1).astype(np.float32), (np.abs(data - 0.64) < 0.1).astype(np.float32)
    files = {"in_file": data, "working_mask": data > 0, "wm_prior": near[0], "gm_prior": near[1]}
    given = {k: images.save(tmp_path / f"{k}.nii.gz", v, WORKING_GRID, np.float32) for k, v in files.items()}
    shift = np.eye(4)
    shift[:3, 3] = 5, -3, 2
    native = Grid.of((90, 100, 110), [[0, 0, 2, -112], [2, 0, 0, -110], [0, 2, 0, -70], [0, 0, 0, 1]])
    brain = resample(data > 0, WORKING_GRID, native, shift, order=0)
    given["brain_mask"] = images.save(tmp_path / "brain.nii.gz", brain, native, np.uint8)
    ITKLinearTransform.from_ras(shift).to_filename(tmp_path / "inverse.txt")

    def made(model, image, mask, *_):
        return np.where(mask, 1 + lesion, 0).astype(np.float32), lesion

    monkeypatch.setattr("bids_inpaint.interfaces.flair.flair.synthesise", made)
    checkpoint = fit(config, JointSynthesis(config, people, shapes), tmp_path / "run", threads=1, workers=0)
    model = export(config, checkpoint, tmp_path / "toy.onnx", None, 0.5)
    step = SynthesiseFlair(
        **given, inverse_xfm=str(tmp_path / "inverse.txt"), model=str(model),
        model_sha256=registry.find(str(model), "flair").sha256,
    )  # fmt: skip
    outputs = step.run().outputs
    there = resample(lesion, WORKING_GRID, native, shift, order=1)
    mask, grid = images.read(outputs.native_mask)
    assert grid.same_as(native)
    assert (mask == (there > 0.5)).all()
    flair = images.read(outputs.native_flair)[0]
    assert np.median(flair[there > 0.99]) == pytest.approx(2, abs=0.05)
    assert not flair[brain == 0].any()
    assert (images.read(outputs.mask)[0] == lesion).all()


def test_cross_validation_scores_each_patient_once_in_each_mode(people, shapes, config, tmp_path, capsys):
    template_priors(people)
    # the template of the toys is their own
    for tissue, level in (("WM", 1.0), ("GM", 0.64)):
        image = np.asarray(find_subjects(people, ["toy_sub-01"])[0].image, np.float32)
        near = (np.abs(image - level) < 0.15).astype(np.float32)
        images.save(people / "template" / f"tpl-MNI152NLin2009aSym/{tissue}.nii.gz", near, WORKING_GRID)
    visits = ["ms_sub-03_ses-1", "ms_sub-03_ses-2"]
    for visit in visits:
        # whose lesions nobody marked
        (people / visit).mkdir()
        for name in ("image.npy", "levels.json", "flair.npy"):
            (people / visit / name).symlink_to(people / "ms_sub-01" / name)
    data = replace(config.data, train=[*config.data.train, *visits])
    config = replace(config, schedule=replace(config.schedule, steps=1), data=data)
    with pytest.raises(ValueError, match="4 folds need"):
        cross_validate(config, people, shapes, tmp_path, 4)
    modes = ["joint", "unimodal"]
    scores = cross_validate(config, people, shapes, tmp_path / "run", modes=modes, threads=1)
    assert scores == json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["folds"] == [["ms_sub-01"], ["ms_sub-02"], visits]
    for mode, unmarked in (("joint", visits), ("unimodal", [])):
        rows = scores["subjects"][mode]
        assert set(rows) == {"ms_sub-01", "ms_sub-02", *unmarked}
        errors = [rows[name]["mae"] for name in ("ms_sub-01", "ms_sub-02")]
        if mode == "joint":
            # both visits of a person count as one
            errors.append((rows[visits[0]]["mae"] + rows[visits[1]]["mae"]) / 2)
            assert scores["means"][mode]["mae"] == pytest.approx(sum(errors) / 3)
        assert 0 <= scores["means"][mode]["dice"] <= 1
        assert (tmp_path / "run" / mode / "fold-1" / "slices.png").exists()
    assert "unimodal" in capsys.readouterr().out
