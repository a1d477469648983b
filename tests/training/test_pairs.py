"""Pairs of T1w and FLAIR: what is stored, cut, checked and scored, and which blind network saw whom."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import write_card

torch = pytest.importorskip("torch")

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import inpainting, registry
from bids_inpaint.networks.card import Card
from bids_inpaint.networks.flair import as_inpainted, synthesise
from bids_inpaint.training.__main__ import main
from bids_inpaint.training.architectures.slice_unet import Joint
from bids_inpaint.training.campaign import configured, read_plan
from bids_inpaint.training.config import Config
from bids_inpaint.training.cross_validation import cross_validate
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.evaluate_flair import FlairScorer
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.joint import JointSynthesis, check_ranges
from bids_inpaint.training.paired_slices import GAP, SLICES, Pairs, Slab
from bids_inpaint.training.paired_validation import PairedValidation
from bids_inpaint.training.pairs import UNKNOWN
from bids_inpaint.training.stored_pairs import DRAWS, Stored, make_pairs, order
from bids_inpaint.training.strangers import Strangers

ONE = dict.fromkeys(DRAWS, 1)


def seeing(config, people=None, **network):
    """A configuration whose network sees more, of some people."""
    data = replace(config.data, train=people) if people else config.data
    return replace(config, network={**config.network, **network}, data=data)


def stored(config, cache, shapes, draws=ONE):
    """The pairs of the training subjects by their names."""
    orders = order(find_subjects(cache, config.data.train), Lesions.load(shapes), config, cache, draws)
    make_pairs(
        [one for of_subject in orders.values() for one in of_subject], template_priors(cache), cache, 1
    )
    return {name: [Stored.load(one.folder) for one in those] for name, those in orders.items()}


def own_network(toy_model, folder, train):
    """A blind network for person '01', by whom it learned from; what is bright becomes 0.9 at least."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(toy_model, folder / "01.onnx")
    write_card(folder / "01.onnx", data={"train": train})
    return str(folder)


def test_what_is_put_lies_at_its_place_and_nothing_beyond():
    volumes = torch.arange(2 * 4 * 5 * 6, dtype=torch.float16).view(2, 4, 5, 6)
    kept = Stored(volumes, (10, 20, 30))
    out = torch.zeros(2, 3, 4, 4)
    kept.put(out, (8, 22, 32))
    # of X from 8, Y from 22, Z from 32: two columns of X and a slice of Z lie beyond
    assert torch.equal(out[:, :2, 2:, :], volumes[:, 2:, :2, 2:6].float())
    assert not out[:, 2].any()
    assert not out[:, :, :2].any()
    far = torch.zeros(2, 3, 4, 4)
    kept.put(far, (100, 22, 32))
    assert not far.any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_sample_is_what_the_stored_pair_and_the_template_have_there(people, shapes, config, mirrored):
    config = seeing(config, ["ms_sub-01"], inpainter="blind-unet", probability=True)
    samples = Pairs(config, people, Lesions.load(shapes))
    assert len(samples.stored) == DRAWS["patients"]
    slab = Slab(2, (70, 72, 75), (1, -2, 0), mirrored)
    visible, flair, lesion, real = (t[0] for t in samples.make([slab]))
    assert real.all()
    assert visible.shape == (SLICES, 3 + 2 + 1 + 1, 32, 32)
    kept = samples.stored[2]
    x, y, z = (a - b for a, b in zip(slab.corner, kept.corner, strict=True))
    priors = template_priors(people)
    turn = (lambda v: v[::-1]) if mirrored else (lambda v: v)
    for i in range(SLICES):
        middle = z + 1 + i * GAP
        there = kept.volumes[:, :, x : x + 32, y : y + 32].float().numpy()
        for channel, slice_ in enumerate((middle - 1, middle, middle + 1)):
            assert (visible[i, channel].numpy() == turn(there[0, slice_])).all()
        for channel, prior in enumerate(priors):
            moved = prior[69 : 69 + 32, 74 : 74 + 32, 76 + i * GAP]
            assert np.allclose(visible[i, 3 + channel].numpy(), turn(moved))
        assert (visible[i, 5].numpy() == turn(there[3, middle])).all()
        assert (visible[i, 6].numpy() == turn(there[4, middle])).all()
        assert (flair[i, 0].numpy() == turn(there[1, middle])).all()
        assert (lesion[i, 0].numpy() == turn(there[2, middle])).all()
    assert lesion.any()


