"""One head in many disguises: the same image in other encodings, and what a run must make of each.

``python tests/disguises.py DATA BIDS`` writes a dataset with a participant for each disguise. After a run of
the app on it, with its messages in a file, ``disguise_outcomes.py BIDS OUT LOG`` prints what came out.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from disguising import (
    Made,
    as_it_is,
    background,
    clean,
    codes_zero,
    cropped,
    extended,
    few_bits,
    forms,
    forms_disagree,
    gzip_members,
    in_unit,
    levels,
    long_quaternion,
    more_axes,
    moved,
    named_gzip,
    of_type,
    padded,
    scaled,
    sheared,
    shift,
    sloped,
    spiked,
    stored,
    surrounded,
    swapped,
    turn,
    turned,
    without_air,
    zero_sform,
)
from helpers import write_dataset


def gzipped(content: bytes) -> bytes:
    """As the product itself packs."""
    return gzip.compress(content, 1, mtime=0)


@dataclass(frozen=True)
class Head:
    """A real image, and where lesions are painted into it: some controls have none to compare.

    Attributes
    ----------
    key : str
        First letter of the labels of its participants.
    path : str
        Below the folder of real data.
    white : float
        Intensity of white matter.
    lesions : tuple of (voxel, radius)
        Of the image as it is; radii in mm.
    """

    key: str
    path: str
    white: float
    lesions: tuple[tuple[tuple[int, int, int], float], ...]

    def plain(self, data: Path, step: int = 1) -> nib.Nifti1Image:
        """The undisguised image, as int16, at every so many voxels along each axis."""
        source = nib.load(data / self.path)
        values = source.get_fdata(dtype=np.float32)
        zooms = np.array(source.header.get_zooms()[:3])
        for centre, radius in self.lesions:
            index = np.indices(values.shape, sparse=True)
            square = sum(((i - c) * z) ** 2 for i, c, z in zip(index, centre, zooms, strict=True))
            values *= 1 - 0.35 * np.clip(radius + 0.5 - np.sqrt(square), 0, 1)
        return clean(np.round(values).astype(np.int16), source.affine).slicer[(slice(None, None, step),) * 3]


STRIPPED = Head(
    "s", "ds002748/sub-35/anat/sub-35_T1w.nii.gz", 1600.0,
    (((112, 150, 110), 6.0), ((176, 100, 110), 6.0), ((118, 92, 110), 5.0), ((176, 150, 112), 5.0)),
)  # fmt: skip
FULL = Head(
    "h", "ds000011/sub-01/anat/sub-01_T1w.nii.gz", 75.0,
    (((60, 100, 115), 6.0), ((112, 100, 115), 6.0), ((58, 78, 110), 5.0), ((68, 128, 105), 5.0)),
)  # fmt: skip
HEADS = (STRIPPED, FULL)


@dataclass(frozen=True)
class Disguise:
    """Another way of storing a head.

    Attributes
    ----------
    name : str
        Letters and digits: part of the label of the participant.
    make : callable
        From the plain image and its white-matter level to the disguised one, or to the bytes of its file.
    allowed : str
        ``same`` as the plain image, ``warned`` of, ``refused``, or several of them with ``|``.
    reason : str
        Regular expression of what a warning or a refusal must be about.
    change : callable
        From the white-matter level to factor and offset of the intensities.
    world : array or None, optional
        World change in mm, shape (4, 4); None where it follows from the two headers.
    dice, tolerance : float
        Of the lesion maps, and of intensities as a fraction of white matter; looser where values are rounded
        or resampled.
    short : bool
        Whether it belongs to the short set.
    """

    name: str
    make: Callable[[nib.Nifti1Image, float], Made]
    allowed: str = "same"
    reason: str = ""
    change: Callable[[float], tuple[float, float]] = lambda white: (1.0, 0.0)
    world: np.ndarray | None = field(default_factory=lambda: np.eye(4))
    dice: float = 0.98
    tolerance: float = 0.02
    short: bool = False
    heads: tuple[Head, ...] = HEADS
    entities: str = ""
    pack: Callable[[bytes], bytes] | None = gzipped
    link: str = ""
    # of the file itself; some can't be read back by nibabel, or no longer hold the head
    holds: bool = True

    def label(self, head: Head) -> str:
        """Label of its participant."""
        return head.key + self.name

    def file(self, head: Head) -> str:
        """Path of its T1w below the dataset."""
        ses = re.match(r"_(ses-[^_]+)", self.entities)
        sub = f"sub-{self.label(head)}"
        folder = f"{sub}/{ses[1]}/anat" if ses else f"{sub}/anat"
        return f"{folder}/{sub}{self.entities}_T1w.nii{'.gz' if self.pack else ''}"

    def write(self, bids: Path, head: Head, plain: nib.Nifti1Image) -> None:
        """Write its participant."""
        made = self.make(plain, head.white)
        content = made if isinstance(made, bytes) else made.to_bytes()
        path = bids / self.file(head)
        path.parent.mkdir(parents=True)
        path.write_bytes(self.pack(content) if self.pack else content)
        if self.link:
            # what a link leads to lies where no participant is looked for
            linked = {"file": path, "anat": path.parent, "sub": path.parent.parent}[self.link]
            store = bids / ".store" / self.label(head) / linked.name
            store.parent.mkdir(parents=True)
            shutil.move(linked, store)
            linked.symlink_to(store)


#: Nothing silently wrong: as the plain image, or a word on it.
HONEST = "same|warned|refused"
_VALUES = "intensit|negative|background|offset|below (0|zero)"
_SIDES = "left and right|left or right"
_UNIT = r"unit|extent|\bmm\b|metre|meter"
P = partial
PLAIN = Disguise("Plain", as_it_is, short=True)
DISGUISES = (
    PLAIN,
    # the same file again: whatever differs here is chance
    Disguise("Again", as_it_is, dice=1.0, short=True),
    # ---- data types
    Disguise("Uint8", P(few_bits, np.uint8), dice=0.95, tolerance=0.03),
    Disguise("Int8", P(few_bits, np.int8), dice=0.95, tolerance=0.03),
    *(Disguise(t.capitalize(), P(of_type, t))
      for t in ("uint16", "int32", "uint32", "int64", "float32", "float64")),
    # ---- slopes and offsets
    Disguise("SlopeHalf", P(sloped, 0.5, 0, None)),
    Disguise("SlopeNegative", P(sloped, -1, 0, None), short=True),
    Disguise("SlopeOffset", P(sloped, 1, 1000, None)),
    Disguise("SlopeTiny", lambda p, w: stored(np.asarray(p.dataobj), p, 1e-6, 0), change=lambda w: (1e-6, 0)),
    Disguise("SlopeZero", P(sloped, 1, 0, (0, 100))),
    Disguise("SlopeNan", P(sloped, 1, 0, (np.nan, np.nan))),
    Disguise("InterNan", P(sloped, 1, 0, (1, np.nan)), HONEST, "slope|inter|scal", holds=False),
    # ---- intensities
    Disguise("Micro", P(scaled, 1e-6, 0), change=lambda w: (1e-6, 0)),
    Disguise("Unit", P(scaled, lambda w: 0.5 / w, 0), change=lambda w: (0.5 / w, 0)),
    Disguise("Million", P(scaled, lambda w: 5e5 / w, 0), change=lambda w: (5e5 / w, 0)),
    Disguise("Minus1024", P(scaled, 1, -1024), HONEST, _VALUES, lambda w: (1, -1024), short=True),
    Disguise("Plus1000", P(scaled, 1, 1000), HONEST, _VALUES, lambda w: (1, 1000)),
    Disguise("ZScored", P(scaled, lambda w: 2.5 / w, -0.7), HONEST, _VALUES, lambda w: (2.5 / w, -0.7)),
    Disguise("Mp2rage", P(scaled, lambda w: 0.6 / w, -0.5), HONEST, _VALUES, lambda w: (0.6 / w, -0.5)),
    Disguise("Padding32768", P(surrounded, -32768, np.int16, 8), HONEST, _VALUES),
    Disguise("NanBackground", P(background, np.nan), short=True),
    Disguise("InfBackground", P(background, -np.inf), HONEST, "infinite|inf|NaN|finite"),
    Disguise("NanInBrain", P(spiked, 1, np.nan, np.float32), "refused", "NaN|finite"),
    Disguise("Spikes", P(spiked, 20, 32767, np.int16), "same|warned", "times as bright", short=True),
    Disguise("OneSpike", P(spiked, 1, 1e6, np.float32), "same|warned", "times as bright"),
    Disguise("Salt", P(spiked, 0.001, 65535, np.uint16), HONEST, "times as bright"),
    Disguise("Levels8", levels, "warned", "level|grey value|distinct|dynamic|coarse", holds=False),
    Disguise("Constant", lambda p, w: clean(np.full(p.shape, 7, np.int16), p.affine), "refused",
             "everywhere|constant", holds=False),
    # ---- field of view
    Disguise("Cube512", padded),
    Disguise("EmptySlices", P(surrounded, 0, np.int16, np.array([0, 0, 20]))),
    Disguise("Box", P(cropped, 2), heads=(STRIPPED,), short=True),
    Disguise("AirZeroed", P(without_air, 1000), heads=(FULL,), dice=0.95),
    Disguise("AirZeroedCut", P(without_air, 135), HONEST, "brain|skull|strip|head|cut|field of view",
             heads=(FULL,), dice=0.95),
    # ---- orientation and place
    *(Disguise(c, P(turned, c), short=c == "PIR") for c in ("RAS", "LPI", "PIR", "ASL", "SAR")),
    Disguise("Oblique15", P(moved, turn(15)), world=turn(15)),
    Disguise("Shift300", P(moved, shift(300, -300, 300)), world=shift(300, -300, 300)),
    Disguise("Sheared", sheared, dice=0.95, tolerance=0.05, short=True),
    # ---- qform and sform
    Disguise("SformOnly", P(forms, 0, 1)),
    Disguise("QformOnly", P(forms, 1, 0)),
    Disguise("Codes24", P(forms, 2, 4)),
    Disguise("Codes42", P(forms, 4, 2)),
    Disguise("Codes00", P(codes_zero, "LAS"), "warned", _SIDES, world=None, short=True),
    # it comes out mirrored, and nobody can know
    Disguise("Codes00RAS", P(codes_zero, "RAS"), "warned", _SIDES, world=None, holds=False),
    Disguise("FormsDisagree", forms_disagree, "warned|refused", "qform|sform"),
    Disguise("ZeroSform", zero_sform, HONEST, "sform|affine|orientation", holds=False),
    Disguise("Quaternion", P(long_quaternion, 1), short=True),
    Disguise("QuaternionAlone", P(long_quaternion, 0), "same|refused", "quaternion|qform|orientation",
             holds=False),
    # ---- units
    Disguise("Metre", P(in_unit, 1, 1e-3)),
    Disguise("Micron", P(in_unit, 3, 1e3)),
    Disguise("UnknownUnit", P(in_unit, 0, 1)),
    Disguise("NotMicron", P(in_unit, 3, 1), HONEST, _UNIT, holds=False),
    Disguise("NotMetre", P(in_unit, 1, 1), HONEST, _UNIT, holds=False),
    Disguise("Centimetre", P(in_unit, 2, 10), "warned|refused", _UNIT, holds=False),
    Disguise("Inch", P(in_unit, 2, 1 / 25.4), "warned|refused", _UNIT, holds=False),
    # ---- files
    Disguise("Nifti2", lambda p, w: clean(np.asarray(p.dataobj), p.affine, nib.Nifti2Image)),
    Disguise("BigEndian", swapped),
    Disguise("Unzipped", as_it_is, pack=None),
    Disguise("Gzip9", as_it_is, pack=partial(gzip.compress, compresslevel=9)),
    Disguise("Gzip0", as_it_is, pack=partial(gzip.compress, compresslevel=0)),
    Disguise("GzipName", as_it_is, pack=named_gzip),
    Disguise("GzipMembers", as_it_is, pack=gzip_members),
    Disguise("FourD", P(more_axes, 1)),
    Disguise("FiveD", P(more_axes, 2)),
    Disguise("Extension", extended),
    # ---- names and links
    *(Disguise(name, as_it_is, entities=entities) for name, entities in
      (("Ses", "_ses-1"), ("Acq", "_acq-mprage"), ("Run01", "_run-01"), ("Rec", "_rec-norm"),
       ("AllEntities", "_ses-pre_acq-x_rec-norm_run-02"))),
    *(Disguise(f"Link{what.capitalize()}", as_it_is, link=what) for what in ("file", "anat", "sub")),
)  # fmt: skip


def write_disguises(data: Path, bids: Path, chosen: list[tuple[Head, Disguise]], step: int = 1) -> Path:
    """A dataset with a participant for each of these, at every so many voxels along each axis."""
    write_dataset(bids)
    plain = {head: head.plain(data, step) for head in {head for head, _ in chosen}}
    for head, disguise in chosen:
        disguise.write(bids, head, plain[head])
    return bids


def choose(heads: tuple[Head, ...] = HEADS, short: bool = False) -> list[tuple[Head, Disguise]]:
    """Every head in every disguise of its own, or in those of the short set."""
    return [(h, d) for h in heads for d in DISGUISES if h in d.heads and (d.short or not short)]


def main() -> None:
    """Write the dataset."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, help="folder of the real datasets")
    p.add_argument("bids", type=Path, help="where the dataset is written")
    p.add_argument("--step", type=int, default=1, help="keep every so many voxels along each axis")
    p.add_argument("--heads", default="sh", help="s: the stripped one, h: the full one")
    p.add_argument("--short", action="store_true", help="the short set alone")
    args = p.parse_args()
    heads = tuple(head for head in HEADS if head.key in args.heads)
    write_disguises(args.data, args.bids, choose(heads, args.short), args.step)


if __name__ == "__main__":
    main()
