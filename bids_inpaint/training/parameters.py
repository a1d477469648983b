"""What lesions and images of training samples look like, drawn at random as parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
        Its voxels on the working grid; of one that is no shape of a real lesion, about where it lies.
    level : float
        Its intensity as a fraction of white matter.
    retained : float
        Part of the tissue's own texture that shows through, 0-1.
    rim : float
        Blur of its border in voxels (standard deviation).
    unevenness : float
        Relative standard deviation of its intensity over some 6 voxels.
    painter : str
        One of :data:`bids_inpaint.training.painters.PAINTERS`.
    reach : float
        A third of the voxels around `voxels` that it changes, where that is more than `rim`.
    depth, strength : float
        How much darker its core is than its border, or a real one than white matter, and its contrast beside
        that of a real one: see the painters.
    more : dict of array
        What its painter needs beside these.
    melts : float
        How much of it (0-1) goes on through grey matter and partial volume, as far as the fluid.
    """

    voxels: Voxels
    level: float
    retained: float
    rim: float
    unevenness: float = 0.08
    painter: str = "parametric"
    reach: float = 0.0
    depth: float = 0.0
    strength: float = 1.0
    more: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    melts: float = 0.0


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
    dirty : float
        How much darker smooth parts of white matter are, as a fraction of it: it is not lesion.
    vessels, spaces : float
        Level above white matter of bright tubes (enhanced vessels), and how dark tubes in white matter are
        (perivascular spaces), as fractions of it.
    ringing : tuple of float
        Part of the frequencies along each axis that the image has; less than 1 rings at edges (Gibbs).
    ghost : tuple of float
        Part of the image that a move repeats, and by how many voxels along which axis.
    tracts : array, optional
        How much darker white matter is, as a fraction of it, alike in both hemispheres, on a coarse lattice.
    sulci : float
        Part of a voxel, at most, by which fluid and cortex grow into the tissue beside them.
    fluid, deep : float
        How bright the middle between fluid and grey matter is, and that between grey and white matter, as a
        multiple of what it was; of the latter, above grey matter.
    """

    grey: float
    bias: np.ndarray = field(repr=False)
    blur: tuple[float, float, float]
    noise: float
    gain: float
    seed: int
    rim: float = 0.0
    rim_level: float = 0.0
    dirty: float = 0.0
    vessels: float = 0.0
    spaces: float = 0.0
    ringing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ghost: tuple[float, int, int] = (0.0, 0, 0)
    tracts: np.ndarray | None = field(default=None, repr=False)
    sulci: float = 0.0
    fluid: float = 1.0
    deep: float = 1.0


def draw_centre(rng: np.random.Generator, shapes: Lesions) -> np.ndarray:
    """Draw the centre of a patch, (3,) in voxels of the working grid: mostly where lesions occur."""
    if rng.random() < 0.2:
        return rng.uniform((30, 30, 15), (150, 190, 150))
    patient = shapes.patients[rng.integers(len(shapes.patients))]
    voxels = patient[rng.integers(len(patient))]
    return voxels[rng.integers(len(voxels))] + rng.normal(0, 12, 3)


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


def moved(
    rng: np.random.Generator,
    patient: list[Voxels],
    boxes: np.ndarray | None = None,
    centre: np.ndarray | float = 0.0,
    reach: np.ndarray | float = 0.0,
) -> list[Voxels]:
    """A patient's lesions, arrays (n, 3) of voxels, shifted and perhaps mirrored as a whole by chance.

    Parameters
    ----------
    rng : Generator
    patient : list of array
    boxes : array, (lesions, 2, 3), optional
        First and last voxels of the lesions; those that come to lie farther than `reach` from `centre` along
        an axis are left out.
    centre, reach : array, (3,)
    """
    sign, shift = np.ones(3), rng.normal(0, 2, 3)
    if rng.random() < 0.5:
        sign[0], shift[0] = -1, MIRROR - shift[0]
    if boxes is not None:
        ends = np.sort(boxes * sign + shift, 1)
        near = ((ends[:, 1] >= centre - reach) & (ends[:, 0] <= centre + reach)).all(1)
        patient = [patient[i] for i in np.flatnonzero(near)]
    return [voxels * sign + shift for voxels in patient]


def mirrored(voxels: Voxels) -> Voxels:
    """Mirror voxels of the working grid left to right."""
    return np.column_stack([MIRROR - voxels[:, 0], voxels[:, 1:]])


def draw_image(
    rng: np.random.Generator, grey: float, vary: bool = True, artefacts: bool = False
) -> ImageParameters:
    """Draw contrast, residual bias, resolution, noise and gain.

    Parameters
    ----------
    rng : Generator
    grey : float
        Grey-matter level of the image as a fraction of white matter.
    vary : bool
        If not, the parameters leave the image as it is.
    artefacts : bool
        Whether white matter may be dirty and have vessels and perivascular spaces, and edges ring or ghost.
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
    parameters = ImageParameters(
        grey=float(rng.uniform(0.5, 0.92)),
        bias=rng.normal(0, rng.uniform(0, 0.07), (4, 4, 4)).astype(np.float32),
        blur=(blur[0], blur[1], blur[2]),
        noise=float(rng.uniform(0, 0.035) if rng.random() < 0.7 else 0),
        gain=float(np.exp(rng.normal(0, 0.05))),
        rim=float(rng.normal(0, 1.5)) if rng.random() < 0.4 else 0.0,
        rim_level=float(rng.uniform(0.1, 1.1)),
        seed=int(rng.integers(2**31)),
    )
    return replace(parameters, **_draw_artefacts(rng)) if artefacts else parameters


def _draw_artefacts(rng: np.random.Generator) -> dict[str, Any]:
    """What tells no lesion from healthy tissue, each in some images only."""
    out: dict[str, Any] = {}
    if rng.random() < 0.4:
        out["dirty"] = float(rng.uniform(0.01, 0.08))
    if rng.random() < 0.25:
        out["vessels"] = float(rng.uniform(0.1, 0.8))
    if rng.random() < 0.25:
        out["spaces"] = float(rng.uniform(0.1, 0.5))
    if rng.random() < 0.2:
        ringing = [1.0, 1.0, 1.0]
        ringing[int(rng.integers(3))] = float(rng.uniform(0.55, 0.9))
        out["ringing"] = tuple(ringing)
    if rng.random() < 0.15:
        out["ghost"] = (float(rng.uniform(0.01, 0.06)), int(rng.integers(3, 30)), int(rng.integers(3)))
    return out
