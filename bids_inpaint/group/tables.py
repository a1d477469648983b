"""The tables of the group level: their columns, whose they are, and how they are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.dataset import bids
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.participants import People
from bids_inpaint.dataset.tables import NOTHING, Row
from bids_inpaint.errors import printable
from bids_inpaint.group.measure import Measured
from bids_inpaint.imaging.quality import LIMITS, UNITS
from bids_inpaint.imaging.uncertainty import LEVEL
from bids_inpaint.io.files import write_json, write_text

MEASURES = ("gm", "wm", "average")
#: Column -> description and unit
Columns = dict[str, tuple[str, str | None]]
_NATIVE = ", on the voxels of the T1w (native space)"
_STANDARD = ", on the 1 mm grid of the template (standard space)"
VOLUMES: Columns = {
    "lesion_volume": (f"Volume of the lesion map{_NATIVE}", "mL"),
    "lesion_volume_low": (
        f"Lower end of the {LEVEL:.0%} interval of the true lesion volume, fitted to people with painted "
        f"lesions and to patients{_NATIVE}",
        "mL",
    ),
    "lesion_volume_high": (f"Upper end of this interval{_NATIVE}", "mL"),
    "lesion_count": (f"Lesions: components of the lesion map that share faces or edges{_NATIVE}", None),
    "gm_volume": (f"Volume of grey matter in the inpainted image: sum of its probability{_NATIVE}", "mL"),
    "wm_volume": (f"Volume of white matter in the inpainted image: sum of its probability{_NATIVE}", "mL"),
    "csf_volume": (f"Volume of cerebrospinal fluid in the brain mask: sum of its probability{_NATIVE}", "mL"),
    "brain_volume": ("Volume of grey and white matter: gm_volume + wm_volume", "mL"),
    "brain_fraction": (
        "Share of grey and white matter in the brain mask: brain_volume / (brain_volume + csf_volume). The "
        "mask leaves out a part of the fluid around the brain, so it is no intracranial volume",
        None,
    ),
    "lesion_share": ("Lesion volume as a share of white matter: lesion_volume / wm_volume", None),
}
QUALITY: Columns = {
    name: (
        f"Measure of quality; {limit.low:g} to {limit.high:g} is expected, else {limit.meaning}",
        UNITS.get(name),
    )
    for name, limit in LIMITS.items()
}
#: Columns of all tables that come from people's ratings
RATED: Columns = {
    "rating": ("The worst rating of all steps (good, check or exclude)", None),
    "excluded": (
        "Steps for which raters exclude the image; it has no part in Statistics, plots and lesion map then",
        None,
    ),
}
LESIONS: Columns = {
    "dice": (f"Dice coefficient of the voxels{_NATIVE}", None),
    "sensitivity": (f"Share of the voxels of the reference that are in the lesion map{_NATIVE}", None),
    "precision": (f"Share of the voxels of the lesion map that are in the reference{_NATIVE}", None),
    "lesion_f1": (
        "F1 score of lesions (components that share faces or edges); a lesion is hit if the other map "
        f"shares at least one voxel with it{_NATIVE}",
        None,
    ),
    "volume": (f"Volume of the lesion map{_NATIVE}", "mL"),
    "reference_volume": (f"Volume of the reference{_NATIVE}", "mL"),
    "volume_error": (f"Absolute difference of both volumes{_NATIVE}", "mL"),
    "hausdorff95": (
        f"95th percentile of the distances of both surfaces, the larger of two directions{_NATIVE}",
        "mm",
    ),
}
_IDENTITY = {"sub": "participant_id", "ses": "session_id"}
_ENTITY = {
    "sub": "Participant",
    "ses": "Session",
    "acq": "Acquisition",
    "ce": "Contrast agent",
    "rec": "Reconstruction",
    "run": "Run",
}
_NAMES = {"gm": "grey matter", "wm": "white matter", "average": "their mean"}
TISSUE_DICE: Columns = {
    f"{measure}_{image}": (
        f"Dice coefficient of {_NAMES[measure]}, {image} against reference image{_STANDARD}",
        None,
    )
    for image in ("original", "inpainted")
    for measure in MEASURES
}
#: How the page calls tissues and columns.
TISSUES = {"gm": "Grey matter", "wm": "White matter", "average": "Average"}
LABELS = {
    "dice": "Dice", "sensitivity": "Sensitivity", "precision": "Precision", "lesion_f1": "Lesion F1",
    "lesion_volume": "Lesions", "gm_volume": "Grey matter", "wm_volume": "White matter",
    "csf_volume": "CSF", "lesion_count": "Number of lesions", "hausdorff95": "Hausdorff 95% (mm)",
    "brain_volume": "Brain", "brain_fraction": "Brain fraction", "lesion_share": "Lesions of white matter",
    "volume": "Volume (ml)", "reference_volume": "Reference volume (ml)",
    "volume_error": "Absolute volume difference (ml)",
}  # fmt: skip


@dataclass(frozen=True)
class Covariates:
    """What the tables of the dataset say of the images.

    Attributes
    ----------
    columns : dict of dict
        What each column means.
    rows : dict of dict
        By prefix of the image, then by column.
    warnings : tuple of str
        Sentences on rows without images and images without a row.
    """

    columns: dict[str, dict[str, Any]]
    rows: dict[str, Row]
    warnings: tuple[str, ...] = ()

    def value(self, prefix: str, column: str) -> str:
        """What a column says of an image; n/a if it says nothing."""
        return self.rows.get(prefix, {}).get(column, NOTHING)

    def known(self, column: str, images: Iterable[Image]) -> dict[str, str]:
        """By prefix, what a column says of those images that it says something of."""
        values = {image.prefix: self.value(image.prefix, column) for image in images}
        return {prefix: value for prefix, value in values.items() if value != NOTHING}


def number_of(text: str) -> float | None:
    """The finite number that a cell holds; None if it holds none.

    Examples
    --------
    >>> number_of("1e3"), number_of("inf"), number_of("F")
    (1000.0, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def join(people: People, images: Sequence[Image], every: bool) -> Covariates:
    """Join the tables of a dataset with its images; columns with names of ours get a prefix.

    Parameters
    ----------
    people : People
    images : sequence of Image
    every : bool
        Whether `images` are all images of the dataset: others have rows too.
    """
    rows = {image.prefix: people.of(image.subject, image.entities.get("ses")) for image in images}
    taken = {*VOLUMES, *RATED, *_IDENTITY.values(), *bids.ENTITIES.values()}
    originals = dict.fromkeys(name for row in rows.values() for name in row)
    names = {name: f"participants_{name}" if name in taken else name for name in originals}
    columns = {
        new: people.explained(old) or {"Description": "From participants.tsv or sessions.tsv of the dataset"}
        for old, new in names.items()
    }
    renamed = {prefix: {names[k]: v for k, v in row.items()} for prefix, row in rows.items()}
    return Covariates(columns, renamed, tuple(_unmatched(people, images, every)))


def _unmatched(people: People, images: Sequence[Image], every: bool) -> Iterable[str]:
    without = [i.prefix for i in images if people.lacks(i.subject, i.entities.get("ses"))]
    if without:
        yield (
            f"sub-LABEL_sessions.tsv has no row that is about {len(without)} of "
            f"{counted(len(images), 'image')}, which have {NOTHING} in its columns: {some(without)}."
        )
    if not people.used:
        return
    alone = [i.prefix for i in images if people.row(i.subject, i.entities.get("ses")) is None]
    if alone:
        yield (
            f"participants.tsv has no row that is about {len(alone)} of {counted(len(images), 'image')}, "
            f"which have {NOTHING} in its columns: {some(alone)}."
        )
    known = {(image.subject, session) for image in images for session in ("", image.entities.get("ses"))}
    left = sorted(people.keys - known) if every else []
    if left:
        labels = [f"sub-{sub}" + (f" ses-{ses}" if ses else "") for sub, ses in left]
        yield f"participants.tsv has {counted(len(left), 'row')} without an image: {some(labels)}."
    if shared := _shared(people, images):
        yield (
            "By participants.tsv, which has one row of them, all sessions of some participants have the same "
            f"values (such as of age) in its columns: {some(shared)}."
        )


def _shared(people: People, images: Sequence[Image]) -> list[str]:
    """Participants with several sessions that share a row."""
    sessions: dict[str, set[str]] = {}
    for image in images:
        row = people.row(image.subject, image.entities.get("ses"))
        if row is not None and not row.get("session_id"):
            sessions.setdefault(f"sub-{image.subject}", set()).add(image.entities.get("ses", ""))
    return [participant for participant, labels in sessions.items() if len(labels) > 1]


def counted(number: int, word: str) -> str:
    """A number of things, as ``1 image`` and ``2 images``."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def some(names: Sequence[str]) -> str:
    """The first of many names, for a sentence.

    Examples
    --------
    >>> some(["a", "b"]), some(list("abcdefghijk"))
    ('a, b', 'a, b, c, d, e, f, g, h and 3 more')
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return printable(", ".join(names[:8]) + more)


def write_table(
    out_dir: Path,
    name: str,
    columns: Columns,
    measured: Sequence[Measured],
    table: str,
    statistics: dict[str, Any] | None = None,
    covariates: Covariates | None = None,
) -> None:
    """Write ``group_desc-NAME.tsv`` with a row per image, and what its columns mean.

    Parameters
    ----------
    out_dir : Path
    name : str
        ``volumes``, ``quality``, ``tissue_dice`` or ``lesion_dice``.
    columns : dict
        Column to description and unit.
    measured : sequence of Measured
    table : {'volumes', 'measures', 'tissue_dice', 'lesions'}
        The attribute that has the columns; measures of quality have the warnings beside them.
    statistics : dict, optional
        An entry of the sidecar.
    covariates : Covariates, optional
        More columns.
    """
    covariates = covariates or Covariates({}, {})
    entities = identifying(measured)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    more: Columns = {"warnings": ("What was unusual about the image", None)} if table == "measures" else {}
    writer.writerow([*entities.values(), *columns, *more, *RATED, *covariates.columns])
    for one in measured:
        values = getattr(one, table)
        writer.writerow(
            [
                *identity(one, entities),
                *(format_number(values.get(c)) for c in columns),
                *([" ".join(map(_one_line, one.warnings)) or NOTHING] if more else []),
                *rated_cells(one),
                *(covariates.value(one.image.prefix, c) for c in covariates.columns),
            ]
        )
    write_text(out_dir / f"group_desc-{name}.tsv", text.getvalue())
    described = describe(entities, columns | more | RATED) | covariates.columns
    if statistics:
        described["Statistics"] = statistics
    write_json(out_dir / f"group_desc-{name}.json", described)


def rated_cells(one: Measured) -> tuple[str, str]:
    """The cells of an image in the columns that come from ratings."""
    return one.verdict.worst or NOTHING, ",".join(one.verdict.excluded) or NOTHING


def describe(entities: dict[str, str], columns: Columns) -> dict[str, Any]:
    """What the columns of a table mean, for its sidecar."""
    out: dict[str, Any] = {column: {"Description": _ENTITY[key]} for key, column in entities.items()}
    return out | {
        column: {"Description": text, **({"Units": unit} if unit else {})}
        for column, (text, unit) in columns.items()
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def identifying(measured: Sequence[Measured]) -> dict[str, str]:
    """Entities that tell the images apart, and their columns."""
    used = [k for k in bids.ENTITIES.values() if any(k in m.image.entities for m in measured)]
    return {k: _IDENTITY.get(k, k) for k in used}


def identity(one: Measured, entities: Iterable[str]) -> list[str]:
    """An image's values of entities."""
    labels = one.image.entities
    return [
        (f"{k}-{labels[k]}" if k in ("sub", "ses") else labels[k]) if k in labels else "n/a" for k in entities
    ]


def format_number(value: float | None) -> str:
    """A number for a table."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.6g}"
