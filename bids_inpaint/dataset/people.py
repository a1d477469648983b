"""The people whose visits are processed together: which images these are, and the outputs of a person.

What each visit leaves has the names of :mod:`bids_inpaint.dataset.outputs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import USUAL, names_of
from bids_inpaint.dataset.sidecars import provenance, standard_space
from bids_inpaint.dataset.visits import timeline
from bids_inpaint.imaging.history import Limits
from bids_inpaint.io.files import read_sidecar
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings

#: Part of a person's status: there is one alone.
PART = "longitudinal"
#: Name of the workflow of a person, up to the label.
_WORKFLOW = "person_"
#: The lesions over time: an image and its table.
CHANGE_MAP = "desc-lesionchange_dseg"
#: Layer of the pictures of a visit -> suffix
_PICTURES = {
    "before": "desc-visit_T1w.png",
    "after": "desc-visitInpainted_T1w.png",
    "outlines": "desc-lesionchange_T1w.svg",
}
_CHANGES = {
    "stable": "It changed by less than the limits",
    "new": "It is at the last visit and not at the first",
    "enlarging": "It is larger at the last visit than at the first",
    "shrinking": "It is smaller at the last visit than at the first",
    "resolved": "It is at the first visit and not at the last",
    "transient": "It is neither at the first nor at the last visit, but between them",
}


@dataclass(frozen=True)
class Person:
    """A person with visits that are processed together.

    Attributes
    ----------
    images : tuple of Image
        One of each session, in the order of time.
    years : tuple of float or None
        Between the first image whose time is known and each; None where the time of an image is unknown.
    """

    images: tuple[Image, ...]
    years: tuple[float | None, ...]

    @property
    def subject(self) -> str:
        """Participant label."""
        return self.images[0].subject

    @property
    def kept(self) -> list[Image]:
        """The visits that were finished before and stay as they are, if the others are added to them."""
        return [image for image in self.images if image.kept]

    @property
    def processed(self) -> list[Image]:
        """The other visits."""
        return [image for image in self.images if not image.kept]

    @property
    def sessions(self) -> list[str]:
        """Labels of the sessions, as ``ses-1``."""
        return [f"ses-{image.entities['ses']}" for image in self.images]

    @property
    def workflow(self) -> str:
        """Name of the workflow of what its visits have in common, as ``person_01``."""
        return _WORKFLOW + self.subject.replace("+", "-")

    def names(self, template: str) -> dict[str, str]:
        """Path of each result of the person below the output folder, by its key."""
        stem = stem_of(self.subject)
        out = {
            "template": f"{stem}_desc-{PART}_T1w.nii.gz",
            "mask": f"{stem}_desc-{PART}_mask.nii.gz",
            "changes": f"{stem}_{CHANGE_MAP}.nii.gz",
            "standard_changes": f"{stem}_space-{template}_res-1_{CHANGE_MAP}.nii.gz",
            "table": f"{stem}_{CHANGE_MAP}.tsv",
        }
        spaces = {"standard": template} | {
            f"visit{i}": session.replace("-", "") for i, session in enumerate(self.sessions)
        }
        for key, space in spaces.items():
            out[f"to_{key}"] = f"{stem}_from-template_to-{space}_mode-image_xfm.txt"
            out[f"from_{key}"] = f"{stem}_from-{space}_to-template_mode-image_xfm.txt"
        for i, image in enumerate(self.images):
            out |= {f"{layer}{i}": name for layer, name in pictures_of(self.subject, image.prefix).items()}
        return out

    def metadata(
        self, settings: Settings, networks: Networks, before: Before | None = None
    ) -> dict[str, dict]:
        """What the sidecar of each result says that is known before the run, by its key.

        Parameters
        ----------
        settings : Settings
        networks : Networks
        before : Before, optional
            What the visits are added to that are processed.
        """
        template = settings.template
        visits: dict[str, Any] = {
            "Visits": [image.prefix for image in self.images],
            "Years": [None if year is None else round(year, 4) for year in self.years],
            "YearsDescription": "Between the first visit whose time is known and each",
        }
        if before:
            kept = [image.prefix for image in self.kept]
            stages = [*before.stages_of(kept), [image.prefix for image in self.processed]]
            visits |= {
                "AddedVisits": stages[1:],
                "AddedVisitsDescription": "Visits that were added later, by the run that did so; the "
                "template was made of the others, and what visits before them have stayed as it was",
            }
        made = [names_of(image, template, USUAL)["probability"] for image in self.images]
        changes = {
            **visits,
            "Sources": [f"bids::{name}" for name in made],
            **provenance(settings, networks),
            "Limits": asdict(Limits.of(networks.rule(settings))),
            **self._columns(),
        }
        made_of = [image.uri for image in self.images]
        image = {
            "Description": "Median of all visits, without bias fields, in their middle space",
            "SkullStripped": True,
            "Sources": made_of,
        }
        mask = {
            "Description": "Brain mask of all visits on the voxels of the template",
            "Type": "Brain",
            "Sources": made_of,
        }
        return {
            "template": (before.sidecar if before else image) | visits,
            "mask": before.mask_sidecar if before else mask,
            "changes": changes,
            "standard_changes": changes | standard_space(template),
        }

    def _columns(self) -> dict[str, dict]:
        """What the columns of the table of lesions are."""
        levels = {"Levels": _CHANGES}
        mm = {"Units": "mm"}
        out: dict[str, dict] = {
            "index": {"Description": "Value of the lesion in the labelled image"},
            "name": {"Description": "Name of the lesion"},
            "change": {"Description": "What became of it from the first visit to the last", **levels},
            "x": {"Description": "Centroid of its voxels at any visit, towards the right", **mm},
            "y": {"Description": "Centroid of its voxels at any visit, towards the front", **mm},
            "z": {"Description": "Centroid of its voxels at any visit, towards the top", **mm},
        }
        for session in self.sessions:
            out[f"volume_{session}"] = {"Description": f"Volume at {session}", "Units": "mm^3"}
        for session in self.sessions[1:]:
            text = f"What became of it from the visit before to {session}"
            out[f"change_{session}"] = {"Description": text, **levels}
        return out


@dataclass(frozen=True)
class Before:
    """The longitudinal results of a person that an earlier run left.

    Attributes
    ----------
    visits : tuple of str
        Prefixes of the images.
    added : tuple of tuple of str
        Those that were added to the others, by the run that added them.
    sidecar, mask_sidecar : dict
        Of the template and its brain mask.
    """

    visits: tuple[str, ...]
    added: tuple[tuple[str, ...], ...]
    sidecar: dict[str, Any]
    mask_sidecar: dict[str, Any]

    @classmethod
    def read(cls, output_dir: Path, subject: str) -> Before | None:
        """Read them; None if there are none, or nothing says whose they are."""
        stem = f"{output_dir / stem_of(subject)}_desc-{PART}"
        sidecar, mask = (read_sidecar(f"{stem}_{suffix}.json") for suffix in ("T1w", "mask"))
        visits = sidecar.get("Visits")
        if not isinstance(visits, list) or not visits:
            return None
        added = sidecar.get("AddedVisits", [])
        stages = [stage for stage in added if isinstance(stage, list)] if isinstance(added, list) else []
        return cls(tuple(map(str, visits)), tuple(tuple(map(str, stage)) for stage in stages), sidecar, mask)

    @property
    def last(self) -> tuple[str, ...]:
        """The visits that the last run added; all, if none did."""
        return self.added[-1] if self.added else self.visits

    def stages_of(self, visits: Sequence[str]) -> list[list[str]]:
        """Some of the visits as they came: those of the template, and those that each run added."""
        later = {visit for stage in self.added for visit in stage}
        stages = [[visit for visit in self.visits if visit not in later], *map(list, self.added)]
        return [some for stage in stages if (some := [visit for visit in stage if visit in visits])]


def is_image(workflow: str) -> bool:
    """Whether the workflow of that name is that of an image, and not that of a person."""
    return not workflow.startswith(_WORKFLOW)


def together(images: Sequence[Image], finished: Collection[str] = ()) -> list[Image]:
    """The same images, of which those that are visits of one person know each other.

    A person has one visit a session. Of several images of a session, that which has the entities that most
    sessions have is the visit (one without a contrast agent, if there is a choice), and the others are
    processed by themselves.

    Parameters
    ----------
    images : sequence of Image
        Those of a person stand together.
    finished : collection of str
        Prefixes of images that are visits rather than others of their session, as an earlier run took them.
    """
    out: list[Image] = []
    for _, group in groupby(images, key=lambda image: image.subject):
        of_person = list(group)
        chosen = _one_a_session(of_person, finished)
        if len(chosen) < 2:
            out += of_person
            continue
        line = timeline(chosen)
        visits = tuple(image.prefix for image in line.images)
        for image in of_person:
            if image.prefix in visits:
                out.append(_as_visit(image, visits, line.warnings))
            elif "ses" in image.entities:
                note = "another image stands for its session in the longitudinal steps of the person."
                out.append(replace(image, notes=(*image.notes, note)))
            else:
                out.append(image)
    return out


def _as_visit(image: Image, visits: tuple[str, ...], warnings: Sequence[str]) -> Image:
    """The image as one of several visits, whose affine is that of all."""
    said = list(warnings)
    if image.xfm:
        said.append(
            "the given affine is not used, as all visits of the person share one: leave out --longitudinal "
            "if it is to be used."
        )
    return replace(
        image,
        visits=visits,
        xfm=None,
        sources=[source for source in image.sources if not (image.xfm and source.endswith("_xfm.txt"))],
        warnings=tuple(dict.fromkeys([*image.warnings, *said])),
    )


def people(images: Sequence[Image]) -> list[Person]:
    """The people among images that know each other (:func:`together`)."""
    out = []
    for _, group in groupby((image for image in images if image.visits), key=lambda image: image.subject):
        line = timeline(list(group))
        out.append(Person(tuple(line.images), tuple(line.years)))
    return out


def stem_of(subject: str) -> str:
    """Path of the results of a person below the output folder, up to what tells them apart."""
    return f"sub-{subject}/anat/sub-{subject}"


def pictures_of(subject: str, visit: str) -> dict[str, str]:
    """Path of each layer of the pictures of a visit in the person's report, below the output folder."""
    return {layer: f"sub-{subject}/figures/{visit}_{suffix}" for layer, suffix in _PICTURES.items()}


def page_of(subject: str) -> str:
    """Name of the report of a person, in the output folder."""
    return f"sub-{subject}_desc-{PART}_T1w.html"


def status_file(output_dir: Path, subject: str) -> Path:
    """Where the output folder says what became of the longitudinal results of a person."""
    return output_dir / f"sub-{subject}" / "log" / f"sub-{subject}_{PART}_status.json"


def _one_a_session(images: Sequence[Image], finished: Collection[str]) -> list[Image]:
    def kind(image: Image) -> tuple[str | None, ...]:
        return tuple(image.entities.get(key) for key in ("acq", "ce", "rec"))

    sessions: dict[str, list[Image]] = {}
    for image in images:
        if session := image.entities.get("ses"):
            sessions.setdefault(session, []).append(image)
    often = Counter(one for of_session in sessions.values() for one in {kind(image) for image in of_session})
    return [
        min(
            of_session,
            key=lambda i: (i.prefix not in finished, -often[kind(i)], "ce" in i.entities, i.prefix),
        )
        for of_session in sessions.values()
    ]
