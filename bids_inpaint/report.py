"""The visual report of a participant, from the figures it left in the output folder."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bids_inpaint import __version__
from bids_inpaint.bids import Image
from bids_inpaint.files import replacing
from bids_inpaint.models import Model
from bids_inpaint.settings import Settings

_DATA = Path(__file__).parent / "data"
_PACKAGES = ("antspyx", "nibabel", "nipype", "nireports", "numpy", "onnxruntime", "pybids", "scipy")


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that determine its results."""
    found = {"bids_inpaint": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_report(
    subject: str,
    images: list[Image],
    unfinished: list[Image],
    settings: Settings,
    model: Model,
    errors: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``sub-LABEL.html``.

    Parameters
    ----------
    subject : str
        Participant label.
    images, unfinished : list of Image
        All images of the participant, and those that failed.
    settings : Settings
    model : Model
    errors : sequence of tuple of str
        A sentence on each step that failed, and its crash file's text.
    """
    from nireports.assembler.report import Report

    out_dir = settings.output_dir
    folder = out_dir / f"sub-{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "Participant": {
            "Participant": subject,
            "T1w images": ", ".join(image.prefix for image in images),
            "Failed": ", ".join(image.prefix for image in unfinished) or "none",
        },
        "Options": settings.summary(),
        "Network": {
            "Name": model.name,
            "SHA-256": model.sha256,
            "Trained": str(model.card.get("trained", "unknown")),
            "Intended use": str(model.card.get("intended_use", "")),
        },
        "Versions": versions(),
    }
    escaped = {
        group: {html.escape(k): html.escape(str(v)) for k, v in values.items()}
        for group, values in summary.items()
    }
    final = out_dir / f"sub-{subject}.html"
    with replacing(final) as part:
        report = Report(
            out_dir,
            None,
            bootstrap_file=_DATA / "reports-spec.yml",
            out_filename=part,
            # nireports indexes this folder anew for each report: no more than is needed
            reportlets_dir=folder,
            plugins=[],
            metadata={
                "summary-meta": escaped,
                "filename": final.stem,
                # it stands between quotes of YAML
                "methods": str(out_dir / "logs").replace("'", "''"),
            },
            subject=subject,
        )
        # nireports puts the text of crash files into the page as it is
        report.footer = [
            f'<p class="alert-danger">{html.escape(sentence)}</p>\n'
            f"<details><summary>Details</summary><pre>{html.escape(text)}</pre></details>"
            for sentence, text in errors
        ]
        report.template_path = _DATA / "report.html.j2"
        report.generate_report()
    return final
