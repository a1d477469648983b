"""Lesion synthesis: draw parameters, then paint deterministically from them.

`draw` functions take a random generator and return frozen parameters; `paint` and `degrade` are
deterministic, so a sample can be made again from its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.intensity import EXPONENTS
from bids_inpaint.training.data import Lesions

Voxels = np.ndarray


@dataclass(frozen=True)
class LesionParameters:
    """One lesion.

    Attributes
    ----------
    voxels : array of float, shape (n, 3)
        Its voxels on the working grid.
    level : float
        Its intensity as a fraction of white matter.
    retained : float
        Part of the tissue's own texture that shows through, 0-1.
    rim : float
        Blur of its border in voxels (standard deviation).
    unevenness : float
        Relative standard deviation of its intensity over some 6 voxels.
    """

    voxels: Voxels
    level: float
    retained: float
    rim: float
    unevenness: float = 0.08


@dataclass(frozen=True)
class ImageParameters:
    """Appearance that lesion and healthy tissue share.

    Attributes
    ----------
    grey : float
        Grey-matter intensity as a fraction of white matter after the change of contrast.
    bias : array, shape (4, 4, 4)
        Log of the residual bias field on a coarse lattice.
    blur : tuple of float
        Standard deviation of the point spread along each axis, in voxels.
    noise : float
        Standard deviation, as a fraction of white matter.
    gain : float
        Error of the white-matter level.
    seed : int
        Of the noise, the texture and the border of the mask.
    rim : float
        Voxels by which the brain mask is too wide (or too tight, if negative) on average.
    rim_level : float
        Intensity of what a wide mask holds, as a fraction of white matter.
    """

    grey: float
    bias: np.ndarray = field(repr=False)
    blur: tuple[float, float, float]
    noise: float
    gain: float
    seed: int
    rim: float = 0.0
    rim_level: float = 0.0


#: Where deep grey matter lies, in voxels of the working grid; lesions grow in it as in white matter.
DEEP_GREY = (slice(52, 129), slice(88, 149), slice(60, 97))


def draw_centre(rng: np.random.Generator, shapes: Lesions) -> np.ndarray:
    """Draw where a patch lies, in voxels of the working grid: mostly where lesions occur."""
    if rng.random() < 0.2:
        return rng.uniform((30, 30, 15), (150, 190, 150))
    patient = shapes.patients[rng.integers(len(shapes.patients))]
    voxels = patient[rng.integers(len(patient))]
    return voxels[rng.integers(len(voxels))] + rng.normal(0, 12, 3)


def draw_lesions(
    rng: np.random.Generator,
    shapes: Lesions,
    centre: np.ndarray,
    size: int | np.ndarray,
    mix: dict[str, float],
    grey: float,
) -> list[LesionParameters]:
    """Draw the lesions in and around a patch: those of a real patient, single ones, both, or none.

    Single lesions are mostly moved into the patch, as else too few voxels of a patch would teach
    anything.

    Parameters
    ----------
    rng : Generator
    shapes : Lesions
    centre : array, shape (3,)
        Of the patch, in voxels of the working grid.
    size : int, or array, shape (3,)
        Its edge, or edges.
    mix : dict
        Shares of 'none', 'patient', 'singles' and 'both'.
    grey : float
        Grey-matter level as a fraction of white matter; lesions are about as dark.
    """
    kind = rng.choice(list(mix), p=np.array(list(mix.values())) / sum(mix.values()))
    sets: list[Voxels] = []
    if kind in ("patient", "both"):
        sets += moved(rng, shapes.patients[rng.integers(len(shapes.patients))])
    if kind in ("singles", "both"):
        for i in rng.integers(len(shapes.singles), size=rng.integers(2, 25)):
            voxels = _vary(rng, shapes.singles[i])
            if rng.random() < 0.8 and len(voxels) < 10_000:
                voxels = voxels - voxels.mean(0) + centre + rng.uniform(-0.5, 0.5, 3) * size
            sets.append(voxels)
    # lesions of one patient resemble each other
    typical = rng.uniform(0.5, 0.92) if rng.random() < 0.5 else 1 - rng.uniform(0.3, 1.3) * (1 - grey)
    spread = 0.1 if rng.random() < 0.5 else 0.3 * (1 - grey)
    diffuse = rng.random() < 0.25
    return [
        LesionParameters(
            voxels=v,
            level=float(np.clip(typical + rng.normal(0, spread), 0.3, 0.97)),
            retained=float(rng.uniform(0.2, 1)),
            rim=float(rng.uniform(1, 2.5) if diffuse else rng.uniform(0.5, 1.3)),
            unevenness=float(rng.uniform(0, 0.2)),
        )
        for v in sets
    ]


def draw_patient(rng: np.random.Generator, shapes: Lesions) -> list[LesionParameters]:
    """Draw the lesions of a whole image: those of a real patient where they are, and 12 single ones."""
    patient = shapes.patients[rng.integers(len(shapes.patients))]
    singles = [shapes.singles[i].astype(float) for i in rng.integers(len(shapes.singles), size=12)]
    typical = rng.uniform(0.6, 0.85)
    return [
        LesionParameters(
            voxels,
            float(np.clip(typical + rng.normal(0, 0.07), 0.4, 0.93)),
            float(rng.uniform(0.3, 0.9)),
            0.8,
        )
        for voxels in [*patient, *singles]
    ]


def moved(rng: np.random.Generator, patient: list[Voxels]) -> list[Voxels]:
    """A patient's lesions, shifted and perhaps mirrored as a whole by chance."""
    shift = rng.normal(0, 2, 3)
    mirror = rng.random() < 0.5
    return [_mirror(voxels + shift) if mirror else voxels + shift for voxels in patient]


