"""Which FLAIR belongs to which T1w."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.matching import listed
from bids_inpaint.dataset.scan import T1w, magnitudes
from bids_inpaint.io.pointers import problem_of

#: What a T1w and its FLAIR must share for a choice among several, if there is one.
_ALIKE = ("acq", "ce", "rec", "run")
#: Of an image without a FLAIR, with --flair.
_NONE = "It has no FLAIR: label-L_desc-joint_mask is by a synthetic one, which shows no more than the T1w."


def add_flair(
    image: Image, beside: Sequence[T1w], t1w: T1w, named: Collection[str] | None, wanted: bool
) -> Image:
    """The image with the FLAIR of its session.

    Of several, that is the one with the acq, ce, rec and run of the T1w, or the only one with its run.

    Parameters
    ----------
    image : Image
    beside : sequence of T1w
        The FLAIR images of the session.
    t1w : T1w
        Its file.
    named : collection of str, optional
        Paths of those that filters choose, relative to the dataset.
    wanted : bool
        Whether a FLAIR is to be used; one that is not is noted.
    """
    beside = list(magnitudes(beside))
    if not wanted:
        note = ("A FLAIR lies beside it and is not used: --flair uses it.",) if beside else ()
        return replace(image, notes=(*image.notes, *note))
    beside = [flair for flair in beside if named is None or flair.relative in named]
    others = [flair for flair in beside if not flair.well_named]
    if others:
        warning = (
            f"{listed(flair.path.name for flair in others)} is not used as its FLAIR: name it as BIDS asks, "
            f"with the labels of its folders ({_labels(t1w)}[_KEY-LABEL]_FLAIR.nii.gz)."
        )
        image = replace(image, warnings=(*image.warnings, warning))
        beside = [flair for flair in beside if flair.well_named]
    for keys in (_ALIKE, ("run",)):
        if len(beside) > 1:
            alike = [
                flair for flair in beside
                if all(flair.identity.get(key) == t1w.identity.get(key) for key in keys)
            ]  # fmt: skip
            beside = alike if len(alike) == 1 else beside
    if not beside:
        return image
    if len(beside) > 1:
        warning = (
            f"{listed(flair.path.name for flair in beside)} lie beside it, and none is used, so that one is "
            'made: choose one with --bids-filter-file, such as {"flair": {"acquisition": "3d"}}.'
        )
    elif problem := problem_of(beside[0].path):
        warning = f"Its FLAIR is not used, so that a synthetic one is made: {problem}"
    else:
        return replace(image, flair=(str(beside[0].path), f"bids:raw:{beside[0].relative}"))
    return replace(image, warnings=(*image.warnings, warning))


def tell_of_none(images: Sequence[Image]) -> list[Image]:
    """The images, with a note on each that has no FLAIR to use; a warning if others have one.

    Their lesion maps are by another network, and have the same names.
    """
    mixed = any(image.flair for image in images)

    def told(image: Image) -> Image:
        if mixed:
            return replace(image, warnings=(*image.warnings, _NONE))
        return replace(image, notes=(*image.notes, _NONE))

    return [image if image.flair else told(image) for image in images]


def _labels(t1w: T1w) -> str:
    return f"sub-{t1w.subject}" + (f"_ses-{t1w.session}" if t1w.session else "")
