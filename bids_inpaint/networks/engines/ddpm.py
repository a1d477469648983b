"""The denoising diffusion model of Durrer et al. 2023: slice by slice, in several steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import diffusion, slices
from bids_inpaint.networks.card import Card, Engine, Filled, Model, Signature, slice_channels
from bids_inpaint.networks.session import Runtime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray


def _signature(card: Card) -> Signature:
    channels = 1 + slice_channels(card.mirror, card.neighbours)
    needed = f"take {channels} channels in two dimensions and a step, and give 2 channels"
    return Signature((4, 1, 4), (channels, 2), needed)


def _fill(
    model: Model, image: Array, wanted: Array, scale: Scale, runtime: Runtime, priors: Sequence[Array]
) -> Filled:
    sampling = model.card.sampling
    assert sampling is not None
    sampler, steps = runtime.sampler or sampling.sampler, runtime.steps or sampling.steps
    # what all slices begin from is the same, so that neighbours become alike
    start = np.random.default_rng(runtime.seed).standard_normal(image.shape[:2], np.float32)

    def draw(session: InferenceSession, window_channels: Array, window: slices.Window, z: int) -> Array:
        def predict(x: Array, step: int) -> tuple[Array, Array]:
            channels = np.concatenate([x, window_channels], 1)
            answer = session.run(None, {"image": channels, "step": np.array([step], np.int64)})[0]
            prediction, share = answer[:, :1], answer[:, 1:]
            if model.card.prediction == "image":
                prediction = diffusion.noise_of(prediction, x, step)
            return prediction, share

        rng = np.random.default_rng([runtime.seed, z])
        return diffusion.sample(predict, window.cut(start)[None, None], sampler, steps, rng)

    return Filled(slices.fill(model, image, wanted, runtime, draw))


ENGINE = Engine(
    name="ddpm",
    describes="a denoising diffusion model that draws axial slices [@durrer2023]",
    intensities={"inpaint": ("range",)},
    signature=_signature,
    needs=("edge", "sampling"),
    fill=_fill,
    slices=True,
    draws=True,
)
