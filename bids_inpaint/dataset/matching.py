"""Which brain mask, affine and lesion mask of other datasets belongs to which T1w, by their entities.

Values are compared as BIDS means them (``run-01`` is ``run-1``). An entity that a file lacks matches only if
that leaves one T1w of the person in the whole dataset; one that the T1w lacks makes the file another image's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bids_inpaint.dataset.names import DATATYPES, entities_of, identity
from bids_inpaint.dataset.scan import T1w
from bids_inpaint.io.pointers import problem_of

if TYPE_CHECKING:
    from bids_inpaint.dataset.image import Image

#: Spaces whose coordinates are those of the T1w; none is the image's own.
NATIVE = (None, "orig", "T1w", "individual")
#: Names that a sentence lists at most.
_SHOWN = 8
#: Sentences on files of one folder that are of no T1w.
_SENTENCES = 20


@dataclass(frozen=True)
class File:
    """A file that another program made of an image."""

    path: Path
    relative: str

    @cached_property
    def entities(self) -> dict[str, str]:
        """Entities of its name, and its suffix."""
        return entities_of(self.path.name)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Of which image it is; folders may say what its name doesn't.

        What lies in a folder of BIDS other than ``anat``, at any depth, is no result of a T1w.
        """
        entities = identity(self.entities)
        folders = self.relative.split("/")[:-1]
        datatypes = [part for part in folders if part in DATATYPES]
        if datatypes and datatypes[-1] != "anat":
            entities["datatype"] = datatypes[-1]
        above = [part[4:] for part in folders if part.startswith("ses-")]
        return {**({"ses": above[-1]} if above else {}), **entities}

    def space(self, entity: str = "space") -> str | None:
        """Its space, or where a transform comes from or goes to, as TemplateFlow names it."""
        cohort = self.entities.get("cohort")
        name = self.entities.get(entity)
        return f"{name}:cohort-{cohort}" if cohort and name else name

    def could_be_of(self, t1w: T1w) -> bool:
        """Whether no entity of it speaks against a T1w."""
        return self.identity.items() <= t1w.identity.items()


class Folder:
    """The masks and transforms below a folder, also behind links, each folder once; hidden ones aside."""

    def __init__(self, root: Path, suffixes: Sequence[str]):
        self.root = root
        self.unreadable: list[OSError] = []
        self._names: dict[str, list[tuple[str, str]]] = {}
        self._parsed: dict[str, dict[str | None, list[File]]] = {}
        for folder, name in _names_below(root, self.unreadable.append):
            if name.split(".", 1)[0].rpartition("_")[2] in suffixes:
                self._names.setdefault(name[4:].partition("_")[0], []).append((folder, name))

    @property
    def subjects(self) -> list[str]:
        """Labels of the participants that have files."""
        return sorted(self._names)

    def of(self, subject: str) -> list[File]:
        """The files of a participant."""
        return [file for files in self._by_session(subject).values() for file in files]

    def of_session(self, t1w: T1w) -> list[File]:
        """Those of them that are of the session of a T1w or of none: a person may have thousands."""
        files = self._by_session(t1w.subject)
        return [file for key in dict.fromkeys([t1w.identity.get("ses"), None]) for file in files.get(key, [])]

    def _by_session(self, subject: str) -> dict[str | None, list[File]]:
        if subject not in self._parsed:
            parsed = self._parsed[subject] = {}
            for path in sorted(Path(folder) / name for folder, name in self._names.get(subject, [])):
                file = File(path, path.relative_to(self.root).as_posix())
                parsed.setdefault(file.identity.get("ses"), []).append(file)
        return self._parsed[subject]


def _names_below(root: Path, unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, str]]:
    visited = set()
    real = {os.fspath(root): os.path.realpath(root)}
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        above, name = os.path.split(folder)
        # that of every folder would be slow to look up
        known = real.get(folder) or (os.path.join(real[above], name) if not os.path.islink(folder) else None)
        here = real[folder] = known or os.path.realpath(folder)
        folders[:] = [] if here in visited else sorted(f for f in folders if not f.startswith("."))
        if here not in visited:
            ends = (".nii", ".nii.gz", ".txt", "_xfm.h5")
            yield from ((folder, n) for n in names if n[:4] == "sub-" and n.endswith(ends))
        visited.add(here)


