"""Whole brains with painted lesions, which networks are scored on: the same for a subject and a painter."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.data import Lesions, Subject
from bids_inpaint.training.painters import PAINTERS, RealLesions, Scene
from bids_inpaint.training.parameters import LesionParameters, draw_patient
from bids_inpaint.training.synthesis import paint

#: Times that a painter draws for a whole brain what he draws for a patch: lesions of a middling load.
TIMES = {"quantile": 1, "field": 6, "patch": 3}


def draw_whole(
    rng: np.random.Generator, shapes: Lesions, painter: str, grey: float, real: RealLesions | None = None
) -> list[LesionParameters]:
    """Draw the lesions of a whole image by a painter.

    Parameters
    ----------
    rng : Generator
    shapes : Lesions
    painter : str
        One of :data:`bids_inpaint.training.painters.PAINTERS`.
    grey : float
        Grey-matter level as a fraction of white matter.
    real : RealLesions, optional
        Needed by the painters that use real lesions.
    """
    if painter == "parametric":
        return draw_patient(rng, shapes)
    size = np.array(WORKING_GRID.shape)
    scene = Scene(shapes, size / 2, size, "patient", grey, real)
    return [lesion for _ in range(TIMES[painter]) for lesion in PAINTERS[painter].draw(rng, scene)]


def painted(
    subject: Subject,
    shapes: Lesions,
    painter: str = "parametric",
    real: RealLesions | None = None,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """A subject's whole volume with lesions, and the lesion support.

    They depend on the name of the subject and on the painter alone, so that networks can be compared.

    Returns
    -------
    image, support : array of float32, shape of the working grid
        White matter is 1; how much of each voxel is lesion is 0-1.
    """
    seed = zlib.crc32(subject.name.encode())
    grey = subject.grey_level
    drawn = draw_whole(np.random.default_rng(seed), shapes, painter, grey, real)
    healthy = torch.from_numpy(np.asarray(subject.image, np.float32)).to(device)
    changes = torch.from_numpy(np.stack(real.changes)).to(device) if real and real.patients else None
    image, support = paint(healthy, grey, drawn, (0, 0, 0), seed, changes)
    return image.cpu().numpy(), support.cpu().numpy()
