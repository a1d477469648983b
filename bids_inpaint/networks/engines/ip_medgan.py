"""The generator of Armanious et al. 2019 (ip-MedGAN): slice by slice, in one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import slices
from bids_inpaint.networks.card import Card, Engine, Filled, Model, Signature, slice_channels
from bids_inpaint.networks.session import Runtime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray


def _signature(card: Card) -> Signature:
    channels = slice_channels(card.mirror, card.neighbours)
    return Signature((4, 4), (channels, 1), f"take {channels} channels in two dimensions, and give 1 channel")


def _generate(session: InferenceSession, channels: Array, window: slices.Window, z: int) -> Array:
    return session.run(None, {"image": channels})[0]


def _fill(
    model: Model, image: Array, wanted: Array, scale: Scale, runtime: Runtime, priors: Sequence[Array]
) -> Filled:
    return Filled(slices.fill(model, image, wanted, runtime, _generate))


ENGINE = Engine(
    name="ip-medgan",
    describes="an adversarially trained cascade of U-blocks that fills axial slices [@ipmedgan]",
    intensities={"inpaint": ("range",)},
    signature=_signature,
    needs=("edge",),
    fill=_fill,
    slices=True,
)
