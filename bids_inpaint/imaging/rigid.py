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


STAGES = (
    Stage(8.0, 8.0, 1, True),
    Stage(4.0, 4.0, 1, True),
    Stage(2.0, 3.0, 4, False),
    Stage(1.0, 2.0, 4, False),
)
#: Turns from which the search begins (degrees), about each axis, beside none.
_TURN = 25.0
#: A stage ends when no point moves by more (mm) in a step, or after so many steps.
_TOLERANCE, _MOST_STEPS = 1e-3, 30
#: Residuals beyond so many standard deviations count nothing (Tukey 1974): lesions that changed.
_OUTLIER = 4.685
#: Of the log of the ratio of both bias fields, half.
_MOST_RATIO = 1.5
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
        Correlation of both images, each smoothed by a Gaussian of 1 mm, where they are compared; 0 where
        nothing can be.

    Raises
    ------
    ValueError
        If a mask is empty, or most of it has no signal.

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
    matrix, likeness = max(
        (_fit(start, coarse, STAGES[0]) for start in _starts(coarse)), key=lambda fit: fit[1]
    )
    for stage, *levels in zip(STAGES[1:], *(pyramid[1:] for pyramid in pyramids), strict=True):
        matrix, likeness = _fit(matrix, levels, stage)
    return matrix, likeness


def halfway(matrix: Array) -> Array:
    """Half of a rigid transform of less than half a turn: twice in turn it is the whole.

    Examples
    --------
    >>> half = halfway(np.array([[0.0, -1, 0, 2], [1, 0, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]))
    >>> (half @ half @ [0, 0, 0, 1]).round(9).tolist()
    [2.0, 0.0, 4.0, 1.0]
    """
    half = np.eye(4)
    half[:3, :3] = Rotation.from_rotvec(Rotation.from_matrix(matrix[:3, :3]).as_rotvec() / 2).as_matrix()
    half[:3, 3] = np.linalg.solve(np.eye(3) + half[:3, :3], matrix[:3, 3])
    return half


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
    level = float(np.median(image[share > 0]))
    if not level > 0:
        raise ValueError("most of the brain has no signal")
    image /= level
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
    points, counts = _points(matrix, levels, stage)
    if not points.size:
        return matrix, 0.0
    middle = points.mean(1, keepdims=True)
    place = (points - middle) / _UNIT
    powers = [
        c for degree in range(stage.degree + 1) for c in combinations_with_replacement(range(3), degree)
    ]
    field = np.stack([np.prod(place[list(c)], axis=0) for c in powers])
    weights, likeness = np.zeros(len(field)), 0.0
    for _ in range(_MOST_STEPS):
        ratio = np.exp(np.clip(weights @ field / 2, -_MOST_RATIO, _MOST_RATIO))
        half = halfway(matrix)
        (a, along_a), (b, along_b) = (
            _sample(level.values, level.to_voxels @ to_world, points)
            for level, to_world in zip(levels, (np.linalg.inv(half), half), strict=True)
        )
        a, along_a, b, along_b = a / ratio, along_a / ratio, b * ratio, along_b * ratio
        likeness = _correlation(a, b, counts)
        away = a - b
        spread = 1.4826 * np.median(np.abs(away)) + 1e-6
        trust = counts * np.clip(1 - (away / (_OUTLIER * spread)) ** 2, 0, None) ** 2
        along = (along_a + along_b) / 2
        columns = np.concatenate([np.cross(place, along, axis=0), along, field * (a + b) / 2])
        trusted = columns * trust
        solution = np.linalg.lstsq(trusted @ columns.T, trusted @ away, rcond=None)[0]
        weights = weights + solution[6:]
        step = _move(solution[:6], middle[:, 0])
        # in halfway coordinates, where half of the step belongs to either side
        matrix = half @ step @ half
        if np.abs(step[:3] @ np.vstack([points, np.ones(points.shape[1])]) - points).max() < _TOLERANCE:
            break
    return matrix, likeness


def _points(matrix: Array, levels: list[_Level], stage: Stage) -> tuple[Array, Array]:
    """Where both images are compared, halfway between them, in mm, and what each place counts.

    Returns
    -------
    points : array, shape (3, n)
    counts : array, shape (n,)
    """
    half = halfway(matrix)
    to_voxels = [
        level.to_voxels @ side for level, side in zip(levels, (np.linalg.inv(half), half), strict=True)
    ]
    corners = []
    for level, to_voxel in zip(levels, to_voxels, strict=True):
        ends = np.array([*product(*((0, n - 1) for n in level.share.shape), [1])], float)
        corners.append((np.linalg.inv(to_voxel) @ ends.T)[:3])
    low, high = (np.array([getattr(c, end)(1) for c in corners]) for end in ("min", "max"))
    low, high = (low.min(0), high.max(0)) if stage.outline else (low.max(0), high.min(0))
    axes = [
        (a + b) / 2 + stage.step * np.arange(-n, n + 1)
        for a, b, n in zip(low, high, np.floor((high - low) / 2 / stage.step + 1e-4).astype(int), strict=True)
    ]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    one, other = (_sample(level.share, t, points)[0] for level, t in zip(levels, to_voxels, strict=True))
    counts = np.where(one + other > 0.02, 1.0, 0.0) if stage.outline else one * other
    kept = counts > 0.25
    return points[:, kept], counts[kept]


def _sample(volume: Array, to_voxels: Array, points: Array) -> tuple[Array, Array]:
    """Trilinear values and their slopes (a mm of the points), 0 outside."""
    position = to_voxels[:3, :3] @ points + to_voxels[:3, 3:]
    size = np.array(volume.shape)[:, None]
    inside = ((position >= 0) & (position <= size - 1)).all(0)
    corner = np.clip(np.floor(position), 0, size - 2).astype(np.intp)
    x, y, z = np.clip(position - corner, 0, 1)
    flat, first = volume.ravel(), np.ravel_multi_index(tuple(corner), volume.shape)
    row, plane = volume.shape[2], volume.shape[1] * volume.shape[2]
    # along x, of the four edges of the cell
    low = [flat[first + offset].astype(float) for offset in (0, 1, row, row + 1)]
    steps = [flat[first + plane + offset] - v for offset, v in zip((0, 1, row, row + 1), low, strict=True)]
    near, near_z, far, far_z = (v + x * step for v, step in zip(low, steps, strict=True))
    front, back = near + z * (near_z - near), far + z * (far_z - far)
    along_x = steps[0] + z * (steps[1] - steps[0])
    along_x += y * (steps[2] + z * (steps[3] - steps[2]) - along_x)
    along_z = (near_z - near) + y * (far_z - far - near_z + near)
    slopes = np.stack([along_x, back - front, along_z]) * inside
    return (front + y * (back - front)) * inside, to_voxels[:3, :3].T @ slopes


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
