"""What the name and the place of a file say by BIDS: its entities, and the sidecars that describe it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_inpaint.io.files import read_sidecar

#: Name of the folder of given lesion masks in BIDS URIs and in ``DatasetLinks``.
LESION_MASKS = "lesions"
#: The same of the folder of corrected lesion maps.
EDITS = "edits"
#: Entities that tell the T1w images of one participant apart, in BIDS order, by PyBIDS name.
ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "run": "run",
}
#: Folders of a participant or a session.
DATATYPES = {
    "anat", "beh", "dwi", "eeg", "fmap", "func", "ieeg", "meg", "micr", "motion", "mrs", "nirs", "perf",
    "pet",
}  # fmt: skip
#: Entities whose values are numbers: ``run-01`` is ``run-1``.
_INDICES = {"run", "echo", "flip", "inv", "split"}
#: Entities of derivatives: they say what was made of an image, not of which image.
_MADE = {
    "space", "res", "den", "label", "desc", "from", "to", "mode", "hemi", "cohort", "atlas", "seg",
    "scale", "rater",
}  # fmt: skip
#: Values that an image has though its name doesn't say so.
_IMPLIED = {("part", "mag"), ("mod", "T1w")}
Entities = Mapping[str, str]


def entities_of(name: str) -> dict[str, str]:
    """Entities of a file by short name, their values as BIDS compares them, and its ``suffix``.

    Words without a key are ``words``, but for T1w: they may name another image.

    Examples
    --------
    >>> entities_of("sub-01_run-02_label-L_mask.nii.gz")
    {'sub': '01', 'run': '2', 'label': 'L', 'suffix': 'mask'}
    >>> entities_of("sub-01_T1w_mask.nii.gz"), entities_of("sub-01_T2w_mask.nii.gz")
    ({'sub': '01', 'suffix': 'mask'}, {'sub': '01', 'words': 'T2w', 'suffix': 'mask'})
    """
    *pairs, suffix = name.split(".")[0].split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    for key in _INDICES & entities.keys():
        if entities[key].isdecimal():
            entities[key] = str(int(entities[key]))
    if words := "_".join(pair for pair in pairs if "-" not in pair and pair != "T1w"):
        entities["words"] = words
    return {**entities, "suffix": suffix}


def identity(entities: Entities) -> dict[str, str]:
    """The entities that say of which image a file is.

    Examples
    --------
    >>> identity(entities_of("sub-01_part-mag_acq-mprage_space-T1w_desc-brain_mask.nii.gz"))
    {'sub': '01', 'acq': 'mprage'}
    """
    return {k: v for k, v in entities.items() if k not in _MADE and k != "suffix" and (k, v) not in _IMPLIED}


class Sidecars:
    """The JSON files of a dataset, by BIDS's inheritance principle.

    Parameters
    ----------
    root : path
        Of the dataset.
    """

    def __init__(self, root: str | os.PathLike):
        self._root = Path(root)
        self._listed: dict[Path, list[tuple[str, dict[str, str]]]] = {}

    def of(self, path: str | os.PathLike) -> dict[str, Any]:
        """All that the sidecars of a file say.

        One applies if it lies in the folder of the file or above it, has the file's suffix and no entity that
        the file hasn't; nearer and more special ones replace what others say.
        """
        path = Path(path)
        entities = entities_of(path.name)
        merged: dict[str, Any] = {}
        folders = [self._root]
        for part in path.relative_to(self._root).parts[:-1]:
            folders.append(folders[-1] / part)
        for folder in folders:
            applying = [
                (len(said), name) for name, said in self._in(folder) if said.items() <= entities.items()
            ]
            for _, name in sorted(applying):
                merged |= read_sidecar(folder / name)
        return merged

    def _in(self, folder: Path) -> list[tuple[str, dict[str, str]]]:
        if folder not in self._listed:
            names: list[str] = []
            with suppress(OSError):
                names = [name for name in os.listdir(folder) if name.endswith(".json")]
            self._listed[folder] = [(name, entities_of(name)) for name in names if not name.startswith(".")]
        return self._listed[folder]
