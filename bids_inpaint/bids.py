"""Which T1w images to process, and what else belongs to each of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bids_inpaint.files import first_line, read_json, read_sidecar
from bids_inpaint.images import InputError
from bids_inpaint.participants import children

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

log = logging.getLogger("bids_inpaint")

#: Entities that tell the T1w images of one participant apart, in BIDS order, by PyBIDS name.
ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "run": "run",
}
#: What a filter file must be.
FILTER = 'it must hold a JSON object, as {"t1w": {"acquisition": "mprage"}}'
#: File of a PyBIDS database in its folder.
DATABASE = "layout_index.sqlite"
_SHORT: dict[str, str] = {short: name for name, short in ENTITIES.items()} | {"datatype": "datatype"}


@dataclass(frozen=True)
class Image:
    """A T1w to process.

    Attributes
    ----------
    path : str
    uri : str
        BIDS URI relative to the raw dataset.
    entities : dict of str
        By short name in BIDS order: sub, ses, acq, ce, rec, run.
    brain_mask : str, optional
        Precomputed mask.
    xfm : tuple of two str, optional
        Precomputed affine, T1w to template and back.
    lesion_mask : str, optional
        Given lesion mask.
    lesion_space : {'T1w', 'template'}
        Where `lesion_mask` lies.
    sources : list of str
        BIDS URIs of what belongs to it.
    told : tuple of str
        Sentences on what the networks were not made for, as the dataset says it.
    """

    path: str
    uri: str
    entities: dict[str, str]
    brain_mask: str | None = None
    xfm: tuple[str, str] | None = None
    lesion_mask: str | None = None
    lesion_space: str = "T1w"
    sources: list[str] = field(default_factory=list)
    told: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Participant label."""
        return self.entities["sub"]

    @property
    def prefix(self) -> str:
        """File name up to the entities that derivatives add.

        Examples
        --------
        >>> Image("p", "u", {"sub": "01", "run": "2"}).prefix
        'sub-01_run-2'
        """
        return "_".join(f"{k}-{v}" for k, v in self.entities.items())

    @property
    def folder(self) -> str:
        """Folder of its derivatives, relative to the output folder."""
        parts = [f"{k}-{self.entities[k]}" for k in ("sub", "ses") if k in self.entities]
        return "/".join([*parts, "anat"])


def collect(settings: Any, masks_needed: bool = True) -> list[Image]:
    """Find the T1w images a run is about.

    Parameters
    ----------
    settings : Settings
    masks_needed : bool
        Whether each image must have a lesion mask where a folder of masks is given.

    Raises
    ------
    InputError
        If the dataset or a filter is unusable, or an asked-for participant or session has no T1w.
    """
    root = settings.bids_dir
    _check_dataset(root)
    labels = settings.participant_label
    present = sorted(p.name[4:] for p in root.glob("sub-*") if p.is_dir())
    if not present:
        raise InputError(f"{root} has no sub-* folder: give the root of a BIDS dataset with images.")
    if absent := [label for label in labels if label not in present]:
        some = ", ".join(present[:8]) + (", …" if len(present) > 8 else "")
        raise InputError(f"Participant {', '.join(absent)} is not in {root}: it has {some}.")
    layout = _layout(root, labels, settings.bids_database_dir)
    query = {"suffix": "T1w", "datatype": "anat", "extension": [".nii", ".nii.gz"]}
    filters = _filters(settings.bids_filter_file, {*layout.get_entities(), "regex_search"})
    query |= filters
    if labels:
        query["subject"] = list(labels)
    if settings.session_label:
        query["session"] = list(settings.session_label)
    try:
        every = layout.get(scope="raw", **query)
    except Exception as error:  # whatever PyBIDS and its database make of values that are none
        if not filters:
            raise
        raise InputError(
            f"Filter file {settings.bids_filter_file} can't be used ({first_line(error)}): {FILTER}."
        ) from None
    # a user's database may hold anything
    below = re.compile(r"sub-[^/]+/(ses-[^/]+/)?anat/[^/]+")
    files = [f for f in every if f.entities.get("part", "mag") == "mag" and below.fullmatch(f.relpath)]
    if misnamed := sorted(f.relpath for f in files if not _well_named(f.relpath)):
        raise InputError(
            f"{root / misnamed[0]!s:.200} is not named as BIDS asks (sub-LABEL/[ses-LABEL/]anat/"
            "sub-LABEL[_ses-LABEL][_KEY-LABEL]_T1w.nii.gz, labels of letters and digits): rename it."
        )
    is_child = children(root)
    found = sorted((_image(f, root, is_child) for f in files), key=lambda image: image.prefix)
    for one, two in pairwise(found):
        if one.prefix == two.prefix:
            raise InputError(
                f"{one.path} and {two.path} would have the same outputs, whose names keep "
                f"{', '.join(ENTITIES.values())} alone: choose one with --bids-filter-file, as "
                '{"t1w": {"echo": 1}}.'
            )
    missing = set(labels) - {image.subject for image in found}
    if missing or not found:
        who = f"participant {', '.join(sorted(missing))}" if missing else "any participant"
        narrowed = [
            text
            for text, given in (
                (f"session {', '.join(settings.session_label)}", settings.session_label),
                (f"the filters of {settings.bids_filter_file}", settings.bids_filter_file),
            )
            if given
        ]
        where = f" with {' and '.join(narrowed)}" if narrowed else ""
        raise InputError(
            f"{root} has no T1w of {who}{where}: a file as sub-{next(iter(missing), present[0])}"
            f"/anat/sub-{next(iter(missing), present[0])}_T1w.nii.gz is needed."
        )
    return _add_derivatives(found, settings, masks_needed)


