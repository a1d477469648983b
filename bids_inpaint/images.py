"""Reading, checking and writing NIfTI files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_inpaint.files import first_line, printable, replacing
from bids_inpaint.space import Grid, resample

if TYPE_CHECKING:
    import nibabel as nib

#: A head is never smaller than this along any axis (mm), nor sampled by fewer voxels.
MIN_EXTENT_MM = 60.0
MIN_VOXELS = 16
#: Gzip packs no more bytes than these into one.
DEFLATE = 1032


class InputError(ValueError):
    """Input that can't be used.

    Parameters
    ----------
    message : str
        One sentence for the user: file, reason, remedy.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def load(path: str | os.PathLike) -> nib.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises
    ------
    InputError
        If the file is missing, isn't an image or has a broken header.
    """
    import nibabel as nib

    # a pipe would be waited for
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is no file: give an image.")
    try:
        return nib.load(path)  # type: ignore[return-value]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path or the link.") from None
    except Exception as error:  # nibabel raises whatever its readers hit on a broken file
        raise InputError(
            f"{path} cannot be read as NIfTI ({first_line(error, 120)}): copy or convert it again."
        ) from None


def load_t1w(path: str | os.PathLike) -> tuple[np.ndarray, Grid]:
    """Read and check one T1w volume.

    Returns
    -------
    data : array of float32, three-dimensional, finite
        Scaled intensities in the orientation of the file.
    grid : Grid
        Its voxel lattice.

    Raises
    ------
    InputError
        If the file can't be read, isn't one 3D volume, is constant, has voxels that are not finite,
        has no usable voxel size or sees less than a head.
    """
    image = load(path)
    check_header(image, path)
    data = read_data(image, path)
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise InputError(
            f"{path} has {bad} voxels that are NaN or infinite: replace them with 0, "
            "e.g. with 'fslmaths IN -nan OUT'."
        )
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise InputError(f"{path} is {low:g} everywhere: it holds no image; export it again.")
    return data, Grid.of(data.shape, image.affine)


def check_header(image: nib.Nifti1Image, path: str | os.PathLike) -> None:
    """Raise `InputError` for a header that can't be of one 3D head, without reading voxels."""
    _check_lattice(image, path)
    volume = image.shape[:3]
    extent = Grid.of(volume, image.affine).voxel_sizes * volume
    if min(volume) < MIN_VOXELS or min(extent) < MIN_EXTENT_MM:
        raise InputError(
            f"{path} sees only {_by(f'{v:.0f}' for v in extent)} mm in {_by(volume)} voxels: "
            "a whole-brain acquisition is needed."
        )


def _check_lattice(image: nib.Nifti1Image, path: str | os.PathLike) -> None:
    """Raise `InputError` for a header that can't be of one 3D volume somewhere in the world."""
    shape = image.shape
    volume = shape[:3]
    if len(shape) < 3 or min(volume) < 2:
        raise InputError(f"{path} is no volume (shape {_by(shape)}): a 3D image is needed.")
    if np.prod(shape[3:], dtype=int) != 1:
        raise InputError(
            f"{path} holds {int(np.prod(shape[3:]))} volumes (shape {_by(shape)}): "
            "keep one of them, or their average."
        )
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path} holds colours or complex numbers: export it again as grey values.")
    affine = np.asarray(image.affine, dtype=float)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    declared = np.asarray(image.header.get_zooms()[:3], dtype=float)
    usable = np.isfinite(affine).all() and (sizes > 0).all() and (declared > 0).all()
    if not usable or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            f"{path} has no usable voxel size in its header "
            f"({_by(f'{v:g}' for v in declared)} mm): convert it again from the DICOM files."
        )


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
    from nibabel.fileholders import FileHolder

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
                image = type(image).from_file_map({"image": FileHolder(fileobj=file)})
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
    space_code: int = 1,
) -> str:
    """Write an array as NIfTI with a clean header, atomically.

    Parameters
    ----------
    path : path
        Where to write; ``.nii`` or ``.nii.gz``. An existing file is replaced.
    data : array, shape `grid.shape`
    dtype : data type, optional
        On-disk type without scaling; that of `data` by default.
    space_code : int
        NIfTI code of the coordinates: 1 scanner, 4 MNI.
    """
    import nibabel as nib

    data = np.asarray(data, dtype=dtype)
    image = nib.Nifti1Image(data, grid.matrix)
    image.set_sform(grid.matrix, code=space_code)
    image.set_qform(grid.matrix, code=space_code, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    return write(image, path)


def write(image: nib.Nifti1Image, path: str | os.PathLike) -> str:
    """Write an image under a temporary name, then rename it: no partial file ever bears the name."""
    with replacing(path) as part:
        if str(path).endswith(".gz"):
            # the same image is the same bytes: no time of writing, and not ISA-L, which is faster, but whose
            # output depends on the addresses of its memory (one process in some hundreds differs)
            part.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))
        else:
            image.to_filename(part)
    return str(path)


