"""Four independent ways to make a lesion: each has its own shapes, borders, depth and texture.

A network that knows one painter knows that painter's lesions. The four share nothing but where lesions can be
(:mod:`bids_inpaint.training.painting`), so that one can be left out of training to see what the network knows
of lesions that nobody showed it. :mod:`bids_inpaint.training.outlines` makes what is drawn here.

``parametric``
    Shapes of real lesions; one level a lesion, uneven texture, a blurred border.
``quantile``
    Shapes of real lesions; intensities of other real lesions of patients, given to the darkest core first.
``field``
    Ellipsoids with rough, soft borders and a halo; mixtures of a dark and a bright level in smooth patches.
``patch``
    What real lesions of patients take away from their lesion-free image, blended in elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from torch import Tensor

from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.space import MIRROR
from bids_inpaint.training.data import Lesions, Subject
from bids_inpaint.training.outlines import (
    Outline,
    Outlined,
    Paint,
    change_field,
    change_parametric,
    change_patch,
    change_quantile,
    outline_field,
    outline_patch,
    outline_quantile,
    outline_shape,
)
from bids_inpaint.training.parameters import LesionParameters, Voxels, mirrored, moved

#: Numbers that describe the intensities of a real lesion.
QUANTILES = 16
#: Knots of the smooth fields of a lesion along each axis.
KNOTS = 6


class RealLesions:
    """Lesions of patients with their lesion-free targets: intensities, and what they take away.

    Parameters
    ----------
    patients : sequence of Subject
        Of the training; each has its target.
    """

    def __init__(self, patients: Sequence[Subject]):
        self.patients = list(patients)

    @cached_property
    def changes(self) -> list[np.ndarray]:
        """(image - target) / (1 - grey) of each patient, float16 on the working grid: contrast-free."""
        return [
            ((np.asarray(s.image, np.float32) - s.target) / (1 - s.grey_level)).astype(np.float16)
            for s in self.patients
        ]

    @cached_property
    def components(self) -> list[tuple[int, Voxels]]:
        """Patient and voxels of each lesion of at least 10 voxels."""
        out = []
        for number, subject in enumerate(self.patients):
            labels, _ = ndimage.label(np.asarray(subject.lesions), CONNECTIVITY)
            for label, box in enumerate(ndimage.find_objects(labels), 1):
                voxels = np.argwhere(labels[box] == label) + [s.start for s in box]
                if len(voxels) >= 10:
                    out.append((number, voxels.astype(np.int16)))
        return out

    @cached_property
    def tables(self) -> np.ndarray:
        """Quantiles of the change in each lesion, darkest first, (lesions, :data:`QUANTILES`)."""
        places = np.linspace(0.02, 0.98, QUANTILES)
        values = [self.changes[n][tuple(v.T)].astype(np.float32) for n, v in self.components]
        return np.array([np.quantile(v, places) for v in values], np.float32).clip(-2, 0)


@dataclass(frozen=True)
class Scene:
    """Where lesions are to be drawn.

    Attributes
    ----------
    shapes : Lesions
    centre : array, shape (3,)
        Of the patch, in voxels of the working grid.
    size : array, shape (3,)
        Its edges.
    kind : {'none', 'patient', 'singles', 'both'}
        Whether there are no lesions, or shapes of all of a real patient, single ones, or both.
    grey : float
        Grey-matter level as a fraction of white matter.
    real : RealLesions, optional
        Needed by the painters ``quantile`` and ``patch``.
    """

    shapes: Lesions
    centre: np.ndarray
    size: np.ndarray
    kind: str
    grey: float
    real: RealLesions | None = None


def draw_kind(rng: np.random.Generator, mix: Mapping[str, float]) -> str:
    """Draw the kind of a :class:`Scene` by the share of each."""
    return str(rng.choice(list(mix), p=np.array(list(mix.values())) / sum(mix.values())))


def draw_lesions(
    rng: np.random.Generator, scene: Scene, painters: Mapping[str, float]
) -> list[LesionParameters]:
    """Draw the lesions in and around a patch by one painter; now and then, half of them by another.

    Parameters
    ----------
    rng : Generator
    scene : Scene
    painters : mapping of str to float
        Share of each of :data:`PAINTERS`.
    """
    if scene.kind == "none":
        return []
    names, shares = list(painters), np.array(list(painters.values()), float)
    chosen = rng.choice(names, size=2 if rng.random() < 0.2 else 1, p=shares / shares.sum())
    return [
        lesion
        for name in chosen
        for lesion in PAINTERS[name].draw(rng, scene)
        if len(chosen) == 1 or rng.random() < 0.5
    ]


def _shapes(rng: np.random.Generator, scene: Scene) -> list[Voxels]:
    """Shapes of real lesions in and around a patch: those of a patient, single ones, or both.

    Single ones are mostly moved into the patch, as else too few voxels of a patch would teach anything.
    """
    shapes, sets = scene.shapes, []
    if scene.kind in ("patient", "both"):
        reach = scene.size / 2 + 2
        number = rng.integers(len(shapes.patients))
        sets += moved(rng, shapes.patients[number], shapes.boxes[number], scene.centre, reach)
    if scene.kind in ("singles", "both"):
        for i in rng.integers(len(shapes.singles), size=rng.integers(2, 25)):
            sets.append(_varied(rng, shapes.singles[i], scene))
    return sets


def _somewhere(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    return scene.centre + rng.uniform(-0.5, 0.5, 3) * scene.size


def _where_lesions_are(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """A place in the patch: near where a patient has a lesion, in two of three cases."""
    if rng.random() < 2 / 3:
        for _ in range(10):
            patient = scene.shapes.patients[rng.integers(len(scene.shapes.patients))]
            lesion = patient[rng.integers(len(patient))]
            place = lesion[rng.integers(len(lesion))] + rng.normal(0, 2, 3)
            if (np.abs(place - scene.centre) < scene.size / 2).all():
                return place
    return _somewhere(rng, scene)


def _varied(rng: np.random.Generator, voxels: Voxels, scene: Scene) -> Voxels:
    """A single lesion of another size near where it was, or mostly in the patch."""
    # small lesions are the most frequent, and the stored ones have at least 50 voxels
    scale = rng.uniform(0.35, 1.15, 3) if len(voxels) < 2000 else rng.uniform(0.7, 1.1, 3)
    points = voxels.astype(float)
    # the mean, much faster
    old = np.full(len(points), 1 / len(points)) @ points
    centre = old + rng.normal(0, 3, 3)
    if rng.random() < 0.5:
        scale[0], centre[0] = -scale[0], MIRROR - centre[0]
    if rng.random() < 0.8 and len(voxels) < 10_000:
        centre = _somewhere(rng, scene)
    points *= scale
    points += centre - scale * old
    return points


def _parametric(rng: np.random.Generator, scene: Scene, sets: Sequence[Voxels]) -> list[LesionParameters]:
    contrast = 1 - scene.grey
    # lesions of one patient resemble each other, and are about as dark as grey matter
    typical = rng.uniform(0.5, 0.92) if rng.random() < 0.5 else 1 - rng.uniform(0.3, 1.3) * contrast
    spread_ = 0.1 if rng.random() < 0.5 else 0.3 * contrast
    diffuse = rng.random() < 0.25
    return [
        LesionParameters(
            voxels=v,
            level=float(min(max(typical + rng.normal(0, spread_), 0.3), 0.97)),
            retained=float(rng.uniform(0.2, 1)),
            rim=float(rng.uniform(1, 2.5) if diffuse else rng.uniform(0.5, 1.3)),
            unevenness=float(rng.uniform(0, 0.2)),
        )
        for v in sets
    ]


def _quantile(rng: np.random.Generator, scene: Scene, sets: Sequence[Voxels]) -> list[LesionParameters]:
    assert scene.real is not None
    tables = scene.real.tables
    strength, depth = rng.uniform(0.6, 1.2), rng.uniform(0, 1.5)
    rim = rng.uniform(0.5, 1.8)
    return [
        LesionParameters(
            voxels=v,
            level=1.0,
            retained=float(rng.uniform(0, 0.5)),
            rim=float(rim * rng.uniform(0.7, 1.3)),
            unevenness=float(rng.uniform(0.3, 1.5)),
            painter="quantile",
            depth=float(depth),
            strength=float(strength * rng.uniform(0.85, 1.15)),
            more={"table": tables[rng.integers(len(tables))]},
        )
        for v in sets
    ]


def _draw_field(rng: np.random.Generator, scene: Scene) -> list[LesionParameters]:
    out = []
    contrast = 1 - scene.grey
    faint = rng.random() < 0.35
    for _ in range(int(np.ceil(rng.exponential(7)))):
        radii = np.exp(rng.normal(1.05, 0.5) + rng.normal(0, 0.25, 3)).clip(1.0, 14.0)
        centre = _where_lesions_are(rng, scene)
        reach = np.ceil(radii).astype(int)
        ranges = [np.arange(-r, r + 1) for r in reach]
        grid = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)
        voxels = grid[((grid / radii) ** 2).sum(1) <= 1] + centre
        bright = 1 - contrast * (rng.uniform(0.15, 0.6) if faint else rng.uniform(0.3, 1.2))
        # as dark as fluid at most
        dark = bright - rng.uniform(0, 0.35 if faint else 0.6) * max(bright - 0.3, 0)
        softness = float(np.exp(rng.uniform(np.log(0.06), np.log(0.45))))
        numbers = [*radii, rng.uniform(0.1, 0.5), softness, rng.uniform(0, 0.4), dark, rng.normal(0, 0.7)]
        out.append(
            LesionParameters(
                voxels=voxels,
                level=float(bright),
                retained=float(rng.uniform(0, 0.6)),
                rim=0.5,
                painter="field",
                reach=float(0.3 * radii.max()),
                more={
                    "centre": centre.astype(np.float32),
                    "numbers": np.array(numbers, np.float32),
                    "lattices": rng.normal(size=(2, KNOTS, KNOTS, KNOTS)).astype(np.float32),
                },
            )
        )
    return out


def _draw_patch(rng: np.random.Generator, scene: Scene) -> list[LesionParameters]:
    assert scene.real is not None
    components = scene.real.components
    strength = rng.uniform(0.6, 1.25)
    out = []
    for i in rng.integers(len(components), size=rng.integers(2, 20)):
        patient, voxels = components[i]
        flip = bool(rng.random() < 0.5)
        placed = mirrored(voxels) if flip else voxels.astype(float)
        if rng.random() < 0.7:
            shift = np.rint(_where_lesions_are(rng, scene) - placed.mean(0))
        else:
            shift = np.rint(rng.normal(0, 3, 3))
        out.append(
            LesionParameters(
                voxels=placed + shift,
                level=1.0,
                retained=0.0,
                rim=float(rng.uniform(0.5, 1.2)),
                painter="patch",
                # what it takes away on average, as a multiple of the contrast
                depth=-float(scene.real.tables[i].mean()),
                strength=float(strength * rng.uniform(0.9, 1.1)),
                more={"source": np.array([patient, flip, *shift], np.int64)},
            )
        )
    return out


@dataclass(frozen=True)
class Painter:
    """How the lesions of a painter are drawn, and what it makes of them.

    Attributes
    ----------
    draw : callable
    outline : callable
        How much of each voxel is lesion.
    change : callable
        What is added to healthy tissue that is wholly lesion.
    real : bool
        Whether it needs :class:`RealLesions`.
    of_shapes : callable, optional
        How it draws lesions of any shapes.
    """

    draw: Callable[[np.random.Generator, Scene], list[LesionParameters]]
    outline: Callable[[Outline], Outlined]
    change: Callable[[Paint], Tensor]
    real: bool = False
    of_shapes: Callable[[np.random.Generator, Scene, Sequence[Voxels]], list[LesionParameters]] | None = None


PAINTERS = {
    "parametric": Painter(
        lambda rng, scene: _parametric(rng, scene, _shapes(rng, scene)),
        outline_shape,
        change_parametric,
        of_shapes=_parametric,
    ),
    "quantile": Painter(
        lambda rng, scene: _quantile(rng, scene, _shapes(rng, scene)),
        outline_quantile,
        change_quantile,
        real=True,
        of_shapes=_quantile,
    ),
    "field": Painter(_draw_field, outline_field, change_field),
    "patch": Painter(_draw_patch, outline_patch, change_patch, real=True),
}