def _well_named(path: str) -> bool:
    """Whether a path below the root is that of a T1w, by the entities of its folders."""
    label = "[0-9a-zA-Z+]+"
    parts = re.fullmatch(
        rf"(sub-{label}(?:/ses-{label})?)/anat/(sub-{label}(?:_ses-{label})?)(?:_[a-z]+-{label})*_T1w.nii(.gz)?",
        path,
    )
    return parts is not None and parts[1].replace("/", "_") == parts[2]


def _check_dataset(root: Path) -> None:
    description = root / "dataset_description.json"
    remedy = 'it needs at least {"Name": "…", "BIDSVersion": "1.10.0"}.'
    if not any(root.iterdir()):
        raise InputError(f"{root} is empty: give the root of a BIDS dataset.")
    try:
        content = read_json(description)
    except FileNotFoundError:
        raise InputError(
            f"{root} is not a BIDS dataset, as {description.name} is missing: {remedy}"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{description} can't be read ({error}): {remedy}") from None
    if not isinstance(content, dict) or not {"Name", "BIDSVersion"} <= content.keys():
        raise InputError(f"{description} lacks Name or BIDSVersion: {remedy}")


def _layout(root: Path, labels: tuple[str, ...], database: Path | None, **kwargs) -> BIDSLayout:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    # a database serves other participants too; without one, index those asked for alone
    wanted = "|".join(map(re.escape, labels)) if labels and not database else "[^/]+"
    # PyBIDS follows links, also those in circles: no deeper than a T1w may lie
    ignore = [re.compile(rf"(?s)^(?!/sub-({wanted})(/ses-[^/]+)?(/anat(/[^/]+)?)?$)")]

    def index(database_path: Path | str | None) -> BIDSLayout:
        return BIDSLayout(
            root,
            database_path=database_path,
            indexer=BIDSLayoutIndexer(index_metadata=False, ignore=ignore, validate=False),
            **kwargs,
        )

    try:
        if database and not (database / DATABASE).exists():
            # others may be doing the same: each sees a whole database or none
            database.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".index-", dir=database) as part:
                index(part).session.close()
                os.replace(Path(part) / DATABASE, database / DATABASE)
        return index(database)
    except Exception as error:
        raise InputError(f"{root} can't be indexed as BIDS ({first_line(error)}).") from None


