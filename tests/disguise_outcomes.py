"""What a run made of each disguise, beside what it made of the plain image; printed as a table."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from disguises import HONEST, PLAIN, Disguise, Head, choose
from nitransforms.io.itk import ITKLinearTransform
from scipy import ndimage

from bids_inpaint.dataset.template import DEFAULT

#: Corners of the template's brain in mm, homogeneous, shape (4, 8).
CORNERS = np.array([[x, y, z, 1] for x in (-70, 70) for y in (-100, 70) for z in (-45, 75)]).T
#: What counts as the same place, in mm.
SHIFT = 0.5
#: How much looser the limits of sloppy runs are, which register with few steps: turning the axes of the same
#: image moves it by 1 mm.
SLOPPY = 4.0
_METRES = {1: 1e3, 2: 1.0, 3: 1e-3}


@dataclass(frozen=True)
class Outcome:
    """How the results of a disguise compare with those of the plain image.

    Attributes
    ----------
    finished : bool
        Whether there are results; the numbers below are about them.
    messages : list of str
        Every warning and error about it that the plain image hasn't.
    reason : bool
        Whether one of them is about the right thing.
    dice : float
        Of the lesion maps in world space; 1 if both are empty.
    shift : float
        How far the corners of the brain are apart after the registration, in mm.
    filled : float
        Mean difference of the inpainted values in the lesions, as a fraction of white matter.
    kept : float
        Share of the brain's voxels that differ by more than the tolerance of the disguise.
    volumes : tuple of two float
        Lesions of the plain and of the disguised image, in ml.
    """

    finished: bool
    messages: list[str]
    reason: bool
    dice: float = 0.0
    shift: float = np.inf
    filled: float = np.inf
    kept: float = 1.0
    volumes: tuple[float, float] = (np.nan, np.nan)

    def faults(self, disguise: Disguise, loose: float = 1) -> list[str]:
        """What isn't as it is with the plain image; for sloppy runs, limits are so many times as loose."""
        if not self.finished:
            return ["there are no results"]
        limits = {
            f"Dice of the lesions {self.dice:.3f} ({self.volumes[0]:.2f} ml, {self.volumes[1]:.2f} ml)": (
                (1 - self.dice) - loose * (1 - disguise.dice)
            ),
            f"corners {self.shift:.2f} mm apart": self.shift - loose * SHIFT,
            f"fillings differ by {self.filled:.3f} of white matter": (
                self.filled - loose * 1.5 * disguise.tolerance
            ),
            f"{100 * self.kept:.1f} % of the brain differ": self.kept - loose * 1e-3,
        }
        return [text for text, excess in limits.items() if not excess <= 1e-6]

    def accepted(self, disguise: Disguise, loose: float = 1) -> bool:
        """Whether it is what the disguise allows."""
        allowed = disguise.allowed.split("|")
        if not self.finished:
            return "refused" in allowed and self.reason
        same = not self.faults(disguise, loose)
        return ("same" in allowed and same) or ("warned" in allowed and self.reason)

    def __str__(self) -> str:
        said = "; ".join(self.messages)
        if not said:
            return "" if self.finished else "no results, and nothing said"
        return f"{'warned' if self.finished else 'refused'}: {said}"


def of(bids: Path, out: Path, log: str, head: Head, disguise: Disguise) -> Outcome:
    """The outcome of one participant of a run.

    Parameters
    ----------
    bids, out : Path
        Dataset and output folder.
    log : str
        What the run wrote to the terminal.
    """
    stem = _stem(out, head, disguise)
    finished = Path(f"{stem}_desc-inpainted_T1w.json").exists()
    messages = _messages(out, log, head, disguise)
    if disguise is not PLAIN:
        # what is said of the plain image, too, is no word on the disguise
        usual = {_gist(message) for message in _messages(out, log, head, PLAIN)}
        messages = [message for message in messages if _gist(message) not in usual]
    reason = bool(disguise.reason) and any(re.search(disguise.reason, m, re.IGNORECASE) for m in messages)
    reference = _stem(out, head, PLAIN)
    if not (finished and Path(f"{reference}_desc-inpainted_T1w.json").exists()):
        return Outcome(finished, messages, reason)
    return Outcome(finished, messages, reason, **_compare(bids, head, disguise, reference, stem))


