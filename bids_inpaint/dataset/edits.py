"""Lesion maps that people corrected: which image each is of, who edited it, and when."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_inpaint.dataset.derivatives import not_used, sorted_out, split, to_mean
from bids_inpaint.dataset.matching import NATIVE, Dataset, File, Folder, Match, distinct
from bids_inpaint.dataset.names import EDITS, Sidecars
from bids_inpaint.dataset.scan import Refused, T1w
from bids_inpaint.errors import InputError

if TYPE_CHECKING:
    from bids_inpaint.dataset.image import Image

#: What the sidecar of an edit may say of it.
_SAID = ("Editor", "EditedAt", "Reason", "Description")


@dataclass(frozen=True)
class Edit:
    """A corrected lesion map.

    Attributes
    ----------
    path : str
    space : {'T1w', 'template'}
        Where it lies.
    said : dict
        Who edited it, when and why.
    """

    path: str
    space: str
    said: dict[str, Any]


def add_edits(
    pairs: list[tuple[Image, T1w]], dataset: Dataset, path: Path, template: str
) -> tuple[list[tuple[Image, T1w]], list[Refused], list[str]]:
    """Give images the lesion maps that people corrected.

    Parameters
    ----------
    pairs : list of tuple
        Images with their files.
    dataset : Dataset
    path : Path
        Folder of the edits.
    template : str

    Returns
    -------
    found : list of tuple
        The images that can be processed; those without an edit are as before.
    refused : list of Refused
        Those with more than one.
    warnings : list of str

    Raises
    ------
    InputError
        If the folder has no edit of anybody.
    """
    folder = Folder(path, ("mask", "roi", "xfm"))
    if not any(_is_meant(file) for subject in folder.subjects for file in folder.of(subject)):
        raise InputError(
            f"{path} has no edited lesion map (sub-X_label-L_desc-edited_mask.nii.gz): check the path, or "
            "leave --edits out."
        )
    sidecars = Sidecars(path)
    matches = []
    for image, t1w in pairs:
        match = Match(t1w)
        to_mean(folder, t1w, dataset)
        usable, unused = sorted_out(folder, t1w, dataset, template, sidecars, _is_meant)
        unused += [
            f"{file.path} (its name doesn't have desc-edited)"
            for file in usable
            if file.entities["desc"] != "edited"
        ]
        edits = distinct(file for file in usable if file.entities["desc"] == "edited")
        if len(edits) > 1:
            match.problem = (
                f"{edits[0].path} and {edits[1].path} both are edited lesion maps of {image.prefix}: leave "
                "one of them there."
            )
        elif edits:
            space = "T1w" if edits[0].space() in NATIVE else "template"
            match.changes["edit"] = Edit(str(edits[0].path), space, _said(edits[0], sidecars))
            match.use(EDITS, edits)
        if unused:
            match.warnings.append(f"Edited lesion maps that are not used{not_used(unused, ':')}.")
        matches.append(match)
    return (*split(pairs, matches), dataset.unowned(folder, "edited lesion maps", _is_meant))


def _is_meant(file: File) -> bool:
    return file.entities.get("desc", "").lower().startswith("edit") and not file.path.name.endswith(".txt")


def _said(file: File, sidecars: Sidecars) -> dict[str, Any]:
    """What is known of an edit: by its sidecar, and else by the time of its file."""
    sidecar = sidecars.of(file.path)
    said = {key: sidecar[key] for key in _SAID if sidecar.get(key)}
    if "EditedAt" in said:
        return said
    try:
        changed = datetime.fromtimestamp(os.stat(file.path).st_mtime, UTC)
    except OSError:
        return said
    return said | {"EditedAt": changed.isoformat(timespec="seconds"), "EditedAtFrom": "time of the file"}
