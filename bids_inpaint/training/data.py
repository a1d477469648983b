"""Preprocessed training images and lesion shapes, cached as arrays on the working grid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.dataset import template
from bids_inpaint.imaging.intensity import levels, white_level
from bids_inpaint.imaging.lesions import CONNECTIVITY
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, resample

#: File of a label map in the cache.
LABELS = "labels"
#: The template's tissues that networks look at.
PRIORS = ("WM", "GM")


@dataclass(frozen=True)
class Subject:
    """A brain in the cache, healthy or a patient's.

    Attributes
    ----------
    folder : Path
        Holds ``image.npy`` (float16, white matter 1, 0 outside the brain) and ``levels.json``; that of
        a patient also ``lesions.npy`` (bool), ``flair.npy`` (as the image), if there is one, and, once made,
        ``target.npy`` (float16, lesion-free). That of a label map holds ``labels.npy`` (uint8) alone.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Dataset and subject, as ``ds002748_sub-01``."""
        return self.folder.name

    @cached_property
    def image(self) -> np.ndarray:
        """Memory-mapped float16 volume on the working grid."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @cached_property
    def mean_level(self) -> float:
        """Mean over the brain relative to white matter."""
        image = np.asarray(self.image, np.float32)
        return float(image[image > 0].mean(dtype=np.float64))

    @property
    def patient(self) -> bool:
        """Whether it has a lesion mask."""
        return (self.folder / "lesions.npy").exists()

    @cached_property
    def lesions(self) -> np.ndarray:
        """Memory-mapped lesion mask of a patient."""
        return np.load(self.folder / "lesions.npy", mmap_mode="r")

    @property
    def has_flair(self) -> bool:
        """Whether there is a FLAIR."""
        return (self.folder / "flair.npy").exists()

    def check_flair(self) -> None:
        """Refuse a subject without a FLAIR.

        Raises
        ------
        ValueError
            If the dataset had none.
        """
        if not self.has_flair:
            raise ValueError(
                f"{self.name} was prepared without a FLAIR: put it beside the T1w and prepare it in another "
                "cache, or take it out of the configuration."
            )

    @cached_property
    def flair(self) -> np.ndarray:
        """Memory-mapped FLAIR of a patient.

        Raises
        ------
        ValueError
            If the dataset had none.
        """
        self.check_flair()
        return np.load(self.folder / "flair.npy", mmap_mode="r")

    @property
    def labelled(self) -> bool:
        """Whether it is a label map, and no image."""
        return (self.folder / f"{LABELS}.npy").exists()

    @cached_property
    def labels(self) -> np.ndarray:
        """Memory-mapped FreeSurfer labels of the brain of a label map, both sides alike."""
        return np.load(self.folder / f"{LABELS}.npy", mmap_mode="r")

    @cached_property
    def classes(self) -> list[int]:
        """The labels that occur."""
        return np.unique(self.labels).tolist()

    @cached_property
    def target(self) -> np.ndarray:
        """Memory-mapped lesion-free version of a patient's image.

        Raises
        ------
        ValueError
            If it was not made yet.
        """
        if not (self.folder / "target.npy").exists():
            raise ValueError(
                f"{self.name} is a patient without a lesion-free target: make it with "
                "'python -m bids_inpaint.training targets'."
            )
        return np.load(self.folder / "target.npy", mmap_mode="r")

    @cached_property
    def grey_level(self) -> float:
        """Intensity of the cortex relative to white matter."""
        return float(json.loads((self.folder / "levels.json").read_text())["grey"])


def template_priors(cache: Path) -> list[np.ndarray]:
    """White- and grey-matter probability (0-1) of the standard space of a cache, on the working grid."""
    packed = [cache / "template" / f"{name}.npy" for name in PRIORS]
    if all(path.exists() for path in packed):
        return [np.load(path).astype(np.float32) / 255 for path in packed]
    files = template.prepare(template.DEFAULT, cache / "template")
    return [images.read(files.priors[tissue])[0] for tissue in PRIORS]


