"""Lesion synthesis: painting that is deterministic given its parameters.

:mod:`bids_inpaint.training.parameters` draws the parameters, so that a sample can be made again from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.intensity import EXPONENTS
from bids_inpaint.training.parameters import ImageParameters, LesionParameters

#: Where deep grey matter lies, in voxels of the working grid; lesions grow in it as in white matter.
DEEP_GREY = (slice(52, 129), slice(88, 149), slice(60, 97))


def smooth(volume: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian filter of a (D, H, W) tensor; zeros lie beyond its border.

    Parameters
    ----------
    volume : Tensor, (D, H, W)
    sigma : sequence of float
        Standard deviation in voxels along each axis; less than 0.05 filters nothing.
    """
    out = volume[None, None]
    for axis, s in enumerate(sigma):
        if s < 0.05:
            continue
        radius = int(np.ceil(3 * s))
        x = torch.arange(-radius, radius + 1, dtype=torch.float32, device=volume.device)
        kernel = torch.exp(-0.5 * (x / s) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        padding = [0, 0, 0]
        padding[axis] = radius
        out = functional.conv3d(out, (kernel / kernel.sum()).view(shape), padding=padding)
    return out[0, 0]


def paint(
    healthy: Tensor,
    grey: float,
    lesions: Sequence[LesionParameters],
    corner: Sequence[int],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Paint T1-hypointense lesions into a healthy patch.

    Parameters
    ----------
    healthy : Tensor, shape (D, H, W)
        White matter 1, background 0.
    grey : float
        Its grey-matter level; lesions grow in tissue brighter than about halfway to white matter, and in
        deep grey matter.
    lesions : sequence of LesionParameters
    corner : sequence of int
        Voxel of the working grid where the patch begins.
    seed : int
        Of the texture inside the lesions.

    Returns
    -------
    image : Tensor
        The patch with lesions.
    support : Tensor
        How much of each voxel is lesion, 0-1 (partial volume at the rim).
    """
    generator = torch.Generator().manual_seed(seed)
    shape = healthy.shape
    image = healthy.clone()
    device = healthy.device
    support = torch.zeros(shape, device=device)
    if not lesions:
        return image, support
    # soft white matter: 0 at half-way to grey, 1 close to white matter
    tissue = smooth(healthy, (0.7, 0.7, 0.7))
    low = torch.full(shape, grey + 0.35 * (1 - grey), device=device)
    low[_part(DEEP_GREY, corner, shape)] = grey - 0.3 * (1 - grey)
    white = ((tissue - low) / (0.4 * (1 - grey))).clamp(0, 1)
    coarse = torch.randn([1, 1, *(max(2, n // 6) for n in shape)], generator=generator).to(device)
    texture = functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0]
    for lesion in lesions:
        box, spot = _soft_shape(lesion, corner, shape, device)
        if spot is None:
            continue
        spot = spot * white[box]
        target = lesion.level * (1 + lesion.unevenness * texture[box]) + lesion.retained * (healthy[box] - 1)
        darker = torch.minimum(healthy[box] + spot * (target - healthy[box]), image[box])
        image[box] = torch.minimum(darker.clamp(min=0), healthy[box])
        support[box] = torch.maximum(support[box], spot)
    return image, support


def _soft_shape(
    lesion: LesionParameters, corner: Sequence[int], shape: Sequence[int], device: torch.device
) -> tuple[tuple[slice, ...], Tensor | None]:
    """The box of a lesion in a patch, and how much of each voxel of it is lesion, 0-1.

    A lesion of which the patch holds next to nothing has none.
    """
    local = np.round(lesion.voxels - np.asarray(corner)).astype(int)
    inside = ((local >= -2) & (local < np.array(shape) + 2)).all(1)
    if inside.sum() < 5:
        return (), None
    local = local[inside]
    margin = int(np.ceil(3 * lesion.rim)) + 1
    low, high = np.maximum(local.min(0) - margin, 0), np.minimum(local.max(0) + margin + 1, shape)
    if (high <= low).any():
        return (), None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    spot = torch.zeros((high - low).tolist(), device=device)
    index = torch.from_numpy(local[((local >= low) & (local < high)).all(1)] - low).to(device)
    spot[index[:, 0], index[:, 1], index[:, 2]] = 1
    return box, (smooth(spot, (lesion.rim,) * 3) * 1.15).clamp(0, 1)


def _part(box: Sequence[slice], corner: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """What a patch holds of a box on the working grid."""
    return tuple(
        slice(*np.clip((s.start - c, s.stop - c), 0, n).tolist())
        for s, c, n in zip(box, corner, shape, strict=True)
    )


def change_contrast(image: Tensor, grey: float, parameters: ImageParameters) -> Tensor:
    """Map grey matter to another level by a power law that leaves 0 and white matter (1) alone.

    Parameters
    ----------
    image : Tensor
        Of any shape.
    grey : float
        Its grey-matter level as a fraction of white matter.
    parameters : ImageParameters
        Holds the level that grey matter gets.
    """
    exponent = np.log(parameters.grey) / np.log(min(grey, 0.95))
    return image.clamp(0, 2).pow(float(np.clip(exponent, 0.3, EXPONENTS[1])))


def degrade(volumes: Sequence[Tensor], parameters: ImageParameters) -> list[Tensor]:
    """Give several versions of a patch the same bias, point spread, gain, noise and brain mask.

    The noise is the same in all, as the network shall not denoise.

    Parameters
    ----------
    volumes : sequence of Tensor, each (D, H, W)
        White matter 1, background 0; the brain is that of the first.
    parameters : ImageParameters
    """
    reference = volumes[0]
    generator = torch.Generator().manual_seed(parameters.seed)
    # drawn on the CPU: a sample is the same on every device
    noise = parameters.noise * torch.randn(reference.shape, generator=generator).to(reference.device)
    field = functional.interpolate(
        torch.from_numpy(parameters.bias).to(reference.device)[None, None],
        size=reference.shape, mode="trilinear",
    )[0, 0].exp()  # fmt: skip
    brain = (reference > 0).float()
    if parameters.rim:
        mask = shift_border(brain, parameters.rim, generator)
        # scalp, fluid or vessels in place of what the image hasn't
        residue = parameters.rim_level * (1 - brain)
        volumes = [v + residue for v in volumes]
        brain = mask
    return [
        ((smooth(v, parameters.blur) * field + noise) * parameters.gain).clamp(min=0) * brain for v in volumes
    ]


def shift_border(mask: Tensor, distance: float, generator: torch.Generator) -> Tensor:
    """Move the border of a mask unevenly.

    Parameters
    ----------
    mask : Tensor, (D, H, W)
        0 or 1.
    distance : float
        How far outwards on average, in voxels; at most some 4.
    generator : Generator
        Of the unevenness.
    """
    sigma = 2.0
    # a straight border becomes the normal distribution; no border where the patch ends
    soft = smooth(mask, (sigma,) * 3) / smooth(torch.ones_like(mask), (sigma,) * 3)
    coarse = torch.rand([1, 1, *(max(2, n // 12) for n in mask.shape)], generator=generator)
    uneven = 2 * functional.interpolate(coarse, size=mask.shape, mode="trilinear")[0, 0].to(mask.device)
    return (soft > torch.special.ndtr(-distance * uneven / sigma)).float()
