"""Reading, checking and writing NIfTI files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_inpaint.errors import InputError, first_line
from bids_inpaint.io import headers
from bids_inpaint.io.files import replacing
from bids_inpaint.io.packing import Packed
from bids_inpaint.io.pointers import problem_of
from bids_inpaint.space import Grid

if TYPE_CHECKING:
    import nibabel as nib

#: A head is never smaller than this along any axis (mm), nor sampled by fewer voxels.
MIN_EXTENT_MM = headers.HEAD_MM[0]
MIN_VOXELS = 16
#: Gzip packs no more bytes than these into one.
DEFLATE = 1032


#: What helps where a file of this program is damaged.
_OURS = "remove it and run this participant again, with --clean-workdir if it lies in the work folder"


def load(
    path: str | os.PathLike, warnings: list[str] | None = None, remedy: str = "copy or convert it again"
) -> nib.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Its header has one meaning afterwards (:func:`bids_inpaint.io.headers.settle`).

    Parameters
    ----------
    path : path
    warnings : list of str, optional
        Takes a sentence on each contradiction of the header.
    remedy : str
        What helps where it can't be read.

    Raises
    ------
    InputError
        If the file is missing, isn't an image or has a broken header.
    """
    # a pipe would be waited for
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is not a regular file: give an image.")
    try:
        image, clauses = _open(path)
    except FileNotFoundError:
        reason = problem_of(Path(path)) if os.path.islink(path) else None
        raise InputError(reason or f"{path} does not exist: check the path or the link.") from None
    except Exception as error:  # nibabel raises whatever its readers hit on a broken file
        raise InputError(
            problem_of(Path(path)) or f"{path} cannot be read as NIfTI ({first_line(error, 120)}): {remedy}."
        ) from None
    if warnings is not None:
        warnings += [f"{Path(path).name}: {clause}." for clause in clauses]
    return image


def _open(path: str | os.PathLike) -> tuple[Any, list[str]]:
    """An image with a settled header, and clauses on what was contradictory in it.

    The header is read without nibabel's checks, which take a voxel size of 0 as 1 mm and drop forms by their
    codes. The image has no affine if the header holds none.
    """
    import nibabel as nib

    opened: Any = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rb") as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
    kinds: tuple[Any, ...] = (nib.Nifti1Image, nib.Nifti2Image)
    kind = next((kind for kind in kinds if kind.header_class.may_contain_header(start)), None)
    if kind is None:
        raise ValueError("it has no header of NIfTI")
    stated = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
    offset, first = float(stated["vox_offset"]), stated.single_vox_offset
    if not offset >= first:
        # programs begin at different bytes: at 0, 348 or 352
        raise ValueError(f"its voxels begin at byte {offset:g}, inside its header, which ends at {first}")
    header, warnings = headers.settle(stated)
    affine = header.get_best_affine()
    data = nib.arrayproxy.ArrayProxy(str(path), header)
    return kind(data, affine if headers.is_affine(affine) else None, header), warnings


def load_t1w(path: str | os.PathLike, warnings: list[str] | None = None) -> tuple[np.ndarray, Grid]:
    """Read and check one T1w volume.

    Parameters
    ----------
    path : path
    warnings : list of str, optional
        Takes a sentence on each thing that is unusual.

    Returns
    -------
    data : array of float32, three-dimensional, finite
        Scaled intensities in the orientation of the file. Where the background is not a number, it is the
        least value of the others, but at most 0.
    grid : Grid
        Its voxel lattice.

    Raises
    ------
    InputError
        If the file can't be read, isn't one 3D volume, is constant, has voxels inside the head that are not
        finite, has no usable voxel size, or covers less than a head or more than one can fill.
    """
    image = load(path, warnings)
    check_header(image, path)
    data = read_data(image, path)
    finite = np.isfinite(data)
    if not finite.all():
        inside = int(enclosed(~finite).sum())
        if inside or not finite.any():
            raise InputError(
                f"{path} has NaN or infinite values inside the head (voxels: {inside or data.size}): replace "
                "them with values of their neighbours, or export it again."
            )
        data = np.where(finite, data, min(np.float32(0), data[finite].min()))
        if warnings is not None:
            warnings.append(
                f"{Path(path).name}: NaN or infinite values around the head (voxels: "
                f"{int(data.size - finite.sum())}) were taken as background."
            )
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise InputError(f"{path} is {low:g} everywhere: it holds no image; export it again.")
    return data, grid_of(image)


