"""What the output folder says of a finished image: volumes, lesions, quality, and which run made it."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import PARTS, TABLE, prefix, status_file
from bids_inpaint.io.files import read_sidecar

#: What the ratings of an image are about, below the output folder.
_RATED = ("desc-brain_mask.nii.gz", "label-L_desc-inpaint_mask.nii.gz", "dseg.nii.gz")


def lesion_rows(stem: str) -> list[dict[str, str]]:
    """The table of lesions of an image, the largest first.

    Parameters
    ----------
    stem : str
        Path of its derivatives up to the entities that they add, with the underscore.

    Raises
    ------
    OSError, ValueError
        If it can't be read, or has a volume that is no number.
    """
    with open(f"{stem}{TABLE}", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        float(row["volume"])
    return rows


def volumes_of(rows: list[dict[str, str]], dseg: dict[str, Any], lesions: dict[str, Any]) -> dict[str, float]:
    """Volumes in ml, the number of lesions, and shares from 0 to 1.

    Parameters
    ----------
    rows : list of dict
        The table of lesions.
    dseg : dict
        Sidecar of the tissues in native space; empty if there are none.
    lesions : dict
        Sidecar of the lesion map in native space, which may have the interval of the true volume.
    """
    volumes = [float(row["volume"]) for row in rows]
    tissues = dseg.get("TissueVolumes", {})
    out = {"lesion_volume": sum(volumes) / 1000, "lesion_count": float(len(volumes))}
    if interval := lesions.get("LesionVolumeInterval"):
        low, high = interval
        out |= {"lesion_volume_low": float(low) / 1000, "lesion_volume_high": float(high) / 1000}
    out |= {f"{t.lower()}_volume": float(tissues[t]) / 1000 for t in ("GM", "WM", "CSF") if t in tissues}
    if {"gm_volume", "wm_volume", "csf_volume"} <= out.keys():
        out["brain_volume"] = out["gm_volume"] + out["wm_volume"]
        whole = out["brain_volume"] + out["csf_volume"]
        out |= {"brain_fraction": out["brain_volume"] / whole} if whole else {}
    if out.get("wm_volume"):
        out["lesion_share"] = out["lesion_volume"] / out["wm_volume"]
    return out


def quality_of(sidecar: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Measures and warnings in the sidecar of an inpainted T1w, as far as they are what they should be."""
    measures, warnings = sidecar.get("QualityMeasures"), sidecar.get("QualityWarnings")
    measures = measures if isinstance(measures, dict) else {}
    known = {str(k): float(v) for k, v in measures.items() if isinstance(v, int | float)}
    return known, [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def fingerprint(out_dir: Path, image: Image) -> str:
    """Twelve digits that change if the masks or tissues of an image do; a rating is about these.

    Parameters
    ----------
    out_dir : Path
    image : Image
    """
    digest = hashlib.sha256()
    for name in _RATED:
        path = out_dir / f"{prefix(image)}_{name}"
        digest.update(path.read_bytes() if path.is_file() else b"-")
    return digest.hexdigest()[:12]


def run_of(out_dir: Path, image: Image) -> str:
    """UUID of the run that wrote the results of an image; empty if nothing says it."""
    status = read_sidecar(status_file(out_dir, image))
    run_uuid, failed = str(status.get("RunUUID", "")), status.get("Failed")
    core_failed = not isinstance(failed, list) or PARTS[0] in failed
    if status.get("Status") != "done" and core_failed:
        return ""
    # somebody may have written anything
    return run_uuid if set(run_uuid) <= set("0123456789abcdef-") else ""
