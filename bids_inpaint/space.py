"""The working grid, and moving arrays between grids (pure NumPy/SciPy, no files)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray


def voxel_sizes(matrix: Array) -> Array:
    """Edge lengths of a voxel, shape (3,), from a voxel-to-world matrix of shape (4, 4)."""
    return np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))


@dataclass(frozen=True)
class Grid:
    """A voxel lattice in world space.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along each axis.
    affine : tuple of tuple of float
        4x4 voxel-to-world matrix in mm (RAS+), as nested tuples so that a grid is hashable.
    code : int
        What the world is, by the codes of NIfTI: 0 unknown, 1 scanner, 2 another image, 4 MNI.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    code: int = field(default=1, compare=False)

    @classmethod
    def of(cls, shape: Sequence[int], affine: Array | Sequence[Sequence[float]], code: int = 1) -> Grid:
        """Make a grid from any shape and 4x4 array."""
        x, y, z = (int(n) for n in shape)
        return cls((x, y, z), tuple(tuple(float(v) for v in row) for row in np.asarray(affine)), code)

    @property
    def matrix(self) -> Array:
        """The affine as a 4x4 float array."""
        return np.array(self.affine)

    @property
    def voxel_sizes(self) -> Array:
        """Edge lengths of a voxel in mm, shape (3,)."""
        return voxel_sizes(self.matrix)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³."""
        return float(abs(np.linalg.det(self.matrix[:3, :3])))

    def part(self, box: tuple[slice, ...]) -> Grid:
        """The lattice of ``array[box]``."""
        shift = np.eye(4)
        shift[:3, 3] = [s.start for s in box]
        return Grid.of([s.stop - s.start for s in box], self.matrix @ shift, self.code)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both grids hold the same voxels, within `tolerance` mm."""
        return self.shape == other.shape and np.allclose(self.matrix, other.matrix, atol=tolerance)


class Misplaced(ValueError):
    """A brain that does not lie where the template has one: what is said of it, as a verb and its object."""


