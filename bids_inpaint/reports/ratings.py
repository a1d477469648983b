"""Ratings of images by people: the steps, the marks, and the tables that hold them.

The page of a report writes these tables, and the group level reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.tables import NOTHING, read_table
from bids_inpaint.errors import printable
from bids_inpaint.io.files import write_json

#: Folder below the output folder whose tables the group level reads.
FOLDER = "ratings"
#: What is rated: column of the table -> name.
STEPS = {
    "lesions": "Lesions",
    "filling": "Filling",
    "tissues": "Tissues",
    "brain_mask": "Brain mask",
    "registration": "Registration",
}
#: From the best to the worst.
MARKS = ("good", "check", "exclude")
_LEVELS = {
    "good": "It is as it should be",
    "check": "Somebody has to look again; the image stays in statistics",
    "exclude": "The image is to stay out of statistics",
}
#: Column -> what the sidecar says of it
COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant"},
    "image": {"Description": "Name of the image without its suffix, such as sub-01_ses-2"},
    **{step: {"Description": f"Rating of: {name}", "Levels": _LEVELS} for step, name in STEPS.items()},
    "comment": {"Description": "What the rater wrote"},
    "rater": {"Description": "Who rated"},
    "rated": {"Description": "When the image was last rated, in ISO 8601 and UTC"},
    "results": {
        "Description": "Which results were rated: the first digits of the SHA-256 of brain mask, lesion map "
        "and tissues. Ratings of other results than those of the output folder do not count; n/a fits all"
    },
}


@dataclass(frozen=True)
class Rating:
    """What one person says of one image.

    Attributes
    ----------
    image : str
        Prefix of the image.
    marks : dict of str
        By step; steps that were not rated are missing.
    rater, rated, results, comment : str
        Empty if unknown.
    """

    image: str
    marks: Mapping[str, str]
    rater: str = ""
    rated: str = ""
    results: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Verdict:
    """The ratings of an image by all people together: the worst counts.

    Attributes
    ----------
    marks : dict of str
        By step.
    ratings : tuple of Rating
    """

    marks: Mapping[str, str] = field(default_factory=dict)
    ratings: tuple[Rating, ...] = ()

    @property
    def worst(self) -> str:
        """The worst mark of all steps; empty if there is none."""
        return max(self.marks.values(), key=MARKS.index, default="")

    @property
    def excluded(self) -> tuple[str, ...]:
        """Steps for which the image is excluded."""
        return tuple(step for step in STEPS if self.marks.get(step) == "exclude")


def write_description(out_dir: Path) -> None:
    """Write ``ratings/ratings.json``, which says what the columns of the tables beside it mean."""
    write_json(out_dir / FOLDER / "ratings.json", COLUMNS)


def tables_of(out_dir: Path) -> list[Path]:
    """The tables of ratings in an output folder."""
    return sorted((out_dir / FOLDER).glob("*.tsv"))


def read_ratings(paths: Iterable[Path]) -> tuple[list[Rating], list[str]]:
    """Read tables of ratings, and warn of what can't be used in them.

    Parameters
    ----------
    paths : iterable of Path
        As :data:`COLUMNS` describes them. Only ``participant_id`` must be there; without ``image``, it is the
        name of the image.

    Returns
    -------
    ratings : list of Rating
        Of each image and rater the last.
    warnings : list of str
    """
    latest: dict[tuple[str, str], Rating] = {}
    warnings: list[str] = []
    for path in paths:
        table = read_table(path, "participant_id")
        warnings += table.warnings
        if table.used and not STEPS.keys() & set(table.columns):
            warnings.append(f"{path} has none of the columns {', '.join(STEPS)}, so it rates nothing.")
        for row in table.rows:
            cells = {name: "" if cell == NOTHING else cell for name, cell in row.items()}
            image = cells.get("image") or f"sub-{cells['participant_id']}"
            marks = {step: cells.get(step, "").lower() for step in STEPS if cells.get(step)}
            for step, mark in list(marks.items()):
                if mark not in MARKS:
                    warnings.append(
                        f"{path} rates {step} of {image} as {mark:.40}, which is not used: write "
                        f"{', '.join(MARKS[:-1])} or {MARKS[-1]}."
                    )
                    del marks[step]
            more = {key: cells.get(key, "") for key in ("rater", "rated", "results", "comment")}
            rating = Rating(image, marks, **more)
            known = latest.get((image, rating.rater))
            if known is None or known.rated <= rating.rated:
                latest[image, rating.rater] = rating
    return list(latest.values()), [printable(warning) for warning in warnings]


def verdicts(
    ratings: Sequence[Rating], fingerprints: Mapping[str, str]
) -> tuple[dict[str, Verdict], list[str]]:
    """Join the ratings of each image, and warn of those that are about other results or images.

    Parameters
    ----------
    ratings : list of Rating
    fingerprints : dict of str
        Of the results of each image, by its prefix.
    """
    current: dict[str, list[Rating]] = {}
    old, unknown = [], []
    for rating in ratings:
        if rating.image not in fingerprints:
            unknown.append(rating.image)
        elif rating.results and rating.results != fingerprints[rating.image]:
            old.append(rating.image)
        else:
            current.setdefault(rating.image, []).append(rating)
    warnings = []
    if old:
        warnings.append(
            f"Ratings of earlier results do not count: {', '.join(dict.fromkeys(old))}. Rate these images "
            "again, as their masks or tissues have changed."
        )
    if unknown:
        warnings.append(
            f"Ratings of images that are not among the finished ones: {', '.join(dict.fromkeys(unknown))}."
        )
    out = {}
    for image, said in current.items():
        marks = {
            step: max((r.marks[step] for r in said if step in r.marks), key=MARKS.index)
            for step in STEPS
            if any(step in r.marks for r in said)
        }
        out[image] = Verdict(marks, tuple(said))
    return out, warnings
