"""What the group level reads of one finished image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint.dataset import masks
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import prefix
from bids_inpaint.dataset.results import fingerprint, lesion_rows, quality_of, run_of, volumes_of
from bids_inpaint.dataset.status import OPTIONAL
from bids_inpaint.errors import InputError
from bids_inpaint.imaging.metrics import hausdorff95, lesion_scores, tissue_dice
from bids_inpaint.io import images
from bids_inpaint.io.files import read_json
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.reports.ratings import Verdict
from bids_inpaint.space import WORKING_GRID, bounding_box

#: What results come from: label -> sidecar key, the result whose sidecar it is, what no key means
PROVENANCE = {
    "Version": ("SoftwareVersion", "desc-inpainted_T1w", "unknown"),
    "Network": ("Model", "desc-inpainted_T1w", "unknown"),
    "Second pass": ("SecondPassModel", "desc-inpainted_T1w", "none"),
    "Lesion threshold": ("LesionThreshold", "label-L_desc-inpaint_mask", "none"),
    "Smallest lesion (mm³)": ("LesionMinVolume", "label-L_desc-inpaint_mask", "none"),
    "Segmentation": ("Segmentation", "dseg", "none"),
}


@dataclass
class Measured:
    """What is known of one finished image.

    Attributes
    ----------
    image : Image
    volumes, tissue_dice, lesions : dict of float
        Columns of the tables; empty where there is nothing to compare with.
    referenced : bool
        Whether it has a reference mask.
    lesion_free : bool
        Whether its reference mask is empty.
    voxels : array of int
        Flat indices of the lesion voxels on the working grid, first axis fastest (as in files).
    provenance : dict of str
        By the labels of `PROVENANCE`.
    options : dict of str
        Options of the run by name; empty if they are unknown.
    notes : list of str
        Why something was left out.
    problem : str
        What could not be read.
    measures : dict of float
        Of quality.
    warnings : list of str
        What was unusual about it.
    run_uuid : str
        Of the run that made it; empty if unknown.
    fingerprint : str
        Of its results; ratings are about these.
    verdict : Verdict
        What people say of it.
    """

    image: Image
    volumes: dict[str, float] = field(default_factory=dict)
    tissue_dice: dict[str, float] = field(default_factory=dict)
    lesions: dict[str, float] = field(default_factory=dict)
    referenced: bool = False
    lesion_free: bool = False
    voxels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    provenance: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    run_uuid: str = ""
    fingerprint: str = ""
    verdict: Verdict = field(default_factory=Verdict)


@dataclass(frozen=True)
class Task:
    """An image, and where its results are.

    Attributes
    ----------
    image : Image
    out_dir : str
    template : str
    external_masks : bool
        Whether the group level has a folder of reference masks; those of the participant level are not
        looked at then.
    parts : frozenset of str
        Which of the `OPTIONAL` parts its last run made: what is there of others is of an earlier one.
    """

    image: Image
    out_dir: str
    template: str
    external_masks: bool
    parts: frozenset[str] = OPTIONAL


def measure(task: Task) -> Measured:
    """Read the results of one image; a file that can't be read is its `problem`."""
    out = Measured(task.image)
    try:
        _read(task, out)
    except InputError as error:
        out.problem = str(error)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        out.problem = (
            f"The results of {task.image.prefix} can't be read ({error}): run the participant level for it "
            "again."
        )
    return out


def _read(task: Task, out: Measured) -> None:
    native = f"{task.out_dir}/{prefix(task.image)}_"
    standard = f"{native}space-{task.template}_res-1_"
    sidecars = {name: _sidecar(f"{native}{name}") for _, name, _ in PROVENANCE.values()}
    core = sidecars["desc-inpainted_T1w"]
    options = core.get("Options")
    options = options if isinstance(options, dict) else {}
    if (last := options.get("Template", task.template)) != task.template:
        raise InputError(
            f"The results of {task.image.prefix} in {task.template} are not of its last run, which was in "
            f"{last}: run the group level with --template {last}, or the participant level again."
        )
    if sidecars["dseg"] and (reason := _why_other_tissues(sidecars["dseg"], core, options)):
        out.notes.append(f"its tissue maps are not used, as {reason}")
        sidecars["dseg"] = {}
    parts = task.parts
    if options.get("CompareSegmentation") is False:
        # statuses of earlier versions do not say which parts there are
        parts -= {"original"}
    out.provenance = {
        label: str(sidecars[name].get(key, missing)) for label, (key, name, missing) in PROVENANCE.items()
    }
    out.options = {str(name): str(value) for name, value in options.items()}
    out.volumes = volumes_of(lesion_rows(native), sidecars["dseg"], sidecars["label-L_desc-inpaint_mask"])
    out.measures, out.warnings = quality_of(core)
    out.warnings += quality_of(_sidecar(f"{native}desc-reference_T1w"))[1] if "reference" in parts else []
    out.run_uuid = run_of(Path(task.out_dir), task.image)
    out.fingerprint = fingerprint(Path(task.out_dir), task.image)
    lesions = _standard(f"{standard}label-L_desc-inpaint_mask.nii.gz")
    out.voxels = np.flatnonzero(lesions.ravel("F") > 0)
    reference = _reference(task, native, parts, out.notes)
    if reference is not None:
        out.referenced = True
        out.lesion_free = not reference.any()
        if sidecars["label-L_desc-inpaint_mask"].get("LesionsGiven"):
            out.notes.append("its lesion map is a given mask, and is not scored")
        else:
            out.lesions = _compare_lesions(native, reference)
    if sidecars["dseg"]:
        out.tissue_dice = _compare_tissues(native, standard, parts, out.notes)


