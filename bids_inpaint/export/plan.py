"""Which files an export holds, and where each of them comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.description import DESCRIPTION
from bids_inpaint.dataset.names import entities_of
from bids_inpaint.errors import unreadable
from bids_inpaint.export import contents
from bids_inpaint.export.results import Result
from bids_inpaint.io.files import read_json, read_sidecar
from bids_inpaint.io.pointers import problem_of, problem_of_link

#: Folders of a dataset, besides those of the participants, whose files belong to the data.
_FOLDERS = ("phenotype", "stimuli")
#: What lies beside the data of a dataset and is no part of them.
_KNOWN = ("derivatives", "sourcedata", "code")
_IMAGES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Item:
    """How a file of the export comes about.

    Attributes
    ----------
    source : Path, optional
        The file it is a copy of.
    content : bytes, optional
        What it holds, if it is no copy.
    unzip : bool
        Whether it is the source without compression.
    link : bool
        Whether it may be a link to the source.
    """

    source: Path | None = None
    content: bytes | None = None
    unzip: bool = False
    link: bool = True


@dataclass
class Plan:
    """What an export holds.

    Attributes
    ----------
    items : dict of Item
        By path in the export, with slashes.
    left_out : dict of str
        Why files and folders of the dataset are not in it, each in a sentence, by their paths in it.
    notes : list of str
        What else may be worth to know.
    """

    items: dict[str, Item] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, relative: str, reason: str) -> None:
        """Note that a file is not in the export."""
        self.left_out.setdefault(relative, reason)


class Scope:
    """Which participants and sessions an export is about.

    Parameters
    ----------
    subjects : collection of str
        Labels.
    sessions : collection of str
        Labels; all if there are none.
    """

    def __init__(self, subjects: Collection[str], sessions: Collection[str]):
        self.subjects, self.sessions = frozenset(subjects), frozenset(sessions)

    def holds(self, relative: str) -> bool:
        """Whether a file of a participant is among them; what is of no session is of all."""
        parts = relative.split("/")
        if parts[0].removeprefix("sub-") not in self.subjects or not parts[0].startswith("sub-"):
            return False
        inside = parts[1:-1]
        if not self.sessions or not inside:
            return True
        return inside[0].removeprefix("ses-") in self.sessions and inside[0].startswith("ses-")


def plan(
    root: Path, results: Sequence[Result], scope: Scope, others: Collection[str], options: Mapping[str, bool]
) -> Plan:
    """Plan an export.

    Parameters
    ----------
    root : Path
        The dataset.
    results : sequence of Result
        The inpainted images.
    scope : Scope
    others : collection of str
        Files of participants and sessions that are not in the scope and stay in the export.
    options : mapping of str to bool
        ``unzipped`` and ``lesion_rois``.
    """
    out = Plan()
    unzip = options["unzipped"]
    images = {result.relative for result in results}
    persons = {_person(relative) for relative in images}
    every = _files(root, out)
    files = [
        relative
        for relative in every
        if "/" not in relative
        or _person(relative) in _FOLDERS
        or (_person(relative) in persons and scope.holds(relative))
    ]
    gone = _gone(root, files, images, out)
    for relative in files:
        if relative in gone or relative in images or relative == DESCRIPTION:
            continue
        source, target = root / relative, contents.unzipped(relative) if unzip else relative
        changed = _retargeted(source, relative, gone, unzip) if relative.endswith(".json") else None
        packed = target != relative
        copy = Item(source, unzip=packed, link=not packed)
        out.items[target] = copy if changed is None else Item(content=changed)
    for result in results:
        _add_image(out, root, result, options)
    for relative in _orphans(every, [*out.items, *others]):
        out.items.pop(relative, None)
    _add_tables(out, root, [f for f in files if f not in gone], gone, others, unzip)
    _add_ignored(out, root / ".bidsignore", options["lesion_rois"])
    original = read_json(root / DESCRIPTION)
    out.items[DESCRIPTION] = Item(content=contents.as_json(contents.description(original, root.as_uri())))
    return out


def _add_ignored(out: Plan, source: Path, rois: bool) -> None:
    try:
        said = source.read_bytes()
    except FileNotFoundError:
        said = b""
    except OSError as error:
        out.leave_out(source.name, f"{source} {unreadable(error)}")
        said = b""
    if rois or said:
        out.items[source.name] = Item(content=contents.ignore_list(said) if rois else said)


def _person(relative: str) -> str:
    return relative.split("/")[0]


def _files(root: Path, out: Plan) -> list[str]:
    """Files of a dataset that belong to its data, also behind links; hidden ones aside."""
    found: list[str] = []

    def look(folder: Path, around: frozenset[str]) -> None:
        here = os.path.realpath(folder)
        relative = folder.relative_to(root).as_posix()
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError as error:
            out.leave_out(relative, f"{folder} {unreadable(error)}")
            return
        for name in names:
            path = folder / name
            if not path.is_dir():
                found.append(path.relative_to(root).as_posix())
            elif folder == root and not (name in _FOLDERS or name.startswith("sub-")):
                if name not in _KNOWN:
                    out.notes.append(f"{path} is not part of the data by BIDS, and is left out.")
            elif here not in around:
                look(path, around | {here})

    look(root, frozenset())
    return found


def _gone(root: Path, files: Sequence[str], inpainted: Collection[str], out: Plan) -> set[str]:
    """Files that the export lacks: T1w images that are not inpainted, and what can't be read."""
    gone = set()
    for relative in files:
        if relative in inpainted:
            continue
        name = relative.rpartition("/")[2]
        if name.endswith(_IMAGES) and entities_of(name)["suffix"].lower() == "t1w":
            out.leave_out(relative, f"{root / relative} is a T1w that was not inpainted.")
        elif reason := _problem(root / relative):
            out.leave_out(relative, reason)
        else:
            continue
        gone.add(relative)
    # without its image a sidecar is no valid BIDS
    kept = {_stem(f) for f in files if f.endswith(_IMAGES) and f not in gone}
    alone = {_stem(relative) for relative in gone if relative.endswith(_IMAGES)} - kept
    return gone | {relative for relative in files if _stem(relative) in alone}


