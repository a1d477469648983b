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
#: Whole images that lesions of a load are drawn from, at most.
_MOST_DRAWS = 30


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


def draw_load(
    rng: np.random.Generator,
    shapes: Lesions,
    painter: str,
    grey: float,
    real: RealLesions | None,
    load_ml: float,
) -> list[LesionParameters]:
    """Draw lesions of about a volume: of what a painter draws for whole images, as many as come to it.

    Parameters
    ----------
    rng, shapes, painter, grey, real
        Of :func:`draw_whole`.
    load_ml : float
        In ml. What lies outside white matter is not painted, so that the image has somewhat less.
    """
    wanted, drawn = 1000 * load_ml, list[LesionParameters]()
    for _ in range(_MOST_DRAWS):
        more = draw_whole(rng, shapes, painter, grey, real)
        for i in rng.permutation(len(more)):
            # a lesion that is too large is left out for a smaller one
            if len(more[i].voxels) <= wanted:
                drawn.append(more[i])
                wanted -= len(more[i].voxels)
        if wanted < 100 * load_ml:
            break
    return drawn


def painted(
    subject: Subject,
    shapes: Lesions,
    painter: str = "parametric",
    real: RealLesions | None = None,
    device: str = "cpu",
    load_ml: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A subject's whole volume with lesions, and the lesion support.

    They depend on the name of the subject, the painter and the load alone, so that networks can be compared.

    Parameters
    ----------
    subject : Subject
    shapes, painter, real
        Of :func:`draw_whole`.
    device : str
        Where it is painted.
    load_ml : float, optional
        About how much there is of lesions, in ml; what the painter draws by default.

    Returns
    -------
    image, support : array of float32, shape of the working grid
        White matter is 1; how much of each voxel is lesion is 0-1.
    """
    grey = subject.grey_level
    if load_ml is None:
        seed = zlib.crc32(subject.name.encode())
        drawn = draw_whole(np.random.default_rng(seed), shapes, painter, grey, real)
    else:
        seed = zlib.crc32(f"{subject.name} {load_ml:.3f}".encode())
        drawn = draw_load(np.random.default_rng(seed), shapes, painter, grey, real, load_ml)
    healthy = torch.from_numpy(np.asarray(subject.image, np.float32)).to(device)
    changes = torch.from_numpy(np.stack(real.changes)).to(device) if real and real.patients else None
    image, support = paint(healthy, grey, drawn, (0, 0, 0), seed, changes)
    return image.cpu().numpy(), support.cpu().numpy()