def enclosed(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask in components that do not reach the border of the volume."""
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    at_border = np.unique(
        np.concatenate([np.moveaxis(labels, a, 0)[i].ravel() for a in range(3) for i in (0, -1)])
    )
    return mask & ~np.isin(labels, at_border)


def grid_of(image: nib.Nifti1Image) -> Grid:
    """The voxel lattice of an image opened with :func:`load`, with the code of its coordinates."""
    header: Any = image.header
    return Grid.of(image.shape[:3], image.affine, int(header["sform_code"]) or int(header["qform_code"]))


def check_header(image: nib.Nifti1Image, path: str | os.PathLike) -> None:
    """Raise `InputError` for a header that can't be of one 3D head, without reading voxels."""
    _check_lattice(image, path, "convert it again from the DICOM files")
    volume = image.shape[:3]
    extent = Grid.of(volume, image.affine).voxel_sizes * volume
    if max(extent) > headers.HEAD_MM[1]:
        raise InputError(
            f"{path} covers {_by(f'{v:.0f}' for v in extent)} mm in {_by(volume)} voxels, more than any head "
            "fills: correct the voxel sizes or the unit of length in its header, or convert it again."
        )
    if min(volume) < MIN_VOXELS or min(extent) < MIN_EXTENT_MM:
        raise InputError(
            f"{path} covers only {_by(f'{v:.0f}' for v in extent)} mm in {_by(volume)} voxels: "
            "a whole-brain acquisition is needed."
        )


def _check_lattice(image: nib.Nifti1Image, path: str | os.PathLike, remedy: str) -> None:
    """Raise `InputError` for a header that can't be of one 3D volume somewhere in the world.

    The remedy is for voxels that have no place.
    """
    shape = image.shape
    volume = shape[:3]
    if len(shape) < 3 or min(volume) < 2:
        raise InputError(f"{path} is not a volume (shape {_by(shape)}): a 3D image is needed.")
    if np.prod(shape[3:], dtype=int) != 1:
        raise InputError(
            f"{path} holds {int(np.prod(shape[3:]))} volumes (shape {_by(shape)}): "
            "keep one of them, or their average."
        )
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path} holds colours or complex numbers: export it again as grey values.")
    if image.affine is None:
        declared = _by(f"{v:g}" for v in image.header.get_zooms()[:3])
        raise InputError(f"{path} has no usable voxel size in its header ({declared} mm): {remedy}.")


def read_data(
    image: nib.Nifti1Image,
    path: str | os.PathLike,
    dtype: Any = np.float32,
    remedy: str = "copy it again",
) -> np.ndarray:
    """Voxels of a 3D image (or of a 4D one with one volume), as float32 or another type.

    Raises
    ------
    InputError
        If the file ends early or is corrupt.
    """
    from isal import igzip, igzip_lib
    from nibabel.arrayproxy import ArrayProxy

    packed = str(path).endswith(".nii.gz")
    promised = image.header.get_data_dtype().itemsize * math.prod(image.shape)
    most = os.stat(path).st_size * (DEFLATE if packed else 1)
    if promised > most and str(path).endswith((".nii", ".nii.gz")):
        raise InputError(
            f"{path} is truncated or corrupt (its header promises {promised} bytes of voxels): {remedy}."
        )
    try:
        # ISA-L is several times as fast as the zlib that nibabel would use
        with igzip.open(path) if packed else nullcontext() as file:
            if file:
                proxy: Any = image.dataobj
                stored = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
                data = np.asarray(ArrayProxy(file, stored, mmap=False), dtype=dtype)
            else:
                data = np.asarray(image.dataobj, dtype=dtype)
    except MemoryError:
        raise
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, igzip_lib.IsalError) as error:  # type: ignore[misc]
        raise InputError(f"{path} is truncated or corrupt ({first_line(error, 120)}): {remedy}.") from None
    return data.reshape(data.shape[:3])


