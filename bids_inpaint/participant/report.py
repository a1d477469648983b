"""The visual report of a participant, from the figures it left in the output folder."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_inpaint.io.files import replacing
from bids_inpaint.networks.card import Model
from bids_inpaint.participant.crashes import Crash
from bids_inpaint.participant.outcomes import UNASKED, Outcome, differences
from bids_inpaint.reports.versions import versions
from bids_inpaint.settings import Settings

_DATA = Path(__file__).parents[1] / "data"


def write_report(
    subject: str,
    outcomes: Sequence[Outcome],
    settings: Settings,
    model: Model,
    made: dict[str, Any],
    crashes: Sequence[Crash] = (),
    refused: Sequence[str] = (),
) -> Path:
    """Write ``sub-LABEL.html``.

    Parameters
    ----------
    subject : str
        Participant label.
    outcomes : sequence of Outcome
        Of all images of the participant.
    settings : Settings
    model : Model
    made : dict
        :func:`bids_inpaint.dataset.outputs.provenance` of this run; images of other runs are warned of.
    crashes : sequence of Crash
        The steps that failed.
    refused : sequence of str
        Sentences on images of the participant that were not run.
    """
    from nireports.assembler.report import Report

    out_dir = settings.output_dir
    folder = out_dir / f"sub-{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "Participant": {
            "Participant": subject,
            "T1w images": ", ".join(outcome.image.prefix for outcome in outcomes),
            "Failed": "; ".join(f"{o.image.prefix} {o.summary()}" for o in outcomes if not o.done) or "none",
        },
        "Options": settings.summary(),
        "Network": {
            "Name": model.name,
            "SHA-256": model.sha256,
            "Trained": str(model.card.more.get("trained", "unknown")),
            "Intended use": str(model.card.more.get("intended_use", "")),
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
        report.header = [_alert(text) for text in (*refused, *_notices(outcomes, settings, made))]
        # nireports puts the text of crash files into the page as it is
        report.footer = [
            f"{_alert(crash.sentence)}\n"
            f"<details><summary>Details</summary><pre>{html.escape(crash.text)}</pre></details>"
            for crash in crashes
        ]
        report.template_path = _DATA / "report.html.j2"
        report.generate_report()
    return final


def _notices(outcomes: Sequence[Outcome], settings: Settings, made: dict[str, Any]) -> list[str]:
    """What stands at the top of the page: which images failed, and which results are not of this run."""
    out = []
    for outcome in outcomes:
        name = outcome.image.prefix
        if not outcome.done:
            shown = "; so are figures of them below" if outcome.earlier else ""
            out.append(f"{name} {outcome.summary()}{shown}. Reason: {outcome.error}")
        if outcome.unasked:
            out.append(f"{name}: {UNASKED}")
        if outcome.core:
            out += [f"{name}: {text}" for text in differences(outcome.image, settings, made)]
    return out


def _alert(text: str) -> str:
    return f'<p class="alert-danger">{html.escape(text)}</p>'
