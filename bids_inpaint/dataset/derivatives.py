"""The brain masks, affines and lesion masks that other datasets give to the images of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.dataset.matching import NATIVE, Dataset, File, Folder, Match, distinct, listed
from bids_inpaint.dataset.names import LESION_MASKS, Sidecars
from bids_inpaint.dataset.scan import Refused, T1w
from bids_inpaint.errors import InputError
from bids_inpaint.io.pointers import problem_of

if TYPE_CHECKING:
    from bids_inpaint.dataset.image import Image

#: Whether a file counts.
Filter = Callable[[File], bool]


def add_derivatives(
    pairs: list[tuple[Image, T1w]], dataset: Dataset, name: str, path: Path, template: str
) -> tuple[list[tuple[Image, T1w]], list[Refused], list[str]]:
    """Give images the brain masks and affines of a derivative.

    Parameters
    ----------
    pairs : list of tuple
        Images with their files.
    dataset : Dataset
    name, path : str, Path
        The derivative. What an image has already is not replaced.
    template : str

    Returns
    -------
    found : list of tuple
        The images that can be processed.
    refused : list of Refused
    warnings : list of str

    Raises
    ------
    InputError
        If nothing there is of an image.
    """
    folder = Folder(path, ("mask", "xfm"))
    matches = []
    for image, t1w in pairs:
        match = Match(t1w)
        transforms = to_mean(folder, t1w, dataset)
        _add_brain_mask(match, image, folder, dataset, name, transforms)
        _add_affines(match, image, folder, dataset, name, template, of_mean=bool(transforms))
        matches.append(match)
    if pairs and not any(m.changes or m.warnings or m.problem for m in matches):
        raise InputError(
            f"Derivatives {name}={path} have no desc-brain_mask.nii.gz and no affine to "
            f"{template} of any image to process: leave them out or check the path."
        )
    for key, what in (("brain_mask", "brain mask"), ("xfm", f"affine to {template}")):
        if any(key in match.changes for match in matches):
            for (image, _), match in zip(pairs, matches, strict=True):
                if key not in match.changes and getattr(image, key) is None and not match.warnings:
                    match.warnings.append(
                        f"{path} has no {what} of this image, though it has of others: one is made here."
                    )
    warnings = dataset.unowned(
        folder, "brain masks or affines", lambda f: _is_brain_mask(f) or _is_affine(f, template)
    )
    without = [match.t1w for match in matches if "xfm" not in match.changes]
    composite = {
        file.path
        for t1w in without
        for file in folder.of_session(t1w)
        if _is_transform(file, ("T1w", template), extension=".h5")
    }
    if composite:
        warnings.append(
            f"{path} has transforms that join an affine with a warp ({len(composite)}, such as "
            f"{min(composite).name}), which are not used: affines are made here."
        )
    return (*split(pairs, matches), warnings)


def split(
    pairs: Sequence[tuple[Image, T1w]], matches: Sequence[Match]
) -> tuple[list[tuple[Image, T1w]], list[Refused]]:
    """The images that go on, and those that don't."""
    kept, refused = [], []
    for (image, t1w), match in zip(pairs, matches, strict=True):
        if match.problem:
            refused.append(Refused(image.prefix, image.subject, match.problem))
        else:
            kept.append((match.applied(image), t1w))
    return kept, refused


def _is_brain_mask(file: File) -> bool:
    said = file.entities
    return (
        (said["suffix"], said.get("desc"), said.get("label")) == ("mask", "brain", None)
        and not file.path.name.endswith(".txt")
        and file.space() in NATIVE
        and not {"datatype", "task", "hemi"} & {*file.identity, *said}
    )


def _is_transform(file: File, *ends: tuple[str, str], extension: str = ".txt") -> bool:
    said = file.entities
    return (
        said["suffix"] == "xfm"
        and file.path.name.endswith(extension)
        # of points it is the inverse
        and said.get("mode", "image") == "image"
        and (file.space("from"), file.space("to")) in ends
    )


def to_mean(folder: Folder, t1w: T1w, dataset: Dataset) -> list[File]:
    """Transforms to the one image that some programs make of several T1w images, which the dataset notes.

    Its coordinates are its own, and what its derivatives call the space T1w.
    """
    transforms = [
        file
        for file in folder.of_session(t1w)
        if _is_transform(file, ("orig", "T1w")) and dataset.is_of_alone(file, t1w)
    ]
    dataset.to_means.setdefault(t1w.path, []).extend(file.path for file in transforms)
    return transforms