#: FSL's 1 mm MNI grid: it splits into the 8 sub-volumes of 91x109x91 of Manjón et al. 2020, section 2.3.
WORKING_GRID = Grid.of((182, 218, 182), [[-1, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])

#: Voxel i of the working grid, mirrored about x = 0 mm, is voxel MIRROR - i.
MIRROR = 180


def mirrored(volume: Array) -> Array:
    """A volume on the working grid with left and right exchanged.

    Its last voxels have no opposite, and become 0.

    Examples
    --------
    >>> volume = np.arange(182)[:, None, None]
    >>> mirrored(volume)[[0, 90, 180, 181], 0, 0].tolist()
    [180, 90, 0, 0]
    """
    out = np.zeros_like(volume)
    out[: MIRROR + 1] = volume[MIRROR::-1]
    return out


def resample(
    data: Array,
    source: Grid,
    target: Grid,
    target_to_source: Array | None = None,
    order: int = 3,
    outside: str = "zero",
    mask: Array | None = None,
    part: tuple[slice, ...] | None = None,
) -> Array:
    """Resample an array from one grid to another through a world-to-world affine.

    Parameters
    ----------
    data : array, shape `source.shape`
        Any real values.
    source, target : Grid
        Where `data` lies, and where the result shall lie.
    target_to_source : array, shape (4, 4), optional
        Maps a world point (mm, RAS+) of the target onto the source; identity by default.
    order : int
        Degree of the interpolating spline. 0 is nearest neighbour, 1 trilinear; with 3 the
        result is clipped to the range of `data`, as cubic splines overshoot at edges.
    outside : {'zero', 'nearest'}
        Values beyond the field of view of `data`: 0, or those at its border.
    mask : array of bool, optional
        Voxels of the result to fill; the others are 0.
    part : tuple of slice, optional
        The part of the target to return, with a start and a stop along each axis; all of it by default.

    Returns
    -------
    array of float32, of the shape of the part
    """
    world = np.eye(4) if target_to_source is None else np.asarray(target_to_source)
    voxel = np.linalg.inv(source.matrix) @ world @ target.matrix
    data = np.asarray(data, dtype=np.float32)
    whole = tuple(slice(0, n) for n in target.shape)
    part = part or whole
    if source.shape == target.shape and np.allclose(voxel, np.eye(4), atol=1e-5):
        return data[part].copy() if mask is None else np.where(mask, data[part], np.float32(0))
    out = np.zeros([s.stop - s.start for s in part], np.float32)
    box = whole
    if order < 2 and outside == "zero":
        box = _reached(data, np.linalg.inv(voxel), target.shape)
    options: Any = {"order": order, "mode": {"zero": "grid-constant", "nearest": "nearest"}[outside]}
    origin = np.array([s.start for s in box])
    linear, shift = voxel[:3, :3], voxel[:3, :3] @ origin + voxel[:3, 3]
    common = [slice(max(b.start, p.start), min(b.stop, p.stop)) for b, p in zip(box, part, strict=True)]
    # of what is filled: in the part, and from the corner of the box
    inside = tuple(slice(c.start - p.start, c.stop - p.start) for c, p in zip(common, part, strict=True))
    first = np.array([c.start for c in common]) - origin
    filled = out[inside]
    if any(c.stop <= c.start for c in common):
        return out
    low, high = data.min(), data.max()
    if mask is None:
        shift = linear @ first + shift
        filled[...] = ndimage.affine_transform(data, linear, shift, filled.shape, np.float32, **options)
        return np.clip(out, low, high, out=out) if order > 1 else out
    # a spline is prepared for all of the image at once
    slabs = _slabs(filled.shape) if order < 2 else [slice(0, filled.shape[0])]
    for slab in slabs:
        chosen = mask[inside][slab]
        corner = first + np.array([slab.start, 0, 0])
        points = linear @ (np.array(np.nonzero(chosen), float) + corner[:, None]) + shift[:, None]
        values = ndimage.map_coordinates(data, points, np.float32, **options)
        filled[slab][chosen] = np.clip(values, low, high) if order > 1 else values
    return out


#: Voxels whose coordinates are in memory at once.
_AT_ONCE = 4_000_000


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut an array along its first axis, into parts of some million voxels."""
    thick = max(1, _AT_ONCE // int(np.prod(shape[1:])))
    for start in range(0, shape[0], thick):
        yield slice(start, min(start + thick, shape[0]))


def _reached(data: Array, to_target: Array, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of the target where a trilinear resampling of `data` can be other than 0."""
    inside = data != 0
    if not inside.any():
        return (slice(0, 0),) * 3
    # a voxel reaches as far as its neighbours
    ends = np.array([(s.start - 1, s.stop) for s in bounding_box(inside)])
    corners = np.array(list(product(*ends))) @ to_target[:3, :3].T + to_target[:3, 3]
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
    starts, stops = np.maximum(low, 0), np.minimum(high, shape)
    return tuple(slice(a, max(a, b)) for a, b in zip(starts.tolist(), stops.tolist(), strict=True))


def upright(grid: Grid, edge: float) -> Grid:
    """The smallest lattice of cubes along the axes of the world (RAS+) that covers another.

    Its numbers of voxels are even. Rounding of the affine by a millionth does not change them.
    """
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in grid.shape))))
    world = corners @ grid.matrix[:3, :3].T + grid.matrix[:3, 3]
    low, high = world.min(0), world.max(0)
    shape = 2 * np.ceil((high - low) / (2 * edge) - 1e-4).astype(int)
    matrix = np.diag([edge, edge, edge, 1.0])
    matrix[:3, 3] = (low + high) / 2 - edge * (shape - 1) / 2
    return Grid.of(shape, matrix)


def bounding_box(mask: Array, margin: int = 0) -> tuple[slice, ...]:
    """Smallest box that holds every true voxel, widened by `margin` voxels within the array.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    mask = np.asarray(mask, dtype=bool)
    axes = range(mask.ndim)
    extents = [np.flatnonzero(mask.any(tuple(a for a in axes if a != axis))) for axis in axes]
    if not extents[0].size:
        raise ValueError("an empty mask has no bounding box")
    return tuple(
        slice(max(int(e[0]) - margin, 0), min(int(e[-1]) + 1 + margin, n))
        for e, n in zip(extents, mask.shape, strict=True)
    )
