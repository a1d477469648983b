"""Sampling from a denoising diffusion model (pure arrays).

Durrer et al. 2023, section 2, after Ho et al. 2020 (DDPM) and Nichol and Dhariwal 2021 (learned variance);
DDIM (Song et al. 2021) and Heun's method (Karras et al. 2022) need fewer steps.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import numpy as np

from bids_inpaint.options import SAMPLERS as SAMPLERS
from bids_inpaint.options import SAMPLING_STEPS as STEPS

Array = np.ndarray

#: Noisy images (N, 1, H, W) and a step to the noise in them and the network's share of the larger variance,
#: -1 to 1, of the same shape.
Predict = Callable[[Array, int], tuple[Array, Array]]

#: Steps of the noising, and their first and last variance.
BETAS = (1e-4, 0.02)


def signal() -> Array:
    """Share of the image's variance that is left at each step, shape (STEPS,), from nearly 1 to nearly 0.

    Examples
    --------
    >>> signal().round(5)[[0, -1]].tolist()
    [0.9999, 4e-05]
    """
    return np.cumprod(1 - np.linspace(*BETAS, STEPS))


def sample(
    predict: Predict,
    noise: Array,
    sampler: str = "ddim",
    steps: int = 50,
    rng: np.random.Generator | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Array:
    """Draw images.

    Parameters
    ----------
    predict : callable
        The network.
    noise : array, shape (N, 1, H, W)
        What to begin from, standard normal.
    sampler : {'ddim', 'heun', 'ddpm'}
        Of these, DDPM adds noise at each step, and Heun's method calls the network twice but for the last.
    steps : int
        Of the `STEPS` steps so many are taken, evenly spaced.
    rng : Generator, optional
        Of the noise of DDPM.
    limits : tuple of float
        Range of the images, that each estimate is kept in; Heun's method only keeps the last one in it.

    Returns
    -------
    array, shape (N, 1, H, W)
    """
    times = np.round(np.linspace(STEPS - 1, 0, steps)).astype(int)
    # Python floats leave arrays in single precision
    left: list[float] = signal()[times].tolist()
    if sampler == "heun":
        return _heun(predict, noise, times, left).clip(*limits)
    x = noise
    for time, now, after in zip(times, left, [*left[1:], 1.0], strict=True):
        eps, share = predict(x, int(time))
        image = ((x - sqrt(1 - now) * eps) / sqrt(now)).clip(*limits)
        if sampler == "ddim":
            eps = (x - sqrt(now) * image) / sqrt(1 - now)
            x = sqrt(after) * image + sqrt(1 - after) * eps
            continue
        beta = 1 - now / after
        x = (sqrt(after) * beta * image + sqrt(now / after) * (1 - after) * x) / (1 - now)
        if after < 1:
            smaller, larger = log(beta * (1 - after) / (1 - now)), log(beta)
            deviation = np.exp((share + 1) / 4 * (larger - smaller) + smaller / 2)
            x = x + deviation * (rng or np.random.default_rng()).standard_normal(x.shape, np.float32)
    return x


def noise_of(image: Array, noisy: Array, step: int) -> Array:
    """The noise in an image, from the image without it."""
    left = float(signal()[step])
    return (noisy - sqrt(left) * image) / sqrt(1 - left)


def _heun(predict: Predict, noise: Array, times: Array, left: list[float]) -> Array:
    """Heun's method for the image and the noise added to it, whose deviation grows from 0."""
    deviations = [sqrt(1 / share - 1) for share in left]
    x = noise * sqrt(1 + deviations[0] ** 2)

    def slope(x: Array, i: int) -> Array:
        return predict(x * sqrt(left[i]), int(times[i]))[0]

    for i, deviation in enumerate(deviations):
        here = slope(x, i)
        if i + 1 == len(times):
            x = x - deviation * here
            break
        step = deviations[i + 1] - deviation
        x = x + step * (here + slope(x + step * here, i + 1)) / 2
    return x
