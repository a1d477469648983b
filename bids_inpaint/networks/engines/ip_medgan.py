"""The generator of Armanious et al. 2019 (ip-MedGAN): slice by slice, in one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import slices
from bids_inpaint.networks.card import Card, Engine, Filled, Model, Signature, slice_channels
from bids_inpaint.networks.session import Runtime, open_session

Array = np.ndarray


def _signature(card: Card) -> Signature:
    channels = slice_channels(card.mirror, card.neighbours)
    return Signature((4, 4), (channels, 1), f"take {channels} channels in two dimensions, and give 1 channel")


def _fill(
    model: Model, image: Array, wanted: Array, scale: Scale, runtime: Runtime, priors: Sequence[Array]
) -> Filled:
    brain = slices.Sliced(slices.Sight.of(model.card), image, wanted)
    session = open_session(model, runtime)
    (content,) = brain.answers(lambda channels: session.run(None, {"image": channels})[0])
    return Filled(brain.filled(content))


ENGINE = Engine(
    name="ip-medgan",
    describes="an adversarially trained cascade of U-blocks that fills axial slices [@ipmedgan]",
    intensities={"inpaint": ("range",)},
    signature=_signature,
    needs=("edge",),
    fill=_fill,
    slices=True,
)
