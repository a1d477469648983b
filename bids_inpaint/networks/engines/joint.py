"""The generator and classifier of Orbes-Arteaga et al. 2018: a FLAIR and a lesion map, slice by slice."""

from __future__ import annotations

from bids_inpaint.networks.card import Card, Engine, Signature


def _signature(card: Card) -> Signature:
    seen = (card.inpainter is not None) + card.inpainter_probability
    channels = 2 * card.context + 1 + 2 * card.priors + seen
    return Signature((4, 4), (channels, 2), "take slices in two dimensions, and give 2 channels")


ENGINE = Engine(
    name="joint",
    describes="a generator and a classifier trained jointly [@orbes2018]",
    intensities={"flair": ("wm",)},
    signature=_signature,
    needs=("context",),
)
