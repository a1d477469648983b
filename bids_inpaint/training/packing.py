"""A cache in files that are small enough to be moved to another machine, and back."""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from bids_inpaint.errors import first_line
from bids_inpaint.training.data import PRIORS, find_subjects, storing, template_priors

#: Steps of white matter that intensities are rounded to: well below the noise of an image.
STEPS = 256
#: Bytes of a file at most.
LARGEST = 60_000_000


def pack(
    cache: Path,
    names: Sequence[str],
    folder: Path,
    steps: int = STEPS,
    largest: int = LARGEST,
    nprocs: int = 2,
    without: Sequence[str] = (),
) -> list[Path]:
    """Write subjects of a cache, and the template's tissues, into files.

    Parameters
    ----------
    cache : Path
    names : sequence of str
        Subjects.
    folder : Path
        Where ``pack-NN.zip`` go.
    steps : int
        Intensities are rounded to this fraction of white matter; what they are coded with then loses nothing.
    largest : int
        Bytes of a file at most, unless one subject alone has more.
    nprocs : int
        Processes.
    without : sequence of str
        What of the subjects is left out, as 'flair'.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If a subject is not in the cache.
    """
    folders = [s.folder for s in find_subjects(cache, list(names))]
    priors = dict(zip(PRIORS, template_priors(cache), strict=True))
    rounded = {f"{name}.npy": np.rint(255 * volume).astype(np.uint8) for name, volume in priors.items()}
    parts: list[list[tuple[str, bytes]]] = [
        [(f"template/{name}", encode(volume, 1)) for name, volume in rounded.items()]
    ]
    with ProcessPoolExecutor(nprocs) as pool:
        for packed in pool.map(partial(_pack_subject, steps=steps, without=without), folders):
            size = sum(len(data) for _, data in parts[-1])
            if size + sum(len(data) for _, data in packed) > largest:
                parts.append([])
            parts[-1] += packed
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, entries in enumerate(parts, 1):
        paths.append(folder / f"pack-{number:02d}.zip")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            for name, data in entries:
                archive.writestr(name, data)
    return paths


def _pack_subject(folder: Path, steps: int, without: Sequence[str]) -> list[tuple[str, bytes]]:
    """The files of a subject by their names in a pack."""
    out = [(f"{folder.name}/levels.json", p.read_bytes()) for p in folder.glob("levels.json")]
    image = np.load(folder / "image.npy") if (folder / "image.npy").exists() else None
    for path in sorted(folder.glob("*.npy")):
        if path.stem in without:
            continue
        volume = np.load(path)
        if path.stem == "target" and image is not None:
            # it is the image nearly everywhere
            volume = np.where(volume == image, 0, volume)
        out.append((f"{folder.name}/{path.name}", encode(volume, steps)))
    return out


def unpack(paths: Sequence[Path], cache: Path, nprocs: int = 2) -> int:
    """Make a cache of what :func:`pack` wrote.

    Parameters
    ----------
    paths : sequence of Path
    cache : Path
        What is there already stays.
    nprocs : int
        Processes.

    Returns
    -------
    int
        Number of subjects in the files.

    Raises
    ------
    ValueError
        If a file is no pack.
    """
    wanted: dict[str, Path] = {}
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted({name.split("/")[0] for name in archive.namelist()})
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no pack of a cache: {first_line(error)}") from None
        # each holds the template
        wanted |= {name: path for name in names if not (cache / name).exists()}
    cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(nprocs) as pool:
        list(pool.map(partial(_unpack_subject, cache=cache), wanted.values(), wanted))
    return sum(name != "template" for name in wanted)


def _unpack_subject(path: Path, name: str, cache: Path) -> None:
    with zipfile.ZipFile(path) as archive, storing(cache / name) as part:
        volumes: dict[str, np.ndarray] = {}
        for entry in archive.namelist():
            if not entry.startswith(f"{name}/"):
                continue
            file = Path(entry).name
            if file.endswith(".npy"):
                volumes[file] = decode(archive.read(entry))
            else:
                (part / file).write_bytes(archive.read(entry))
        if "target.npy" in volumes:
            target = volumes["target.npy"]
            volumes["target.npy"] = np.where(target > 0, target, volumes["image.npy"])
        for file, volume in volumes.items():
            np.save(part / file, volume)


def encode(volume: np.ndarray, steps: int) -> bytes:
    """Code a volume (float16, bool or uint8); intensities above 0 stay above 0.

    Parameters
    ----------
    volume : array, (D, H, W)
    steps : int
        Intensities are rounded to 1 / steps.
    """
    kind, factor = volume.dtype.str, steps if volume.dtype.kind == "f" else 1
    whole = np.rint(volume.astype(np.float32) * factor).astype(np.int32)
    if volume.dtype.kind == "f":
        whole = np.where(volume > 0, np.maximum(whole, 1), whole)
    box = _box(whole != 0)
    # what the three neighbours before it, and those before them, don't foretell (Lorenzo's prediction)
    rest = whole[box]
    for axis in range(3):
        rest = np.diff(rest, axis=axis, prepend=0)
    folded = np.where(rest < 0, -2 * rest - 1, 2 * rest).astype("<u4")
    planes = folded.view(np.uint8).reshape(-1, 4).T
    head = f"{kind} {factor} {volume.shape} {[(s.start, s.stop) for s in box]}\n"
    used = 4 - next((k for k, plane in enumerate(planes[::-1]) if plane.any()), 4)
    body = b"".join(plane.tobytes() for plane in planes[:used])
    return lzma.compress(head.encode() + body, preset=4)


def decode(data: bytes) -> np.ndarray:
    """The volume of :func:`encode`, but for the rounding."""
    head, body = lzma.decompress(data).split(b"\n", 1)
    kind, factor, rest = head.decode().split(" ", 2)
    numbers = [int(n) for n in rest.translate(str.maketrans("(),[]", "     ")).split()]
    shape, ends = numbers[:3], numbers[3:]
    box = tuple(slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True))
    sizes = [s.stop - s.start for s in box]
    count = int(np.prod(sizes))
    planes = np.zeros((4, count), np.uint8)
    stored = np.frombuffer(body, np.uint8)
    if count:
        planes[: len(stored) // count] = stored.reshape(-1, count)
    folded = np.ascontiguousarray(planes.T).view("<u4").reshape(sizes).astype(np.int64)
    whole = np.where(folded & 1, -(folded + 1) // 2, folded // 2)
    for axis in range(3):
        whole = np.cumsum(whole, axis)
    out = np.zeros(shape, np.dtype(kind))
    out[box] = whole / int(factor) if int(factor) != 1 else whole
    return out


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is not 0, which may be empty."""
    return tuple(_span(np.asarray(mask.any(tuple(a for a in range(3) if a != axis)))) for axis in range(3))


def _span(used: np.ndarray) -> slice:
    places: Iterator[int] = iter(np.flatnonzero(used)[[0, -1]].tolist() if used.any() else (0, -1))
    return slice(next(places), next(places) + 1)