def _mirror(voxels: Voxels) -> Voxels:
    """Mirror voxels of the working grid about x = 0 mm, which is at voxel 90."""
    return np.column_stack([180 - voxels[:, 0], voxels[:, 1:]])


def _vary(rng: np.random.Generator, voxels: Voxels) -> Voxels:
    centre = voxels.mean(0)
    # small lesions are the most frequent, and the stored ones have at least 50 voxels
    scale = rng.uniform(0.35, 1.15, 3) if len(voxels) < 2000 else rng.uniform(0.7, 1.1, 3)
    moved = (voxels - centre) * scale + centre + rng.normal(0, 3, 3)
    return _mirror(moved) if rng.random() < 0.5 else moved


def draw_image(rng: np.random.Generator, grey: float, vary: bool = True) -> ImageParameters:
    """Draw contrast, residual bias, resolution, noise and gain.

    Parameters
    ----------
    rng : Generator
    grey : float
        Grey-matter level of the image as a fraction of white matter.
    vary : bool
        If not, the parameters leave the image as it is.
    """
    if not vary:
        seed = int(rng.integers(2**31))
        return ImageParameters(grey, np.zeros((4, 4, 4), np.float32), (0.0, 0.0, 0.0), 0.0, 1.0, seed)
    blur = [0.0, 0.0, 0.0]
    kind = rng.random()
    if kind < 0.3:
        blur = [float(rng.uniform(0.3, 0.9))] * 3
    elif kind < 0.6:
        # thick slices
        blur[int(rng.integers(3))] = float(rng.uniform(0.6, 1.5))
    return ImageParameters(
        grey=float(rng.uniform(0.5, 0.92)),
        bias=rng.normal(0, rng.uniform(0, 0.07), (4, 4, 4)).astype(np.float32),
        blur=(blur[0], blur[1], blur[2]),
        noise=float(rng.uniform(0, 0.035) if rng.random() < 0.7 else 0),
        gain=float(np.exp(rng.normal(0, 0.05))),
        rim=float(rng.normal(0, 1.5)) if rng.random() < 0.4 else 0.0,
        rim_level=float(rng.uniform(0.1, 1.1)),
        seed=int(rng.integers(2**31)),
    )


def smooth(volume: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian filter of a (D, H, W) tensor, `sigma` in voxels along each axis."""
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
        local = np.round(lesion.voxels - np.asarray(corner)).astype(int)
        inside = ((local >= -2) & (local < np.array(shape) + 2)).all(1)
        if inside.sum() < 5:
            continue
        local = local[inside]
        margin = int(np.ceil(3 * lesion.rim)) + 1
        low_corner = np.maximum(local.min(0) - margin, 0)
        high_corner = np.minimum(local.max(0) + margin + 1, shape)
        if (high_corner <= low_corner).any():
            continue
        box = tuple(slice(int(a), int(b)) for a, b in zip(low_corner, high_corner, strict=True))
        spot = torch.zeros([int(b - a) for a, b in zip(low_corner, high_corner, strict=True)], device=device)
        keep = ((local >= low_corner) & (local < high_corner)).all(1)
        index = torch.from_numpy(local[keep] - low_corner).to(device)
        spot[index[:, 0], index[:, 1], index[:, 2]] = 1
        spot = (smooth(spot, (lesion.rim,) * 3) * 1.15).clamp(0, 1) * white[box]
        target = lesion.level * (1 + lesion.unevenness * texture[box]) + lesion.retained * (healthy[box] - 1)
        darker = torch.minimum(healthy[box] + spot * (target - healthy[box]), image[box])
        image[box] = torch.minimum(darker.clamp(min=0), healthy[box])
        support[box] = torch.maximum(support[box], spot)
    return image, support


def _part(box: Sequence[slice], corner: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """What a patch holds of a box on the working grid."""
    return tuple(
        slice(*np.clip((s.start - c, s.stop - c), 0, n).tolist())
        for s, c, n in zip(box, corner, shape, strict=True)
    )


def change_contrast(image: Tensor, grey: float, parameters: ImageParameters) -> Tensor:
    """Map grey matter to another level by a power law that leaves 0 and white matter alone."""
    exponent = np.log(parameters.grey) / np.log(min(grey, 0.95))
    return image.clamp(0, 2).pow(float(np.clip(exponent, 0.3, EXPONENTS[1])))


def degrade(volumes: Sequence[Tensor], parameters: ImageParameters) -> list[Tensor]:
    """Give several versions of a patch the same bias, point spread, gain, noise and brain mask.

    The noise is the same in all, as the network shall not denoise.
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
    """Move the border of a mask outwards by about a distance in voxels, unevenly; at most some 4."""
    sigma = 2.0
    # a straight border becomes the normal distribution; no border where the patch ends
    soft = smooth(mask, (sigma,) * 3) / smooth(torch.ones_like(mask), (sigma,) * 3)
    coarse = torch.rand([1, 1, *(max(2, n // 12) for n in mask.shape)], generator=generator)
    uneven = 2 * functional.interpolate(coarse, size=mask.shape, mode="trilinear")[0, 0].to(mask.device)
    return (soft > torch.special.ndtr(-distance * uneven / sigma)).float()
