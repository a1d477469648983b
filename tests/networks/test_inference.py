import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import write_card

from bids_inpaint.errors import InputError
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.networks import inpainting, registry, session, volumes
from bids_inpaint.networks.card import Filled
from bids_inpaint.networks.selection import rule_of
from bids_inpaint.space import WORKING_GRID


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(0)
    image = np.zeros((182, 218, 182), np.float32)
    image[40:140, 40:180, 40:140] = rng.uniform(0.2, 1.2, (100, 140, 100))
    mask = image > 0
    return image, mask, Scale(0.7)


def test_paper_sub_volumes_are_parities():
    image = np.random.default_rng(1).random((182, 218, 182)).astype(np.float32)
    channels = volumes.space_to_depth(image)
    assert channels.shape == (8, 91, 109, 91)
    assert (channels[6] == image[1::2, 1::2, 0::2]).all()
    assert (volumes.depth_to_space(channels) == image).all()


def test_padding_moves_nothing():
    channels = np.random.default_rng(2).random((8, 91, 109, 91)).astype(np.float32)
    padded, crop = volumes.pad_to_multiple(channels, 8)
    assert padded.shape == (8, 96, 112, 96)
    assert (padded[crop] == channels).all()


def test_network_sees_white_matter_as_one(toy_model, volume):
    """The toy lifts to 0.9 what is above half of the white-matter level, in any unit."""
    image, mask, _ = volume
    model = registry.find(str(toy_model))
    for unit in (1.0, 500.0):
        level = 0.7 * unit
        out = inpainting.inpaint(model, image * unit, mask, Scale(level)).image
        expected = np.where(image * unit > 0.5 * level, np.maximum(image * unit, 0.9 * level), image * unit)
        np.testing.assert_allclose(out[mask], expected[mask], rtol=1e-5)
        assert not out[~mask].any()


def test_threads_give_the_same_bytes(toy_model, volume):
    image, mask, scale = volume
    model = registry.find(str(toy_model))
    one, two = (
        inpainting.inpaint(model, image, mask, scale, runtime=session.Runtime("cpu", n)).image for n in (1, 2)
    )
    assert one.tobytes() == two.tobytes()


def test_the_mean_over_both_ways_mirrors_back(toy_model, volume, monkeypatch):
    """A network that moves everything to one side moves the mirror image to the other."""
    image, mask, _ = volume
    model = registry.find(str(toy_model))
    opened = []
    monkeypatch.setattr(volumes, "open_session", lambda *_: opened.append(1))
    monkeypatch.setattr(volumes, "run_network", lambda model, channels, *_: [np.roll(channels, 1, axis=1)])
    members, box = volumes.run_both_ways(model, image, mask)
    mean = np.mean(members, 0)[0]
    # one voxel of a sub-volume is two of the volume
    expected = (np.roll(image, 2, axis=0) + np.roll(image, -2, axis=0)) / 2
    np.testing.assert_allclose(mean[mask[box]], expected[mask], rtol=1e-6)
    assert len(opened) == 1


def test_a_network_without_sides_makes_the_same_of_both_ways(toy_model, volume):
    image, mask, _ = volume
    model = registry.find(str(toy_model))
    members, box = volumes.run_both_ways(model, image, mask, priors=())
    once = volumes.run_on_volume(model, image)[0]
    for (member,) in members:
        np.testing.assert_allclose(member[mask[box]], once[mask], rtol=1e-6)
    # what is wanted lies on one side alone
    left = mask & (np.arange(182) < 70)[:, None, None]
    members, box = volumes.run_both_ways(model, image, left)
    for (member,) in members:
        np.testing.assert_allclose(member[left[box]], once[left], rtol=1e-6)


def test_openvino_is_used_where_it_is_there_and_keeps_to_the_threads(monkeypatch):
    import onnxruntime

    present = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: present)
    (name, options), (last, _) = session.Runtime("cpu", 3).providers()
    assert [name, last] == present
    assert json.loads(options["load_config"])["CPU"]["INFERENCE_NUM_THREADS"] == "3"


def test_non_blind_networks_see_minus_one(toy_model, volume, tmp_path, monkeypatch):
    image, mask, scale = volume
    path = tmp_path / "masked.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, blind=False)
    model = registry.find(str(path))
    with pytest.raises(ValueError, match="needs a lesion mask"):
        inpainting.inpaint(model, image, mask, scale)
    lesions = np.zeros_like(mask)
    lesions[80:90, 80:90, 80:90] = True
    seen = {}

    def capture(model, channels, *_):
        seen["volume"] = volumes.depth_to_space(channels)
        return [channels]

    monkeypatch.setattr(volumes, "run_network", capture)
    inpainting.inpaint(model, image, mask, scale, lesions)
    # a voxel more on each of its faces, in 24 voxels or more of what is around it
    assert (seen["volume"] == -1).sum() == 1000 + 600
    start = 48
    assert (seen["volume"] == -1)[
        79 - start : 91 - start, 80 - start : 90 - start, 80 - start : 90 - start
    ].all()


