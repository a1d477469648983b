"""Which T1w images to process, and what else belongs to each of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.derivatives import add_derivatives, add_lesion_masks
from bids_inpaint.dataset.edits import add_edits
from bids_inpaint.dataset.flair import add_flair, tell_of_none
from bids_inpaint.dataset.image import Image, prefix_of
from bids_inpaint.dataset.index import matching_filters
from bids_inpaint.dataset.matching import Dataset, listed
from bids_inpaint.dataset.names import ENTITIES, Sidecars
from bids_inpaint.dataset.participants import children
from bids_inpaint.dataset.scan import (
    Refused,
    ScanResult,
    T1w,
    by_person,
    magnitudes,
    participants_in,
    scan,
    strange_folders,
)
from bids_inpaint.errors import InputError, unreadable
from bids_inpaint.io.files import read_json
from bids_inpaint.io.pointers import problem_of

log = logging.getLogger("bids_inpaint")


@dataclass(frozen=True)
class Collection:
    """What a run is about.

    Attributes
    ----------
    images : list of Image
    refused : list of Refused
        What was asked for and can't be processed.
    warnings : list of str
        On the dataset as a whole.
    """

    images: list[Image]
    refused: list[Refused]
    warnings: list[str]


def collect(settings: Any, processing: bool = True) -> Collection:
    """Find the T1w images a run is about.

    Parameters
    ----------
    settings : Settings
    processing : bool
        Whether the images will be read, and each must have a lesion mask where a folder of masks is given.

    Raises
    ------
    InputError
        If the dataset or a filter is unusable, an asked-for participant or session is nowhere, or nothing is
        left to process.
    """
    root, labels = settings.bids_dir, settings.participant_label
    _check_dataset(root)
    present = participants_in(root)
    if not present:
        raise InputError(f"{root} has no sub-* folder: give the root of a BIDS dataset with images.")
    if absent := [label for label in labels if label not in present]:
        who = "Participants {} are" if absent[1:] else "Participant {} is"
        raise InputError(f"{who.format(', '.join(absent))} not in {root}: it has {listed(present)}.")
    there = scan(root, list(labels) or present)
    there.images = list(magnitudes(there.images))
    warnings: list[str] = []
    named = matching_filters(there, settings, warnings)
    chosen, refused = _select(there, settings, present, named.get("t1w"), warnings)
    if strays := [*([] if labels else strange_folders(root)), *there.strays]:
        warnings.append(
            f"{root} seems to have T1w images where none is looked for, in {listed(strays)}: name folders "
            "and files as BIDS asks (sub-LABEL/[ses-LABEL/]anat/sub-LABEL[_ses-LABEL]_T1w.nii.gz)."
        )
    files, unusable = _usable(chosen, processing)
    refused += unusable
    is_child, sidecars = children(root), Sidecars(root)
    found = []
    for file in files:
        beside = there.flair.get((file.subject, file.session), [])
        image = _image(file, is_child, sidecars)
        found.append(add_flair(image, beside, file, named.get("flair"), bool(settings.flair)))
    pairs = list(zip(tell_of_none(found) if settings.flair else found, files, strict=True))
    pairs.sort(key=lambda pair: pair[0].prefix)
    dataset = Dataset(by_person(there.images), complete=not labels)
    # the last of those that have the same is used
    for name, path in reversed(settings.derivatives.items()):
        pairs, more, said = add_derivatives(pairs, dataset, name, Path(path), settings.template)
        refused, warnings = [*refused, *more], [*warnings, *said]
    if settings.lesion_masks:
        pairs, more, said = add_lesion_masks(
            pairs, dataset, Path(settings.lesion_masks), settings.template, needed=processing
        )
        refused, warnings = [*refused, *more], [*warnings, *said]
    if settings.edits and processing:
        pairs, more, said = add_edits(pairs, dataset, Path(settings.edits), settings.template)
        refused, warnings = [*refused, *more], [*warnings, *said]
    if not pairs:
        raise InputError(nothing_left(refused) or _no_t1w(settings, labels, present))
    return Collection([image for image, _ in pairs], refused, warnings)


def nothing_left(refused: Sequence[Refused]) -> str:
    """Why nothing can be run, in the words of those that are refused."""
    more = f" {len(refused) - 3} more can't be processed either." if len(refused) > 3 else ""
    return " ".join(one.reason for one in refused[:3]) + more


def _no_t1w(settings: Any, labels: Sequence[str], present: Sequence[str]) -> str:
    who = f"participant {', '.join(labels)}" if labels else "any participant"
    narrowed = [
        text
        for text, option in (
            (f"session {', '.join(settings.session_label)}", settings.session_label),
            (f"the filters of {settings.bids_filter_file}", settings.bids_filter_file),
        )
        if option
    ]
    narrowing = f" with {' and '.join(narrowed)}" if narrowed else ""
    names = [f"sub-{[*labels, *present][0]}", *(f"ses-{session}" for session in settings.session_label[:1])]
    remedy = (
        "check the filter"
        if settings.bids_filter_file
        else f"a file such as {'/'.join(names)}/anat/{'_'.join(names)}_T1w.nii.gz is needed"
    )
    return f"{settings.bids_dir} has no T1w of {who}{narrowing}: {remedy}."


def _select(
    there: ScanResult,
    settings: Any,
    present: Sequence[str],
    named: set[str] | None,
    warnings: list[str],
) -> tuple[list[T1w], list[Refused]]:
    """The files asked for, and what of that is not there; warnings get what was not asked for by name."""
    sessions, labels = settings.session_label, settings.participant_label
    chosen = [t1w for t1w in there.images if not sessions or t1w.session in sessions]
    refused = [r for r in there.refused if not sessions or _session_of(r) in (None, *sessions)]

    def leave_out(subjects: set[str], reason: str) -> None:
        """Asked for by name they are refused; else one warning serves all."""
        unknown = sorted(subjects - {r.subject for r in there.refused})
        if labels:
            refused.extend(
                Refused(f"sub-{s}", s, _no_t1w(settings, [s], present), whole=True) for s in unknown
            )
        elif unknown:
            warnings.append(f"{reason}: {listed(f'sub-{s}' for s in unknown)}.")

    with_images = {t1w.subject for t1w in there.images}
    leave_out({*there.subjects} - with_images, "These participants have no T1w and are left out")
    for session in sessions:
        if not any(os.path.isdir(settings.bids_dir / f"sub-{s}" / f"ses-{session}") for s in present):
            raise InputError(
                f"{settings.bids_dir} has no T1w of any participant with session {session}: check the label."
            )
        having = {t1w.subject for t1w in chosen if t1w.session == session} | {r.subject for r in refused}
        if lacking := sorted(with_images - having):
            lacking_it = listed(f"sub-{label}" for label in lacking)
            warnings.append(f"These participants have no T1w of session {session}: {lacking_it}.")
    if named is not None:
        filters = f"the filters of {settings.bids_filter_file}"
        passing = [t1w for t1w in chosen if t1w.relative in named]
        warnings += [
            f"{_misnamed(t1w)} It is not used, as {filters} don't name it."
            for t1w in chosen
            if t1w.relative not in named and not t1w.well_named
        ]
        lost = {t1w.subject for t1w in chosen} - {t1w.subject for t1w in passing}
        leave_out(lost, f"With {filters} these participants have no T1w, and are left out")
        chosen = passing
    return chosen, refused


def _session_of(refused: Refused) -> str | None:
    parts = [part[4:] for path in refused.paths for part in path.split("/") if part.startswith("ses-")]
    return parts[0] if parts else None


def _misnamed(t1w: T1w) -> str:
    return (
        f"{t1w.path!s:.200} is not named as BIDS asks (sub-LABEL/[ses-LABEL/]anat/"
        "sub-LABEL[_ses-LABEL][_KEY-LABEL]_T1w.nii.gz, labels of letters and digits): rename it."
    )


def _usable(chosen: Sequence[T1w], processing: bool) -> tuple[list[T1w], list[Refused]]:
    """Files that are images of their own, and the others with the reasons."""
    refused = [t1w.refused(_misnamed(t1w)) for t1w in chosen if not t1w.well_named]
    same: dict[tuple, list[T1w]] = {}
    for t1w in chosen:
        if t1w.well_named:
            same.setdefault(tuple(map(t1w.entities.get, ENTITIES.values())), []).append(t1w)
    usable = []
    for files in same.values():
        subject, paths = files[0].subject, tuple(f.relative for f in files)
        prefix, *others = named = {prefix_of(_own_entities(t1w)): t1w.path for t1w in files}
        if others:
            reason = (
                f"{named[prefix]} and {named[others[0]]} are one image by BIDS, for which zeros before a "
                "number are no difference: rename or remove one of them."
            )
            refused += [Refused(name, subject, reason, paths) for name in named]
        elif len(files) > 1:
            reason = (
                f"{files[0].path} and {files[1].path} would have the same outputs{_remedy(files, chosen)}"
            )
            refused.append(Refused(prefix, subject, reason, paths))
        elif processing and (problem := problem_of(files[0].path)):
            # under the name that its outputs would have
            refused.append(Refused(prefix, subject, problem, paths))
        else:
            usable.append(files[0])
    return usable, refused


def _remedy(files: Sequence[T1w], chosen: Sequence[T1w]) -> str:
    """How one of several files with the same outputs can be chosen, without a loss of other images."""
    stems = [t1w.stem for t1w in files]
    if len(files) == 2 and stems[0] == stems[1]:
        packed = {(t1w.relative.rpartition("/")[0], t1w.stem) for t1w in chosen if t1w.path.suffix == ".gz"}
        if packed == {(t1w.relative.rpartition("/")[0], t1w.stem) for t1w in chosen}:
            return ': choose one with --bids-filter-file, such as {"t1w": {"extension": ".nii.gz"}}.'
        return ": remove one of them."
    names = f", whose names keep {', '.join(ENTITIES.values())} alone"
    for key in ("echo", "inv", "flip", "part"):
        values = [t1w.entities.get(key) for t1w in files]
        if len({*values}) < len(values):
            continue
        remedy = f'{{"t1w": {{"{key}": null}}}} leaves out all images that have {key}'
        first = min(value for value in values if value)
        if None not in values:
            remedy += f', and {{"t1w": {{"{key}": [null, {first}]}}}} keeps {key}-{first} of them'
        return f"{names}: choose with --bids-filter-file, where {remedy}."
    return f"{names}: move all but one elsewhere."


def _check_dataset(root: Path) -> None:
    description = root / "dataset_description.json"
    remedy = 'it needs at least {"Name": "…", "BIDSVersion": "1.10.0"}.'
    try:
        if not any(root.iterdir()):
            raise InputError(f"{root} is empty: give the root of a BIDS dataset.")
    except OSError as error:
        raise InputError(f"{root} can't be read ({error.strerror}): check its permissions.") from None
    try:
        content = read_json(description)
    except FileNotFoundError:
        missing = f"{root} is not a BIDS dataset, as {description.name} is missing: {remedy}"
        broken = description.is_symlink() and problem_of(description)
        raise InputError(broken or missing) from None
    except OSError as error:
        raise InputError(f"{description} {unreadable(error)}") from None
    except ValueError as error:
        raise InputError(f"{description} can't be read ({error}): {remedy}") from None
    if not isinstance(content, dict) or not {"Name", "BIDSVersion"} <= content.keys():
        raise InputError(f"{description} lacks Name or BIDSVersion: {remedy}")


def _contrast_agent(sidecar: dict[str, Any], label: str | None) -> bool:
    """Whether a T1w was acquired with a contrast agent by its name or its sidecars."""
    said = (label, sidecar.get("ContrastBolusIngredient"))
    return any(str(text or "none").lower() not in ("none", "n/a", "no", "pre") for text in said)


def _own_entities(t1w: T1w) -> dict[str, str]:
    """Those of its entities that its outputs keep, with the zeros of its name."""
    said = dict(re.findall(r"(?:^|_)([a-z]+)-([0-9a-zA-Z+]+)", t1w.path.name))
    return {short: said[short] for short in ENTITIES.values() if short in said}


def _image(t1w: T1w, is_child: Callable[[str, str | None], bool], sidecars: Sidecars) -> Image:
    entities = _own_entities(t1w)
    warnings, notes = [], []
    said = sidecars.of(t1w.path)
    if _contrast_agent(said, entities.get("ce")):
        warnings.append("By its name or sidecar it has a contrast agent: the networks were trained without.")
    if is_child(entities["sub"], entities.get("ses")):
        warnings.append("By participants.tsv it is of a child: the networks were trained with adults.")
    if "Inpainting" in said:
        notes.append("By its sidecar its lesions were inpainted already.")
    return Image(
        path=str(t1w.path),
        uri=f"bids:raw:{t1w.relative}",
        entities=entities,
        warnings=tuple(warnings),
        notes=tuple(notes),
    )
