"""A checkpoint as ONNX with its card."""

from __future__ import annotations

import hashlib
import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bids_inpaint import __version__
from bids_inpaint.io.files import replacing
from bids_inpaint.networks.registry import find
from bids_inpaint.training.config import Config
from bids_inpaint.training.diffusion import Denoiser
from bids_inpaint.training.fit import load_average
from bids_inpaint.training.fold import fold
from bids_inpaint.training.joint import Joint
from bids_inpaint.training.networks import UNet

LICENCES = {
    "inpaint": {
        "ds002748": "CC0, doi:10.18112/openneuro.ds002748.v1.0.5",
        "lesions/patients": "CC BY 4.0, Lesjak et al. 2018, doi:10.1007/s12021-017-9348-7",
        "lesions/shapes.npz": "Apache-2.0, CSIM Slicer-LesionSimulatorExtension",
    },
    "brain": {"head_labels": "Apache-2.0, SynthSeg (Billot et al. 2023)"},
}
LICENCES["flair"] = {
    **LICENCES["inpaint"],
    **LICENCES["brain"],
    "ms": "CC BY 4.0, Lesjak et al. 2018, doi:10.1007/s12021-017-9348-7, and MSLesSeg (Guarnera et al. 2025)",
}
ARCHITECTURES = {
    "unet": "UNet (Manjón 2020)",
    "ddpm": "diffusers.UNet2DModel (Durrer 2023)",
    "ip-medgan": "CasNet (Armanious 2019)",
    "joint": "two SliceUNets (Li 2018, Orbes-Arteaga 2018)",
}
#: How a diffusion model is sampled if nothing else is asked for.
SAMPLING = {"sampler": "ddim", "steps": 2}
INTENDED_USE = {
    "inpaint": "Research on T1w brain MRI of adults with white-matter lesions; not diagnosis.",
    "brain": "Brain masks of whole-head MRI for the steps of bids_inpaint; not diagnosis.",
    "flair": "Research on T1w brain MRI of adults with white-matter lesions and no FLAIR; not diagnosis.",
}


def export(config: Config, checkpoint: Path, output: Path, scores: Path | None, threshold: float) -> Path:
    """Write ``NAME.onnx`` and ``NAME.json``.

    Weights are stored in half precision and computed with in single precision.

    Parameters
    ----------
    config : Config
    checkpoint : Path
    output : Path
        The ONNX file.
    scores : Path, optional
        JSON of ``evaluate``, to keep in the card.
    threshold : float
        Default λ of lesion maps made with this network.
    """
    network = load_average(config, checkpoint)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as part:
        if isinstance(network, UNet):
            to_onnx(network, part)
        else:
            of_slices_to_onnx(network, part)
        halve(part)
    card = {
        "software": "bids_inpaint",
        "software_version": __version__,
        "name": config.name,
        "task": config.task,
        "engine": config.engine,
        "blind": config.blind,
        "intensity": config.intensity,
        "multiple": int(network.multiple),  # type: ignore[arg-type]
        "priors": bool(config.network.get("priors", False)),
        **({"lesion_threshold": threshold} if config.task == "inpaint" else {}),
        **({"edge": config.fit.patch} if config.engine in ("ddpm", "ip-medgan") else {}),
        **({"mirror": True} if getattr(network, "mirror", False) else {}),
        **({"neighbours": near} if (near := getattr(network, "neighbours", [])) else {}),
        **({"prediction": network.prediction} if isinstance(network, Denoiser) else {}),
        **({"context": network.context} if isinstance(network, Joint) else {}),
        **({"inpainter": name} if (name := getattr(network, "inpainter", "")) else {}),
        **({"inpainter_sha256": find(name).sha256} if name else {}),
        **({"sampling": SAMPLING} if config.engine == "ddpm" else {}),
        "architecture": {"type": ARCHITECTURES[config.engine], **config.network},
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": datetime.now(UTC).date().isoformat(),
        "steps": int(state["step"]),
        "command": f"python -m bids_inpaint.training fit {config.name} CACHE RUN"
        + (" --lesions LESIONS" if config.task != "brain" else "")
        # of a path, what says nothing of the machine
        + (f" --start {Path(*Path(start).parts[-2:])}" if (start := state.get("start")) else ""),
        "data": {
            "train": config.data.train,
            "validation": config.data.validation,
            "test": config.data.test,
            "licences": LICENCES[config.task],
        },
        "scores": json.loads(scores.read_text()) if scores else {},
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE[config.task],
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
    }
    output.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return output


def to_onnx(network: UNet, path: Path, folded: bool = True) -> None:
    """Export a network whose input is (1, C, D, H, W) of any size, without its upsampling unless told so."""
    axes = {2: "depth", 3: "height", 4: "width"}
    torch.onnx.export(
        fold(network) if folded else network,
        (torch.zeros(1, network.inputs, 16, 16, 16),),
        str(path),
        input_names=["image"],
        output_names=["inpainted"],
        dynamic_axes={"image": axes, "inpainted": axes},
        opset_version=17,
        dynamo=False,
    )


def of_slices_to_onnx(network: nn.Module, path: Path) -> None:
    """Export a network whose input is (N, C, H, W) of any size, and a step if it is a diffusion model."""
    axes = {0: "batch", 2: "height", 3: "width"}
    size = 4 * int(network.multiple)  # type: ignore[arg-type]
    steps = isinstance(network, Denoiser)
    image = torch.zeros(1, int(network.inputs), size, size)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # the checks of sizes in diffusers are not part of what is computed
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            (image, torch.zeros(1, dtype=torch.int64)) if steps else (image,),
            str(path),
            input_names=["image", "step"] if steps else ["image"],
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
