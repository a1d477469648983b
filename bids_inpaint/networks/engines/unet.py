"""The 3D U-Net of Manjón et al. 2020: a volume at once, as its eight parity sub-volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks.card import Card, Engine, Filled, Model, Signature
from bids_inpaint.networks.session import Runtime
from bids_inpaint.networks.volumes import MASKED, run_both_ways, run_on_volume, surroundings

Array = np.ndarray


def _signature(card: Card) -> Signature:
    channels = 10 if card.priors else 8
    outputs = 2 if card.lesion_probability else 1
    described = f"take {channels} channels in three dimensions, and give {'twice ' * (outputs - 1)}8"
    return Signature((5,) * (1 + outputs), (channels, *(8,) * outputs), described)


def _fill(
    model: Model, image: Array, wanted: Array, scale: Scale, runtime: Runtime, priors: Sequence[Array]
) -> Filled:
    seen = (slice(None),) * 3 if runtime.mirror else surroundings(wanted, model)
    volume = scale.apply(image[seen])
    if not model.blind:
        volume[wanted[seen]] = MASKED
    channels = [prior[seen] for prior in priors] if model.card.priors else []
    if runtime.mirror:
        outputs, box = run_both_ways(model, volume, wanted, runtime, channels)
    else:
        outputs, box = [run_on_volume(model, volume, runtime, channels)], seen
    if not all(np.isfinite(output).all() for member in outputs for output in member):
        raise ValueError(f"network {model.name} returned values that are not finite")

    def whole(inside: Array, around: Array | None = None) -> Array:
        out = np.zeros(image.shape, np.float32) if around is None else around.copy()
        np.copyto(out[box], inside, where=wanted[box])
        return out

    images = [scale.undo(first) for first, *_ in outputs]
    filled = Filled(whole(np.mean(images, 0), image))
    if runtime.mirror:
        filled = replace(filled, spread=whole(np.std(images, 0)))
    if told := model.card.lesion_probability:
        raw = [second for _, second in outputs]
        filled = replace(filled, probability=whole(told.calibrate(np.mean(raw, 0))))
        if runtime.mirror:
            filled = replace(filled, doubt=whole(np.std([told.calibrate(p) for p in raw], 0)))
    return filled


ENGINE = Engine(
    name="unet",
    describes="a 3D U-Net on the eight parity sub-volumes of the image [@manjon2020]",
    intensities={"inpaint": ("wm", "mean"), "brain": ("percentiles",)},
    signature=_signature,
    fill=_fill,
)
