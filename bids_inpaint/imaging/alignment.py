"""The last millimetre of an affine registration (pure arrays)."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from scipy import ndimage

from bids_inpaint.io.headers import farthest
from bids_inpaint.space import Grid, bounding_box

Array = np.ndarray

#: Standard deviation (mm) of the smoothing of both images, and step between the voxels of the template used.
_STAGES = ((4.0, 6), (2.0, 3))
#: A stage ends when no corner of the template moves by more (mm) in a step, or after so many steps.
_TOLERANCE, _MOST_STEPS = 0.02, 30
#: Residuals beyond so many standard deviations count nothing (Tukey 1974): lesions, what was cut off.
_OUTLIER = 4.685
#: An answer that is farther from the beginning (mm) is of another minimum.
_FARTHEST = 40.0
#: Of length in the equations (mm).
_UNIT = 50.0
#: How far around the template's brain voxels count (mm): the outline is what is best seen.
_AROUND = 8.0


def refine(
    matrix: Array, template: Array, template_grid: Grid, brain: Array, brain_grid: Grid
) -> tuple[Array, float]:
    """Move an affine to the nearest best fit of a brain and a template.

    Optimisers that draw samples or fill histograms, as ANTs does, end up to two millimetres apart for images
    that differ by the last bit of their intensities. The nearest minimum of a smooth function is the same for
    all of them. It is the sum of squares, over the template T and its surroundings, of

    .. math:: T(x) - B(x) \\, I(M x) - b,

    of the image I, the affine M, and B, a polynomial of the second degree that takes the place of the bias
    field. Gauss-Newton steps solve for all three at once (Lucas and Kanade 1981).

    Parameters
    ----------
    matrix : array, shape (4, 4)
        Where to begin: world of the template to that of the brain (RAS+, mm).
    template, brain : array
        0 outside the brain.
    template_grid, brain_grid : Grid

    Returns
    -------
    refined : array, shape (4, 4)
        `matrix` itself where there is no fit near it.
    likeness : float
        Correlation of the template with the image in the bias field of the fit; 0 where there is none.
    """
    if not brain.any():
        return matrix, 0.0
    refined, likeness = matrix, 0.0
    try:
        with np.errstate(all="ignore"):
            for sigma, step in _STAGES:
                refined, likeness = _fit(refined, template, template_grid, brain, brain_grid, sigma, step)
    except np.linalg.LinAlgError:
        return matrix, 0.0
    near = _moved(matrix, refined, template_grid) < _FARTHEST
    return (refined, likeness) if near else (matrix, 0.0)


def _moved(one: Array, other: Array, template_grid: Grid) -> float:
    """Largest distance (mm) between the places where two affines put a corner of the template."""
    return farthest(one @ template_grid.matrix, other @ template_grid.matrix, template_grid.shape)


def _fit(
    matrix: Array,
    template: Array,
    template_grid: Grid,
    brain: Array,
    brain_grid: Grid,
    sigma: float,
    step: int,
) -> tuple[Array, float]:
    thin = (slice(None, None, step),) * 3
    size = template_grid.voxel_sizes[0] * step
    around = ndimage.distance_transform_edt(template[thin] <= 0, sampling=size) <= _AROUND
    voxels = np.argwhere(around) * step
    smooth = np.zeros(template.shape, np.float32)
    # beyond is nothing
    reached = bounding_box(template, margin=int(np.ceil(4 * sigma / template_grid.voxel_sizes.min())) + 1)
    width = sigma / template_grid.voxel_sizes
    smooth[reached] = ndimage.gaussian_filter(template[reached].astype(np.float32), width)
    target = smooth[tuple(voxels.T)].astype(np.float64)
    world = voxels @ template_grid.matrix[:3, :3].T + template_grid.matrix[:3, 3]
    middle = world.mean(axis=0)
    # of the order of 1, so that the equations are well conditioned
    place = (world - middle) / _UNIT
    pairs = combinations_with_replacement(range(3), 2)
    field = np.column_stack([np.ones(len(place)), place, *(place[:, i] * place[:, j] for i, j in pairs)])
    moves = np.column_stack([place, np.ones(len(place))])
    points = np.column_stack([world, np.ones(len(world))]).T
    box = bounding_box(brain, margin=int(np.ceil(4 * sigma / brain_grid.voxel_sizes.min())))
    image = ndimage.gaussian_filter(brain[box].astype(np.float32), sigma / brain_grid.voxel_sizes)
    volumes = [image, *np.gradient(image)]
    to_voxels = np.linalg.inv(brain_grid.part(box).matrix)
    weights = None
    for _ in range(_MOST_STEPS):
        positions = (to_voxels @ matrix @ points)[:3]
        values, *slopes = (
            ndimage.map_coordinates(volume, positions, order=1, mode="grid-constant").astype(np.float64)
            for volume in volumes
        )
        known = np.column_stack([field * values[:, None], np.ones(len(values))])
        if weights is None:
            weights = np.linalg.solve(known.T @ known, known.T @ target)
        # of what is compared, by the position in the world of the brain
        gradient = (field @ weights[:-1]) * (to_voxels[:3, :3].T @ slopes)
        columns = np.column_stack([*(along[:, None] * moves for along in gradient), known])
        away = target - known @ weights
        trust = np.clip(1 - (away / (_OUTLIER * 1.4826 * np.median(np.abs(away)))) ** 2, 0, None) ** 2
        trusted = columns * trust[:, None]
        solution = np.linalg.solve(trusted.T @ columns, trusted.T @ away)
        weights = weights + solution[12:]
        linear = solution[:12].reshape(3, 4)
        new = matrix.copy()
        new[:3, :3] += linear[:, :3] / _UNIT
        new[:3, 3] += linear[:, 3] - linear[:, :3] @ middle / _UNIT
        moved, matrix = _moved(matrix, new, template_grid), new
        if moved < _TOLERANCE:
            break
    return matrix, float(np.corrcoef(target, known @ weights)[0, 1])
