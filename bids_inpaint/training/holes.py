"""Holes in healthy brains, on which networks of slices are compared and validated."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import inpainting
from bids_inpaint.networks.slices import upper_limit
from bids_inpaint.training.data import Lesions, Subject, white_by_intensity
from bids_inpaint.training.missing import DEPTH, SQUARE, draw_blob
from bids_inpaint.training.painted import painted
from bids_inpaint.training.ways import Case

Holes = Literal["lesions", "blobs", "squares"]


def draw_holes(subject: Subject, kind: Holes, shapes: Lesions) -> np.ndarray:
    """What is missing of a subject's brain, bool on the working grid, by the name of the subject alone.

    Parameters
    ----------
    subject : Subject
    kind : {'lesions', 'blobs', 'squares'}
        The lesions of a patient and single ones, dilated as for filling; five blobs, some of the size of
        tumours; or a square of 64 voxels on some slices, as in Armanious 2019.
    shapes : Lesions
    """
    image = np.asarray(subject.image, np.float32)
    if kind == "lesions":
        return inpainting.to_fill(painted(subject, shapes)[1] > 0.5) & (image > 0)
    rng = np.random.default_rng(zlib.crc32(subject.name.encode()))
    hole = np.zeros(image.shape, bool)
    brain = np.argwhere(ndimage.binary_erosion(image > 0, iterations=12))
    blobs = kind == "blobs"
    for _ in range(5 if blobs else 1):
        x, y, z = brain[rng.integers(len(brain))]
        inwards = np.ones((SQUARE, SQUARE))
        if blobs:
            inwards = ndimage.distance_transform_edt(draw_blob(rng, SQUARE))
        x, y = (
            int(np.clip(c - SQUARE // 2, 0, n - SQUARE)) for c, n in zip((x, y), image.shape, strict=False)
        )
        for k in range(max(z - DEPTH // 2, 0), min(z + DEPTH // 2, image.shape[2])):
            # a blob is an ellipsoid along the slices
            narrowing = ((k - z) / (DEPTH / 2)) ** 2 if blobs else 0
            hole[x : x + SQUARE, y : y + SQUARE, k] |= inwards > narrowing * inwards.max()
    return hole & (image > 0)


def make_case(subject: Subject, holes: Holes, shapes: Lesions, priors: Sequence[np.ndarray]) -> Case:
    """Scale a subject's brain, and take something of it away."""
    healthy = np.asarray(subject.image, np.float32)
    limit = upper_limit(healthy)
    lesioned = painted(subject, shapes)[0] if holes == "lesions" else healthy
    healthy, lesioned = (np.minimum(v / limit, 1) for v in (healthy, lesioned))
    hole = draw_holes(subject, holes, shapes)
    voided = np.where(hole, 0, healthy)
    scale = Scale.measure(voided, (healthy > 0) & ~hole, *priors)
    white = white_by_intensity(voided / scale.white, subject)
    return Case(subject.name, healthy, lesioned, voided, hole, white, scale)
