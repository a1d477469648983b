"""Where the voxels of a NIfTI file lie: the only place that decides between the forms of its header."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from bids_inpaint.space import voxel_sizes

Array = np.ndarray

#: Millimetres in the units of length that NIfTI knows; by other codes the unit is not known.
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_UNITS = {1: "metres", 3: "micrometres"}
#: Codes of forms in the standard and its later additions.
_CODES = range(6)
#: A field of view that a head may have, along its longest axis (mm).
HEAD_MM = (60.0, 1000.0)
#: A quaternion may be longer than 1 by so much, for want of digits.
_ROUNDING = 0.01


def settle(header: Any) -> tuple[Any, list[str]]:
    """Give the geometry of a header one meaning, in millimetres.

    The sform is used if it has a code and is an affine, else the qform, else the voxel sizes alone. A
    quaternion that is longer than 1 by rounding is made a unit one, an sform that holds no affine loses its
    code beside a usable qform, and the unit of length becomes the millimetre. Codes of usable forms stay, and
    those that the standard does not know become 2. Voxel sizes that are none are those of the sform, or NaN.

    Parameters
    ----------
    header : nibabel.Nifti1Header or Nifti2Header
        As it stands in the file, without the repairs of nibabel's checks; it is not changed.

    Returns
    -------
    header : of the same type
        Its ``get_best_affine()`` is in mm and never raises.
    warnings : list of str
        Clauses on what was contradictory or missing, for a sentence that names the file.

    Notes
    -----
    The forms are those of the NIfTI-1 standard (nifti1.h, "3D IMAGE (VOLUME) ORIENTATION"). Readers differ:
    nibabel takes the sform whenever its code is above 0, ITK at code 1 alone or without a qform.
    """
    header = header.copy()
    warnings: list[str] = []
    _mend_codes(header, warnings)
    _mend_quaternion(header, warnings)
    _mend_sizes(header, warnings)
    _drop_broken_sform(header, warnings)
    _mend_intercept(header, warnings)
    _to_millimetres(header, warnings)
    sform, qform = usable_form(header, "sform"), usable_form(header, "qform")
    if not int(header["sform_code"]) and qform is None:
        header["qform_code"] = 0
        warnings.append(
            "its header has no orientation (sform and qform codes are 0), so that left and right are a guess"
        )
    apart = forms_apart(header)
    if sform is not None and qform is not None and apart:
        warnings.append(
            f"its sform and qform place it up to {apart:.1f} mm apart (sform {written(sform)}, qform "
            f"{written(qform)}); the sform is used, and programs that read the qform see it elsewhere"
        )
    return header, warnings


def forms_apart(header: Any) -> float:
    """Distance (mm) between the places that the two forms of a settled header give, if over half a voxel."""
    sform, qform = usable_form(header, "sform"), usable_form(header, "qform")
    if sform is None or qform is None:
        return 0.0
    # a qform can't hold a shear, but other programs go by it
    apart = farthest(sform, qform, header.get_data_shape())
    return apart if apart > 0.5 * voxel_sizes(sform).min() else 0.0


def doubt(header: Any) -> str | None:
    """Why a settled header may place a volume wrongly, as a predicate, or None."""
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        return "has no orientation in its header (sform and qform codes are 0)"
    apart = forms_apart(header)
    return f"has a header whose sform and qform place it {apart:.1f} mm apart" if apart else None


def usable_form(header: Any, name: str) -> Array | None:
    """The 4x4 matrix of a form, or None if it has no code or is no affine."""
    if not int(header[f"{name}_code"]):
        return None
    try:
        matrix = getattr(header, f"get_{name}")()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return None
    return matrix if is_affine(matrix) else None


def is_affine(matrix: Array) -> bool:
    """Whether a 4x4 matrix is finite and can be inverted."""
    linear = matrix[:3, :3]
    if not np.isfinite(matrix).all():
        return False
    sizes = voxel_sizes(matrix)
    return bool((sizes > 0).all() and abs(np.linalg.det(linear / sizes)) > 1e-3)


def farthest(one: Array, other: Array, shape: tuple[int, ...]) -> float:
    """Largest distance (mm) between the places that two affines give to a corner of a volume."""
    return float(np.linalg.norm(_corners(one, shape) - _corners(other, shape), axis=1).max())


def same_box(one: Array, other: Array, shape: tuple[int, ...], other_shape: tuple[int, ...]) -> float:
    """Distance (mm) of the corners of two volumes as sets: 0 if one is the other with its axes reordered."""
    a, b = _corners(one, shape), _corners(other, other_shape)
    away = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(away.min(0).max(), away.min(1).max()))


def written(matrix: Array) -> str:
    """Three rows of an affine in one line.

    Examples
    --------
    >>> written(np.diag([1, 2, 0.5, 1]))
    '[1 0 0 0; 0 2 0 0; 0 0 0.5 0]'
    """
    rows = (" ".join(f"{v:.4g}" for v in row + 0.0) for row in np.round(matrix[:3], 4))
    return f"[{'; '.join(rows)}]"


def _corners(matrix: Array, shape: tuple[int, ...]) -> Array:
    ends = np.array(list(product(*((0, n - 1) for n in (*shape, 1, 1)[:3]))), float)
    return ends @ matrix[:3, :3].T + matrix[:3, 3]


def _mend_codes(header: Any, warnings: list[str]) -> None:
    for name in ("sform", "qform"):
        code = int(header[f"{name}_code"])
        if code not in _CODES:
            header[f"{name}_code"] = 2
            warnings.append(f"its {name} has the code {code}, which NIfTI does not know; it was taken as 2")


def _mend_quaternion(header: Any, warnings: list[str]) -> None:
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([float(header[name]) for name in names])
    length = np.linalg.norm(vector)
    side = float(header["pixdim"][0])
    header["pixdim"][0] = -1 if side < 0 else 1
    # readers differ about what mirrors a volume
    sided = not side < 0 or side == -1
    if not int(header["qform_code"]) or (length <= 1 and sided):
        return
    if length < 1 + _ROUNDING and sided:
        for name, value in zip(names, vector / length, strict=True):
            # a float32 above the quotient would be too long again
            header[name] = np.nextafter(np.float32(value), np.float32(0))
        return
    header["qform_code"] = 0
    for name in names:
        header[name] = 0
    warnings.append("its qform holds no rotation and was left out")


def _mend_sizes(header: Any, warnings: list[str]) -> None:
    """Where a voxel size is 0, negative or no number, readers take 1 mm, the opposite, or fail."""
    sizes = np.array(header["pixdim"][1:4], float)
    usable = np.isfinite(sizes) & (sizes > 0)
    if usable.all():
        return
    sform = usable_form(header, "sform")
    if sform is None:
        # nibabel would repair them again
        header["pixdim"][1:4] = np.where(usable, sizes, np.nan)
        return
    header["pixdim"][1:4] = voxel_sizes(sform)
    listed = "×".join(f"{v:g}" for v in sizes)
    if int(header["qform_code"]):
        header["qform_code"] = 0
        warnings.append(f"its voxel sizes ({listed} mm) are none, so that its qform was left out")


def _drop_broken_sform(header: Any, warnings: list[str]) -> None:
    broken = int(header["sform_code"]) and usable_form(header, "sform") is None
    if broken and usable_form(header, "qform") is not None:
        header["sform_code"] = 0
        warnings.append("its sform has a code and holds no affine; the qform was used")


def _mend_intercept(header: Any, warnings: list[str]) -> None:
    if "scl_inter" not in tuple(header.keys()):
        return
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite(slope) and slope != 0 and not np.isfinite(inter):
        header["scl_inter"] = 0
        warnings.append("its intensities have a scale and an offset that is no number, which was taken as 0")


def _to_millimetres(header: Any, warnings: list[str]) -> None:
    code = int(header["xyzt_units"]) & 7
    factor = _MILLIMETRES.get(code, 1.0)
    if factor == 1.0:
        return
    sizes = voxel_sizes(header.get_best_affine())
    stated = float((sizes * header.get_data_shape()[:3]).max()) if len(header.get_data_shape()) > 2 else 0.0
    low, high = HEAD_MM
    if not low <= stated * factor <= high and low <= stated <= high:
        warnings.append(
            f"its unit of length is said to be {_UNITS[code]}, which would make a field of view of "
            f"{stated * factor:g} mm; millimetres were assumed"
        )
        factor = 1.0
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name] = header[name] * factor
    for name in ("qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = float(header[name]) * factor
    header["pixdim"][1:4] = header["pixdim"][1:4] * factor
    header["xyzt_units"] = (int(header["xyzt_units"]) & ~7) | 2