def _orphans(before: Sequence[str], after: Collection[str]) -> list[str]:
    """Sidecars above that were of files of the dataset, none of which is in the export.

    Parameters
    ----------
    before, after : sequence of str
        All files of the dataset and of the export.
    """
    stems = {_stem(relative) for relative in after if not relative.endswith(".json")}
    shared = [f for f in after if f.endswith(".json") and _stem(f) not in stems]
    data = [_by_suffix(f for f in files if not f.endswith(".json")) for files in (before, after)]

    def used(relative: str, by_suffix: dict[str, list[tuple[str, dict[str, str]]]]) -> bool:
        folder, _, name = relative.rpartition("/")
        said = entities_of(name)
        inside = f"{folder}/" if folder else ""
        return any(
            path.startswith(inside) and said.items() <= entities.items()
            for path, entities in by_suffix.get(said["suffix"], [])
        )

    return [relative for relative in shared if used(relative, data[0]) and not used(relative, data[1])]


def _by_suffix(files: Iterable[str]) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Files with their entities, by their suffix."""
    out: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for relative in files:
        entities = entities_of(relative.rpartition("/")[2])
        out.setdefault(entities["suffix"], []).append((relative, entities))
    return out


def _stem(relative: str) -> str:
    """Path without its extensions."""
    folder, _, name = relative.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _problem(path: Path) -> str | None:
    """Why a file can't be read, as a sentence, or None; only an image needs content."""
    reason = problem_of(path) if path.name.endswith(_IMAGES) else problem_of_link(path)
    if reason or path.name.endswith(_IMAGES):
        return reason
    try:
        if not path.is_file():
            return f"{path} is not a regular file: put one in its place."
        path.open("rb").close()
    except OSError as error:
        return f"{path} {unreadable(error)}"
    return None


def _retargeted(source: Path, relative: str, gone: Collection[str], unzip: bool) -> bytes | None:
    """A sidecar that refers to files which have another name now or are gone; None if it stays as it is."""
    content = read_sidecar(source)
    new = contents.retarget(content, _person(relative), gone, unzip)
    return None if new == content else contents.as_json(new)


def _add_image(out: Plan, root: Path, result: Result, options: Mapping[str, bool]) -> None:
    """The inpainted image under the name of its T1w, its sidecar and its lesion mask."""
    relative = result.relative
    target = contents.unzipped(relative) if options["unzipped"] else relative
    out.items[target] = Item(result.inpainted, unzip=target.endswith(".nii"), link=False)
    stem = re.sub(r"\.nii(\.gz)?$", "", relative)
    beside = read_sidecar(root / f"{stem}.json")
    out.items[f"{stem}.json"] = Item(content=contents.as_json(beside | {"Inpainting": result.provenance}))
    if options["lesion_rois"]:
        roi = f"{stem}_label-lesion_roi.nii{'' if target.endswith('.nii') else '.gz'}"
        if roi in out.items:
            out.notes.append(f"{root / roi} is there already and stays; the lesion map is not written.")
        else:
            out.items[roi] = Item(result.mask, unzip=roi.endswith(".nii"), link=False)


def _add_tables(
    out: Plan, root: Path, files: Sequence[str], gone: Collection[str], others: Collection[str], unzip: bool
) -> None:
    """Tables without the rows of who and what is not in the export."""
    there = {*out.items, *others}
    persons = {_person(relative) for relative in there if relative.startswith("sub-")}
    folders = {"/".join(relative.split("/")[:2]) for relative in there if relative.count("/") > 1}

    def present(value: str) -> str | None:
        return value if f"sub-{value.removeprefix('sub-')}" in persons else None

    for relative in files:
        folder, _, name = relative.rpartition("/")

        def session(value: str, folder: str = folder) -> str | None:
            return value if f"{folder}/ses-{value.removeprefix('ses-')}" in folders else None

        def scan(value: str, folder: str = folder) -> str | None:
            if f"{folder}/{value}" in gone:
                return None
            return contents.unzipped(value) if unzip else value

        column: Any
        if name == "participants.tsv" or folder == "phenotype":
            column, wanted = "participant_id", present
        elif name.endswith("_sessions.tsv"):
            column, wanted = "session_id", session
        elif name.endswith("_scans.tsv"):
            column, wanted = "filename", scan
        else:
            continue
        content = (root / relative).read_bytes()
        kept = contents.keep_rows(content, column, wanted)
        if kept != content:
            out.items[relative] = Item(content=kept)