def test_what_a_network_sees_is_around_the_brain_and_goes_back_where_it_was(volume, toy_model, monkeypatch):
    image, mask, _ = volume
    image, mask = (np.roll(v, 5, (0, 1, 2)) for v in (image, mask))
    sizes = []

    def half(model, channels, *_):
        sizes.append(channels.shape)
        return [channels[:8] / 2]

    monkeypatch.setattr(volumes, "run_network", half)
    out = inpainting.inpaint(registry.find(str(toy_model)), image, mask, Scale(1.0)).image
    np.testing.assert_allclose(out, image / 2, rtol=1e-6)
    # from 45 to 145 and 185; with 8 voxels more from 32 to 154 and 194; in halves, as multiples of 8
    assert sizes == [(8, 64, 88, 64)]


def test_second_pass_fills_what_was_found_and_nothing_else(toy_model, volume, tmp_path, monkeypatch):
    image, mask, scale = volume
    path = tmp_path / "second.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, blind=False)
    model = registry.find(str(path))
    found = np.zeros_like(mask)
    first = Filled(image)
    assert inpainting.fill_again(model, first, found, mask, scale) is first
    found[80:90, 80:90, 80:90] = True
    monkeypatch.setattr(volumes, "run_network", lambda model, channels, *_: [np.ones_like(channels)])
    out = inpainting.fill_again(model, first, found, mask, scale).image
    expected = np.where(inpainting.to_fill(found), (image + 0.7) / 2, image)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"software": "other"}, "not a bids_inpaint network by its card"),
        ({"intensity": "z"}, "not a bids_inpaint network by its card"),
        ({"sha256": "0"}, "another SHA-256"),
    ],
)
def test_foreign_networks(toy_model, tmp_path, change, reason):
    path = tmp_path / "net.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, **change)
    with pytest.raises(InputError, match=reason):
        registry.find(str(path))


def test_missing_models_and_cards(toy_model, tmp_path):
    with pytest.raises(InputError, match=r"neither shipped nor a file: use one of .*blind-unet"):
        registry.find("best-unet")
    path = tmp_path / "net.onnx"
    path.write_bytes(toy_model.read_bytes())
    with pytest.raises(InputError, match="has no card"):
        registry.find(str(path))
    path.with_suffix(".json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        registry.find(str(path))


def test_damaged_network(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a network")
    write_card(path)
    with pytest.raises(InputError, match="can't be loaded"):
        registry.find(str(path))


def test_network_of_another_shape(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 224, 224]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_card(path)
    with pytest.raises(InputError, match="must take 8 channels in three dimensions, and give 8"):
        registry.find(str(path))


def test_networks_with_weights_elsewhere_are_refused(toy_model, tmp_path):
    """An ONNX file may name any file of the machine as its weights."""
    import onnx

    network = onnx.load(toy_model)
    for tensor in network.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        onnx.external_data_helper.set_external_data(tensor, "../../../etc/passwd")
        tensor.ClearField("raw_data")
    path = tmp_path / "toy.onnx"
    path.write_bytes(network.SerializeToString())
    write_card(path)
    with pytest.raises(InputError, match="keeps weights in another file"):
        registry.find(str(path))


def test_networks_of_any_size_are_not_read(toy_model, tmp_path, monkeypatch):
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path)
    monkeypatch.setattr(registry, "LARGEST", 100)
    with pytest.raises(InputError, match="at most 1 GB"):
        registry.find(str(path))


def test_networks_with_operators_of_their_own_are_refused(toy_model, tmp_path):
    import onnx

    network = onnx.load(toy_model)
    network.graph.node[0].domain = "stranger"
    network.opset_import.append(onnx.helper.make_opsetid("stranger", 1))
    path = tmp_path / "toy.onnx"
    onnx.save(network, path)
    write_card(path)
    with pytest.raises(InputError, match="can't be loaded by ONNX Runtime"):
        registry.find(str(path))


def test_onnx_runtime_keeps_no_record_of_the_machine(tmp_path):
    """Nor sends one: from version 1.32 on it would, from a database in the home folder."""
    code = "from bids_inpaint.networks import registry; registry.find('brain', 'brain')"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], env=env | {"HOME": str(tmp_path)}, check=True)
    assert not any(tmp_path.rglob("*onnxruntime*"))


def test_shipped_networks_load():
    for name, task in [
        *((n, "inpaint") for n in registry.available()),
        ("brain", "brain"),
        ("joint", "flair"),
    ]:
        model = registry.find(name, task)
        assert model.card.more["scores"]
        assert model.card.more["data"]["train"]


