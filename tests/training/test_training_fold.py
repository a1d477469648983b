import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.fold import fold, unfold


def trained(**architecture):
    """A network with statistics and weights far from where training starts."""
    torch.manual_seed(4)
    network = UNet(filters=3, levels=3, **architecture)
    for _ in range(3):
        network(torch.rand(2, network.inputs, 8, 12, 8) - 0.3)
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return network.eval()


@pytest.fixture
def volume():
    return torch.from_numpy(np.random.default_rng(1).random((1, 10, 16, 8, 12), np.float32)) - 0.2


def test_folded_network_computes_the_same(volume):
    network = trained(residual=True, gated=True, full_resolution=False, convolutions=2, priors=True)
    with torch.no_grad():
        expected, folded = network(volume), fold(network)(volume)
    assert torch.allclose(folded, expected, atol=1e-5)
    assert expected.std() > 0.01


def test_folded_full_resolution_output_differs_at_the_border_alone(volume):
    network = trained()
    volume = volume[:, :8]
    with torch.no_grad():
        expected, folded = network(volume), fold(network)(volume)
    inside = (..., *(slice(1, -1),) * 3)
    assert torch.allclose(folded[inside], expected[inside], atol=1e-5)
    assert expected[inside].std() > 0.01


@pytest.mark.parametrize("full_resolution", [False, True])
def test_unfolding_gives_the_weights_back(full_resolution):
    network = trained(full_resolution=full_resolution, convolutions=2)
    state = unfold(fold(network).state_dict())
    assert state.keys() == network.state_dict().keys()
    for name, expected in network.state_dict().items():
        assert torch.allclose(state[name], expected, atol=1e-5), name