def save(
    path: str | os.PathLike,
    data: np.ndarray,
    grid: Grid,
    dtype: Any = None,
    space_code: int | None = None,
    scratch: bool = False,
) -> str:
    """Write an array as NIfTI with a clean header, atomically.

    Parameters
    ----------
    path : path
        Where to write; ``.nii`` or ``.nii.gz``. An existing file is replaced.
    data : array, shape `grid.shape`
    dtype : data type, optional
        On-disk type without scaling; that of `data` by default.
    space_code : int, optional
        NIfTI code of the coordinates: 1 scanner, 4 MNI; that of the grid by default.
    scratch : bool
        Whether later steps alone read the file: it is packed in a fifth of the time, but the same image
        may be other bytes.
    """
    import nibabel as nib

    data = np.asarray(data, dtype=dtype)
    image = nib.Nifti1Image(data, grid.matrix)
    code = grid.code if space_code is None else space_code
    image.set_sform(grid.matrix, code=code)
    image.set_qform(grid.matrix, code=code, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    return write(image, path, scratch)


def write(image: nib.Nifti1Image, path: str | os.PathLike, scratch: bool = False) -> str:
    """Write an image under a temporary name, then rename it: no partial file ever bears the name."""
    with replacing(path) as part:
        if str(path).endswith(".gz"):
            with Packed(part, stable=not scratch) as file:
                image.to_stream(file)
        else:
            image.to_filename(part)
    return str(path)


def read(path: str | os.PathLike, dtype: Any = np.float32) -> tuple[np.ndarray, Grid]:
    """Voxels, as float32 or another type, and grid of a file this program wrote."""
    image = load(path, remedy=_OURS)
    data = read_data(image, path, dtype, _OURS)
    return data, grid_of(image)


def load_given(path: str | os.PathLike, warnings: list[str] | None = None) -> nib.Nifti1Image:
    """Open a mask that another program wrote (:func:`load`), and check that it is one volume somewhere."""
    image = load(path, warnings)
    _check_lattice(image, path, "copy the header of the T1w")
    return image


def _by(values: Iterable[object]) -> str:
    return "×".join(str(v) for v in values)


def stored_values(path: str) -> tuple[Any, np.ndarray, float, Grid]:
    """An image, its three-dimensional values as stored (unscaled), their scale factor, and its grid."""
    raw: Any = load(path)
    stored = np.asanyarray(raw.dataobj.get_unscaled()).reshape(raw.shape[:3])
    return raw, stored, float(raw.dataobj.slope or 1.0), grid_of(raw)


def write_like(raw: Any, stored: np.ndarray, path: str) -> str:
    """Write stored values with the data type, scaling and affines of an image, and nothing else of it."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    image = nib.Nifti1Image(stored, None, header)
    for form, other in (("qform", "sform"), ("sform", "qform")):
        matrix = headers.usable_form(raw.header, form)
        code = int(raw.header[f"{form}_code"]) or int(raw.header[f"{other}_code"])
        more = {"strip_shears": True} if form == "qform" else {}
        getattr(image, f"set_{form}")(raw.affine if matrix is None else matrix, code, **more)
    image.header.set_xyzt_units("mm", "sec")
    slope, inter = raw.dataobj.slope, raw.dataobj.inter
    image.header.set_slope_inter(slope, inter)
    return write(image, path)
