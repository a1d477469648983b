"""Heads of any contrast, made from label maps: the labels are the truth, the pictures are drawn.

After Billot et al. 2023 (SynthSeg, doi:10.1016/j.media.2023.102789) and Hoopes et al. 2022 (SynthStrip,
doi:10.1016/j.neuroimage.2022.119474): deformation, intensities, bias field, resolution, noise, field of
view and defacing are drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import isotropic_closing
from torch import Tensor
from torch.nn import functional

from bids_inpaint.networks.extraction import EDGE, normalise
from bids_inpaint.space import bounding_box
from bids_inpaint.training.filters import smooth

#: Labels of the right side and those of the left that look the same (FreeSurfer).
RIGHT_TO_LEFT = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 57: 25,
    58: 26, 60: 28, 62: 30, 137: 136, 164: 163,
}  # fmt: skip
CSF = 24
#: Fluid this far outside the closed brain belongs to it, in mm; as in most masks in use.
RIM = 1.5
#: Labels from here on are outside the brain and its fluid.
EXTRACEREBRAL = 500
WHITE, GREY, FLUID = (2, 7, 16, 28, 85), (3, 8, 10, 11, 12, 13, 17, 18, 26), (4, 5, 14, 15, CSF)


@dataclass(frozen=True)
class Head:
    """A label map in RAS orientation, cropped to the head.

    Attributes
    ----------
    name : str
    classes : list of int
        Labels that look alike are one.
    labels : Tensor of uint8, shape (D, H, W)
        Index into `classes`, 1 mm.
    brain : Tensor of uint8
        Brain with the fluid in its sulci, its ventricles and in a rim around it.
    """

    name: str
    classes: list[int]
    labels: Tensor
    brain: Tensor

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a label map of 1 mm voxels, a NIfTI file with FreeSurfer's labels."""
        image = nib.as_closest_canonical(nib.load(path))
        data = np.asarray(image.dataobj).astype(np.int32)
        for right, left in RIGHT_TO_LEFT.items():
            data[data == right] = left
        data = data[bounding_box(data > 0, margin=2)]
        classes, labels = np.unique(data, return_inverse=True)
        closed = brain_of(is_tissue(data))
        brain = closed | ((data == CSF) & (ndimage.distance_transform_edt(~closed) <= RIM))
        return cls(
            path.name.split(".")[0],
            classes.tolist(),
            torch.from_numpy(labels.reshape(data.shape).astype(np.uint8)),
            torch.from_numpy(brain.astype(np.uint8)),
        )


def is_tissue(labels: np.ndarray) -> np.ndarray:
    """Which labels are brain tissue or a ventricle, bool."""
    return (labels > 0) & (labels < EXTRACEREBRAL) & (labels != CSF)


def brain_of(tissue: np.ndarray, radius: int = 5) -> np.ndarray:
    """Brain tissue with the sulci closed and the ventricles filled.

    Parameters
    ----------
    tissue : array of bool, shape (D, H, W)
    radius : int
        Voxels over which sulci are closed.
    """
    box = bounding_box(tissue)
    closed = isotropic_closing(np.pad(tissue[box], radius + 1), radius)
    brain = np.zeros_like(tissue)
    brain[box] = ndimage.binary_fill_holes(closed)[(slice(radius + 1, -radius - 1),) * 3]
    return brain


@dataclass(frozen=True)
class HeadParameters:
    """How a head looks and lies.

    Attributes
    ----------
    linear : array, shape (3, 3)
        From mm around the centre of the volume to mm around `centre`.
    centre : array, shape (3,)
        Voxel of the label map at the centre of the volume.
    displacement : array, shape (3, 6, 6, 6)
        In mm, on a coarse lattice over the volume.
    means, deviations : array, shape (classes,)
        Intensities of the tissues.
    bias : array, shape (4, 4, 4)
        Log of the bias field.
    blur : tuple of float, length 3
        Standard deviation of the point spread along each axis in voxels.
    thickness : tuple of int
        Voxels averaged along each axis.
    noise, gamma : float
    view : tuple of slice
        Field of view in the volume; all else is 0.
    surroundings : float or None
        Distance from the brain's tissue in mm beyond which all is removed, as in a stripped image.
    deface : array of float, shape (4,), or None
        Removes what lies beyond this plane (normal, and distance from the brain in mm).
    seed : int
    """

    linear: np.ndarray
    centre: np.ndarray
    displacement: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    bias: np.ndarray
    blur: tuple[float, ...]
    thickness: tuple[int, int, int]
    noise: float
    gamma: float
    view: tuple[slice, slice, slice]
    surroundings: float | None
    deface: np.ndarray | None
    seed: int


