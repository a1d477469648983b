"""What lesions and images of training samples look like, drawn at random as parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bids_inpaint.space import MIRROR
from bids_inpaint.training.data import Lesions

#: Voxels of the working grid, shape (n, 3).
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


def draw_centre(rng: np.random.Generator, shapes: Lesions) -> np.ndarray:
    """Draw the centre of a patch, (3,) in voxels of the working grid: mostly where lesions occur."""
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
    """A patient's lesions, arrays (n, 3) of voxels, shifted and perhaps mirrored as a whole by chance."""
    shift = rng.normal(0, 2, 3)
    mirror = rng.random() < 0.5
    return [_mirror(voxels + shift) if mirror else voxels + shift for voxels in patient]


def _mirror(voxels: Voxels) -> Voxels:
    """Mirror voxels of the working grid left to right."""
    return np.column_stack([MIRROR - voxels[:, 0], voxels[:, 1:]])


def _vary(rng: np.random.Generator, voxels: Voxels) -> Voxels:
    """A single lesion of another size near where it was."""
    centre = voxels.mean(0)
    # small lesions are the most frequent, and the stored ones have at least 50 voxels
    scale = rng.uniform(0.35, 1.15, 3) if len(voxels) < 2000 else rng.uniform(0.7, 1.1, 3)
    varied = (voxels - centre) * scale + centre + rng.normal(0, 3, 3)
    return _mirror(varied) if rng.random() < 0.5 else varied


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
