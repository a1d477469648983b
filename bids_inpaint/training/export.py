"""A checkpoint as ONNX with its card."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bids_inpaint import __version__
from bids_inpaint.io.files import replacing
from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.config import Config
from bids_inpaint.training.engines import engine_of, task_type
from bids_inpaint.training.to_onnx import halve
from bids_inpaint.training.weights import load_average

#: Licences of lesion shapes and label maps, by task.
LICENCES = {
    "inpaint": {
        "lesions/patients": "CC BY 4.0, Lesjak et al. 2018, doi:10.1007/s12021-017-9348-7",
        "lesions/shapes.npz": "Apache-2.0, CSIM Slicer-LesionSimulatorExtension",
    },
    "brain": {"head_labels": "Apache-2.0, SynthSeg (Billot et al. 2023)"},
}
LICENCES["flair"] = LICENCES["inpaint"] | LICENCES["brain"]
#: Licences of datasets, by the beginning of their subjects' names.
DATASETS = {
    "ds002748": "CC0, doi:10.18112/openneuro.ds002748.v1.0.5",
    "ds000011": "PDDL, OpenNeuro ds000011",
    "ms": "CC BY 4.0, Lesjak et al. 2018, doi:10.1007/s12021-017-9348-7, and MSLesSeg (Guarnera et al. 2025)",
}
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

    Returns
    -------
    Path
        The ONNX file.
    """
    network, engine = load_average(config, checkpoint), engine_of(config)
    use = engine.card(config, network)
    tells = {"tells": True} if "lesion_probability" in use else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as part:
        engine.to_onnx(network, part, **tells)
        halve(part)
    card = {
        **_use(config, network, threshold),
        **use,
        **_origin(config, network, checkpoint),
        "scores": _scores(scores) if scores else {},
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE[config.task],
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
    }
    output.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return output


def _use(config: Config, network: Architecture, threshold: float) -> dict[str, Any]:
    """What the card says of how to use a network."""
    return {
        "software": "bids_inpaint",
        "software_version": __version__,
        "name": config.name,
        "task": config.task,
        "engine": config.engine,
        "blind": config.blind,
        "intensity": config.intensity,
        "multiple": network.multiple,
        "priors": bool(config.network.get("priors", False)),
        **({"lesion_threshold": threshold} if config.task == "inpaint" else {}),
    }


def _origin(config: Config, network: Architecture, checkpoint: Path) -> dict[str, Any]:
    """What the card says of where a network comes from."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    command = f"python -m bids_inpaint.training fit {config.name} CACHE RUN"
    if task_type(config).needs_lesions:
        command += " --lesions LESIONS"
    if start := state.get("start"):
        # of a path, what says nothing of the machine
        command += f" --start {Path(*Path(start).parts[-2:])}"
    if mixed := state.get("mixed"):
        one, share = mixed
        command += f"; mix {Path(*Path(one).parts[-2:])} RUN/checkpoint.pt --share {share}"
    return {
        "architecture": {"type": engine_of(config).description, **config.network},
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": datetime.now(UTC).date().isoformat(),
        "steps": int(state["step"]),
        "command": command,
        "data": {
            "train": config.data.train,
            "validation": config.data.validation,
            "test": config.data.test,
            "licences": {
                **{name: licence for name, licence in DATASETS.items() if _trains_on(config, name)},
                **LICENCES[config.task],
            },
        },
    }


def _scores(path: Path) -> dict[str, Any]:
    """What `evaluate` wrote, but for the λ that these subjects would choose: it is no result."""
    scores = json.loads(path.read_text())
    scores.pop("calibrated_threshold", None)
    return scores


def _trains_on(config: Config, dataset: str) -> bool:
    return any(subject.startswith(f"{dataset}_") for subject in config.data.train)