def spoken(log: str, label: str) -> list[str]:
    """Warnings and errors of a run about a participant, without paths."""
    about = re.compile(rf"sub[-_]{label}(?![0-9A-Za-z])")
    lines = [line for line in log.splitlines() if about.search(line)]
    texts = [re.split(r"(?:error|warning|note):? ", line, maxsplit=1, flags=re.IGNORECASE) for line in lines]
    # names of files hold those of the disguises, which say nothing
    named = (re.sub(rf"^sub-{label}\w*: ", "", text[1]) for text in texts if len(text) > 1)
    nameless = (re.sub(r"\(details: .*\)|/\S*/", "", text) for text in named)
    return [re.sub(rf"sub[-_]{label}[\w.-]*", "the image", text).strip() for text in nameless]


def _messages(out: Path, log: str, head: Head, disguise: Disguise) -> list[str]:
    sidecar = Path(f"{_stem(out, head, disguise)}_desc-inpainted_T1w.json")
    written = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    return list(dict.fromkeys(spoken(log, disguise.label(head)) + written.get("QualityWarnings", [])))


def _gist(message: str) -> str:
    """A message without its numbers."""
    return re.sub(r"[-+]?\d[\d.,e+-]*", "", message)


def _stem(out: Path, head: Head, disguise: Disguise) -> str:
    return str(out / disguise.file(head)).rsplit("_T1w", 1)[0]


def affine_mm(image: nib.Nifti1Image) -> np.ndarray:
    """The affine of an image in mm, whatever unit its header names."""
    factor = _METRES.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return np.diag([factor] * 3 + [1]) @ image.affine


def sample(
    image: nib.Nifti1Image, plain: nib.Nifti1Image, world: np.ndarray, order: int = 0, outside: float = 0
) -> np.ndarray:
    """Values of a disguised image at the voxels of the plain one, as float64."""
    data = np.asarray(image.dataobj, np.float64).reshape(image.shape[:3])
    voxel = np.linalg.inv(affine_mm(image)) @ world @ plain.affine
    # lattices with the same points differ by rounding
    voxel = np.where(np.abs(voxel - np.round(voxel)) < 1e-3, np.round(voxel), voxel)
    shape = plain.shape[:3]
    return ndimage.affine_transform(data, voxel[:3, :3], voxel[:3, 3], shape, order=order, cval=outside)


def world_change(disguise: Disguise, made: nib.Nifti1Image, plain: nib.Nifti1Image) -> np.ndarray:
    """From a point of the plain head to that of the disguised one, shape (4, 4)."""
    return made.affine @ np.linalg.inv(plain.affine) if disguise.world is None else disguise.world


def holds(bids: Path, head: Head, disguise: Disguise) -> float:
    """Share of a head's bright voxels that a disguised file holds, where it has voxels."""
    plain, made = (nib.load(bids / d.file(head)) for d in (PLAIN, disguise))
    world = world_change(disguise, made, plain)
    exact = disguise.name != "Sheared"
    got = sample(made, plain, world, order=0 if exact else 1, outside=np.nan)
    gain, offset = disguise.change(head.white)
    v = plain.get_fdata()
    seen = (v > 0.5 * head.white) & ~np.isnan(got)
    away = np.abs(got - (gain * v + offset))[seen] / (abs(gain) * head.white)
    return float((away <= (disguise.tolerance if exact else 0.15)).mean()) if seen.any() else 0.0


