"""Other ways of storing an image: each function makes one of the plain image and its white-matter level."""

from __future__ import annotations

import gzip
import io
import struct

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

Made = nib.Nifti1Image | bytes


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
    """Cut to the box of what is not 0."""
    spots = ndimage.find_objects((voxels(plain) > 0).astype(int))[0]
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


def turn(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    out = np.eye(4)
    out[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return out


def shift(*mm: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = mm
    return out


def as_it_is(plain, white) -> Made:
    return plain