def _mean_of(t1w: T1w, dataset: Dataset) -> Path | None:
    """The transform of a T1w to a mean that lies elsewhere; that of a person's only T1w moves nothing."""
    from bids_inpaint.io.transforms import read_xfm

    for xfm in dataset.to_means[t1w.path]:
        try:
            if not np.allclose(read_xfm(xfm), np.eye(4), atol=1e-3):
                return xfm
        except InputError:
            # it may move anything
            return xfm
    return None


def _is_affine(file: File, template: str) -> bool:
    return _is_transform(file, ("T1w", template), (template, "T1w"))


def _choose(files: list[File], match: Match, what: str) -> File | None:
    """The one of several that fit an image; none, with a warning, if nothing tells them apart."""
    if not files:
        return None

    def rank(file: File) -> tuple:
        space = file.space()
        return -len(file.identity), "res" in file.entities, NATIVE.index(space) if space in NATIVE else 0

    first = min(map(rank, files))
    best = distinct(file for file in files if rank(file) == first)
    if len(best) == 1:
        return best[0]
    match.warnings.append(
        f"{best[0].path} and {best[1].path} both are its {what}, and neither is used: leave one there."
    )
    return None


def _add_brain_mask(
    match: Match, image: Image, folder: Folder, dataset: Dataset, name: str, transforms: list[File]
) -> None:
    t1w = match.t1w
    mean = _choose(transforms, match, "transform from its own space to that of the mask")
    usable, shared = [], []
    for mask in folder.of_session(t1w):
        if not (_is_brain_mask(mask) and mask.could_be_of(t1w)):
            continue
        if mask.space() != "orig" and transforms:
            # without one transform nobody knows where it lies
            usable += [mask] if mean else []
        elif dataset.is_of_alone(mask, t1w):
            usable.append(mask)
        elif dataset.may_be_of(mask, t1w):
            shared.append(mask)
    for one in [] if usable else shared:
        match.warnings.append(
            f"{one.path} may be of any of {len(dataset.owners(one, t1w.subject))} T1w images of the "
            "participant, and is not used: give it the entities of its T1w, or add "
            "from-orig_to-T1w_mode-image_xfm.txt of each."
        )
    chosen = _choose(usable, match, "brain mask")
    if chosen and image.brain_mask:
        match.warnings.append(f"{chosen.path} is not used, as {image.brain_mask} is used instead.")
    elif chosen:
        xfm = mean if chosen.space() != "orig" else None
        match.changes["brain_mask"] = str(chosen.path)
        match.changes["brain_mask_xfm"] = str(xfm.path) if xfm else None
        match.use(name, [chosen, *([xfm] if xfm else [])])


def _add_affines(
    match: Match,
    image: Image,
    folder: Folder,
    dataset: Dataset,
    name: str,
    template: str,
    of_mean: bool,
) -> None:
    t1w = match.t1w
    usable = []
    for affine in folder.of_session(t1w):
        if not _is_affine(affine, template):
            continue
        if dataset.is_of_alone(affine, t1w) and not of_mean:
            usable.append(affine)
        elif dataset.may_be_of(affine, t1w):
            many = len(dataset.persons[t1w.subject])
            why = f"may be of the mean or any of {many} T1w images of the participant, and is not used: "
            why += "give it the entities of its T1w"
            if of_mean:
                why = "starts from the mean of the T1w images and is not used: an affine is made here"
            match.warnings.append(f"{affine.path} {why}.")
    ends = (("T1w", template), (template, "T1w"))
    pair = [_choose([f for f in usable if _is_transform(f, end)], match, "affine") for end in ends]
    forward, back = pair
    if forward and back and image.xfm:
        match.warnings.append(f"{forward.path} is not used, as {image.xfm[0]} is used instead.")
    elif forward and back:
        match.changes["xfm"] = (str(forward.path), str(back.path))
        match.use(name, [forward])
        match.problem = match.problem or problem_of(back.path)
    elif only := forward or back:
        match.warnings.append(f"{only.path} is not used, as its inverse is not there.")


