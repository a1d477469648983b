"""Affines of other tools and of ours, in the text format of ITK."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from bids_inpaint.errors import InputError, first_line

#: ITK's coordinates are LPS+, ours RAS+.
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Linear transforms of ITK that are read, by the beginning of their names.
KINDS = ("Affine", "MatrixOffset", "Euler3D", "VersorRigid3D", "Similarity3D", "ScaleVersor3D", "Translation")


def read_xfm(path: str | os.PathLike) -> np.ndarray:
    """4x4 RAS+ matrix (mm) of one linear transform in the text format of ITK.

    Raises
    ------
    InputError
        If the file holds none, several, or one that isn't linear.

    Notes
    -----
    A point x goes to ``M (x - centre) + centre + translation`` (ITK, ``MatrixOffsetTransformBase``). Euler
    angles turn about y, x and z in this order, or x, y, z where the fourth fixed parameter says so.
    """
    from nitransforms.io.itk import ITKLinearTransform

    try:
        kind, values, fixed = _parse(Path(path).read_text(encoding="utf-8"))
        matrix = _matrix(kind, values, fixed)
        if kind.startswith("Affine"):
            # in its rounding, which earlier results have
            return ITKLinearTransform.from_filename(path).to_ras()
        if not np.isfinite(matrix).all():
            raise ValueError("not finite")
    except Exception as error:  # whatever its readers hit on a broken file
        raise InputError(
            f"{path} cannot be read as one linear transform in the text format of ITK "
            f"({first_line(error, 80)}; known are {', '.join(KINDS)}): write it again, or leave it out."
        ) from None
    return _FLIP @ matrix @ _FLIP


def _parse(text: str) -> tuple[str, np.ndarray, np.ndarray]:
    if not text.startswith("#Insight Transform File"):
        raise ValueError("its first line is another one")
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#")]
    fields = {key.strip(): value.strip() for key, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("it holds several transforms")
    missing = {"Transform", "Parameters", "FixedParameters"} - fields.keys()
    if missing:
        raise ValueError(f"it has no {min(missing)}")
    values, fixed = (np.array(fields[key].split(), float) for key in ("Parameters", "FixedParameters"))
    return fields["Transform"], values, fixed


def _matrix(kind: str, values: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """4x4 LPS+ matrix."""
    name = next((known for known in KINDS if kind.startswith(known)), None)
    expected = {"Affine": 12, "MatrixOffset": 12, "Euler3D": 6, "VersorRigid3D": 6, "Similarity3D": 7,
                "ScaleVersor3D": 9, "Translation": 3}  # fmt: skip
    if name is None or expected[name] != values.size or "_2_2" in kind:
        raise ValueError(f"{kind[:40]} is no linear transform in three dimensions")
    centre = fixed[:3] if fixed.size >= 3 else np.zeros(3)
    if name == "Translation":
        linear, shift = np.eye(3), values
    elif expected[name] == 12:
        linear, shift = values[:9].reshape(3, 3), values[9:]
    elif name == "Euler3D":
        order = "ZYX" if fixed.size > 3 and fixed[3] else "ZXY"
        angles = values[[2, 1, 0]] if order == "ZYX" else values[[2, 0, 1]]
        linear, shift = Rotation.from_euler(order, angles).as_matrix(), values[3:]
    else:
        vector = values[:3]
        scalar = np.sqrt(max(1 - float(vector @ vector), 0))
        scale = {"Similarity3D": values[6:7], "ScaleVersor3D": values[6:]}.get(name, np.ones(1))
        # ITK's ScaleVersor3D adds the scales less one to the diagonal
        linear = Rotation.from_quat([*vector, scalar]).as_matrix()
        linear = linear + np.diag(scale - 1) if name == "ScaleVersor3D" else linear * scale
        shift = values[3:6]
    out = np.eye(4)
    out[:3, :3] = linear
    out[:3, 3] = shift + centre - linear @ centre
    return out
