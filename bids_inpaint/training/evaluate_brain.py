"""Scores of a brain extractor on pictures of label maps kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.imaging.brain import largest_component
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.networks import registry, session, volumes
from bids_inpaint.training.config import Config
from bids_inpaint.training.extraction import load_heads
from bids_inpaint.training.heads import draw_head, make_head

#: Pictures of each label map.
PICTURES = 10


def evaluate_brain(
    config: Config, labels: Path, model_name: str, split: str, threads: int, output: Path | None
) -> dict[str, Any]:
    """Score a brain extractor, and print a table.

    Parameters
    ----------
    config : Config
    labels : Path
        Folder of the label maps.
    model_name : str
        Shipped name or ONNX file.
    split : {'train', 'validation', 'test'}
        Which label maps.
    threads : int
        Of the CPU.
    output : Path, optional
        JSON file for the scores.

    Returns
    -------
    dict
        Mean, standard deviation and minimum of the Dice coefficient over `PICTURES` pictures of each map.

    Raises
    ------
    ValueError
        If a label map is missing.
    """
    model = registry.find(model_name, "brain")
    runtime = session.Runtime(threads=threads)
    shape = (config.schedule.patch, config.schedule.patch, config.schedule.patch)
    values: dict[str, list[float]] = {}
    for head in load_heads(labels, getattr(config.data, split)):
        for i in range(PICTURES):
            image, truth = make_head(head, draw_head(np.random.default_rng([99, i]), head, shape), shape)
            logits = volumes.run_on_volume(model, image.numpy(), runtime)[0]
            predicted = largest_component(logits > 0)
            values.setdefault(head.name, []).append(dice(predicted, truth.numpy() > 0.5))
        print(head.name, [round(v, 3) for v in values[head.name]], flush=True)
    every = [v for row in values.values() for v in row]
    scores = {
        "split": split,
        "dice": {"mean": float(np.mean(every)), "sd": float(np.std(every)), "min": min(every)},
    }
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    return scores
