"""Campaigns within a time budget, and caches in pieces."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from torch.optim.swa_utils import AveragedModel

from bids_inpaint.training import campaign as campaigns
from bids_inpaint.training.__main__ import main
from bids_inpaint.training.config import Config, Data
from bids_inpaint.training.data import Subject, template_priors
from bids_inpaint.training.engines import build
from bids_inpaint.training.export import export
from bids_inpaint.training.fit import fit
from bids_inpaint.training.inpainting import Inpainting
from bids_inpaint.training.packing import decode, encode, pack, unpack
from bids_inpaint.training.weights import load_average

GATED = (
    TOY.replace("full_resolution = false", "full_resolution = false\ngated = true\npriors = true")
    .replace("validation = []", 'validation = ["toy_sub-02"]')
    .replace('train = ["toy_sub-01", "toy_sub-02"]', 'train = ["toy_sub-01"]')
)
PLAN = """
[[network]]
name = "first"
config = "toy.toml"
share = 2.0
[[network]]
name = "second"
config = "toy.toml"
after = "first"
fit = {batch = 1}
[[network]]
name = "other"
config = "toy.toml"
synthesis = {mix = {singles = 1.0}}
"""


def test_a_plan_is_trained_in_its_time_and_goes_on_where_it_was(cache, shapes, tmp_path, capsys):
    (tmp_path / "toy.toml").write_text(GATED.format(steps=100, blind="true"))
    (tmp_path / "plan.toml").write_text(PLAN)
    command = ["campaign", *map(str, (tmp_path / "plan.toml", cache, tmp_path / "runs"))]
    command += [
        "--lesions",
        str(shapes),
        "--minutes",
        "0.5",
        "--threads",
        "1",
        "--workers",
        "0",
        "--jobs",
        "2",
    ]
    start = time.monotonic()
    assert main(command) == 0
    # starting, painting and scoring whole brains of toys takes more than training them
    assert time.monotonic() - start < 300
    for name in ("first", "second", "other"):
        rows = [
            json.loads(r) for r in (tmp_path / "runs" / name / "validation.jsonl").read_text().splitlines()
        ]
        assert rows[-1]["step"] > 0
        assert {"parametric_gain", "field_gain", "parametric_dice", "healthy_false_ml", "score"} <= set(
            rows[-1]
        )
        assert (tmp_path / "runs" / name / "best.pt").exists()
    own = Config.load(tmp_path / "runs" / "second" / "config.toml")
    assert own.schedule.batch == 1
    assert own.schedule.start == str(tmp_path / "runs" / "first" / "checkpoint.pt")
    assert Config.load(tmp_path / "runs" / "other" / "config.toml").synthesis.mix == {"singles": 1.0}
    before = torch.load(tmp_path / "runs" / "first" / "checkpoint.pt", weights_only=True)["step"]
    assert main(command) == 0
    assert torch.load(tmp_path / "runs" / "first" / "checkpoint.pt", weights_only=True)["step"] == before


def test_what_is_left_out_is_validated_on(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.format(steps=4, blind="true"))
    entry = campaigns.Entry("x", "toy.toml", leave_out=["toy_sub-02"])
    config = campaigns.configured(entry, tmp_path / "plan.toml", tmp_path)
    assert config.data.train == ["toy_sub-01"]
    assert config.data.validation == ["toy_sub-02"]
    assert config.data.leave_out_patients == ["02"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('name = "second"', "is there twice"),
        ('after = "first"', "starts from what is not before it"),
        ("share = 2.0", "the keys are"),
    ],
)
def test_plans_that_are_none_are_refused(change, sentence, tmp_path):
    wrong = {"name": 'name = "first"', "after": 'after = "other"', "share": "shares = 2.0"}
    (tmp_path / "plan.toml").write_text(PLAN.replace(change, wrong[change.split()[0]]))
    with pytest.raises(ValueError, match=sentence):
        campaigns.read_plan(tmp_path / "plan.toml")


def test_a_cache_survives_its_packing(cache, tmp_path):
    names = ["toy_sub-01", "toy_sub-02"]
    paths = pack(cache, names, tmp_path / "packs", steps=256, largest=1_000_000, nprocs=1)
    assert len(paths) > 1
    # another pack holds the template, too
    paths += pack(cache, names[:1], tmp_path / "other", nprocs=1)
    assert unpack(paths, tmp_path / "again", nprocs=2) == 2
    for name in names:
        one, two = (Subject(folder / name) for folder in (cache, tmp_path / "again"))
        assert np.abs(np.asarray(one.image, np.float32) - two.image).max() <= 0.5 / 256 + 1e-3
        assert ((one.image > 0) == (two.image > 0)).all()
        assert one.grey_level == two.grey_level
    for one, two in zip(template_priors(cache), template_priors(tmp_path / "again"), strict=True):
        assert np.abs(one - two).max() < 0.003
    # what is there stays, and is not written again
    assert unpack(paths, tmp_path / "again", nprocs=1) == 0
    (tmp_path / "none.zip").write_text("")
    with pytest.raises(ValueError, match="is no pack of a cache"):
        unpack([tmp_path / "none.zip"], tmp_path / "again")


def test_coding_loses_nothing_but_the_rounding():
    rng = np.random.default_rng(0)
    for volume in (
        rng.random((9, 8, 7)) < 0.2,
        rng.integers(0, 256, (5, 6, 7)).astype(np.uint8),
        np.zeros((4, 4, 4), bool),
    ):
        out = decode(encode(volume, 64))
        assert out.dtype == volume.dtype
        assert (out == volume).all()
    image = (rng.random((9, 8, 7)) * (rng.random((9, 8, 7)) < 0.5)).astype(np.float16)
    image[0, 0, 0] = 0.0001
    out = decode(encode(image, 64))
    assert ((out > 0) == (image > 0)).all()
    assert np.abs(out.astype(float) - image)[image > 0.01].max() <= 0.5 / 64 + 1e-3


def test_weights_between_two_runs_are_written_and_exported(tmp_path, capsys):
    (tmp_path / "toy.toml").write_text(GATED.format(steps=4, blind="true"))
    config = Config.load(tmp_path / "toy.toml")
    networks = [build(config) for _ in range(2)]
    for name, network in zip("ab", networks, strict=True):
        average = AveragedModel(network, use_buffers=True).state_dict()
        torch.save({"average": average, "step": 3, "start": ""}, tmp_path / f"{name}.pt")
    files = [str(tmp_path / f"{name}.pt") for name in ("a", "b", "mixed")]
    assert main(["mix", *files, "--share", "0.25"]) == 0
    mixed = load_average(config, tmp_path / "mixed.pt").state_dict()
    for key, value in networks[0].state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * value + 0.25 * networks[1].state_dict()[key]
            assert torch.allclose(mixed[key], expected, atol=1e-6)
    path = export(config, tmp_path / "mixed.pt", tmp_path / "toy.onnx", None, 0.1)
    card = json.loads(path.with_suffix(".json").read_text())
    assert "mix" in card["command"]
    assert "--share 0.25" in card["command"]
    assert set(card["data"]["licences"]) == {"lesions/patients", "lesions/shapes.npz"}
    assert main(["mix", *files, "--share", "2"]) == 1
    assert "0 to 1" in capsys.readouterr().err


def test_runs_start_and_go_on_from_what_they_say_alone(cache, shapes, tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.format(steps=2, blind="true"))
    config = Config.load(tmp_path / "toy.toml")
    other = replace(config, data=replace(config.data, train=["toy_sub-02"]))
    fit(config, Inpainting(config, cache, shapes), tmp_path / "run", threads=1, workers=0)
    with pytest.raises(ValueError, match="of a run with other subjects, samples or network"):
        fit(other, Inpainting(other, cache, shapes), tmp_path / "run", threads=1, workers=0)
    started = replace(config, schedule=replace(config.schedule, start="blind-unet", start_sha256="00"))
    with pytest.raises(ValueError, match="starts from the network with SHA-256 00"):
        fit(started, Inpainting(started, cache, shapes), tmp_path / "other", threads=1, workers=0)


def test_whom_nobody_has_cannot_be_left_out(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.format(steps=4, blind="true"))
    entry = campaigns.Entry("x", "toy.toml", leave_out=["toy_sub-3"])
    with pytest.raises(ValueError, match=r"leaves out toy_sub-3, whom toy\.toml doesn't have"):
        campaigns.configured(entry, tmp_path / "plan.toml", tmp_path)
    entry = campaigns.Entry("x", "toy.toml", fit={"rate": 1})
    with pytest.raises(ValueError, match=r"x: .*'rate'"):
        campaigns.configured(entry, tmp_path / "plan.toml", tmp_path)


def test_patients_who_are_learned_from_lend_no_lesions_to_a_test():
    config = Config.load("blind-unet")
    assert "ms_sub-openms26" in config.data.train
    assert config.data.lenders == ["openms30", "openms12"]
    assert Config.load("unet").data.lenders == ["openms26", "openms30", "openms12"]


def test_all_images_of_a_person_are_one_person():
    data = Config.load("blind-unet").data
    trained = replace(data, train=["ms_sub-openms30_ses-2"])
    assert trained.lenders == ["openms26", "openms12"]


def test_all_images_of_a_person_are_left_out():
    data = Data(["ms_sub-1_ses-1", "ms_sub-1_ses-2", "ms_sub-2"], ["a_sub-1"], ["a_sub-2"], ["9"])
    left = data.leaving_out(["ms_sub-1_ses-1"], "test")
    assert left == Data(["ms_sub-2"], ["a_sub-1"], ["a_sub-2", "ms_sub-1_ses-1"], ["9", "1"])
    again = left.leaving_out(["ms_sub-1_ses-1"], "validation")
    assert again.validation == ["a_sub-1", "ms_sub-1_ses-1"]
    assert again.test == ["a_sub-2"]
    assert again.leave_out_patients == ["9", "1"]