def test_a_batch_is_its_samples(people, shapes, config):
    samples = Pairs(config, people, Lesions.load(shapes), first=6)
    batch = next(samples.batches(3, 0))
    for i in range(3):
        for together, alone in zip(batch, samples.sample(6 + i), strict=True):
            assert torch.equal(together[i], alone)


def test_the_probability_that_is_seen_is_the_networks_own_whatever_its_calibration(people, shapes, config):
    (kept,) = stored(seeing(config, ["ms_sub-01"], inpainter="blind-unet", probability=True), people, shapes)[
        "ms_sub-01"
    ]
    t1w, _, _, healthy, probability = kept.volumes.float().numpy().transpose(0, 2, 3, 1)
    assert 0 <= probability.min() < probability.max() <= 1
    blind = registry.find("blind-unet")
    priors = [
        prior[tuple(slice(c, c + n) for c, n in zip(kept.corner, t1w.shape, strict=True))]
        for prior in template_priors(people)
    ]
    told = blind.card.lesion_probability
    filled = inpainting.inpaint(blind, t1w, t1w > 0, Scale(1.0), priors=priors)
    # stored in half precision, from a T1w in single precision
    assert np.abs(told.calibrate(probability.astype(float)) - filled.probability).max() < 0.02
    assert np.abs(healthy - filled.image).max() < 0.02
    seen = as_inpainted(blind, t1w, t1w > 0, Scale(1.0), priors, probability=True)
    recalibrated = replace(blind, card=replace(blind.card, lesion_probability=replace(told, slope=3.0)))
    again = as_inpainted(recalibrated, t1w, t1w > 0, Scale(1.0), priors, probability=True)
    assert all((a == b).all() for a, b in zip(seen, again, strict=True))
    assert np.allclose(told.calibrate(seen[1].astype(float)), filled.probability, atol=1e-5)


def test_a_patient_is_seen_by_the_network_that_learned_nothing_from_him(
    people, shapes, config, toy_model, tmp_path
):
    """Others, and images of the same label in another dataset from which it learned, are not."""
    config = seeing(config, ["ms_sub-01", "ms_sub-02"], inpainter="blind-unet")
    folder = own_network(toy_model, tmp_path / "without", ["ms_sub-02", "ds_sub-01"])
    config = replace(config, data=replace(config.data, without=folder))
    strangers = Strangers(config)
    assert str(strangers.of("ms_sub-01").path) == f"{folder}/01.onnx"
    assert strangers.of("ms_sub-02").shipped
    with pytest.raises(ValueError, match=r"01\.onnx learned from ds_sub-01"):
        strangers.of("ds_sub-01_ses-2")
    pairs = stored(config, people, shapes)
    for name, lifted in (("ms_sub-01", True), ("ms_sub-02", False)):
        t1w, _, _, healthy = pairs[name][0].volumes.float()
        grey = (t1w > 0.52) & (t1w < 0.88)
        assert grey.sum() > 1000
        assert bool((healthy[grey] > 0.89).all()) == lifted, name


def test_the_probability_of_those_whom_a_network_learned_from_is_not_learned_from(people, shapes, config):
    """It is surer of them than of strangers. Healthy people get new lesions."""
    learned = people / "ms_sub-openms26"
    if not learned.exists():
        learned.symlink_to(people / "ms_sub-01")
    config = seeing(config, ["ms_sub-openms26"], inpainter="blind-unet", probability=True)
    with pytest.raises(
        ValueError, match=r"blind-unet learned from ms_sub-openms26.*openms26\.onnx.*--without"
    ):
        Pairs(config, people, Lesions.load(shapes))
    with pytest.raises(ValueError, match="learned from ms_sub-openms26"):
        cross_validate(seeing(config, probability=False), people, shapes, people / "run")
    learned.unlink()


def test_an_old_card_sees_no_probability_and_a_new_one_needs_a_network_that_tells_it(tmp_path):
    shipped = registry.find("joint", "flair")
    assert not shipped.card.inpainter_probability
    assert shipped.engine.signature(shipped.card).channels == (6, 2)
    content = json.loads(shipped.path.with_suffix(".json").read_text())
    new = Card.read(content | {"inpainter_probability": True})
    assert shipped.engine.signature(new).channels == (7, 2)
    for wrong in ({"inpainter_probability": 1}, {"inpainter_probability": True, "inpainter": None}):
        with pytest.raises(ValueError, match="of another kind"):
            Card.read(content | wrong)
    path = tmp_path / "joint.onnx"
    shutil.copy(shipped.path, path)
    path.with_suffix(".json").write_text(json.dumps(content | {"inpainter_probability": True}))
    with pytest.raises(InputError, match="must take slices in two dimensions"):
        registry.find(str(path), "flair")
    silent = replace(shipped.inpainter, card=replace(shipped.inpainter.card, lesion_probability=None))
    image = np.ones((16, 16, 16), np.float32)
    with pytest.raises(ValueError, match="tells no lesion probability"):
        as_inpainted(silent, image, image > 0, Scale(1.0), [image, image], probability=True)
    with pytest.raises(ValueError, match="name one"):
        Joint([4, 8], probability=True)


