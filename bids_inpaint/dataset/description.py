"""What the output folder holds once: its description, ignore list and methods text."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.dataset.names import EDITS, LESION_MASKS
from bids_inpaint.errors import InputError, first_line, printable
from bids_inpaint.io.files import read_json, write_json, write_text
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")

NAME = "bids_inpaint"
URL = "https://github.com/bids-inpaint/bids_inpaint"
IGNORED = ("figures", "log", "logs", "ratings", "*.html", "*_xfm.*", "group_*")
DESCRIPTION = "dataset_description.json"
#: The works that methods texts cite.
BIBLIOGRAPHY = Path(__file__).parents[1] / "data" / "boilerplate.bib"


def check(settings: Settings) -> dict[str, Any]:
    """The description that the output folder has of an earlier run; empty if it has none.

    Raises
    ------
    InputError
        If the folder is described as something else than our results, or two folders have one name in links.
    """
    _links(settings)
    path = settings.output_dir / DESCRIPTION
    place = printable(str(path))
    remedy = "name another output folder"
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"{place} can't be read ({reason}), so it is not known whose results are there: "
            f"{remedy}, or delete the file if they are of {NAME}."
        ) from None
    makers = content.get("GeneratedBy") if isinstance(content, dict) else None
    names = [str(m.get("Name")) for m in makers if isinstance(m, dict)] if isinstance(makers, list) else []
    if NAME not in names:
        whose = f" but of {', '.join(names)}" if names else ""
        raise InputError(f"{place} is not of {NAME}{printable(whose)[:200]}: {remedy}.")
    return content


def describe(settings: Settings) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``, with what earlier runs and users wrote there.

    Raises
    ------
    InputError
        As :func:`check`.
    """
    earlier = check(settings)
    links = _links(settings)
    before = earlier.get("DatasetLinks")
    before = before if isinstance(before, dict) else {}
    for name, link in links.items():
        if before.get(name, link) != link:
            log.warning(
                "Results of an earlier run in %s have %s=%s in their Sources, which is %s now: if these are "
                "different data, use another output folder.",
                printable(str(settings.output_dir)), name, printable(str(before[name])), printable(link),
            )  # fmt: skip
    ours = {"Name": NAME, "Version": __version__, "CodeURL": URL}
    makers = [m for m in earlier.get("GeneratedBy", []) if not _same(m, ours)]
    write_json(
        settings.output_dir / DESCRIPTION,
        {
            "Name": "bids_inpaint: lesion-free T1w images and lesion maps",
            "HowToAcknowledge": "Cite the works in logs/CITATION.md.",
            **earlier,
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [ours, *makers],
            "SourceDatasets": [{"URL": links["raw"]}],
            "DatasetLinks": before | links,
        },
    )
    ignore = settings.output_dir / ".bidsignore"
    lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines() if ignore.is_file() else []
    write_text(ignore, "".join(f"{line}\n" for line in dict.fromkeys([*lines, *IGNORED])))


def _same(maker: Any, ours: dict[str, str]) -> bool:
    return isinstance(maker, dict) and all(maker.get(key) == ours[key] for key in ("Name", "Version"))


def _links(settings: Settings) -> dict[str, str]:
    """What the names in BIDS URIs of this run stand for."""
    links = {"raw": settings.bids_dir.as_uri()}
    if settings.lesion_masks:
        links[LESION_MASKS] = settings.lesion_masks.absolute().as_uri()
    if settings.edits:
        links[EDITS] = settings.edits.absolute().as_uri()
    for name, path in settings.derivatives.items():
        uri = Path(path).absolute().as_uri()
        if links.setdefault(name, uri) != uri:
            raise InputError(
                f"-d {name}={path}: {name} is the name of another folder in the sidecars of the outputs; "
                "choose another name."
            )
    return links


def write_methods(output_dir: Path, run_uuid: str, texts: dict[str, str]) -> Path:
    """Write the methods of a run: ``logs/CITATION.md``, that of the newest run, and that of this run alone.

    Parameters
    ----------
    output_dir : Path
    run_uuid : str
    texts : dict of str
        Methods of each image, by its prefix. Those that differ from the first have files of their own.

    Returns
    -------
    Path
        ``logs/CITATION.md``, which has the text of the first image.
    """
    intro = (
        f"Results included in this manuscript come from *bids_inpaint* {__version__}, "
        "which is based on Nipype [@nipype].\n\n"
    )
    logs = output_dir / "logs"
    whole = {prefix: intro + text.rstrip() + "\n" for prefix, text in texts.items()}
    first = next(iter(whole.values()))
    files = {"CITATION.md": first, "CITATION.bib": BIBLIOGRAPHY.read_text(encoding="utf-8")}
    for name, text in files.items():
        write_text(logs / name, text)
        write_text(logs / run_uuid / name, text)
    for prefix, text in whole.items():
        if text != first:
            write_text(logs / run_uuid / f"{prefix}_CITATION.md", text)
    return logs / "CITATION.md"


def methods_file(output_dir: Path, run_uuid: str, prefix: str) -> Path | None:
    """The file with the methods of an image, by the run that made it; None if there is none.

    That of the newest run stands in if the run is not known, as versions before 0.2.0 had no other.
    """
    logs = output_dir / "logs"
    of_run = [logs / run_uuid / f"{prefix}_CITATION.md", logs / run_uuid / "CITATION.md"] if run_uuid else []
    return next((path for path in (*of_run, logs / "CITATION.md") if path.is_file()), None)
