"""Lesions at the borders of white matter: bands and caps of the ventricles, and spots beside the cortex.

Their shapes follow the healthy image that they are painted into, and the painters give them their looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from bids_inpaint.space import MIRROR
from bids_inpaint.training.config import Synthesis
from bids_inpaint.training.data import Subject
from bids_inpaint.training.painters import PAINTERS, Scene
from bids_inpaint.training.painting import DEEP_GREY, FLUID
from bids_inpaint.training.parameters import LesionParameters, Voxels, mirrored

#: What the lateral ventricles lie in, in voxels of the working grid.
VENTRICLES = (slice(50, 131), slice(40, 170), slice(58, 115))
#: What holds the bodies of both, and neither a fissure nor a cistern.
BODIES = (slice(72, 109), slice(90, 140), slice(86, 99))
#: Voxels from the ventricles that bands and caps reach.
WALL = 9.0


@dataclass(frozen=True)
class Borders:
    """Where the white matter of a brain ends.

    Attributes
    ----------
    wall : array of int16, shape (n, 3)
        Voxels of the working grid, of white matter and of partial volume around the lateral ventricles, and
        the outermost of these.
    depth : array of float32, shape (n,)
        Their distance from the fluid, in voxels; that of fluid is 0.
    cortex : array of int16, shape (m, 3)
        Voxels between white matter and cortex.
    """

    wall: np.ndarray
    depth: np.ndarray
    cortex: np.ndarray

    @classmethod
    def of(cls, subject: Subject) -> Borders:
        """Those of a healthy image."""
        contrast = 1 - subject.grey_level
        image = np.asarray(subject.image)
        middle = image[VENTRICLES].astype(np.float32)
        between = (image > 1 - 0.55 * contrast) & (image < 1 - 0.25 * contrast)
        between[DEEP_GREY] = False
        fluid = ventricles(middle < FLUID * subject.grey_level)
        if not fluid.any():
            return cls(np.zeros((0, 3), np.int16), np.zeros(0, np.float32), _voxels(between))
        depth = ndimage.distance_transform_edt(~fluid).astype(np.float32)
        between[VENTRICLES] &= depth > WALL
        # the rim of partial volume belongs to what touches the ventricle, but the caudate nucleus does not
        tissue = middle >= FLUID * subject.grey_level
        wall = tissue & (depth <= WALL) & ((middle > 1 - 0.65 * contrast) | (depth < 1.8))
        # some of the fluid, so that a blurred lesion does not fade where it touches the ventricle
        wall |= fluid & (ndimage.distance_transform_edt(fluid) <= 2)
        voxels = np.argwhere(wall) + [s.start for s in VENTRICLES]
        return cls(voxels.astype(np.int16), depth[wall], _voxels(between))


def ventricles(fluid: np.ndarray) -> np.ndarray:
    """The lateral ventricles of all fluid in the box :data:`VENTRICLES`, arrays of bool of its shape."""
    x, y, z = np.ogrid[VENTRICLES]
    side, boxes = np.abs(x - MIRROR / 2), zip(BODIES, VENTRICLES, strict=True)
    # the third ventricle, the cisterns behind it and the fissure above may touch them
    others = (side < 4) & ((z < 86) | (z > 92)) | (side < 15) & (y < 105) & (z < 85)
    pieces, _ = ndimage.label(fluid & ~others)
    held = np.unique(pieces[tuple(slice(b.start - v.start, b.stop - v.start) for b, v in boxes)])
    return np.isin(pieces, held[held > 0])


def _voxels(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).astype(np.int16)


def draw_at_borders(
    rng: np.random.Generator, scene: Scene, borders: Borders, flip: bool, synthesis: Synthesis
) -> list[LesionParameters]:
    """Draw lesions that touch a ventricle or the cortex.

    Parameters
    ----------
    rng : Generator
    scene : Scene
    borders : Borders
    flip : bool
        Whether the patch is of the mirrored image.
    synthesis : Synthesis
        Has the shares of patches with lesions of a ventricle and of the cortex, and of painters.
    """
    painters = {n: share for n, share in synthesis.painters.items() if share and PAINTERS[n].of_shapes}
    walls: list[Voxels] = []
    spots: list[Voxels] = []
    if rng.random() < synthesis.periventricular:
        walls = _at_ventricles(rng, scene, borders, flip)
    if rng.random() < synthesis.juxtacortical:
        spots = _at_cortex(rng, scene, borders, flip)
    if not painters or not (walls or spots):
        return []
    chosen = str(rng.choice(list(painters), p=np.array(list(painters.values())) / sum(painters.values())))
    paint = PAINTERS[chosen].of_shapes
    assert paint is not None
    # of a voxel of partial volume, the lesion takes a part away; of the cortex, experts mark little
    looks = [(1.0, 0.92)] * len(walls) + [(0.6, 0.87)] * len(spots)
    return [
        replace(
            lesion,
            melts=melt,
            level=min(lesion.level, brightest) if chosen == "parametric" else lesion.level,
            retained=float(rng.uniform(0.4, 0.9)),
            rim=float(rng.uniform(0.5, 1.1)),
        )
        for (melt, brightest), lesion in zip(looks, paint(rng, scene, [*walls, *spots]), strict=True)
    ]


def _within(voxels: Voxels, scene: Scene, flip: bool) -> tuple[Voxels, np.ndarray]:
    """Voxels of an image, or of the mirrored one, in the patch, and their numbers."""
    low, high = scene.centre - scene.size / 2, scene.centre + scene.size / 2
    if flip:
        low[0], high[0] = MIRROR - high[0], MIRROR - low[0]
    # they are in the order of the first axis
    start, stop = np.searchsorted(voxels[:, 0], (low[0], high[0]))
    part = voxels[start:stop]
    numbers = np.flatnonzero(
        (part[:, 1] >= low[1]) & (part[:, 1] < high[1]) & (part[:, 2] >= low[2]) & (part[:, 2] < high[2])
    )
    near = part[numbers].astype(np.float32)
    return mirrored(near) if flip else near, numbers + start


def _at_ventricles(rng: np.random.Generator, scene: Scene, borders: Borders, flip: bool) -> list[Voxels]:
    """Thin bands along the ventricles and thick caps on them, half of them in both hemispheres."""
    voxels, numbers = _within(borders.wall, scene, flip)
    depth = borders.depth[numbers]
    first = np.flatnonzero((depth > 0) & (depth < 1.5))
    if len(first) < 20:
        return []
    out = []
    for _ in range(rng.integers(1, 4)):
        band = rng.random() < 0.6
        thickness, radius = (
            (rng.uniform(1.2, 3.2), rng.uniform(8, 26)) if band else (rng.uniform(3, 8), rng.uniform(4, 11))
        )
        seed = voxels[rng.choice(first)]
        uneven = 1 + 0.4 * np.sin(voxels @ rng.normal(0, 0.4, 3) + rng.uniform(0, 6))
        points = [seed, mirrored(seed[None])[0]] if rng.random() < 0.5 else [seed]
        for point in points:
            lens = (1 - ((voxels - point) ** 2).sum(1) / radius**2).clip(0)
            inside = (lens > 0) & (depth <= thickness * np.sqrt(lens) * uneven + 0.5)
            if inside.any():
                out.append(voxels[inside])
    return out


def _at_cortex(rng: np.random.Generator, scene: Scene, borders: Borders, flip: bool) -> list[Voxels]:
    """Small spots on the border of the cortex, and curved ones along it."""
    voxels, _ = _within(borders.cortex, scene, flip)
    if len(voxels) < 20:
        return []
    out = []
    for _ in range(rng.integers(1, 7)):
        centre = voxels[rng.integers(len(voxels))] + rng.normal(0, 0.7, 3)
        if rng.random() < 0.35:
            out.append(voxels[((voxels - centre) ** 2).sum(1) < rng.uniform(3, 7) ** 2])
            continue
        radii = np.exp(rng.normal(0.75, 0.3) + rng.normal(0, 0.25, 3)).clip(1.2, 5)
        grid = np.mgrid[-5:6, -5:6, -5:6].reshape(3, -1).T
        out.append(grid[((grid / radii) ** 2).sum(1) <= 1] + centre)
    return out


def fainter(rng: np.random.Generator, lesion: LesionParameters, grey: float) -> LesionParameters:
    """The same lesion, darker than white matter by a tenth or two alone, with a wide border.

    Parameters
    ----------
    rng : Generator
    lesion : LesionParameters
        Of any painter; one that is as faint already gets the border alone.
    grey : float
        Grey-matter level as a fraction of white matter.
    """
    darker = rng.uniform(0.08, 0.2)
    rim = max(lesion.rim, float(rng.uniform(1.0, 2.2)))
    if lesion.painter == "parametric":
        level = max(lesion.level, 1 - darker)
        return replace(lesion, level=level, retained=max(lesion.retained, 0.6), rim=rim)
    if lesion.painter == "field":
        numbers = lesion.more["numbers"].copy()
        level = max(lesion.level, 1 - darker)
        # softness of the border, and the darkest level
        numbers[4] = rng.uniform(0.4, 0.8)
        numbers[6] = max(numbers[6], level - 0.06)
        return replace(lesion, level=level, more={**lesion.more, "numbers": numbers})
    # of the others, the change of a real lesion as a multiple of the contrast
    real = -float(lesion.more["table"].mean()) if "table" in lesion.more else lesion.depth
    strength = min(lesion.strength, darker / max(real * (1 - grey), 0.02))
    return replace(lesion, strength=strength, rim=rim)
