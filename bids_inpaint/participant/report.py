"""The visual report of a participant, from the figures it left in the output folder."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_inpaint.io.files import replacing
from bids_inpaint.networks.card import Model
from bids_inpaint.participant.crashes import Crash
from bids_inpaint.participant.outcomes import UNASKED, Outcome, Run, differences
from bids_inpaint.reports.templates import FOLDER, render
from bids_inpaint.reports.versions import versions
from bids_inpaint.settings import Settings


def write_report(
    subject: str,
    outcomes: Sequence[Outcome],
    run: Run,
    crashes: Sequence[Crash] = (),
) -> Path:
    """Write ``sub-LABEL.html``.

    Parameters
    ----------
    subject : str
        Participant label.
    outcomes : sequence of Outcome
        Of all images of the participant.
    run : Run
        Images of other runs are warned of, and those of the participant that it refused are named.
    crashes : sequence of Crash
        The steps that failed.
    """
    from nireports.assembler.report import Report

    out_dir = run.settings.output_dir
    folder = out_dir / f"sub-{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    summary = _summary(subject, outcomes, run.settings, run.networks.main)
    final = out_dir / f"sub-{subject}.html"
    with replacing(final) as part:
        report = Report(
            out_dir,
            None,
            bootstrap_file=FOLDER / "reports-spec.yml",
            out_filename=part,
            # nireports indexes this folder anew for each report: no more than is needed
            reportlets_dir=folder,
            plugins=[],
            metadata={
                "summary-meta": summary,
                "filename": final.stem,
                # it stands between quotes of YAML
                "methods": str(out_dir / "logs").replace("'", "''"),
            },
            subject=subject,
        )
        # nireports puts all of these into the page as they are
        refused = (f"{one.name}: {one.reason}" for one in run.refused if one.subject == subject)
        sentences = (*refused, *_notices(outcomes, run.settings, run.provenance))
        report.header = [render("notice.html.j2", sentence=sentence) for sentence in sentences]
        report.footer = [
            render("crash.html.j2", sentence=crash.sentence, text=crash.text) for crash in crashes
        ]
        report.template_path = FOLDER / "report.html.j2"
        report.generate_report()
    return final


def _summary(
    subject: str, outcomes: Sequence[Outcome], settings: Settings, model: Model
) -> dict[str, dict[str, str]]:
    """The first section of the report, escaped: title of a table to its rows."""
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
    return {
        group: {html.escape(k): html.escape(str(v)) for k, v in values.items()}
        for group, values in summary.items()
    }


def _notices(outcomes: Sequence[Outcome], settings: Settings, provenance: dict[str, Any]) -> list[str]:
    """What stands at the top of the page: which images failed, and which results are not of this run."""
    out = []
    for outcome in outcomes:
        name = outcome.image.prefix
        if not outcome.done:
            figures = "; so are figures of them below" if outcome.earlier else ""
            out.append(f"{name} {outcome.summary()}{figures}. Reason: {outcome.error}")
        if outcome.unasked:
            out.append(f"{name}: {UNASKED}")
        if outcome.core:
            out += [f"{name}: {text}" for text in differences(outcome.image, settings, provenance)]
    return out
