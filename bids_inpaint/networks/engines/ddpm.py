"""The denoising diffusion model of Durrer et al. 2023: slice by slice, in several steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import diffusion, slices
from bids_inpaint.networks.card import Card, Engine, Filled, Model, Signature, slice_channels
from bids_inpaint.networks.session import Runtime, open_session

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
    brain = slices.Sliced(slices.Sight.of(model.card), image, wanted)
    session = open_session(model, runtime)
    told_image = model.card.prediction == "image"

    def run(channels: Array, step: int) -> Array:
        return session.run(None, {"image": channels, "step": np.array([step], np.int64)})[0]

    return Filled(brain.filled(draw(brain, run, told_image, sampler, steps, runtime.seed)))


def draw(
    brain: slices.Sliced,
    run: Callable[[Array, int], Array],
    told_image: bool,
    sampler: str,
    steps: int,
    seed: int,
) -> Array:
    """Draw the content of a hole, (voxels,) of 0-1: all slices take each step before any takes the next.

    Parameters
    ----------
    brain : Sliced
    run : callable
        The network: channels (1, C, H, W) of a slice and a step to its answer, (1, 2, H, W).
    told_image : bool
        Whether the answer is the image, and not the noise.
    sampler, steps, seed
        Of :func:`bids_inpaint.networks.diffusion.sample`.
    """
    rng = np.random.default_rng(seed)
    if brain.sight.together:
        noise = rng.standard_normal(brain.known.shape, np.float32)
    else:
        # what all slices begin from is the same, so that neighbours become alike
        plane = rng.standard_normal(brain.known.shape[:2], np.float32)
        noise = np.broadcast_to(plane[..., None], brain.known.shape)

    def predict(x: Array, step: int) -> tuple[Array, Array]:
        left = float(diffusion.signal()[step])
        noisy = sqrt(left) * brain.known + sqrt(1 - left) * noise
        noisy[brain.wanted] = x
        prediction, share = brain.answers(lambda channels: run(channels, step), noisy)
        return diffusion.noise_of(prediction, x, step) if told_image else prediction, share

    return diffusion.sample(predict, noise[brain.wanted], sampler, steps, rng)


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
