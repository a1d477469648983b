"""What the output folder holds once: its description, ignore list and methods text."""

from __future__ import annotations

from pathlib import Path

from bids_inpaint import __version__
from bids_inpaint.interfaces.derivatives import write_json, write_text
from bids_inpaint.settings import Settings

URL = "https://github.com/bids-inpaint/bids_inpaint"
IGNORED = "figures\nlog\nlogs\n*.html\n*_xfm.*\ngroup_*\n"


def describe(settings: Settings) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``."""
    links = {"raw": settings.bids_dir.as_uri()}
    links |= {name: Path(path).as_uri() for name, path in settings.derivatives.items()}
    write_json(
        settings.output_dir / "dataset_description.json",
        {
            "Name": "bids_inpaint: lesion-free T1w images and lesion maps",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "bids_inpaint", "Version": __version__, "CodeURL": URL}],
            "HowToAcknowledge": "Cite the works in logs/CITATION.md.",
            "SourceDatasets": [{"URL": links["raw"]}],
            "DatasetLinks": links,
        },
    )
    write_text(settings.output_dir / ".bidsignore", IGNORED)


def write_boilerplate(output_dir: Path, text: str) -> Path:
    """Write ``logs/CITATION.md`` and the bibliography it cites."""
    bibliography = (Path(__file__).parent / "data" / "boilerplate.bib").read_text(encoding="utf-8")
    intro = (
        f"Results included in this manuscript come from *bids_inpaint* {__version__}, "
        "which is based on Nipype [@nipype].\n\n"
    )
    write_text(output_dir / "logs" / "CITATION.bib", bibliography)
    write_text(output_dir / "logs" / "CITATION.md", intro + text.rstrip() + "\n")
    return output_dir / "logs" / "CITATION.md"
