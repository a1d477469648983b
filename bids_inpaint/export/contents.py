"""What the text files of an exported dataset say: references to files that are, and rows of who is there."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.dataset.description import NAME, URL

#: What `.bidsignore` must say of the lesion masks that fMRIPrep reads.
IGNORED = ("*lesion_roi.nii.gz", "*lesion_roi.nii")


def unzipped(name: str) -> str:
    """The name of an image without compression.

    Examples
    --------
    >>> unzipped("sub-01_T1w.nii.gz"), unzipped("sub-01_bold.json")
    ('sub-01_T1w.nii', 'sub-01_bold.json')
    """
    return name.removesuffix(".gz") if name.endswith(".nii.gz") else name


def keep_rows(table: bytes, column: str, wanted: Callable[[str], str | None]) -> bytes:
    """A TSV file with the rows that are wanted; all else of it stays, byte for byte.

    Parameters
    ----------
    table : bytes
    column : str
        Whose values are looked at. A table without it is returned as it is.
    wanted : function
        Value of the column to the value that it shall have, or None for a row to leave out.
    """
    # names of files may be any bytes
    lines = table.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    header = [cell.strip().strip('"') for cell in lines[0].lstrip("\ufeff").split("\t")] if lines else []
    if column not in header:
        return table
    place = header.index(column)
    kept = lines[:1]
    for line in lines[1:]:
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) <= place:
            kept.append(line)
            continue
        had = cells[place].strip().strip('"')
        value = wanted(had)
        if value is not None:
            end = line[len(line.rstrip("\r\n")) :]
            cells[place] = cells[place] if value == had else value
            kept.append("\t".join(cells) + end)
    return "".join(kept).encode("utf-8", "surrogateescape")


def retarget(content: dict[str, Any], person: str, gone: Collection[str], unzip: bool) -> dict[str, Any]:
    """A sidecar whose ``IntendedFor`` names the files of the export.

    Parameters
    ----------
    content : dict
        Of the sidecar.
    person : str
        Folder of the participant, to which paths that are no BIDS URIs are relative.
    gone : collection of str
        Files that the export lacks, relative to the dataset.
    unzip : bool
        Whether images have lost their compression.

    Examples
    --------
    >>> meant = {"IntendedFor": ["func/a_bold.nii.gz", "bids::sub-01/func/b_bold.nii.gz"]}
    >>> retarget(meant, "sub-01", ["sub-01/func/a_bold.nii.gz"], True)
    {'IntendedFor': ['bids::sub-01/func/b_bold.nii']}
    """
    meant = content.get("IntendedFor")
    if not isinstance(meant, (str, list)):
        return content
    kept = []
    for one in [meant] if isinstance(meant, str) else meant:
        path = str(one)
        ours = path.startswith("bids::") or not path.startswith("bids:")
        place = path.removeprefix("bids::") if path.startswith("bids:") else f"{person}/{path}"
        if ours and posixpath.normpath(place) in gone:
            continue
        kept.append(unzipped(path) if unzip and ours else one)
    rest = {key: value for key, value in content.items() if key != "IntendedFor"}
    if not kept:
        return rest
    return content | {"IntendedFor": kept[0] if isinstance(meant, str) else kept}


def as_json(content: dict[str, Any]) -> bytes:
    """JSON as the export writes it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def description(original: dict[str, Any], source: str) -> dict[str, Any]:
    """``dataset_description.json`` of the export.

    The DOI of the original is that of its source, as the export is another dataset.

    Parameters
    ----------
    original : dict
        That of the original dataset.
    source : str
        URI of the original dataset.
    """
    out = dict(original)
    origin = {"URL": source} | ({"DOI": out.pop("DatasetDOI")} if "DatasetDOI" in out else {})
    mark = " (lesions of the T1w images inpainted)"
    made = {
        "Name": NAME,
        "Version": __version__,
        "CodeURL": URL,
        "Description": "The lesions of each T1w image were replaced by healthy-looking tissue; see the "
        "key Inpainting of its sidecar. All other files are those of the source dataset.",
    }
    before = {key: out.get(key) for key in ("GeneratedBy", "SourceDatasets")}
    lists = {key: value if isinstance(value, list) else [] for key, value in before.items()}
    return out | {
        "Name": str(out.get("Name", "")).removesuffix(mark) + mark,
        "DatasetType": "raw",
        "GeneratedBy": [made, *lists["GeneratedBy"]],
        "SourceDatasets": [origin, *lists["SourceDatasets"]],
    }


def ignore_list(original: bytes) -> bytes:
    """``.bidsignore`` with the lesion masks that fMRIPrep reads."""
    said = original.decode("utf-8", "surrogateescape").splitlines()
    lines = dict.fromkeys([*said, *IGNORED])
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
