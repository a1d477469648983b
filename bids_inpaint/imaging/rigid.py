"""Rigid registration of two T1w images of one person, of which neither is the reference (pure arrays)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import numpy as np
from scipy import linalg, ndimage
from scipy.spatial.transform import Rotation

from bids_inpaint.imaging.brain import foreground
from bids_inpaint.space import Grid, bounding_box

Array = np.ndarray


@dataclass(frozen=True)
class Visit:
    """A T1w image of a person.

    Attributes
    ----------
    data : array, shape `grid.shape`
        Intensities in any unit, 0 without signal.
    grid : Grid
    mask : array of bool, optional
        The brain. Without it all that is no background counts, as a neck that bends does.
    """

    data: Array
    grid: Grid
    mask: Array | None = None

    @property
    def support(self) -> Array:
        """Where tissue is compared: the brain, or all that is no background."""
        return foreground(self.data) if self.mask is None else np.asarray(self.mask, bool)


@dataclass(frozen=True)
class Stage:
    """A stage of the search, from coarse to fine.

    Attributes
    ----------
    sigma : float
        Standard deviation of the smoothing of both images (mm).
    step : float
        Distance between the points that are compared (mm).
    degree : int
        Of the polynomial that takes the place of the ratio of both bias fields.
    outline : bool
        Whether the outline of the brain counts. It leads far, but is where masks differ.
    """

    sigma: float
    step: float
    degree: int
    outline: bool


STAGES = (Stage(8.0, 8.0, 1, True), Stage(4.0, 4.0, 1, True), Stage(2.0, 3.0, 3, False), Stage(1.0, 2.0, 3, False))
#: Turns from which the search begins (degrees), about each axis, beside none.
_TURN = 25.0
#: A stage ends when no point moves by more (mm) in a step, or after so many steps.
_TOLERANCE, _MOST_STEPS = 1e-3, 30
#: Residuals beyond so many standard deviations count nothing (Tukey 1974): lesions that changed.
_OUTLIER = 4.685
#: Of length in the equations (mm).
_UNIT = 50.0


@dataclass(frozen=True)
class _Level:
    """A smoothed image: values and the share of the mask, and world to voxels."""

    values: Array
    share: Array
    to_voxels: Array


def register(first: Visit, second: Visit) -> tuple[Array, float]:
    """Rigid transform between two images of a person.

    Parameters
    ----------
    first, second : Visit

    Returns
    -------
    matrix : array, shape (4, 4)
        World of the first to that of the second (RAS+, mm). With the images exchanged it is the inverse, up
        to rounding.
    likeness : float
        Correlation of both images, each smoothed by a Gaussian of 1 mm, where they are compared.

    Notes
    -----
    Both images, A and B, are resampled halfway between them [1]_. There

    .. math:: e^{-p(x)/2} A(M^{-1/2} x) - e^{p(x)/2} B(M^{1/2} x)

    is small for the rigid transform M and a polynomial p, the log of the ratio of their bias fields and
    scales. Gauss-Newton steps minimise the sum of Tukey's function of it, which grows no more beyond some
    standard deviations of the noise: what changed between the visits has no part in the result. An exchange
    of the images changes the signs of the residuals, of p and of the steps, and nothing else.

    References
    ----------
    .. [1] Reuter et al. 2010, NeuroImage 53:1181-1196 (doi:10.1016/j.neuroimage.2010.07.020).
    """
    pyramids = [list(_pyramid(visit)) for visit in (first, second)]
    coarse = [pyramid[0] for pyramid in pyramids]
    matrix, likeness = max((_fit(start, coarse, STAGES[0]) for start in _starts(coarse)), key=lambda fit: fit[1])
    for stage, *levels in zip(STAGES[1:], *(pyramid[1:] for pyramid in pyramids), strict=True):
        matrix, likeness = _fit(matrix, levels, stage)
    return matrix, likeness


def power(matrix: Array, exponent: float) -> Array:
    """A rigid transform to some power: 0.5 is half of the way.

    Examples
    --------
    >>> half = power(np.array([[0.0, -1, 0, 2], [1, 0, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]), 0.5)
    >>> (half @ half).round(9).tolist()
    [[0.0, -1.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 4.0], [0.0, 0.0, 0.0, 1.0]]
    """
    return linalg.expm(exponent * logarithm(matrix))


def logarithm(matrix: Array) -> Array:
    """Logarithm of a rigid transform of less than half a turn, a real matrix of shape (4, 4)."""
    return linalg.logm(matrix).real


def _pyramid(visit: Visit) -> Iterator[_Level]:
    """The image, smoothed for each stage, from the first on."""
    support = visit.support
    finest = STAGES[-1].sigma
    box = bounding_box(support, margin=int(np.ceil(3 * finest / visit.grid.voxel_sizes.min())))
    share = support[box].astype(np.float32)
    image = np.asarray(visit.data[box], np.float32) * share
    image /= np.median(image[share > 0])
    matrix, before = visit.grid.part(box).matrix, 0.0
    levels = []
    for stage in reversed(STAGES):
        grid = Grid.of(share.shape, matrix)
        width = np.sqrt(stage.sigma**2 - before**2) / grid.voxel_sizes
        # what is smoothed reaches beyond the box
        room = np.ceil(3 * width).astype(int) if stage.outline else np.ones(3, int)
        matrix = grid.part(tuple(slice(-r, 0) for r in room)).matrix
        image, share = (
            ndimage.gaussian_filter(np.pad(v, [(r, r) for r in room]), width, mode="constant", truncate=3)
            for v in (image, share)
        )
        thin = np.maximum((stage.sigma / 2 / grid.voxel_sizes).astype(int), 1)
        image, share = (v[tuple(slice(None, None, t) for t in thin)] for v in (image, share))
        matrix = matrix @ np.diag([*thin, 1.0])
        values = image if stage.outline else image / np.maximum(share, 1e-3)
        levels.append(_Level(values, share, np.linalg.inv(matrix)))
        before = stage.sigma
    return reversed(levels)


def _starts(levels: list[_Level]) -> Iterator[Array]:
    """Where the search begins: as the headers say, and centre upon centre with some turns."""
    yield np.eye(4)
    first, second = (
        np.linalg.inv(level.to_voxels) @ [*ndimage.center_of_mass(level.share), 1] for level in levels
    )
    turns = np.concatenate([np.zeros((1, 3)), _TURN * np.eye(3), -_TURN * np.eye(3)])
    for turn in turns:
        start = np.eye(4)
        start[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
        start[:3, 3] = second[:3] - start[:3, :3] @ first[:3]
        yield start


def _fit(matrix: Array, levels: list[_Level], stage: Stage) -> tuple[Array, float]:
    """The best rigid transform near another, and the correlation of both images."""
    points = _points(matrix, levels, stage)
    middle = points.mean(1, keepdims=True)
    place = (points - middle) / _UNIT
    powers = [c for degree in range(stage.degree + 1) for c in combinations_with_replacement(range(3), degree)]
    field = np.stack([np.prod(place[list(c)], axis=0) for c in powers])
    weights, likeness = np.zeros(len(field)), 0.0
    for _ in range(_MOST_STEPS):
        ratio = np.exp(weights @ field / 2)
        (a, along_a, in_a), (b, along_b, in_b) = (
            _sample(level, to_world, points)
            for level, to_world in zip(levels, (power(matrix, -0.5), power(matrix, 0.5)), strict=True)
        )
        a, along_a, b, along_b = a / ratio, along_a / ratio, b * ratio, along_b * ratio
        counts = np.ones_like(a) if stage.outline else in_a * in_b
        if not counts.any():
            return matrix, 0.0
        likeness = _correlation(a, b, counts)
        away = a - b
        spread = 1.4826 * np.median(np.abs(away[counts > 0.5 * counts.max()])) + 1e-6
        trust = counts * np.clip(1 - (away / (_OUTLIER * spread)) ** 2, 0, None) ** 2
        along = (along_a + along_b) / 2
        columns = np.concatenate([np.cross(place, along, axis=0), along, field * (a + b) / 2])
        trusted = columns * trust
        solution = np.linalg.lstsq(trusted @ columns.T, trusted @ away, rcond=None)[0]
        weights = weights + solution[6:]
        step = _move(solution[:6], middle[:, 0])
        half = power(matrix, 0.5)
        # in halfway coordinates, where half of the step belongs to either side
        matrix = half @ step @ half
        if np.abs(step[:3] @ np.vstack([points, np.ones(points.shape[1])]) - points).max() < _TOLERANCE:
            break
    return matrix, likeness


def _points(matrix: Array, levels: list[_Level], stage: Stage) -> Array:
    """Where both images are compared, halfway between them: shape (3, n), in mm."""
    halves = power(matrix, 0.5), power(matrix, -0.5)
    corners = []
    for level, to_middle in zip(levels, halves, strict=True):
        ends = np.array([*product(*((0, n - 1) for n in level.share.shape), [1])], float)
        corners.append((to_middle @ np.linalg.inv(level.to_voxels) @ ends.T)[:3])
    low, high = (np.array([getattr(c, end)(1) for c in corners]) for end in ("min", "max"))
    low, high = (low.min(0), high.max(0)) if stage.outline else (low.max(0), high.min(0))
    axes = [
        (a + b) / 2 + stage.step * np.arange(-n, n + 1)
        for a, b, n in zip(low, high, np.floor((high - low) / 2 / stage.step + 1e-4).astype(int), strict=True)
    ]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    shares = [
        _sample(level, to_world, points)[2] for level, to_world in zip(levels, reversed(halves), strict=True)
    ]
    least = (shares[0] + shares[1]) > 0.02 if stage.outline else shares[0] * shares[1] > 0.25
    return points[:, least]


def _sample(level: _Level, to_world: Array, points: Array) -> tuple[Array, Array, Array]:
    """Trilinear values, their slopes (a mm of the points), and shares of the mask, 0 outside."""
    to_voxels = level.to_voxels @ to_world
    position = to_voxels[:3, :3] @ points + to_voxels[:3, 3:]
    size = np.array(level.share.shape)[:, None]
    inside = ((position >= 0) & (position <= size - 1)).all(0)
    corner = np.clip(np.floor(position), 0, size - 2).astype(np.intp)
    part = np.clip(position - corner, 0, 1)
    strides = np.array([size[1, 0] * size[2, 0], size[2, 0], 1])
    first = strides @ corner
    values, share, slopes = np.zeros(points.shape[1]), np.zeros(points.shape[1]), np.zeros(points.shape)
    for offset in product((0, 1), repeat=3):
        at = first + strides @ offset
        value = level.values.ravel()[at]
        factors = np.where(np.array(offset)[:, None], part, 1 - part)
        weight = factors.prod(0)
        values += weight * value
        share += weight * level.share.ravel()[at]
        for axis in range(3):
            other = np.delete(factors, axis, 0).prod(0)
            slopes[axis] += (other if offset[axis] else -other) * value
    return values * inside, to_voxels[:3, :3].T @ slopes * inside, share * inside


def _move(solution: Array, middle: Array) -> Array:
    """The rigid transform of a turn about `middle` (radians times mm by `_UNIT`) and a shift (mm)."""
    turn, shift = solution[:3] / _UNIT, solution[3:]
    speed = np.zeros((4, 4))
    speed[:3, :3] = np.cross(np.eye(3), turn)
    speed[:3, 3] = shift - speed[:3, :3] @ middle
    return linalg.expm(speed)


def _correlation(a: Array, b: Array, weights: Array) -> float:
    means = [np.average(v, weights=weights) for v in (a, b)]
    a, b = a - means[0], b - means[1]
    return float((weights * a * b).sum() / np.sqrt((weights * a * a).sum() * (weights * b * b).sum() + 1e-30))
