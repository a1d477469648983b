"""What people's ratings mean for a group: which images stay out of statistics, and the table that says so."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from bids_inpaint.group.measure import Measured
from bids_inpaint.io.files import write_json, write_text
from bids_inpaint.reports.ratings import COLUMNS, read_ratings, tables_of, verdicts
from bids_inpaint.settings import Settings


def rate(measured: Sequence[Measured], settings: Settings) -> list[str]:
    """Give each image its verdict, from ``--ratings`` or the folder ``ratings`` of the output folder.

    Returns
    -------
    list of str
        Sentences on ratings that do not count.
    """
    paths = list(settings.ratings) or tables_of(settings.output_dir)
    if not paths:
        return []
    ratings, warnings = read_ratings(paths)
    found, more = verdicts(ratings, {one.image.prefix: one.fingerprint for one in measured})
    for one in measured:
        one.verdict = found.get(one.image.prefix, one.verdict)
    return [*warnings, *more]


def write_ratings(measured: Sequence[Measured], out_dir: Path) -> None:
    """Write ``group_desc-ratings.tsv``, with the ratings that count; without any, an earlier one goes."""
    path = out_dir / "group_desc-ratings.tsv"
    rows = [(one, rating) for one in measured for rating in one.verdict.ratings]
    if not rows:
        for old in (path, path.with_suffix(".json")):
            old.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for one, rating in rows:
        cells = {
            "participant_id": f"sub-{one.image.subject}",
            "image": rating.image,
            **rating.marks,
            **{name: getattr(rating, name) for name in ("comment", "rater", "rated", "results")},
        }
        writer.writerow([cells.get(name) or "n/a" for name in COLUMNS])
    write_text(path, text.getvalue())
    write_json(path.with_suffix(".json"), COLUMNS)
