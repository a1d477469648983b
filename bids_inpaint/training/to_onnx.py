"""Networks as ONNX files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.fold import fold


def volumes_to_onnx(network: UNet, path: Path, folded: bool = True, tells: bool = False) -> None:
    """Export a network whose input is (1, C, D, H, W) of any size.

    Parameters
    ----------
    network : UNet
        Ready for inference.
    path : Path
        The ONNX file.
    folded : bool
        Whether to export it without its upsampling: see :mod:`bids_inpaint.training.fold`.
    tells : bool
        Whether the lesion probability of a gated network is its second output.
    """
    axes = {2: "depth", 3: "height", 4: "width"}
    network = fold(network) if folded else network
    outputs = ["inpainted", "probability"] if tells else ["inpainted"]
    torch.onnx.export(
        _Telling(network) if tells else network,
        (torch.zeros(1, network.inputs, 16, 16, 16),),
        str(path),
        input_names=["image"],
        output_names=outputs,
        dynamic_axes=dict.fromkeys(["image", *outputs], axes),
        opset_version=17,
        dynamo=False,
    )


class _Telling(nn.Module):
    """A gated network with its lesion probability as a second output, (N, 8, D, H, W)."""

    def __init__(self, network: UNet):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inpainted, logits = self.network.gated_output(x)
        return inpainted, torch.sigmoid(logits)


def slices_to_onnx(network: Architecture, path: Path, has_step: bool = False) -> None:
    """Export a network whose input is (N, C, H, W) of any size.

    Parameters
    ----------
    network : Architecture
        Ready for inference.
    path : Path
        The ONNX file.
    has_step : bool
        Whether its second input is the step of a diffusion model, (N,).
    """
    axes = {0: "batch", 2: "height", 3: "width"}
    size = 4 * network.multiple
    image = torch.zeros(1, network.inputs, size, size)
    with warnings.catch_warnings():
        # the checks of sizes in diffusers are not part of what is computed
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            (image, torch.zeros(1, dtype=torch.int64)) if has_step else (image,),
            str(path),
            input_names=["image", "step"] if has_step else ["image"],
            output_names=["answer"],
            dynamic_axes={"image": axes, "answer": axes},
            opset_version=17,
            dynamo=False,
        )


def halve(path: Path) -> None:
    """Store the large weights of an ONNX file as float16, cast to float32 when it is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 1000:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)