def cache_subject(
    folder: Path,
    image: np.ndarray,
    mask: np.ndarray,
    priors: Mapping[str, np.ndarray],
    lesions: np.ndarray | None = None,
    flair: np.ndarray | None = None,
) -> Subject:
    """Standardise a preprocessed brain to white matter = 1 and store it.

    Parameters
    ----------
    folder : Path
        Where to store it; whole or not at all.
    image, mask : array, shape of the working grid
    priors : mapping of str to array
        Probabilities of the template's tissues, 0-1; GM and WM are used.
    lesions : array of bool, optional
        Lesion mask of a patient.
    flair : array, optional
        In any unit.
    """
    white, grey = levels(image, mask, priors["WM"], priors["GM"])
    scaled = np.where(mask, image / white, 0)
    with storing(folder) as part:
        np.save(part / "image.npy", np.clip(scaled, 0, 8).astype(np.float16))
        (part / "levels.json").write_text(json.dumps({"grey": grey}))
        if lesions is not None:
            np.save(part / "lesions.npy", lesions.astype(bool))
        if flair is not None:
            level = white_level(flair, mask, priors["WM"])
            scaled = np.where(mask, flair / level, 0)
            np.save(part / "flair.npy", np.clip(scaled, 0, 8).astype(np.float16))
    return Subject(folder)


@contextmanager
def storing(folder: Path) -> Iterator[Path]:
    """A folder to write into that gets its name when all is written."""
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    yield part
    part.rename(folder)


def subjects(cache: Path, names: list[str] | None = None) -> list[Subject]:
    """The cached subjects, or those of `names` among them, in alphabetical order."""
    folders = {p.parent for name in ("image", LABELS) for p in cache.glob(f"*/{name}.npy")}
    cached = [Subject(folder) for folder in sorted(folders)]
    return [s for s in cached if names is None or s.name in names]


def find_subjects(cache: Path, names: list[str]) -> list[Subject]:
    """The cached subjects of these names.

    Raises
    ------
    ValueError
        If one is not in the cache.
    """
    selected = subjects(cache, names)
    if missing := set(names) - {s.name for s in selected}:
        raise ValueError(f"not in the cache {cache}: {', '.join(sorted(missing))}")
    return selected


def white_by_intensity(image: np.ndarray, subject: Subject) -> np.ndarray:
    """White matter of an image (white matter 1) by its intensity, bool."""
    return image > subject.grey_level + 0.5 * (1 - subject.grey_level)


class Lesions:
    """Real lesion shapes on the working grid.

    Parameters
    ----------
    patients : list of list of array of int, each (n, 3)
        Voxels of the lesions of each patient.
    singles : list of array of int, each (n, 3)
        Voxels of single lesions.
    """

    def __init__(self, patients: list[list[np.ndarray]], singles: list[np.ndarray]):
        self.patients = patients
        self.singles = singles
        #: First and last voxels of the lesions of each patient, (lesions, 2, 3).
        self.boxes = [np.array([[v.min(0), v.max(0)] for v in p], float).reshape(-1, 2, 3) for p in patients]

    @classmethod
    def load(cls, folder: Path, leave_out: list[str] | None = None, only: list[str] | None = None) -> Lesions:
        """Read ``patients/*_mask.nii.gz`` and ``shapes.npz``.

        Parameters
        ----------
        folder : Path
        leave_out, only : list of str, optional
            Patients not to use, or the only ones to use.

        Raises
        ------
        OSError
            If ``shapes.npz`` is missing.
        """
        patients = []
        for path in sorted((folder / "patients").glob("*_mask.nii.gz")):
            name = path.name.removesuffix("_mask.nii.gz")
            if name in (leave_out or []) or (only is not None and name not in only):
                continue
            mask, grid = images.read(path)
            if not grid.same_as(WORKING_GRID):
                mask = resample(mask, grid, WORKING_GRID, order=0)
            labels, count = ndimage.label(mask > 0, CONNECTIVITY)
            voxels = np.argwhere(labels)
            owner = labels[tuple(voxels.T)]
            patients.append([voxels[owner == i].astype(np.int16) for i in range(1, count + 1)])
        with np.load(folder / "shapes.npz") as stored:
            shape = tuple(stored["shape"])
            offsets, voxels = stored["offsets"], stored["voxels"]
        singles = [
            np.stack(np.unravel_index(voxels[a:b], shape), 1).astype(np.int16) for a, b in pairwise(offsets)
        ]
        return cls(patients, singles)
