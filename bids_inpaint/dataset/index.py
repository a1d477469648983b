"""PyBIDS' index of a dataset: what filters choose, and databases that outlive a run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bids_inpaint.dataset.names import ENTITIES
from bids_inpaint.dataset.scan import ScanResult, T1w, magnitudes
from bids_inpaint.errors import InputError, first_line, is_utf8, unreadable
from bids_inpaint.io.files import read_json

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

#: What a filter file must be.
FILTER = 'it must hold a JSON object, such as {"t1w": {"acquisition": "mprage"}}'
#: Filters that a file may hold, and the suffix of the images they are for.
SUFFIXES = {"t1w": "T1w", "flair": "FLAIR"}
#: File of a PyBIDS database in its folder.
DATABASE = "layout_index.sqlite"
_SHORT: dict[str, str] = {short: name for name, short in ENTITIES.items()} | {"datatype": "datatype"}


def matching_filters(there: ScanResult, settings: Any, warnings: list[str]) -> dict[str, set[str]]:
    """Paths of the images that the user's filters choose, relative to the dataset.

    They are by the name of the filter, as ``t1w``; what the user has no filter for is left out.

    A database is made where it is missing. One that doesn't know the files is not used.

    Parameters
    ----------
    there : ScanResult
        What lies in the dataset.
    settings : Settings
    warnings : list of str
        Gets a sentence if the database is not used.

    Raises
    ------
    InputError
        If the dataset can't be indexed, or the filters can't be used.
    """
    root, labels = settings.bids_dir, settings.participant_label
    layout = None
    if database := settings.bids_database_dir:
        new = not (database / DATABASE).exists()
        try:
            layout = _layout(root, labels, database)
            fits = _fits(layout, there, root, labels)
        except InputError:
            if new:
                raise
            fits = False
        if not fits:
            layout = None
            warnings.append(
                f"The database in {database} does not fit the files of {root}, and is not used: delete "
                "it to have it made anew."
            )
    if settings.bids_filter_file is None:
        return {}
    layout = layout or _layout(root, labels, None)
    filters = _filters(settings.bids_filter_file, {*layout.get_entities(), "regex_search"})
    of_any = {"datatype": "anat", "extension": [".nii", ".nii.gz"]}
    try:
        return {
            kind: {
                file.relpath
                for file in layout.get(
                    scope="raw", **{"suffix": SUFFIXES[kind], **of_any, **query, **_of_subjects(labels)}
                )
            }
            for kind, query in filters.items()
        }
    except Exception as error:  # whatever PyBIDS and its database make of values that are none
        raise InputError(
            f"Filter file {settings.bids_filter_file} can't be used ({first_line(error)}): {FILTER}."
        ) from None


def _of_subjects(labels: tuple[str, ...]) -> dict[str, list[str]]:
    return {"subject": list(labels)} if labels else {}


def _fits(layout: BIDSLayout, there: ScanResult, root: Path, labels: tuple[str, ...]) -> bool:
    """Whether an index has the T1w images that lie in the dataset, and no others of these participants."""
    try:
        known = layout.get(suffix="T1w", extension=[".nii", ".nii.gz"], **_of_subjects(labels))
        files = [T1w(Path(file.path), file.relpath, "", None) for file in known]
    except Exception as error:  # a user's database may hold anything
        raise InputError(first_line(error)) from None
    indexed = {t1w.relative: t1w.path for t1w in magnitudes(files) if t1w.well_named}
    here = {t1w.relative for t1w in there.images if t1w.well_named}
    # one of another dataset may have the same names
    first = next(iter(here), None)
    return indexed.keys() == here and (
        first is None or os.path.realpath(indexed[first]) == os.path.realpath(root / first)
    )


class _NotUtf8:
    """Matches, as a pattern, names that PyBIDS' database can't hold; such an image is refused by its name."""

    def search(self, path: str) -> bool:
        return not is_utf8(path)


def _layout(root: Path, labels: tuple[str, ...], database: Path | None) -> BIDSLayout:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    # a database serves other participants too; without one, index those asked for alone
    wanted = "|".join(map(re.escape, labels)) if labels and not database else "[^/]+"
    # PyBIDS follows links, also those in circles: no deeper than a T1w may lie
    ignore = [re.compile(rf"(?s)^(?!/sub-({wanted})(/ses-[^/]+)?(/anat(/[^/]+)?)?$)"), _NotUtf8()]

    def index(database_path: Path | str | None) -> BIDSLayout:
        return BIDSLayout(
            root,
            database_path=database_path,
            indexer=BIDSLayoutIndexer(index_metadata=False, ignore=ignore, validate=False),
        )

    try:
        if database and not (database / DATABASE).exists():
            # others may be doing the same: each sees a whole database or none
            with _made_in(database) as part:
                index(part).session.close()
                os.replace(Path(part) / DATABASE, database / DATABASE)
        return index(database)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{root} can't be indexed as BIDS ({first_line(error)}).") from None


def _made_in(database: Path) -> TemporaryDirectory:
    """A folder to make a database in, beside where it will be."""
    try:
        database.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix=".index-", dir=database)
    except OSError as error:
        raise InputError(
            f"The database folder {database} can't be written ({error.strerror}): name another with "
            "--bids-database-dir."
        ) from None


def _filters(path: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    try:
        content = read_json(path)
    except OSError as error:
        raise InputError(f"Filter file {path} {unreadable(error)}") from None
    except ValueError as error:
        raise InputError(f"Filter file {path} can't be read ({first_line(error)}): {FILTER}.") from None
    given = {kind: content[kind] for kind in SUFFIXES if kind in content} if isinstance(content, dict) else {}
    if not given or not all(isinstance(filters, dict) and filters for filters in given.values()):
        raise InputError(f"Filter file {path} has no filter for {' or '.join(given or ['t1w'])}: {FILTER}.")
    from bids.layout import Query

    special = {
        None: Query.NONE, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY, "*": Query.ANY,
        "Query.OPTIONAL": Query.OPTIONAL,
    }  # fmt: skip

    def meant(value: Any) -> Any:
        if isinstance(value, list):
            return [meant(one) for one in value]
        return special.get(value, value) if value is None or isinstance(value, str) else value

    out = {
        kind: {_SHORT.get(str(key), str(key)): meant(value) for key, value in filters.items()}
        for kind, filters in given.items()
    }
    if unknown := sorted({key for filters in out.values() for key in filters} - known):
        raise InputError(
            f"Filter file {path} has the key {unknown[0]!r:.80}, which is no BIDS entity: {FILTER}."
        )
    return out
