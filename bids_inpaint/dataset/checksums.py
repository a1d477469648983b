"""Checksums of what visits were made of and of what they left, so that others can be added to them later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import USUAL, names_of

#: Results of a visit on the working grid that a visit looks at which is added later.
LOOKED_AT = ("preproc", "working_mask", "probability", "mask", "inpainted")
#: Results of a person that all visits share.
SHARED = ("template", "mask", "to_standard", "from_standard")
#: Key of the sidecar of a person's template.
KEY = "SHA256"


def inputs_of(image: Image) -> list[str]:
    """The T1w and the files that are given for it; an empty name for each that is not given."""
    files = (image.path, image.brain_mask, image.brain_mask_xfm, image.lesion_mask)
    return [file or "" for file in files]


def results_of(image: Image, output_dir: Path, template: str) -> list[str]:
    """The results of a visit that a visit looks at which is added later."""
    names = names_of(image, template, USUAL)
    return [str(output_dir / names[key]) for key in LOOKED_AT]


def checksum(paths: Iterable[str | Path]) -> str:
    """Of several files together.

    Raises
    ------
    OSError
        If one can't be read.
    """
    whole = hashlib.sha256()
    for path in paths:
        if not path:
            whole.update(b"-")
            continue
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def said(sidecar: dict[str, Any], kind: str, name: str) -> str:
    """The checksum in the sidecar of a template; empty if there is none.

    Parameters
    ----------
    sidecar : dict
    kind : {'Inputs', 'Results'}
    name : str
        Prefix of a visit, or ``template``.
    """
    return str(known(sidecar, kind).get(name, ""))


def known(sidecar: dict[str, Any], kind: str) -> dict[str, Any]:
    """All checksums of a kind; the parameters are those of :func:`said`."""
    sums = sidecar.get(KEY)
    of_kind = sums.get(kind) if isinstance(sums, dict) else None
    return of_kind if isinstance(of_kind, dict) else {}
