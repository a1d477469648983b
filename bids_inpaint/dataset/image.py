"""A T1w to process, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bids_inpaint.dataset.edits import Edit


@dataclass(frozen=True)
class Image:
    """A T1w to process.

    Attributes
    ----------
    path : str
    uri : str
        BIDS URI relative to the raw dataset.
    entities : dict of str
        By short name in BIDS order: sub, ses, acq, ce, rec, run.
    brain_mask : str, optional
        Precomputed mask.
    xfm : tuple of two str, optional
        Precomputed affine, T1w to template and back.
    lesion_mask : str, optional
        Given lesion mask.
    lesion_space : {'T1w', 'template'}
        Where `lesion_mask` lies.
    sources : list of str
        BIDS URIs of what belongs to it.
    warnings : tuple of str
        Sentences on what the networks were not made for, as the dataset says it, and on given files of it
        that are not used.
    notes : tuple of str
        What may be worth to know besides.
    brain_mask_xfm : str, optional
        ITK text: takes images from the T1w to the space of `brain_mask`, where that is another.
    visits : tuple of str
        Prefixes of the images of the person that are processed together, this one among them, in the order of
        time; none if it is processed by itself.
    edit : Edit, optional
        The lesion map as a person corrected it.
    flair : tuple of two str, optional
        Path and BIDS URI of the FLAIR beside it that decides about lesions, too.
    kept : bool
        Whether its results are those of an earlier run, which stay as they are.
    added_to : tuple of str
        Prefixes of the visits of the person that are kept, if this one is added to them.
    """

    path: str
    uri: str
    entities: dict[str, str]
    brain_mask: str | None = None
    xfm: tuple[str, str] | None = None
    lesion_mask: str | None = None
    lesion_space: str = "T1w"
    sources: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    brain_mask_xfm: str | None = None
    visits: tuple[str, ...] = ()
    edit: Edit | None = None
    flair: tuple[str, str] | None = None
    kept: bool = False
    added_to: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Participant label."""
        return self.entities["sub"]

    @property
    def prefix(self) -> str:
        """File name up to the entities that derivatives add.

        Examples
        --------
        >>> Image("p", "u", {"sub": "01", "run": "2"}).prefix
        'sub-01_run-2'
        """
        return prefix_of(self.entities)

    @property
    def folder(self) -> str:
        """Folder of its derivatives, relative to the output folder."""
        parts = [f"{k}-{self.entities[k]}" for k in ("sub", "ses") if k in self.entities]
        return "/".join([*parts, "anat"])


def prefix_of(entities: dict[str, str]) -> str:
    return "_".join(f"{k}-{v}" for k, v in entities.items())
