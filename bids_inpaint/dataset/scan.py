"""The T1w images that lie in a dataset, however they are named, and why one can't be processed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bids_inpaint.dataset.names import DATATYPES, entities_of, identity
from bids_inpaint.io.pointers import is_broken, problem_of_link

_T1W = re.compile(r"(?is)sub-.*_T1w\.nii(\.gz)?")
_FLAIR = re.compile(r"(?is)(?!\.)(.*_)?FLAIR\.nii(\.gz)?")
#: What may be meant as a T1w where none is looked for.
_STRAY = re.compile(r"(?is)(?!\.)(.*_)?T1w\.nii(\.gz)?")
_LABEL = "[0-9a-zA-Z+]+"
# bids_validator refuses what its own version of the schema does not know
_WELL_NAMED = re.compile(
    rf"(sub-{_LABEL}(?:/ses-{_LABEL})?)/anat/(sub-{_LABEL}(?:_ses-{_LABEL})?)(?:_[a-z]+-{_LABEL})*_(T1w|FLAIR)\.nii(\.gz)?"
)


@dataclass(frozen=True)
class Refused:
    """An image, or a whole participant, that can't be processed.

    Attributes
    ----------
    name : str
        Prefix of the image, or ``sub-LABEL``.
    subject : str
        Participant label.
    reason : str
        One sentence: file, reason, remedy.
    paths : tuple of str
        Of the files or the folder, relative to the dataset.
    whole : bool
        Whether it is all of a participant, or of a session, and not one image.
    """

    name: str
    subject: str
    reason: str
    paths: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class T1w:
    """A file that is meant to be a T1w, or a FLAIR beside one.

    Attributes
    ----------
    path : Path
    relative : str
        To the root of the dataset, with slashes.
    subject : str
        Participant label of its folder.
    session : str, optional
        Session label of its folder.
    """

    path: Path
    relative: str
    subject: str
    session: str | None

    @cached_property
    def entities(self) -> dict[str, str]:
        """Entities of its name, as :func:`bids_inpaint.dataset.names.entities_of` compares them."""
        return entities_of(self.path.name)

    @cached_property
    def identity(self) -> dict[str, str]:
        """What tells it from the person's other images."""
        return identity(self.entities)

    @property
    def stem(self) -> str:
        """Name up to its suffix."""
        return re.sub(r"(?i)_T1w\.nii(\.gz)?$", "", self.path.name)

    @property
    def well_named(self) -> bool:
        """Whether its name is that of a T1w or a FLAIR, with the entities of its folders."""
        parts = _WELL_NAMED.fullmatch(self.relative)
        return parts is not None and parts[1].replace("/", "_") == parts[2]

    def refused(self, reason: str) -> Refused:
        """It, as an image that can't be processed."""
        return Refused(self.stem, self.subject, reason, (self.relative,))


@dataclass
class ScanResult:
    """What lies in a dataset.

    Attributes
    ----------
    subjects : list of str
        Labels of the participants looked at.
    images : list of T1w
        In the order of their paths.
    flair : dict of list of T1w
        FLAIR images by participant and session (None without), in the order of their paths.
    refused : list of Refused
        Participants whose folders can't be read.
    strays : list of str
        Folders and files, relative to the dataset, that seem to hold T1w images and are not looked at.
    """

    subjects: list[str] = field(default_factory=list)
    images: list[T1w] = field(default_factory=list)
    flair: dict[tuple[str, str | None], list[T1w]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def participants_in(root: Path) -> list[str]:
    """Labels of the participants of a dataset, those included whose folder is a link to nothing."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name[4:]
            for entry in entries
            if entry.name.startswith("sub-") and (os.path.isdir(entry.path) or is_broken(entry.path))
        )


def scan(root: Path, labels: list[str]) -> ScanResult:
    """Find the T1w images of participants, in their ``anat`` folders and in those of their sessions."""
    result = ScanResult(labels)

    def look_for_strays(folder: Path, names: list[str]) -> None:
        others = (folder / name for name in sorted(names) if name not in DATATYPES and name[:4] != "ses-")
        result.strays += [path.relative_to(root).as_posix() for path in others if _may_hold_t1w(path)]

    def names_in(folder: Path, label: str) -> list[str]:
        reason = problem_of_link(folder)
        try:
            if not reason:
                return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            reason = f"{folder} can't be read ({error.strerror}): check its permissions."
        relative = folder.relative_to(root)
        name = "_".join(part for part in relative.parts if part != "anat")
        result.refused.append(Refused(name, label, reason, (relative.as_posix(),), whole=True))
        return []

    for label in labels:
        person = root / f"sub-{label}"
        listing = names_in(person, label)
        look_for_strays(person, listing)
        sessions = sorted(name[4:] for name in listing if name.startswith("ses-"))
        for session in (None, *sessions):
            above = person if session is None else person / f"ses-{session}"
            before = len(result.images)
            for name in names_in(above if is_broken(above) and session else above / "anat", label):
                path = above / "anat" / name
                if _T1W.fullmatch(name):
                    result.images.append(T1w(path, path.relative_to(root).as_posix(), label, session))
                elif _STRAY.fullmatch(name):
                    result.strays.append(path.relative_to(root).as_posix())
                elif _FLAIR.fullmatch(name):
                    flair = T1w(path, path.relative_to(root).as_posix(), label, session)
                    result.flair.setdefault((label, session), []).append(flair)
            if session and len(result.images) == before:
                look_for_strays(above, _names_in(above))
    for images in (result.images, *result.flair.values()):
        images.sort(key=lambda image: image.relative)
    return result


def strange_folders(root: Path) -> list[str]:
    """Folders of a dataset that seem to be participants with T1w images, as ``Sub-01`` and ``sub_01``."""
    names = (name for name in _names_in(root) if name[:3].lower() == "sub" and not name.startswith("sub-"))
    return sorted(name for name in names if _may_hold_t1w(root / name))


def _may_hold_t1w(path: Path) -> bool:
    """Whether a file is named as a T1w, or a folder holds one, at most in one of its sessions."""
    if _STRAY.fullmatch(path.name):
        return True
    below = re.compile("(?i)anat|ses.*")
    names = [] if path.is_symlink() else _names_in(path)
    return any(
        _STRAY.fullmatch(name) or (below.fullmatch(name) and _may_hold_t1w(path / name)) for name in names
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def by_person(images: list[T1w]) -> dict[str, list[T1w]]:
    """Images by participant; files of one image, as its .nii and its .nii.gz, count once."""
    out: dict[str, dict[tuple, T1w]] = {}
    for image in images:
        out.setdefault(image.subject, {}).setdefault(tuple(sorted(image.identity.items())), image)
    return {subject: list(listing.values()) for subject, listing in out.items()}


def magnitudes(images: Iterable[T1w]) -> Iterator[T1w]:
    """Those that are no phase or other part of a complex image."""
    return (image for image in images if image.entities.get("part", "mag") == "mag")