def read(path: str | os.PathLike, dtype: Any = np.float32) -> tuple[np.ndarray, Grid]:
    """Voxels, as float32 or another type, and grid of a file this program wrote."""
    image = load(path)
    data = read_data(image, path, dtype, "remove it and run this participant again")
    return data, Grid.of(image.shape[:3], image.affine)


def _read_given(path: str | os.PathLike, dtype: Any = np.float32) -> tuple[np.ndarray, Grid]:
    """Voxels and grid of a file that another program wrote."""
    image = load(path)
    _check_lattice(image, path)
    return read_data(image, path, dtype), Grid.of(image.shape[:3], image.affine)


def read_brain(
    path: str | os.PathLike, grid: Grid, t1w: str | os.PathLike, world: np.ndarray | None = None
) -> np.ndarray:
    """A given brain mask on another grid, resampled by its header.

    Parameters
    ----------
    path : str
    grid : Grid
        Where it is wanted.
    t1w : str
        The image it belongs to, for messages.
    world : array, shape (4, 4), optional
        Affine from the space of the grid to that of the mask (RAS+, mm).

    Returns
    -------
    array of bool

    Raises
    ------
    InputError
        If it can't be read, or has nothing on the grid.
    """
    data, own = _read_given(path)
    mask = resample(data, own, grid, world, order=0) > 0.5
    if not mask.any():
        raise InputError(f"{path} does not overlap {t1w}: give the mask of this image.")
    return mask


def read_lesions(
    path: str | os.PathLike,
    grid: Grid,
    t1w: str | os.PathLike,
    world: np.ndarray | None = None,
    brain: np.ndarray | None = None,
) -> np.ndarray:
    """A given lesion mask on another grid, resampled by its header.

    Parameters
    ----------
    path : str
    grid : Grid
        Where it is wanted.
    t1w : str
        The image it belongs to, for messages.
    world : array, shape (4, 4), optional
        Affine from the space of the grid to that of the mask (RAS+, mm).
    brain : array of bool, optional
        On the grid; the lesions must touch it.

    Returns
    -------
    array of bool

    Raises
    ------
    InputError
        If it isn't binary, or has lesions but none on the grid or in the brain.
    """
    data, own = _read_given(path, dtype=None)
    lesion = data[data != 0]
    if not (lesion == lesion[:1]).all():
        values = np.unique(data)
        raise InputError(
            f"{path} is not a binary mask ({len(values)} values from {values[0]:g} to "
            f"{values[-1]:g}): threshold it to 0 and 1."
        )
    mask = data > 0
    if not mask.any():
        return np.zeros(grid.shape, bool)
    same = world is None and own.same_as(grid)
    share = mask if same else resample(mask, own, grid, world, order=1)
    if not (share if brain is None else share * brain).any():
        raise InputError(
            f"{path} does not overlap the brain of {t1w}: "
            "check that the mask belongs to this image and space."
        )
    out = share > 0.5
    # the only lesion may fill less than half a voxel
    return out if out.any() else share == share.max()


def _by(values) -> str:
    return "×".join(str(v) for v in values)