@dataclass
class Match:
    """What is found for an image, and what is said about it."""

    t1w: T1w
    changes: dict = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None

    def use(self, name: str, files: Iterable[File]) -> None:
        """Note the files of a dataset as sources; one without content is a problem."""
        for file in files:
            self.problem = self.problem or problem_of(file.path)
            self.sources.append(f"bids:{name}:{file.relative}")

    def applied(self, image: Image) -> Image:
        """The image with what was found for it."""
        return replace(
            image,
            sources=[*image.sources, *self.sources],
            warnings=(*image.warnings, *self.warnings),
            notes=(*image.notes, *self.notes),
            **self.changes,
        )


@dataclass
class Dataset:
    """The T1w images among which the owner of a file is looked for.

    Attributes
    ----------
    persons : dict of list of T1w
        Every T1w of each participant that was looked at, whether it is processed or not.
    complete : bool
        Whether these are all participants of the dataset.
    to_means : dict of list of Path
        By path of a T1w, the transforms to the mean whose space is called T1w.
    """

    persons: dict[str, list[T1w]]
    complete: bool
    to_means: dict[Path, list[Path]] = field(default_factory=dict)
    _owners: dict[Path, list[T1w]] = field(default_factory=dict)

    def owners(self, file: File, subject: str) -> list[T1w]:
        """The T1w images that a file may be of; one alone if it has all entities of that one."""
        if file.path not in self._owners:
            session = file.identity.get("ses")
            every = self.persons.get(subject, [])
            candidates = self._of_session.get((subject, session), []) if session else every
            possible = [t1w for t1w in candidates if file.could_be_of(t1w)]
            exact = [t1w for t1w in possible if t1w.identity == file.identity]
            self._owners[file.path] = exact or possible
        return self._owners[file.path]

    def may_be_of(self, file: File, t1w: T1w) -> bool:
        """Whether a file is of a T1w, or of it or others."""
        return any(owner.identity == t1w.identity for owner in self.owners(file, t1w.subject))

    def is_of_alone(self, file: File, t1w: T1w) -> bool:
        """Whether a file is of a T1w and can't be of another."""
        return len(self.owners(file, t1w.subject)) == 1 and self.may_be_of(file, t1w)

    @cached_property
    def _of_session(self) -> dict[tuple[str, str | None], list[T1w]]:
        out: dict[tuple[str, str | None], list[T1w]] = {}
        for subject, images in self.persons.items():
            for t1w in images:
                out.setdefault((subject, t1w.identity.get("ses")), []).append(t1w)
        return out

    def unowned(self, folder: Folder, what: str, counts: Callable[[File], bool]) -> list[str]:
        """Sentences on the files of a folder that are of no T1w, or that can't be read."""
        said = []
        for subject in folder.subjects:
            if subject not in self.persons:
                continue
            for file in folder.of(subject):
                if counts(file) and not self.owners(file, subject):
                    names = ", ".join(Path(t1w.relative).name for t1w in self.persons[subject][:_SHOWN])
                    said.append(
                        f"{file.path} is of no T1w of sub-{subject} by its name, and is not used: "
                        f"its entities must be among those of one of {names}, and words need a key."
                    )
        if len(said) > _SENTENCES:
            said[_SENTENCES:] = [
                f"{len(said) - _SENTENCES} more files of {folder.root} are of no T1w either."
            ]
        said += [
            f"{error.filename} can't be read ({error.strerror}), and is not used: check its permissions."
            for error in folder.unreadable[:_SENTENCES]
        ]
        strangers = [s for s in folder.subjects if s not in self.persons] if self.complete else []
        if strangers := [s for s in strangers if any(map(counts, folder.of(s)))]:
            said.append(
                f"{folder.root} has {what} of {listed(f'sub-{s}' for s in strangers)}, of whom the dataset "
                "has no T1w: they are not used."
            )
        return said


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, some of them if they are many.

    Examples
    --------
    >>> listed(["a", "b"]), listed(map(str, range(12)))
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 4 others')
    """
    names = list(names)
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def distinct(files: Iterable[File]) -> list[File]:
    """Files without those that are links to others."""
    files = list(files)
    return files if len(files) < 2 else list({os.path.realpath(file.path): file for file in files}.values())
