"""Weights of networks from checkpoints and from exported files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from bids_inpaint.io.files import replacing
from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.config import Config
from bids_inpaint.training.engines import build
from bids_inpaint.training.fold import unfold


def load_average(config: Config, checkpoint: Path) -> Architecture:
    """The network of a checkpoint with its averaged weights, ready for inference."""
    average = AveragedModel(build(config), use_buffers=True)
    average.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["average"])
    network = average.module.eval()
    assert isinstance(network, Architecture)
    return network


def mix(one: Path, other: Path, share: float, output: Path) -> Path:
    """Write a checkpoint with weights between those of two, of which one went on from the other.

    What the second learned is kept, and most of what it forgot comes back (Wortsman et al. 2022,
    doi:10.1109/CVPR52688.2022.00780).

    Parameters
    ----------
    one, other : Path
        Checkpoints of one architecture.
    share : float
        Of the other, 0-1.
    output : Path
        The checkpoint to write; export takes it, but no run goes on from it.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    ValueError
        If the share is none, or the architectures differ.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share} is none: 0 to 1")
    first, second = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
    weights = [state["average"] for state in (first, second)]
    if {k: v.shape for k, v in weights[0].items()} != {k: v.shape for k, v in weights[1].items()}:
        raise ValueError(f"{one} and {other} have other architectures")
    mixed = {
        key: torch.lerp(value, weights[1][key], share) if value.is_floating_point() else value
        for key, value in weights[0].items()
    }
    with replacing(output) as part:
        torch.save({**second, "network": {}, "average": mixed, "mixed": [str(one), share]}, part)
    return output


def load_exported(network: Architecture, path: Path) -> None:
    """Give a network of volumes the weights of one that was exported with the same architecture.

    A network that sees more channels than the exported one begins by not looking at them.

    Parameters
    ----------
    network : Architecture
    path : Path
        ONNX file.

    Raises
    ------
    ValueError
        If the architecture is another.
    """
    import onnx

    state = {
        # of a network that tells its probability, names begin with what holds it
        tensor.name.removeprefix("network.").removesuffix("_half"): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in onnx.load(path).graph.initializer
    }
    state = unfold(state)
    for name, weight in network.state_dict().items():
        if name in state and weight.ndim == 5 and (more := weight.shape[1] - state[name].shape[1]) > 0:
            state[name] = functional.pad(state[name], (0, 0, 0, 0, 0, 0, 0, more))
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} has another architecture: {error}") from None
    missing = [k for k in keys.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or keys.unexpected_keys:
        raise ValueError(
            f"{path} has another architecture: {', '.join([*missing, *keys.unexpected_keys][:3])}"
        )