@pytest.mark.parametrize(
    ("channel", "value", "name"),
    [(0, -1, "T1w"), (3, 2, "template"), (5, 20, "inpainted T1w"), (6, 1.5, "lesion probability"),
     ("flair", -2, "FLAIR"), ("lesion", 2, "lesion mask"), ("flair", 0, "no brain")],
)  # fmt: skip
def test_samples_out_of_range_are_refused_before_anything_is_learned(config, channel, value, name):
    config = seeing(config, inpainter="blind-unet", probability=True)
    visible, flair = torch.full((2, SLICES, 7, 8, 8), 0.5), torch.ones(2, SLICES, 1, 8, 8)
    lesion = torch.full((2, SLICES, 1, 8, 8), UNKNOWN)
    real = torch.ones(2, SLICES, 1, 1, 1)
    check_ranges([visible, flair, lesion, real], config)
    if isinstance(channel, int):
        visible[1, 2, channel, 3, 3] = value
    elif name == "no brain":
        flair[:] = 0
    else:
        {"flair": flair, "lesion": lesion}[channel][1, 0, 0, 3, 3] = value
    with pytest.raises(ValueError, match=name):
        check_ranges([visible, flair, lesion, real], config)


@pytest.mark.parametrize("absolute", [False, True])
def test_made_flair_teach_how_a_flair_looks_unless_real_ones_alone_do(config, people, shapes, absolute):
    """A network whose FLAIR is 0 everywhere, on a real FLAIR of 2 and a made one of 4."""
    flair = torch.full((2, 1, 1, 8, 8), 2.0)
    flair[1] = 4
    t1w, lesion, real = torch.rand(2, 1, 5, 8, 8), torch.zeros(2, 1, 1, 8, 8), torch.ones(2, 1, 1, 1, 1)
    real[1] = 0

    class Nothing(torch.nn.Module):
        generator = True

        def forward(self, x):
            return torch.zeros(len(x), 2, 8, 8)

    losses = []
    for alone in (True, False):
        schedule = replace(config.schedule, absolute=absolute, real_flair=alone)
        task = JointSynthesis(replace(config, schedule=schedule), people, shapes)
        losses.append(float(task.loss(Nothing(), [t1w, flair, lesion, real])[0]))
    wanted = (2, 3) if absolute else (4, 10)
    # what the lesions cost is the same
    assert losses[1] - losses[0] == pytest.approx(wanted[1] - wanted[0], abs=1e-4)
    assert losses[0] - wanted[0] == pytest.approx(float(torch.tensor(2.0).log()) + 1 - 1 / 65, abs=1e-4)


class _Copying(torch.nn.Module):
    """Takes the T1w for the FLAIR, and dark tissue for lesions."""

    multiple = 8

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, x):
        t1w = x[:, 1:2]
        return torch.cat([t1w, torch.where((t1w > 0) & (t1w < 0.75), 5.0, -5.0)], 1)