def add_lesion_masks(
    pairs: list[tuple[Image, T1w]], dataset: Dataset, path: Path, template: str, needed: bool
) -> tuple[list[tuple[Image, T1w]], list[Refused], list[str]]:
    """Give images the lesion masks of a folder.

    Parameters
    ----------
    pairs : list of tuple
        Images with their files.
    dataset : Dataset
    path : Path
    template : str
        Masks in its space are used where there is none in that of the T1w.
    needed : bool
        Whether an image without a mask is refused.

    Returns
    -------
    found : list of tuple
        The images that can be processed.
    refused : list of Refused
    warnings : list of str
    """
    folder = Folder(path, ("mask", "roi", "xfm"))
    sidecars = Sidecars(path)
    matches = []
    for image, t1w in pairs:
        match = Match(t1w)
        to_mean(folder, t1w, dataset)
        usable, unused = sorted_out(folder, t1w, dataset, template, sidecars, _is_meant)
        native = [file for file in usable if file.space() in NATIVE]
        chosen = distinct(native or usable)
        if native:
            unused += [
                f"{f.path} (as {native[0].path.name} is used instead)" for f in usable if f not in native
            ]
        if len(chosen) > 1:
            match.problem = (
                f"{chosen[0].path} and {chosen[1].path} both are lesion masks of {image.prefix}: "
                "leave one of them there, or one that joins them."
            )
        elif chosen:
            match.changes["lesion_mask"] = str(chosen[0].path)
            match.changes["lesion_space"] = "T1w" if native else "template"
            match.use(LESION_MASKS, chosen)
        elif needed:
            others = unused + [
                f"{file.path} (by its name it is of no T1w)"
                for file in folder.of_session(t1w)
                if _is_meant(file) and not dataset.owners(file, t1w.subject)
            ]
            remedy = "give it one on its T1w" if others else "add an empty mask if it has no lesion"
            match.problem = (
                f"{path} has no lesion mask (label-L_mask.nii.gz or label-lesion_mask.nii.gz) of "
                f"{image.prefix}{not_used(others)}: {remedy}, or leave the participant out."
            )
        if unused:
            match.notes.append(f"Masks that are not used{not_used(unused, ':')}.")
        matches.append(match)
    warnings = dataset.unowned(folder, "masks", _is_meant)
    return (*split(pairs, matches), warnings)


def not_used(unused: list[str], joint: str = " but") -> str:
    """Files that are not used, as the end of a clause."""
    return f"{joint} {listed(unused)}" if unused else ""


def _is_meant(file: File) -> bool:
    """Whether a file may be meant as a lesion mask: all but brain masks, transforms and text."""
    said = file.entities
    return (
        said["suffix"] != "xfm"
        and not file.path.name.endswith(".txt")
        and (said.get("label"), said.get("desc")) != (None, "brain")
    )


def sorted_out(
    folder: Folder, t1w: T1w, dataset: Dataset, template: str, sidecars: Sidecars, counts: Filter
) -> tuple[list[File], list[str]]:
    """The lesion masks of a T1w among those that count, and the others of its name with the reasons."""
    usable, unused = [], []
    for file in folder.of_session(t1w):
        if not counts(file) or not dataset.may_be_of(file, t1w):
            continue
        owners = dataset.owners(file, t1w.subject)
        label = file.entities.get("label")
        if len(owners) > 1:
            reason = f"it may be of any of {len(owners)} T1w images: give it the entities of one"
        elif file.entities["suffix"] != "mask":
            reason = "its name doesn't end in _mask"
        elif not _is_lesion(label) and sidecars.of(file.path).get("Type") not in ("Lesion", "lesion"):
            reason = "by its label it holds no lesions, which are label-L, label-lesion or of the Type Lesion"
        elif file.space() not in (*NATIVE, template):
            reason = f"it lies in the space {file.space()}, not in that of the T1w or {template}"
        elif file.space() in ("T1w", "individual") and (mean := _mean_of(t1w, dataset)):
            reason = (
                f"by {mean} its space {file.space()} is that of the mean of several T1w images: resample it "
                "onto its own T1w and name it space-orig"
            )
        else:
            usable.append(file)
            continue
        unused.append(f"{file.path} ({reason})")
    return usable, unused


def _is_lesion(label: str | None) -> bool:
    return (label or "").lower() in ("l", "lesion", "lesions")