def _compare_tissues(native: str, standard: str, parts: frozenset[str], notes: list[str]) -> dict[str, float]:
    """Dice of the tissues of both images with those of the reference; empty with a note if that is vain."""
    names = ("desc-original_dseg", "dseg", "desc-reference_dseg")
    paths = [f"{standard}{name}.nii.gz" for name in names]
    if not all(Path(path).exists() for path in paths):
        return {}
    if old := sorted({"original", "reference"} - parts):
        notes.append(
            f"its tissue maps are not compared, as those of its {' and '.join(old)} are not of its last run: "
            "run the participant level with --lesion-masks and --compare-segmentation for it"
        )
        return {}
    if len({str(_sidecar(f"{native}{name}").get("Segmentation")) for name in names}) > 1:
        notes.append("its tissue maps come from different segmentations")
        return {}
    original, inpainted, reference = map(_standard, paths)
    return {
        f"{tissue}_{name}": value
        for name, labels in (("original", original), ("inpainted", inpainted))
        for tissue, value in tissue_dice(labels, reference).items()
    }


def _why_other_tissues(dseg: dict[str, Any], core: dict[str, Any], options: dict[str, Any]) -> str:
    """Why tissue maps are not those of the inpainted image, from both sidecars; empty if they are."""
    if options.get("Segmentation") == "none":
        return "its last run had --segmentation none: run the participant level without that for it"
    if any(dseg.get(key) != core.get(key) for key in ("ModelSHA256", "SecondPassModelSHA256")):
        return "they are of another network's image: run the participant level for it again"
    return ""


def _reference(task: Task, native: str, parts: frozenset[str], notes: list[str]) -> np.ndarray | None:
    """The reference mask on the voxels of the T1w, boolean; None if there is none."""
    if task.external_masks:
        if not task.image.lesion_mask:
            return None
        brain, grid = images.read(f"{native}desc-brain_mask.nii.gz", dtype=None)
        world = None
        if task.image.lesion_space != "T1w":
            world = read_xfm(f"{native}from-{task.template}_to-T1w_mode-image_xfm.txt")
        return masks.read_lesions(task.image.lesion_mask, grid, task.image.path, world, brain > 0)
    path = f"{native}label-L_desc-reference_mask.nii.gz"
    if not Path(path).exists():
        return None
    if "reference" not in parts:
        notes.append(
            "its reference mask is not used, as it is not of its last run: run the participant level with "
            "--lesion-masks for it"
        )
        return None
    return images.read(path, dtype=None)[0] > 0


def _compare_lesions(native: str, reference: np.ndarray) -> dict[str, float]:
    values, grid = images.read(f"{native}label-L_desc-inpaint_mask.nii.gz", dtype=None)
    # files have the first axis fastest: transposed, all that follows runs along memory
    lesions, reference = values.T > 0, reference.T
    either = lesions | reference
    box = bounding_box(either, margin=1) if either.any() else (slice(0, 2),) * 3
    lesions, reference = (np.ascontiguousarray(m[box]) for m in (lesions, reference))
    scores = asdict(lesion_scores(lesions, reference, grid.voxel_volume))
    return scores | {"hausdorff95": hausdorff95(lesions, reference, tuple(grid.voxel_sizes[::-1]))}


def _standard(path: str) -> np.ndarray:
    """Labels on the working grid."""
    labels, grid = images.read(path, dtype=None)
    if not grid.same_as(WORKING_GRID):
        raise InputError(
            f"{path} is not on the working grid of this program: remove it and run this participant again."
        )
    return labels


def _sidecar(stem: str) -> dict[str, Any]:
    path = Path(f"{stem}.json")
    return read_json(path) if path.exists() and path.stat().st_size else {}


def compare_provenance(measured: Sequence[Measured]) -> dict[str, dict[str, list[str]]]:
    """What the results come from: label to value to the images that have it, the most common first.

    Of options, those that differ.
    """
    values: dict[str, list[str]] = {label: [m.provenance[label] for m in measured] for label in PROVENANCE}
    for name in sorted({name for m in measured for name in m.options}):
        column = [m.options.get(name, "none") if m.options else "unknown" for m in measured]
        if len(set(column)) > 1:
            values[f"Option {name}"] = column
    out: dict[str, dict[str, list[str]]] = {}
    for label, column in values.items():
        if set(column) == {PROVENANCE.get(label, ("",))[-1]}:
            continue
        images_of: dict[str, list[str]] = {}
        for one, value in zip(measured, column, strict=True):
            images_of.setdefault(value, []).append(one.image.prefix)
        out[label] = dict(sorted(images_of.items(), key=lambda item: -len(item[1])))
    return out