def draw_head(rng: np.random.Generator, head: Head, shape: tuple[int, int, int]) -> HeadParameters:
    """Draw everything about a picture of a head on a volume of `shape` voxels of `EDGE` mm."""
    angles = rng.normal(0, (10, 8, 8)) if rng.random() < 0.9 else rng.uniform(-50, 50, 3)
    scale = np.exp(rng.normal(0, 0.06)) * np.exp(rng.normal(0, 0.05, 3))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.04, (3, 3)), 1)
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    brain = np.argwhere(head.brain.numpy()[::4, ::4, ::4]) * 4
    view = [slice(0, n) for n in shape]
    for axis in range(3):
        if rng.random() < 0.3:
            low, high = rng.uniform(0, 0.25, 2) * rng.choice([0, 1], 2)
            view[axis] = slice(int(low * shape[axis]), int((1 - high) * shape[axis]))
    thickness = [1, 1, 1]
    if rng.random() < 0.25:
        thickness[rng.integers(3)] = int(rng.integers(2, 4))
    means, deviations = draw_intensities(rng, head.classes)
    return HeadParameters(
        linear=rotation(np.deg2rad(angles)) @ shear @ np.diag(scale) @ mirror,
        centre=brain.mean(0) + rng.normal(0, (10, 12, 20)),
        displacement=rng.normal(0, rng.uniform(0, 3.5), (3, 6, 6, 6)).astype(np.float32),
        means=means,
        deviations=deviations,
        bias=rng.normal(0, rng.uniform(0, 0.35), (4, 4, 4)).astype(np.float32),
        blur=tuple(rng.uniform(0.3, 0.8, 3).tolist()),
        thickness=(thickness[0], thickness[1], thickness[2]),
        noise=float(rng.uniform(0, 0.08) if rng.random() < 0.8 else 0),
        gamma=float(np.exp(rng.normal(0, 0.2))),
        view=(view[0], view[1], view[2]),
        surroundings=float(rng.uniform(0, 6)) if rng.random() < 0.2 else None,
        deface=draw_plane(rng) if rng.random() < 0.3 else None,
        seed=int(rng.integers(2**31)),
    )


def draw_plane(rng: np.random.Generator) -> np.ndarray:
    """Draw the plane of a defacing tool, (4,): what lies before and below it goes."""
    normal = np.array([0, 1, -rng.uniform(0.4, 2)])
    return np.array([*(normal / np.linalg.norm(normal)), rng.uniform(2, 12)])


def draw_intensities(rng: np.random.Generator, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the intensity of every class: like a T1w image inside the brain half of the time, else any.

    Returns
    -------
    means, deviations : array, shape (classes,)
        About 0-1.
    """
    means = rng.uniform(0, 1, len(classes))
    deviations = rng.uniform(0, 0.1, len(classes))
    means[classes.index(0)] = 0 if rng.random() < 0.7 else rng.uniform(0, 0.15)
    deviations[classes.index(0)] *= 0.2
    if rng.random() < 0.6:
        white = rng.uniform(0.6, 0.9)
        grey, fluid = white * rng.uniform(0.5, 0.92), white * rng.uniform(0.05, 0.4)
        for level, labels in ((white, WHITE), (grey, GREY), (fluid, FLUID)):
            for i, label in enumerate(classes):
                if label in labels:
                    means[i] = level * rng.normal(1, 0.04)
                    deviations[i] = rng.uniform(0.01, 0.05)
    return means, deviations


def rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, y and z by angles in radians, shape (3, 3)."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = out @ turn
    return out


def make_head(head: Head, p: HeadParameters, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The picture and its brain mask.

    Parameters
    ----------
    head : Head
    p : HeadParameters
    shape : tuple of int
        Of the volume, with voxels of `EDGE` mm.

    Returns
    -------
    image : Tensor of float, shape `shape`
        Normalised as at inference, 0-1.
    brain : Tensor of float, shape `shape`
        Share of each voxel that is brain, 0-1.
    """
    generator = torch.Generator().manual_seed(p.seed)
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) * EDGE
    points = points @ torch.from_numpy(p.linear.T.astype(np.float32))
    shifts = functional.interpolate(
        torch.from_numpy(p.displacement)[None], size=shape, mode="trilinear", align_corners=True
    )[0]
    points = points + shifts.permute(1, 2, 3, 0) + torch.from_numpy(p.centre.astype(np.float32))
    size = torch.tensor(head.labels.shape, dtype=torch.float32)
    # grid_sample wants x last to first, the volume in -1 to 1
    grid = (points / (size - 1) * 2 - 1).flip(-1)[None]

    def sample(volume: Tensor, mode: str) -> Tensor:
        return functional.grid_sample(volume[None, None].float(), grid, mode, align_corners=True)[0, 0]

    labels = sample(head.labels, "nearest").long()
    brain = sample(head.brain, "bilinear")
    means, deviations = (torch.from_numpy(v.astype(np.float32)) for v in (p.means, p.deviations))
    image = means[labels] + deviations[labels] * torch.randn(shape, generator=generator)
    image = smooth(image[None], p.blur)[0]
    if max(p.thickness) > 1:
        kernel = list(p.thickness)
        low = functional.avg_pool3d(image[None, None], kernel, ceil_mode=True)
        image = functional.interpolate(low, size=shape, mode="trilinear")[0, 0]
    field = functional.interpolate(torch.from_numpy(p.bias)[None, None], size=shape, mode="trilinear")
    image = image.clamp(min=0) * field[0, 0].exp()
    noise = p.noise * torch.randn((2, *shape), generator=generator)
    image = ((image + noise[0]).square() + noise[1].square()).sqrt().pow(p.gamma)
    visible = torch.zeros(shape)
    visible[p.view] = 1
    if p.deface is not None:
        normal = torch.from_numpy(p.deface[:3]).float()
        height = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) * EDGE @ normal
        visible = visible * (height < height[brain > 0.5].max() + p.deface[3])
    if p.surroundings is not None:
        tissue = torch.from_numpy(is_tissue(np.array(head.classes)))[labels]
        away = ndimage.distance_transform_edt(~tissue.numpy(), sampling=EDGE)
        visible = visible * torch.from_numpy(away <= p.surroundings)
    image, brain = image * visible, brain * (visible > 0)
    return torch.from_numpy(normalise(image.numpy())), brain