@pytest.fixture
def telling_model(tmp_path) -> Path:
    """A network that leaves the image as it is and tells a lesion where it is below 0.5: 0.8, else 0.1."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape = [1, 8, "d", "h", "w"]
    numbers = {"half": 0.5, "surely": 0.7, "hardly": 0.1}
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["image"], ["inpainted"]),
            helper.make_node("Less", ["image", "half"], ["dark"]),
            helper.make_node("Cast", ["dark"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["mask", "surely"], ["more"]),
            helper.make_node("Add", ["more", "hardly"], ["probability"]),
        ],
        "telling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("inpainted", "probability")],
        [helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in numbers.items()],
    )
    path = tmp_path / "telling.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_a_network_tells_is_calibrated_and_lies_in_the_brain(telling_model, volume):
    image, mask, scale = volume
    told = {"slope": 2.0, "intercept": 0.5, "threshold": 0.6, "low": 0.2}
    write_card(telling_model, lesion_probability=told)
    model = registry.find(str(telling_model))
    image = np.where(mask, scale.white, 0).astype(np.float32)
    image[80:84, 90:94, 90:94] = 0.2 * scale.white
    filled = inpainting.inpaint(model, image, mask, Scale(scale.white))
    expected = [1 / (1 + np.exp(-(2 * np.log(p / (1 - p)) + 0.5))) for p in (0.8, 0.1)]
    dark = np.zeros_like(mask)
    dark[80:84, 90:94, 90:94] = True
    np.testing.assert_allclose(filled.probability[dark], expected[0], rtol=1e-5)
    np.testing.assert_allclose(filled.probability[mask & ~dark], expected[1], rtol=1e-5)
    assert not filled.probability[~mask].any()
    rule = rule_of(model.card, 10)
    assert (rule.kind, rule.threshold, rule.low) == ("probability", 0.6, 0.2)
    found = inpainting.found(filled, image, scale, mask, rule, WORKING_GRID)
    assert (found == dark).all()
    # a lesion below the smallest volume is none
    assert not inpainting.found(filled, image, scale, mask, rule_of(model.card, 65), WORKING_GRID).any()


def test_the_mirror_image_tells_how_sure_a_network_is(telling_model, volume):
    image, mask, scale = volume
    write_card(telling_model, lesion_probability={"threshold": 0.5, "low": 0.5})
    model = registry.find(str(telling_model))
    both = inpainting.inpaint(model, image, mask, scale, runtime=session.Runtime("cpu", mirror=True))
    once = inpainting.inpaint(model, image, mask, scale)
    # it has no sides
    np.testing.assert_allclose(both.image, once.image, rtol=1e-5)
    np.testing.assert_allclose(both.probability, once.probability, atol=1e-6)
    assert both.spread.max() < 1e-4 * scale.white
    assert both.doubt.max() < 1e-6
    assert once.spread is None
    assert once.doubt is None


def test_the_spread_of_two_passes_is_that_of_all_fillings(monkeypatch, toy_model, volume, tmp_path):
    """Of 2 and 4 in the first pass and 5 and 5 in the second: mean 4, variance (4 + 0 + 1 + 1) / 4."""
    image, mask, scale = volume
    one = np.ones_like(image)
    monkeypatch.setattr(inpainting, "inpaint", lambda *_: Filled(5 * one, spread=0 * one))
    first = Filled(3 * one, spread=one)
    out = inpainting.fill_again(registry.find(str(toy_model)), first, mask, mask, scale)
    assert (out.image == 4).all()
    np.testing.assert_allclose(out.spread, np.sqrt(6 / 4))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"slope": -1.0}, "not a bids_inpaint network by its card"),
        ({"threshold": 0.3, "low": 0.4}, "not a bids_inpaint network by its card"),
        ({"threshold": "x"}, "not a bids_inpaint network by its card"),
        ({"unknown": 1.0}, "not a bids_inpaint network by its card"),
        ({"threshold": 0.5, "low": 0.3}, "and give twice 8"),
    ],
)
def test_a_card_that_tells_too_much(toy_model, tmp_path, told, reason):
    """The toy tells no probability."""
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_model.read_bytes())
    write_card(path, lesion_probability=told)
    with pytest.raises(InputError, match=reason):
        registry.find(str(path))


def test_a_threshold_alone_is_that_of_the_difference():
    card = registry.find(registry.DEFAULT).card
    assert rule_of(card, 10).kind == "probability"
    assert rule_of(card, 10, None, 0.12) == Rule("difference", 0.12, 0.0, 10)
    assert rule_of(card, 10, "difference") == Rule("difference", card.threshold, 0.0, 10)
    # what is surely lesion can't be less sure than the rest of it
    assert rule_of(card, 10, "probability", 0.01) == Rule("probability", 0.01, 0.01, 10)