def _compare(bids: Path, head: Head, disguise: Disguise, reference: str, stem: str) -> dict:
    plain, made = _input(bids / PLAIN.file(head)), _input(bids / disguise.file(head))
    before, after, brain = (
        nib.load(f"{s}_{name}.nii.gz")
        for s, name in (
            (reference, "label-L_desc-inpaint_mask"), (stem, "label-L_desc-inpaint_mask"),
            (reference, "desc-brain_mask"),
        )
    )  # fmt: skip
    # a header that can't be read is in place, or nothing would have been written
    world = np.eye(4) if made is None else world_change(disguise, made, plain)
    ours, theirs = before.get_fdata() > 0, sample(after, before, world) > 0
    volumes = [
        float((np.asarray(i.dataobj) > 0).sum() * abs(np.linalg.det(affine_mm(i)[:3, :3])) / 1e3)
        for i in (before, after)
    ]
    both = (ours & theirs).sum() * volumes[0] / max(ours.sum(), 1)
    xfms = [
        ITKLinearTransform.from_filename(f"{s}_from-T1w_to-{DEFAULT}_mode-image_xfm.txt").to_ras()
        for s in (reference, stem)
    ]
    apart = np.linalg.norm(((xfms[1] - world @ xfms[0]) @ CORNERS)[:3], axis=0)
    gain, offset = disguise.change(head.white)
    unit = abs(gain) * head.white
    results = [nib.load(f"{s}_desc-inpainted_T1w.nii.gz") for s in (reference, stem)]
    away = np.abs(sample(results[1], results[0], world) - (gain * results[0].get_fdata() + offset)) / unit
    # spikes and the like shall stay
    alike = np.ones(plain.shape, bool)
    if made is not None and disguise.holds:
        input_away = np.abs(sample(made, plain, world) - (gain * plain.get_fdata() + offset)) / unit
        alike = input_away <= disguise.tolerance
    where = (brain.get_fdata() > 0) & alike
    spot = ours & alike if (ours & alike).any() else where
    return {
        "dice": 2 * both / sum(volumes) if sum(volumes) else 1.0,
        "shift": float(apart.max()),
        "filled": float(away[spot].mean()) if spot.any() else np.inf,
        "kept": float((away[where] > 1.5 * disguise.tolerance).mean()) if where.any() else 1.0,
        "volumes": tuple(volumes),
    }


def _input(path: Path) -> nib.Nifti1Image | None:
    try:
        image = nib.load(path)
        np.asarray(image.dataobj)
        np.linalg.inv(image.affine)
    except Exception:  # nibabel refuses some disguises with whatever it hits
        return None
    return image


def table(bids: Path, out: Path, log: str, loose: float = 1) -> list[str]:
    """Lines of a markdown table of all disguises of a dataset."""
    lines = ["| head | disguise | expected | outcome | right |", "|---|---|---|---|---|"]
    for head, disguise in choose():
        if not (bids / disguise.file(head)).exists():
            continue
        outcome = of(bids, out, log, head, disguise)
        faults = outcome.faults(disguise, loose)
        found = "as plain" if not faults else ", ".join(faults)
        text = "; ".join(filter(None, [found if outcome.finished else "", str(outcome)[:300]]))
        expected = disguise.allowed if disguise.allowed != HONEST else "same, warned or refused"
        mark = "yes" if outcome.accepted(disguise, loose) else "**no**"
        kind = "stripped" if head.key == "s" else "full"
        lines.append(f"| {kind} | {disguise.name} | {expected.replace('|', ' or ')} | {text} | {mark} |")
    return lines


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("bids", type=Path, help="dataset that disguises.py wrote")
    p.add_argument("out", type=Path, help="output folder of a run on it")
    p.add_argument("log", type=Path, help="what that run wrote to the terminal")
    p.add_argument("--sloppy", action="store_true", help="that run was sloppy")
    args = p.parse_args()
    log = args.log.read_text(encoding="utf-8", errors="replace")
    print("\n".join(table(args.bids, args.out, log, SLOPPY if args.sloppy else 1)))


if __name__ == "__main__":
    main()
