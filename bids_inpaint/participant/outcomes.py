"""What became of each image of a run: done, or failed and why. Earlier runs' files are no evidence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import (
    EVERYTHING,
    PARTS,
    WARNED,
    Products,
    expected,
    image_wf_name,
    is_finished,
    prefix,
    status_file,
)
from bids_inpaint.dataset.scan import Refused
from bids_inpaint.dataset.sidecars import own_options, provenance
from bids_inpaint.dataset.status import is_held, saved_file, write_status
from bids_inpaint.io.files import read_sidecar
from bids_inpaint.networks.selection import Networks
from bids_inpaint.participant.crashes import Crash
from bids_inpaint.participant.progress import Progress
from bids_inpaint.settings import Settings

#: Of an image for which `Outcome.unasked` holds.
UNASKED = (
    "files of an earlier run, which this one was not asked for, are still in the output folder: they may be "
    "of other options or another version."
)


@dataclass(frozen=True)
class Run:
    """What a run of the participant level is about.

    Attributes
    ----------
    settings : Settings
    networks : Networks
    uuid : str
        Names its crash folders, and itself in the status of each image.
    images : list of Image
        Those that are run.
    refused : sequence of Refused
        What is not run, and why; that is reported before.
    """

    settings: Settings
    networks: Networks
    uuid: str
    images: list[Image]
    refused: Sequence[Refused] = ()

    @cached_property
    def products(self) -> Products:
        """What it leaves of each image."""
        return Products.of(self.settings, self.networks)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What makes its inpainted images; images of other runs are warned of."""
        return provenance(self.settings, self.networks)


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes
    ----------
    image : Image
    failed : tuple of str
        Its parts (:data:`bids_inpaint.dataset.outputs.PARTS`) that are not done; none if all is well.
    error : str
        One sentence on why.
    earlier : bool
        Whether files of the failed parts are there, left by an earlier run.
    crashed : bool
        Whether a step of it has a crash file.
    unasked : bool
        Whether files are there that the run was not asked for, left by an earlier run.
    """

    image: Image
    failed: tuple[str, ...] = ()
    error: str = ""
    earlier: bool = False
    crashed: bool = False
    unasked: bool = False

    @property
    def done(self) -> bool:
        """Whether everything ended well."""
        return not self.failed

    @property
    def core(self) -> bool:
        """Whether there is an inpainted image, whatever else failed."""
        return PARTS[0] not in self.failed

    def summary(self) -> str:
        """What failed and what is left, as part of a sentence."""
        text = "failed"
        if self.core:
            text = f"failed in part ({', '.join(self.failed)}); the rest is done"
        if self.earlier:
            text += f"; {'those' if self.core else 'its'} files in the output folder are of an earlier run"
        return text


@dataclass(frozen=True)
class Before:
    """What an earlier run left of an image.

    Attributes
    ----------
    parts : frozenset of str
        Those of which files are there.
    unasked : bool
        Whether files are there that this run does not make.
    """

    parts: frozenset[str] = frozenset()
    unasked: bool = False

    @classmethod
    def of(cls, image: Image, settings: Settings, products: Products) -> Before:
        """Look into the output folder, before a run that makes these products."""
        every = expected(image, settings.template, EVERYTHING)
        folders = {Path(name).parent for name in every}
        there = {str(folder / name) for folder in folders for name in _names_in(settings.output_dir / folder)}
        parts = {
            part
            for part in products.parts
            if there.intersection(expected(image, settings.template, products, (part,)))
        }
        asked = expected(image, settings.template, products)
        return cls(frozenset(parts), bool(there.intersection(every).difference(asked)))


def _names_in(folder: Path) -> list[str]:
    # one question for a folder, as shared file systems are slow
    try:
        return os.listdir(folder)
    except OSError:
        return []


def judge(
    image: Image,
    settings: Settings,
    products: Products,
    run_uuid: str,
    crashes: Sequence[Crash],
    progress: Progress,
    halted: str,
    before: Before,
) -> Outcome:
    """What became of an image in this run.

    A part is done if the run has saved it, which it does after all steps of the part ended well, and all
    its files are there. That holds with every plugin, on whatever machine the steps ran.

    Parameters
    ----------
    image : Image
    settings : Settings
    products : Products
    run_uuid : str
        Of the run.
    crashes : sequence of Crash
        Of the run; those of other images are ignored.
    progress : Progress
        What the plugin said of the steps.
    halted : str
        What ended the whole run before its time, if anything did.
    before : Before
        What was there before the run.
    """
    workflow, status = image_wf_name(image), status_file(settings.output_dir, image)
    unsaved, lost = [], []
    for part in products.parts:
        if not saved_file(status, run_uuid, part).exists():
            unsaved.append(part)
        elif not is_finished(image, settings, products, (part,)):
            lost.append(part)
    crashes_of_image = [crash for crash in crashes if crash.workflow == workflow]
    crashed = bool(crashes_of_image) or workflow in progress.failed
    failed = tuple(part for part in products.parts if part in unsaved or part in lost)
    if (crashed and not failed) or (unsaved and not is_held(status, run_uuid)):
        # what was saved may have been replaced by another run
        failed = products.parts
    if not failed:
        return Outcome(image, unasked=before.unasked)
    if crashes_of_image:
        reason = crashes_of_image[0].sentence
    elif unsaved and halted:
        reason = f"not {'finished' if workflow in progress.begun else 'run'}: {halted}"
    elif lost:
        reason = (
            f"files of {image.prefix} are missing in {settings.output_dir}, though they were written: "
            "nothing else may clear that folder during a run; run the same command again."
        )
    else:
        reason = "not finished: a step that it needs was not run."
    return Outcome(
        image, failed, reason, bool(before.parts.intersection(failed)), bool(crashes_of_image), before.unasked
    )


def recall(image: Image, settings: Settings, products: Products) -> Outcome:
    """What became of an image in the run that wrote its status; by its files alone if there is none."""
    status = read_sidecar(status_file(settings.output_dir, image))
    said = status.get("Failed")
    failed: set[str] = set()
    if status.get("Status", "done") != "done":
        failed = {str(part) for part in said} if isinstance(said, list) and said else set(products.parts)
    for part in products.parts:
        if not is_finished(image, settings, products, (part,)):
            failed.add(part)
    left = tuple(part for part in products.parts if part in failed)
    if not left:
        return Outcome(image)
    reason = str(status.get("Error") or "")
    if not reason:
        interrupted = status.get("Status") == "unfinished"
        reason = "the last run was interrupted: run it again." if interrupted else "it is not finished."
    return Outcome(image, left, reason, status.get("EarlierResults") is True)


def record(outcome: Outcome, settings: Settings, products: Products, run_uuid: str) -> None:
    """Write the status of an image that failed, and remove what the run noted while it saved.

    Raises
    ------
    OSError
        If it can't be written.
    """
    status = status_file(settings.output_dir, outcome.image)
    try:
        if not outcome.done:
            current = [part for part in products.parts if part not in outcome.failed]
            more: dict[str, Any] = {"Error": outcome.error, "Failed": list(outcome.failed), "Parts": current}
            more |= {"EarlierResults": True} if outcome.earlier else {}
            write_status(status, run_uuid, "failed", **more)
    finally:
        notes = [saved_file(status, run_uuid, part) for part in PARTS]
        for note in notes:
            note.unlink(missing_ok=True)
        with suppress(OSError):
            # others are of other images, or crash files
            notes[0].parent.rmdir()


def record_refused(one: Refused, images: Sequence[Image], settings: Settings, run_uuid: str) -> list[str]:
    """Write the status of a refused image, and that what an earlier run left of it is not of this one.

    A participant or a session has no status as a whole: only those of its images have one that an earlier run
    left results of.

    Returns
    -------
    list of str
        The prefixes of the images of which there are results.

    Raises
    ------
    OSError
        If it can't be written.
    """
    folder, suffix = settings.output_dir / f"sub-{one.subject}", "_desc-inpainted_T1w.nii.gz"
    left = {path.name.removesuffix(suffix) for path in folder.glob(f"**/anat/sub-*{suffix}")}
    # those in template space have another entity; those that were run have a status of their own
    run = {image.prefix for image in images}
    left = {name for name in left if "_space-" not in name} - run
    names = {one.name} - run
    if one.whole:
        names = {name for name in left if f"{name}_".startswith(f"{one.name}_")}
        if one.name == f"sub-{one.subject}" and any(image.subject == one.subject for image in images):
            # its sessions are not affected
            names = {name for name in names if "_ses-" not in name}
    more = {"Error": one.reason, "Failed": list(PARTS)}
    for name in names:
        earlier = {"EarlierResults": True} if name in left else {}
        write_status(folder / "log" / f"{name}_status.json", run_uuid, "failed", **more, **earlier)
    return sorted(left & names)


def warnings_of(image: Image, settings: Settings, parts: Sequence[str]) -> list[str]:
    """What is unusual about an image, the masks given for it and its FLAIR, from sidecars of some parts."""
    warnings: list[str] = []
    for part, name in WARNED.items():
        stored = _sidecar(image, settings, name).get("QualityWarnings") if part in parts else None
        warnings += [str(warning) for warning in stored] if isinstance(stored, list) else []
    return list(dict.fromkeys(warnings))


def differences(image: Image, settings: Settings, current: dict) -> list[str]:
    """A warning if the run that made an inpainted image is another than one would be now, else nothing.

    Parameters
    ----------
    image : Image
    settings : Settings
    current : dict
        :func:`bids_inpaint.dataset.sidecars.provenance` of a run now.
    """
    out = others_than(image, settings, current)
    if not out:
        return []
    return [f"These results were made with {'; '.join(out)}: run without --reports-only to replace them."]


def others_than(image: Image, settings: Settings, current: dict) -> list[str]:
    """With what else an inpainted image was made than it would be now; the parameters are the same."""
    sidecar = _sidecar(image, settings)
    version = sidecar.get("SoftwareVersion", "unknown")
    out = (
        []
        if version == current["SoftwareVersion"]
        else [f"version {version}, not {current['SoftwareVersion']}"]
    )
    had = sidecar.get("Options")
    had = had if isinstance(had, dict) else {}
    options = current["Options"] | own_options(image)
    for name, value in options.items() if had else ():
        if had.get(name) != value:
            out.append(f"{name} {had.get(name, 'unknown')}, not {value}")
    out += [f"{name} {had[name]}, not the default" for name in had if name not in options]
    if not out and any(sidecar.get(n) != current.get(n) for n in ("ModelSHA256", "SecondPassModelSHA256")):
        out = ["another file of the network"]
    return out


def _sidecar(image: Image, settings: Settings, name: str = "desc-inpainted_T1w") -> dict:
    return read_sidecar(settings.output_dir / f"{prefix(image)}_{name}.json")