def _filters(path: Path | None, known: set[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"Filter file {path} can't be read ({error}): {FILTER}.") from None
    filters: Any = content.get("t1w") if isinstance(content, dict) else {}
    if not isinstance(filters, dict) or not filters:
        raise InputError(f"Filter file {path} has no filter for t1w: {FILTER}.")
    from bids.layout import Query

    special = {
        None: Query.NONE, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY, "*": Query.ANY,
        "Query.OPTIONAL": Query.OPTIONAL,
    }  # fmt: skip

    def meant(value):
        if isinstance(value, list):
            return [meant(one) for one in value]
        return special.get(value, value) if value is None or isinstance(value, str) else value

    out = {_SHORT.get(str(key), str(key)): meant(value) for key, value in filters.items()}
    if unknown := sorted(out.keys() - known):
        raise InputError(f"Filter file {path} has no entity of BIDS in {unknown[0]!r:.80}: {FILTER}.")
    return out


def _contrast_agent(path: Path, label: str | None) -> bool:
    """Whether a T1w was acquired with a contrast agent by its name or its sidecar."""
    sidecar = read_sidecar(path.with_name(f"{path.name.split('.')[0]}.json"))
    said = (label, sidecar.get("ContrastBolusIngredient"))
    return any(str(text or "none").lower() not in ("none", "n/a", "no", "pre") for text in said)


def _image(file, root: Path, is_child: Callable[[str, str | None], bool]) -> Image:
    entities = {short: str(file.entities[name]) for name, short in ENTITIES.items() if name in file.entities}
    # PyBIDS turns run-01 into 1, and the name must keep its zeros
    for short, value in re.findall(r"(?:^|_)(run)-([0-9a-zA-Z]+)", Path(file.path).name):
        entities[short] = value
    relative = Path(file.path).relative_to(root).as_posix()
    told = []
    if _contrast_agent(Path(file.path), entities.get("ce")):
        told.append("By its name or sidecar it has a contrast agent: the networks were trained without.")
    if is_child(entities["sub"], entities.get("ses")):
        told.append("By participants.tsv it is of a child: the networks were trained with adults.")
    return Image(path=str(file.path), uri=f"bids:raw:{relative}", entities=entities, told=tuple(told))


def _add_derivatives(found: list[Image], settings: Any, masks_needed: bool) -> list[Image]:
    from dataclasses import replace

    for name, path in settings.derivatives.items():
        files = _Derivative(path)
        used = 0
        for i, image in enumerate(found):
            mask = files.of(image, suffix="mask", desc="brain", label=None, native=True)
            forward = files.of(image, suffix="xfm", **{"from": "T1w", "to": settings.template})
            back = files.of(image, suffix="xfm", **{"from": settings.template, "to": "T1w"})
            changes: dict[str, Any] = {}
            if mask:
                changes["brain_mask"] = mask
            if forward and back:
                changes["xfm"] = (forward, back)
            if changes:
                used += 1
                uris = [
                    f"bids:{name}:{Path(p).relative_to(path).as_posix()}"
                    for p in (mask, forward if "xfm" in changes else None)
                    if p
                ]
                found[i] = replace(image, sources=[*image.sources, *uris], **changes)
        if not used:
            raise InputError(
                f"Derivatives {name}={path} have no desc-brain_mask.nii.gz and no affine to "
                f"{settings.template} of any image to process: leave them out or check the path."
            )
    if settings.lesion_masks:
        files = _Derivative(settings.lesion_masks)
        for i, image in enumerate(found):
            mask = files.of(image, suffix="mask", label=True)
            if mask is None and not masks_needed:
                continue
            if mask is None:
                raise InputError(
                    f"{settings.lesion_masks} has no lesion mask (label-*_mask.nii.gz) of {image.prefix}: "
                    "add an empty mask if it has no lesion, or leave the participant out."
                )
            space = "template" if "_space-MNI" in Path(mask).name else "T1w"
            found[i] = replace(image, lesion_mask=mask, lesion_space=space)
    return found


class _Derivative:
    """The masks and affines below a folder, found by the entities of a T1w."""

    def __init__(self, root: Path):
        self._files: dict[tuple, list[tuple[str, dict[str, str]]]] = {}
        for path in sorted(_files(root)):
            if not (path.name.startswith("sub-") and path.name.endswith((".nii", ".nii.gz", ".txt"))):
                continue
            *pairs, suffix = path.name.split(".")[0].split("_")
            entities = dict(p.split("-", 1) for p in pairs if "-" in p) | {"suffix": suffix}
            # thousands of images have their files each, and few are looked at for one of them
            self._files.setdefault(_place(entities), []).append((str(path), entities))

    def of(self, image: Image, *, native: bool = False, **wanted) -> str | None:
        """Path of the file whose entities agree with those of the image and hold the wanted ones."""
        best, most = None, -1
        near = dict.fromkeys([_place(image.entities), (image.subject, None)])
        for path, entities in (file for place in near for file in self._files.get(place, [])):
            # the entities it shares with the image must not disagree
            if any(entities.get(k, v) != v for k, v in image.entities.items()):
                continue
            if any(k in entities and k not in image.entities for k in ENTITIES.values()):
                continue
            if native and entities.get("space", "T1w") not in ("T1w", "orig", "individual"):
                continue
            agrees = all(
                (entities.get(k) is not None) if v is True else entities.get(k) == v
                for k, v in wanted.items()
            )
            shared = sum(k in entities for k in image.entities)
            if agrees and shared > most:
                best, most = path, shared
        return best


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, also behind links, each folder once; hidden ones aside."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        folders[:] = [] if here in seen else sorted(f for f in folders if not f.startswith("."))
        if here not in seen:
            yield from (path for name in names if (path := Path(folder) / name).is_file())
        seen.add(here)


def _place(entities: dict[str, str]) -> tuple[str | None, str | None]:
    return entities.get("sub"), entities.get("ses")
