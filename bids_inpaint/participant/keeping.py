"""Visits that are finished and stay as they are, while others are added to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from bids_inpaint.dataset import checksums
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, is_finished
from bids_inpaint.dataset.people import Before, people, together
from bids_inpaint.dataset.scan import Refused
from bids_inpaint.dataset.sidecars import provenance
from bids_inpaint.dataset.status import last_run
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.outcomes import others_than
from bids_inpaint.participant.progress import tell
from bids_inpaint.settings import Settings


def gather(
    images: Sequence[Image], settings: Settings, networks: Networks
) -> tuple[list[Image], list[Refused]]:
    """The images, of which visits of a person know each other, and those that are finished are kept.

    Parameters
    ----------
    images : sequence of Image
        Those of a person stand together.
    settings : Settings
    networks : Networks

    Returns
    -------
    images : list of Image
    refused : list of Refused
        Visits that can't be added, as the run leaves out some of the finished ones.
    """
    if settings.reports_only or settings.boilerplate_only:
        return together(images), []
    out: list[Image] = []
    refused: list[Refused] = []
    for subject, group in groupby(images, key=lambda image: image.subject):
        before = Before.read(settings.output_dir, subject)
        if before is None or settings.longitudinal == "anew":
            mine = together(list(group))
            _announce_anew(mine, before, settings)
            out += mine
            continue
        mine = together(list(group), finished=before.visits)
        of_run = {image.prefix for image in mine}
        if lost := [visit for visit in before.visits if visit not in of_run]:
            mine, more = _apart(mine, before, lost)
            refused += more
        else:
            mine = _added(mine, before, settings, networks)
        out += mine
    return out, refused


def _announce_anew(images: Sequence[Image], before: Before | None, settings: Settings) -> None:
    """Say if all visits are processed again that have other results, or some that nobody knows."""
    for person in people(images):
        now = [image.prefix for image in person.images]
        if before is None:
            template = settings.output_dir / person.names(settings.template)["template"]
            if template.exists():
                sidecar = template.name.replace(".nii.gz", ".json")
                tell(_anew(person.subject, f"{template.with_name(sidecar)} is missing or can't be read"))
        elif list(before.visits) != now or before.added:
            tell(
                f"note: sub-{person.subject} has longitudinal results of {listed(before.visits)}"
                f"{', of which some were added later' if before.added else ''}: all visits of this run "
                f"({listed(now)}) are processed together anew."
            )


def _apart(images: Sequence[Image], before: Before, lost: Sequence[str]) -> tuple[list[Image], list[Refused]]:
    """The images of a person if the run leaves out finished visits: these stay, and none is added to them."""
    subject = images[0].subject
    here = [image.prefix for image in images if image.prefix in before.visits]
    new = [image for image in images if image.prefix not in before.visits and _is_visit(image, before)]
    if here:
        stay = "stay as they are" if here[1:] else "stays as it is"
        tell(
            f"note: sub-{subject} has longitudinal results of {listed(before.visits)}, of which this run "
            f"leaves out {listed(lost)}: {listed(here)} {stay}; --longitudinal anew "
            "processes the visits of this run without the others."
        )
    refused = [
        Refused(
            image.prefix,
            subject,
            f"{image.prefix} can't be added to the longitudinal results of sub-{subject}, as this run leaves "
            f"out {listed(lost)}: run all sessions of sub-{subject}, or use --longitudinal anew to process "
            "those of this run without the others.",
        )
        for image in new
    ]
    left = [
        _kept(image, visits=()) if image.prefix in before.visits else replace(image, visits=())
        for image in images
        if image not in new
    ]
    return left, refused


def _kept(image: Image, **more: Any) -> Image:
    """An image whose results stay; what is warned of it stands in its sidecars."""
    return replace(image, kept=True, warnings=(), **more)


def _is_visit(image: Image, before: Before) -> bool:
    """Whether it is no other image of a session that has a visit, and none without a session."""
    session = image.entities.get("ses")
    sessions = {part for visit in before.visits for part in visit.split("_") if part.startswith("ses-")}
    return session is not None and f"ses-{session}" not in sessions


def _added(images: Sequence[Image], before: Before, settings: Settings, networks: Networks) -> list[Image]:
    """The images of a person whose finished visits are all there, and are kept if they can be."""
    visits = [image for image in images if image.visits]
    new = [image.prefix for image in visits if image.prefix not in before.visits]
    if not new and not before.added:
        # as images of a person with one visit are
        return list(images)
    added = new or list(before.last)
    finished = [image for image in visits if image.prefix not in added]
    if why := _why_not(finished, before, settings, networks):
        tell(_anew(visits[0].subject, why))
        return list(images)
    names = tuple(image.prefix for image in finished)
    if new:
        tell(
            f"note: {listed(new)} {'are' if new[1:] else 'is'} added to the finished visits {listed(names)}, "
            "which stay as they are; --longitudinal anew processes all together."
        )
    return [
        _kept(image)
        if image.prefix in names
        else replace(image, added_to=names if image.prefix in added else ())
        for image in images
    ]


def _anew(subject: str, why: str) -> str:
    return f"note: all visits of sub-{subject} are processed together anew, as {why}."


def _why_not(finished: Sequence[Image], before: Before, settings: Settings, networks: Networks) -> str:
    """Why nothing can be added to finished visits, as part of a sentence; empty if it can."""
    products, current = Products.of(settings, networks), provenance(settings, networks)
    if not finished or not checksums.known(before.sidecar, "Results"):
        return "the sidecar of the template does not say which visits and files it was made of"
    for image in finished:
        if reason := last_run(image, settings.output_dir)[0]:
            return f"the results of {image.prefix} can't be used ({reason})"
        if other := others_than(image, settings, current):
            return f"{image.prefix} was made with {'; '.join(other)}"
        if not is_finished(image, settings, products):
            return f"files of {image.prefix} are missing in {settings.output_dir}"
    (person,) = people(finished)
    out_dir, template = settings.output_dir, settings.template
    names = person.names(template)
    for key in (key for key in names if key.startswith(("from_", "to_"))):
        if not (out_dir / names[key]).exists():
            return f"{out_dir / names[key]} is missing"
    files: dict[tuple[str, str], Sequence[str | Path]] = {
        ("Results", "template"): [out_dir / names[key] for key in checksums.SHARED]
    }
    files |= {("Results", i.prefix): checksums.results_of(i, out_dir, template) for i in finished}
    files |= {("Inputs", i.prefix): checksums.inputs_of(i) for i in finished}
    for (kind, name), paths in files.items():
        try:
            found = checksums.checksum(paths)
        except OSError as error:
            return f"{error.filename} can't be read ({error.strerror})"
        if found == checksums.said(before.sidecar, kind, name):
            continue
        if kind == "Inputs":
            return f"the T1w of {name}, or a mask given for it, is another now"
        if name == "template":
            return f"the template of sub-{person.subject} in {out_dir} is not the one that was saved"
        return f"files of {name} in {out_dir} are not those that were saved"
    return ""


def listed(names: Sequence[str]) -> str:
    """Names as part of a sentence."""
    return ", ".join(map(str, names[:6])) + (" and others" if len(names) > 6 else "")