@pytest.mark.parametrize("generator", [True, None])
def test_validation_scores_are_those_of_the_whole_brain(people, shapes, config, tmp_path, generator):
    patient = tmp_path / "ms_sub-03"
    patient.mkdir()
    for name in ("image.npy", "levels.json", "flair.npy"):
        (patient / name).symlink_to(people / "ms_sub-01" / name)
    for name in ("ms_sub-01", "map", "template"):
        (tmp_path / name).symlink_to(people / name)
    names = ["ms_sub-01", "map", "ms_sub-03"]
    config = replace(config, data=replace(config.data, train=["toy_sub-01"], validation=names))
    validation = PairedValidation(config, tmp_path, shapes, "cpu")
    assert [kind for kind, _ in validation.cases] == ["label maps", "patients", "unmarked"]
    scores = validation.scores(_Copying(generator))
    t1w, flair, lesion = validation.cases[1][1].volumes.float().numpy()
    brain = (t1w > 0) & (flair > 0)
    found = (t1w > 0) & (t1w < 0.75)
    both = (found & (lesion > 0)).sum()
    assert scores["patients_dice"] == pytest.approx(2 * both / (found.sum() + lesion.sum()), abs=2e-3)
    assert scores["patients_fpr"] == pytest.approx(1 - both / found.sum(), abs=2e-3)
    assert scores["patients_fnr"] == pytest.approx(1 - both / lesion.sum(), abs=2e-3)
    assert {k for k in scores if k.startswith("unmarked")} == ({"unmarked_mae"} if generator else set())
    if generator:
        mae = np.abs(t1w - flair)[brain].mean() / flair[brain].std()
        assert scores["patients_mae"] == pytest.approx(mae, rel=0.01)
        dice = (scores["patients_dice"] + scores["label_maps_dice"]) / 2
        error = (scores["patients_mae"] + scores["label_maps_mae"] + scores["unmarked_mae"]) / 3
        assert scores["score"] == pytest.approx(dice - error / 4)


def test_a_left_out_patient_is_scored_with_what_a_stranger_to_him_sees(
    people, shapes, config, toy_model, tmp_path, monkeypatch
):
    config = seeing(config, inpainter="blind-unet")
    checkpoint = fit(config, JointSynthesis(config, people, shapes), tmp_path / "run", threads=1, workers=0)
    exported = str(export(config, checkpoint, tmp_path / "toy.onnx", None, 0.5))
    folder = own_network(toy_model, tmp_path / "without", [])
    config = replace(config, data=replace(config.data, without=folder))
    scorer = FlairScorer(config, people, shapes, exported, 1)
    used = []

    def spying(model, *args):
        used.append(model.inpainter.path.name)
        return synthesise(model, *args)

    monkeypatch.setattr("bids_inpaint.training.evaluate_flair.synthesise", spying)
    for subject in find_subjects(people, ["ms_sub-01", "ms_sub-02"]):
        monkeypatch.setattr("bids_inpaint.imaging.intensity.Scale.measure", lambda *_: Scale(1.0))
        scorer.score(subject)
    assert used == ["01.onnx", "blind-unet.onnx"]


def test_a_plan_gives_each_run_its_mode_and_its_blind_networks_and_its_pairs_are_made_ahead(
    people, shapes, config, toy_model, tmp_path, capsys
):
    folder = own_network(toy_model, tmp_path / "without", [])
    seeing(config, ["ms_sub-01", "ms_sub-02"], inpainter="blind-unet").save(tmp_path / "toy.toml")
    plan = tmp_path / "plan.toml"
    plan.write_text("""
[[network]]
name = "one"
config = "toy.toml"
network = {mode = "unimodal"}
[[network]]
name = "other"
config = "toy.toml"
after = "one"
network = {mode = "unimodal"}
leave_out = ["ms_sub-01"]
""")
    one, other = (configured(entry, plan, tmp_path, tmp_path / "without") for entry in read_plan(plan))
    assert (one.network["mode"], one.network["context"]) == ("unimodal", 1)
    assert other.data.validation == ["ms_sub-01"]
    assert one.data.without == other.data.without == folder
    other.save(tmp_path / "saved.toml")
    assert Config.load(tmp_path / "saved.toml").data == other.data
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("ms_sub-01", "ms_sub-02", "template"):
        (cache / name).symlink_to(people / name)
    options = ["--lesions", str(shapes), "--without", folder, "--nprocs", "1"]
    assert main(["pairs", str(plan), str(cache), *options]) == 0
    # four of each patient, and one of him who is validated on
    assert "9 pairs stored" in capsys.readouterr().out
    made = sorted(p.parent.relative_to(cache) for p in cache.glob("pairs-*/*/corner.json"))
    assert len(made) == 9
    Pairs(other, cache, Lesions.load(shapes, other.data.leave_out_patients))
    PairedValidation(other, cache, shapes, "cpu")
    assert made == sorted(p.parent.relative_to(cache) for p in cache.glob("pairs-*/*/corner.json"))
    # the same ones for the configuration alone
    assert main(["pairs", str(tmp_path / "toy.toml"), str(cache), *options]) == 0
    assert "8 pairs stored" in capsys.readouterr().out
    assert made == sorted(p.parent.relative_to(cache) for p in cache.glob("pairs-*/*/corner.json"))
    assert main(["pairs", "unet", str(cache), *options]) != 0
    assert "learns from no pairs" in capsys.readouterr().err
