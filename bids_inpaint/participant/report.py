"""The visual report of a participant, from the figures and results it left in the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import EVERYTHING, WARNED, figures_of, prefix
from bids_inpaint.dataset.results import fingerprint, lesion_rows, quality_of, run_of, volumes_of
from bids_inpaint.imaging.quality import LIMITS, UNITS
from bids_inpaint.io.files import read_sidecar, replacing
from bids_inpaint.networks.card import Model
from bids_inpaint.participant.crashes import Crash
from bids_inpaint.participant.longitudinal import link_of
from bids_inpaint.participant.outcomes import UNASKED, Outcome, Run, differences
from bids_inpaint.reports.citations import methods_of
from bids_inpaint.reports.figures import LESION, OTHER, THIRD
from bids_inpaint.reports.folder import FACTS, HEALTHY, facts_of
from bids_inpaint.reports.ratings import COLUMNS, STEPS
from bids_inpaint.reports.templates import render
from bids_inpaint.reports.versions import versions
from bids_inpaint.reports.zoom import FIELD, LARGEST
from bids_inpaint.settings import Settings

#: How the report calls the columns of the lesion table.
_COLUMNS = {
    "index": "Lesion", "name": "Name", "volume": "Volume (mm³)", "volume_low": "at least",
    "volume_high": "at most", "x": "x (mm)", "y": "y (mm)", "z": "z (mm)", "contrast": "Darkening",
    "probability": "Probability", "probability_sd": "± (mirror image)", "edit": "Edit",
}  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """A view that reports may have: the steps that are rated by it, and what its layers are."""

    title: str
    steps: tuple[str, ...]
    names: tuple[str, ...]
    legend: tuple[tuple[str, str], ...]
    text: str


_KINDS = {
    "lesions": _Kind(
        "Original and inpainted image",
        ("lesions", "filling"),
        ("Original", "Inpainted"),
        ((LESION, "lesion map"),),
        "The slices hold most of the lesions. Is every lesion outlined, and nothing else? Does the filling "
        "look like the white matter around it?",
    ),
    "flair": _Kind(
        "Synthetic FLAIR",
        (),
        ("T1w", "Synthetic FLAIR"),
        ((LESION, "lesions that the network of the FLAIR found"),),
        "The FLAIR was made from the T1w image.",
    ),
    "both": _Kind(
        "FLAIR",
        (),
        ("FLAIR", "T1w"),
        ((LESION, "lesions by both images"),),
        "Does the FLAIR lie on the T1w, and is every lesion outlined that is bright in it? The filling is by "
        "the T1w alone.",
    ),
    "tissues": _Kind(
        "Tissue segmentation",
        ("tissues",),
        ("Inpainted",),
        ((OTHER, "white matter"), (THIRD, "grey matter")),
        "Do the outlines follow the borders of the tissues?",
    ),
    "brain": _Kind(
        "Brain mask",
        ("brain_mask",),
        ("T1w",),
        ((LESION, "brain mask"),),
        "Does the mask hold the whole brain, and nothing of the skull and the eyes?",
    ),
    "registration": _Kind(
        "Registration",
        ("registration",),
        ("Template", "T1w"),
        ((LESION, "brain mask of the T1w"), (OTHER, "brain mask of the template")),
        "Does the brain stay in its place when both images alternate? An affine can't bring sulci together.",
    ),
}


@dataclass
class _Shown:
    """What the page shows of an image."""

    prefix: str
    verdict: str
    word: str
    sentence: str
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    thumbnail: str = ""
    sheet: str = ""
    views: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    lesions: list[list[str]] = field(default_factory=list)
    measures: list[tuple[str, str, str]] = field(default_factory=list)
    near: dict[str, Any] = field(default_factory=dict)

    @property
    def listed(self) -> list[list[str]]:
        """Rows of lesions on the page: the largest, and all that can be seen from near."""
        near = {row["lesion"] for row in self.near.get("rows", ())}
        return [row for i, row in enumerate(self.lesions) if i < LARGEST or row[0] in near]

    @property
    def steps(self) -> set[str]:
        """Steps that can be rated: those of which there is a view."""
        return {step for view in self.views for step in view["steps"]}


def write_report(subject: str, outcomes: Sequence[Outcome], run: Run, crashes: Sequence[Crash] = ()) -> Path:
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
    out_dir, name = run.settings.output_dir, f"sub-{subject}"
    refused = [f"{one.name}: {one.reason}" for one in run.refused if one.subject == subject]
    images = [_shown(outcome, out_dir) for outcome in outcomes]
    course, lacking = link_of(out_dir, subject)
    lacking = lacking if run.settings.longitudinal else []
    text = render(
        "report.html.j2",
        name=name,
        images=images,
        course=course,
        verdict=_verdict(images, bool(refused or lacking)),
        sentence=_sentence(images, len(refused)),
        notices=[*refused, *lacking, *_notices(outcomes, run.settings, run.provenance)],
        facts=[label for label, _, _ in FACTS.values() if any(label in image.facts for image in images)],
        steps=STEPS,
        healthy=HEALTHY,
        most=LARGEST,
        field=FIELD,
        methods=methods_of(out_dir, {o.image.prefix: run_of(out_dir, o.image) for o in outcomes}),
        crashes=crashes,
        details=_details(run.settings, run.networks.main),
        page={
            "name": name,
            "images": [
                {"image": o.image.prefix, "participant": name, "results": fingerprint(out_dir, o.image)}
                for o in outcomes
            ],
            "steps": list(STEPS),
            "names": STEPS,
            "columns": list(COLUMNS),
        },
    )
    final = out_dir / f"{name}.html"
    with replacing(final) as part:
        # names of files are any bytes
        part.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    return final


def _verdict(images: Sequence[_Shown], failed: bool) -> str:
    """The verdict on all images together, where something else may have failed."""
    found = {image.verdict for image in images}
    return "failed" if failed or "failed" in found else "look" if "look" in found else "good"


def _sentence(images: Sequence[_Shown], refused: int) -> str:
    """The verdict on all images together."""
    done = sum(image.verdict != "failed" for image in images)
    warned = sum(image.verdict == "look" for image in images)
    text = f"{done} of {len(images) + refused} images are done"
    return text + (f", {warned} of them with warnings." if warned else " without warnings." if done else ".")


def _shown(outcome: Outcome, out_dir: Path) -> _Shown:
    image = outcome.image
    if outcome.core:
        shown = _Shown(
            image.prefix, "good", "done", "All measures are as expected of a T1w image of an adult."
        )
        if not outcome.done:
            shown = _Shown(image.prefix, "failed", "failed in part", f"It {outcome.summary()}.")
    else:
        shown = _Shown(image.prefix, "failed", "failed", f"It {outcome.summary()}. Reason: {outcome.error}")
        if not outcome.earlier:
            return shown
    stem = f"{out_dir / prefix(image)}_"
    try:
        rows = lesion_rows(stem)
        sidecars = (read_sidecar(f"{stem}{n}.json") for n in ("dseg", "label-L_desc-inpaint_mask"))
        volumes = volumes_of(rows, *sidecars)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        shown.warnings.append(f"The results can't be read ({error}): run the participant level for it again.")
        rows, volumes = [], {}
    measures, warnings = quality_of(read_sidecar(f"{stem}desc-inpainted_T1w.json"))
    for part, name in WARNED.items():
        if part not in outcome.failed:
            warnings += quality_of(read_sidecar(f"{stem}{name}.json"))[1]
    shown.warnings += list(dict.fromkeys(warnings))
    if shown.warnings and shown.verdict == "good":
        shown.verdict, shown.word = "look", _counted(len(shown.warnings))
        shown.sentence = "Look at this image before you use its results:"
    shown.facts = facts_of(volumes)
    shown.lesions = [[str(row[name]) for name in _COLUMNS if name in row] for row in rows]
    shown.columns = [label for name, label in _COLUMNS.items() if rows and name in rows[0]]
    shown.measures = [_measure(name, value) for name, value in measures.items()]
    _add_pictures(shown, image, out_dir)
    _add_near(shown, image, out_dir, {row["index"]: row for row in rows if "index" in row})
    return shown


def _counted(warnings: int) -> str:
    return f"{warnings} warning{'' if warnings == 1 else 's'}"


def _measure(name: str, value: float) -> tuple[str, str, str]:
    unit = f" {UNITS[name]}" if name in UNITS else ""
    limit = LIMITS.get(name)
    return name, f"{value:g}{unit}", f"{limit.low:g} to {limit.high:g}{unit}" if limit else ""


def _add_pictures(shown: _Shown, image: Image, out_dir: Path) -> None:
    """Add the thumbnail, the sheet and the views, as far as their files are there."""
    every = figures_of(image, EVERYTHING)
    there = {key: quote(name) for key, name in every.items() if (out_dir / name).is_file()}
    shown.thumbnail, shown.sheet = there.get("thumbnail", ""), there.get("sheet", "")
    layers = ("first", "second", "difference", "contours")
    for key, kind in _KINDS.items():
        files = {layer: there.get(f"{key}_{layer}", "") for layer in layers}
        if files["first"]:
            shown.views.append({**vars(kind), **files})


def _add_near(shown: _Shown, image: Image, out_dir: Path, table: dict[str, dict[str, str]]) -> None:
    """Add the pictures of single lesions, if they are of those in the table (by its index)."""
    files = {
        key.removeprefix("zoom_"): name
        for key, name in figures_of(image, EVERYTHING).items()
        if key.startswith("zoom_")
    }
    known = read_sidecar(out_dir / files.pop("lesions"))
    labels, likely = known.get("Lesions") or [], known.get("Probabilities") or []
    rows = []
    for lesion, probability in zip(map(str, labels), likely, strict=False):
        if not (row := table.get(lesion)):
            return
        where = ", ".join(f"{axis} = {float(row[axis]):.0f}" for axis in "xyz").replace("-", "−")
        volume = f"{float(row['volume']):.0f} mm³"
        text = f"{volume}, at {where} mm, mean lesion probability {probability:.2f}"
        doubt = ", among the least probable" if int(lesion) > LARGEST else ""
        rows.append({"lesion": lesion, "text": f"Lesion {lesion} of {len(table)}: {text}{doubt}"})
    if rows and all((out_dir / name).is_file() for name in files.values()):
        shown.near = {"rows": rows, **{layer: quote(name) for layer, name in files.items()}}


def _details(settings: Settings, model: Model) -> dict[str, dict[str, str]]:
    """What stands at the end of the page: title of a table to its rows."""
    return {
        "Options": settings.summary(),
        "Network": {
            "Name": model.name,
            "SHA-256": model.sha256,
            "Trained": str(model.card.more.get("trained", "unknown")),
            "Intended use": str(model.card.more.get("intended_use", "")),
        },
        "Versions": versions(),
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
