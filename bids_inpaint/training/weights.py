"""Weights of networks from checkpoints and from exported files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

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
        tensor.name.removesuffix("_half"): torch.from_numpy(
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
