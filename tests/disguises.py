"""One head in many disguises: the same image in other encodings, and what a run must make of each.

``python tests/disguises.py DATA BIDS`` writes a dataset with a participant for each disguise. After a run of the
app on it, with its messages in a file, ``python tests/outcomes.py BIDS OUT LOG`` prints what came out.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from helpers import write_dataset
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

Made = nib.Nifti1Image | bytes


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
    pack: Callable[[bytes], bytes] | None = partial(gzip.compress, compresslevel=1, mtime=0)
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
            store = bids / ".store" / linked.name
            store.parent.mkdir(exist_ok=True)
            shutil.move(linked, store)
            linked.symlink_to(store)


def clean(data: np.ndarray, affine: np.ndarray, kind: type = nib.Nifti1Image) -> nib.Nifti1Image:
    """An image with one affine, in mm."""
    image = kind(data, affine, dtype=data.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    return image


def voxels(plain: nib.Nifti1Image) -> np.ndarray:
    """Its values as float64."""
    return np.asarray(plain.dataobj, np.float64)


def stored(raw: np.ndarray, plain: nib.Nifti1Image, slope: float = 1, inter: float = 0) -> bytes:
    """A file of these raw values that claims this slope and offset."""
    return patched(clean(raw, plain.affine), 112, "ff", slope, inter)


def patched(image: nib.Nifti1Image, offset: int, kind: str, *values) -> bytes:
    """A file with some bytes of the header changed."""
    out = bytearray(image.to_bytes())
    struct.pack_into("<" + kind, out, offset, *values)
    return bytes(out)


def of_type(dtype, plain, white) -> Made:
    return clean(voxels(plain).astype(dtype), plain.affine)


def scaled(gain, offset, plain, white) -> Made:
    """Float32 values times a factor, which may depend on white matter, and shifted."""
    factor, shift = (f(white) if callable(f) else f for f in (gain, offset))
    return clean((voxels(plain) * factor + shift).astype(np.float32), plain.affine)


def few_bits(dtype, plain, white) -> Made:
    """All values in 8 bits, with a slope and an offset."""
    low = np.iinfo(dtype).min
    v = voxels(plain)
    slope = max(v.max() / 255, 1)
    return stored((np.round(v / slope) + low).astype(dtype), plain, slope, -low * slope)


def sloped(slope, inter, claim, plain, white) -> Made:
    """int16 values v that stand for ``slope * v + inter``; the header claims `claim` instead, if given."""
    raw = np.round((voxels(plain) - inter) / slope).astype(np.int16)
    return stored(raw, plain, *(claim or (slope, inter)))


def surrounded(value, dtype, width, plain, white) -> Made:
    """With slices of one value on all sides."""
    widths = np.broadcast_to(width, 3)
    affine = plain.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ widths
    return clean(np.pad(voxels(plain).astype(dtype), [(w, w) for w in widths], constant_values=value), affine)


def padded(plain, white) -> Made:
    """In a cube of 512 zeros along each edge; 256 at every second voxel."""
    edge = 512 if max(plain.header.get_zooms()) < 1.5 else 256
    return surrounded(0, np.int16, np.array([(edge - n) // 2 for n in plain.shape]), plain, white)


def background(value, plain, white) -> Made:
    """Another value where a stripped image is 0; in slices around a full head."""
    v = voxels(plain).astype(np.float32)
    if (v == 0).mean() < 0.5:
        return surrounded(value, np.float32, 8, plain, white)
    outside = v == 0
    # zeros inside the brain stay what they are
    labels, _ = ndimage.label(outside)
    v[labels == labels[0, 0, 0]] = value
    return clean(v, plain.affine)


def inside(plain, white) -> np.ndarray:
    """Indices of voxels in white matter, shape (n, 3)."""
    v = voxels(plain)
    wm = (v > 0.85 * white) & (v < 1.15 * white)
    deep = ndimage.binary_erosion(wm)
    centre = np.array(v.shape) // 2
    index = np.argwhere(deep)
    near = np.abs((index - centre) * plain.header.get_zooms()[:3]).max(1) < 45
    return index[near] if near.any() else index


def spiked(count, value, dtype, plain, white) -> Made:
    """Some voxels of one value in the brain; with a fraction, of all voxels."""
    v = voxels(plain).astype(dtype)
    rng = np.random.default_rng(1)
    if count < 1:
        v.flat[rng.choice(v.size, int(count * v.size), replace=False)] = value
    else:
        index = inside(plain, white)
        v[tuple(index[rng.choice(len(index), count, replace=False)].T)] = value
    return clean(v, plain.affine)


def levels(plain, white) -> Made:
    v = np.clip(voxels(plain) / (1.2 * white), 0, 1)
    return clean(np.round(v * 7).astype(np.uint8), plain.affine)


def cropped(margin, plain, white) -> Made:
    """Cut to the box of what is bright."""
    spots = ndimage.find_objects((voxels(plain) > 0.2 * white).astype(int))[0]
    box = [slice(max(s.start - margin, 0), s.stop + margin) for s in spots]
    return plain.slicer[tuple(box)]


def without_air(below, plain, white) -> Made:
    """A full head with air set to 0, cut off so many mm below the vertex."""
    v = voxels(plain)
    labels, _ = ndimage.label(v > 0.12 * white)
    count = np.bincount(labels.ravel())
    count[0] = 0
    head = ndimage.binary_fill_holes(ndimage.binary_closing(labels == count.argmax(), iterations=2))
    image = clean((v * head).astype(np.int16), plain.affine)
    # the vertex is the highest slice that is more than some noise
    top = np.flatnonzero(head.sum((0, 1)) > 20)[-1]
    cut = max(0, int(top - below / plain.header.get_zooms()[2]))
    return image.slicer[:, :, cut:]


def turned(codes, plain, white) -> Made:
    """Voxels in another order, in the same place."""
    to = ornt_transform(io_orientation(plain.affine), axcodes2ornt(codes))
    data = np.ascontiguousarray(nib.apply_orientation(np.asarray(plain.dataobj), to))
    return clean(data, plain.affine @ inv_ornt_aff(to, plain.shape))


def moved(world, plain, white) -> Made:
    return clean(np.asarray(plain.dataobj), world @ plain.affine)


def sheared(plain, white) -> Made:
    """The same world through a lattice that is no box, which an sform alone can say."""
    shear = np.eye(4)
    shear[0, 1], shear[1, 2] = 0.06, -0.04
    centre = plain.affine @ [*(np.array(plain.shape) / 2), 1]
    shear[:3, 3] = centre[:3] - shear[:3, :3] @ centre[:3]
    affine = shear @ plain.affine
    voxel = np.linalg.inv(plain.affine) @ affine
    v = voxels(plain)
    data = ndimage.affine_transform(v, voxel[:3, :3], voxel[:3, 3], order=3)
    data = np.clip(np.round(data), 0, v.max()) * (ndimage.affine_transform(
        (v > 0).astype(np.float32), voxel[:3, :3], voxel[:3, 3], order=1) > 0.5)  # fmt: skip
    image = nib.Nifti1Image(data.astype(np.int16), affine)
    image.set_qform(None, 0)
    image.set_sform(affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    return image


def forms(qform, sform, plain, white) -> Made:
    """With these codes; 0 for none."""
    image = clean(np.asarray(plain.dataobj), plain.affine)
    image.set_qform(plain.affine if qform else None, qform)
    image.set_sform(plain.affine if sform else None, sform)
    return image


def codes_zero(codes, plain, white) -> Made:
    """Voxels in some order, with no word on where they are."""
    return patched(turned(codes, plain, white), 252, "hh", 0, 0)


def forms_disagree(plain, white) -> Made:
    image = forms(1, 2, plain, white)
    other = plain.affine.copy()
    other[:3, 3] += (0, 10, 0)
    image.set_qform(other, 1)
    return image


def zero_sform(plain, white) -> Made:
    return patched(forms(1, 1, plain, white), 280, "12f", *[0.0] * 12)


def long_quaternion(sform, plain, white) -> Made:
    """A quaternion that is a hair longer than 1."""
    image = forms(1, sform, plain, white)
    b, c, d = (float(image.header[f"quatern_{k}"]) for k in "bcd")
    longer = 1.0000008 / np.sqrt(b * b + c * c + d * d)
    return patched(image, 256, "fff", b * longer, c * longer, d * longer)


def in_unit(code, factor, plain, white) -> Made:
    """All lengths times a factor, under this code of a unit (1 m, 2 mm, 3 µm, 0 unknown; seconds)."""
    affine = np.diag([factor] * 3 + [1]) @ plain.affine
    return patched(clean(np.asarray(plain.dataobj), affine), 123, "B", code + 8)


def swapped(plain, white) -> Made:
    image = clean(np.asarray(plain.dataobj), plain.affine)
    return nib.Nifti1Image(image.dataobj, None, image.header.as_byteswapped(">"))


def more_axes(count, plain, white) -> Made:
    return clean(np.asarray(plain.dataobj).reshape(plain.shape + (1,) * count), plain.affine)


def extended(plain, white) -> Made:
    image = clean(np.asarray(plain.dataobj), plain.affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    return image


def named_gzip(content: bytes) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile("another name.nii", "wb", 1, file) as packed:
        packed.write(content)
    return file.getvalue()


def gzip_members(content: bytes) -> bytes:
    """As bgzip and parallel packers write it: many small files in a row."""
    size = 65_280
    return b"".join(gzip.compress(content[i : i + size], 1) for i in range(0, len(content), size))


def _turn(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    out = np.eye(4)
    out[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return out


def _shift(*mm: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = mm
    return out


def _as_it_is(plain, white) -> Made:
    return plain


#: Nothing silently wrong: as the plain image, or a word on it.
HONEST = "same|warned|refused"
_VALUES = r"intensit|negative|background|offset|contrast|values"
_UNIT = r"unit|extent|size|mm|metre|meter"
P = partial
PLAIN = Disguise("Plain", _as_it_is, short=True)
DISGUISES = (
    PLAIN,
    # the same file again: whatever differs here is chance
    Disguise("Again", _as_it_is, dice=1.0),
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
    Disguise("InterNan", P(sloped, 1, 0, (1, np.nan)), HONEST, "slope|inter|scal|cannot be read", holds=False),
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
    Disguise("Spikes", P(spiked, 20, 32767, np.int16), short=True),
    Disguise("OneSpike", P(spiked, 1, 1e6, np.float32)),
    Disguise("Salt", P(spiked, 0.001, 65535, np.uint16), HONEST, "bright|spike|outlier|intensit|values"),
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
    *(Disguise(codes, P(turned, codes), short=codes == "PIR") for codes in ("RAS", "LPI", "PIR", "ASL", "SAR")),
    Disguise("Oblique15", P(moved, _turn(15)), world=_turn(15)),
    Disguise("Shift300", P(moved, _shift(300, -300, 300)), world=_shift(300, -300, 300)),
    Disguise("Sheared", sheared, dice=0.95, tolerance=0.05, short=True),
    # ---- qform and sform
    Disguise("SformOnly", P(forms, 0, 1)),
    Disguise("QformOnly", P(forms, 1, 0)),
    Disguise("Codes24", P(forms, 2, 4)),
    Disguise("Codes42", P(forms, 4, 2)),
    Disguise("Codes00", P(codes_zero, "LAS"), "warned", "left and right|left or right", world=None, short=True),
    # it comes out mirrored, and nobody can know
    Disguise("Codes00RAS", P(codes_zero, "RAS"), "warned", "left and right|left or right", world=None,
             holds=False),
    Disguise("FormsDisagree", forms_disagree, "warned|refused", "qform|sform"),
    Disguise("ZeroSform", zero_sform, HONEST, "sform|affine|orientation|voxel size", holds=False),
    Disguise("Quaternion", P(long_quaternion, 1), short=True),
    Disguise("QuaternionAlone", P(long_quaternion, 0), "same|refused", "quaternion|qform|orientation",
             holds=False),
    # ---- units
    Disguise("Metre", P(in_unit, 1, 1e-3)),
    Disguise("Micron", P(in_unit, 3, 1e3)),
    Disguise("UnknownUnit", P(in_unit, 0, 1)),
    Disguise("NotMicron", P(in_unit, 3, 1), "warned|refused", _UNIT, holds=False),
    Disguise("NotMetre", P(in_unit, 1, 1), "warned|refused", _UNIT, holds=False),
    Disguise("Centimetre", P(in_unit, 2, 10), "warned|refused", _UNIT, holds=False),
    Disguise("Inch", P(in_unit, 2, 1 / 25.4), "warned|refused", _UNIT, holds=False),
    # ---- files
    Disguise("Nifti2", lambda p, w: clean(np.asarray(p.dataobj), p.affine, nib.Nifti2Image)),
    Disguise("BigEndian", swapped),
    Disguise("Unzipped", _as_it_is, pack=None),
    Disguise("Gzip9", _as_it_is, pack=partial(gzip.compress, compresslevel=9)),
    Disguise("Gzip0", _as_it_is, pack=partial(gzip.compress, compresslevel=0)),
    Disguise("GzipName", _as_it_is, pack=named_gzip),
    Disguise("GzipMembers", _as_it_is, pack=gzip_members),
    Disguise("FourD", P(more_axes, 1)),
    Disguise("FiveD", P(more_axes, 2)),
    Disguise("Extension", extended),
    # ---- names and links
    *(Disguise(name, _as_it_is, entities=entities) for name, entities in
      (("Ses", "_ses-1"), ("Acq", "_acq-mprage"), ("Run01", "_run-01"), ("Rec", "_rec-norm"),
       ("AllEntities", "_ses-pre_acq-x_rec-norm_run-02"))),
    *(Disguise(f"Link{what.capitalize()}", _as_it_is, link=what) for what in ("file", "anat", "sub")),
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
