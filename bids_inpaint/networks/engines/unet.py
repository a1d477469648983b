"""The 3D U-Net of Manjón et al. 2020: a volume at once, as its eight parity sub-volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks.card import Card, Engine, Model, Signature
from bids_inpaint.networks.session import Runtime
from bids_inpaint.networks.volumes import MASKED, run_on_volume, surroundings

Array = np.ndarray


def _signature(card: Card) -> Signature:
    return Signature(
        (5, 5), (10 if card.priors else 8, 8), "take and give one tensor of 8 channels in three dimensions"
    )


def _fill(
    model: Model, image: Array, wanted: Array, scale: Scale, runtime: Runtime, priors: Sequence[Array]
) -> Array:
    box = surroundings(wanted, model)
    volume = scale.apply(image[box])
    if not model.blind:
        volume[wanted[box]] = MASKED
    channels = [prior[box] for prior in priors] if model.card.priors else []
    output = run_on_volume(model, volume, runtime, channels)
    if not np.isfinite(output).all():
        raise ValueError(f"network {model.name} returned values that are not finite")
    out = image.copy()
    np.copyto(out[box], scale.undo(output), where=wanted[box])
    return out


ENGINE = Engine(
    name="unet",
    describes="a 3D U-Net on the eight parity sub-volumes of the image [@manjon2020]",
    intensities={"inpaint": ("wm", "mean"), "brain": ("percentiles",)},
    signature=_signature,
    fill=_fill,
)
