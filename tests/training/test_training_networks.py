import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bids_inpaint.networks import volumes
from bids_inpaint.training.architectures.unet import UNet, space_to_depth
from bids_inpaint.training.patches import sub_volumes
from bids_inpaint.training.to_onnx import volumes_to_onnx


def test_paper_architecture():
    network = UNet()
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
    network = UNet(filters=2).eval()
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


def test_a_residual_network_fills_with_white_matter_to_begin_with():
    network = UNet(4, 3, residual=True, gated=True, full_resolution=False).eval()
    torch.nn.init.zeros_(network.low.weight)
    torch.nn.init.zeros_(network.low.bias)
    x = torch.rand(1, 8, 8, 8, 8)
    masked = torch.rand(x.shape) < 0.1
    out = network(torch.where(masked, volumes.MASKED, x))
    assert torch.equal(out, torch.where(masked, 1.0, x))


def test_whole_volumes_are_padded_as_at_inference():
    volume = torch.rand(1, 1, 182, 218, 182)
    padded, crop = volumes.pad_to_multiple(volumes.space_to_depth(volume[0, 0].numpy()), 8)
    ours = sub_volumes(volume, 8)
    assert ours.shape == (1, 8, 96, 112, 96)
    assert (ours[0].numpy() == padded).all()
    assert (volumes.depth_to_space(ours[0].numpy()[crop]) == volume[0, 0].numpy()).all()


def test_both_space_to_depths_agree():
    volume = np.random.default_rng(0).random((8, 6, 4)).astype(np.float32)
    ours = volumes.space_to_depth(volume)
    assert (space_to_depth(torch.from_numpy(volume)[None, None])[0].numpy() == ours).all()


def test_onnx_takes_any_size(tmp_path):
    import onnxruntime

    volumes_to_onnx(UNet(filters=2).eval(), tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"))
    for shape in ((16, 16, 16), (24, 8, 32)):
        x = np.zeros((1, 8, *shape), np.float32)
        assert session.run(None, {"image": x})[0].shape == x.shape
