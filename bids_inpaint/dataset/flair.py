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
        warning = f"Its FLAIR is not used, so that one is made: {problem}"
    else:
        return replace(image, flair=(str(beside[0].path), f"bids:raw:{beside[0].relative}"))
    return replace(image, warnings=(*image.warnings, warning))
