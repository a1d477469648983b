"""Writers of small datasets and network cards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np


def write_card(path: Path, **changes) -> None:
    """Write the card of a network file."""
    card = {
        "software": "bids_inpaint",
        "name": path.stem,
        "blind": True,
        "intensity": "wm",
        "multiple": 8,
        "lesion_threshold": 0.1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card | changes))


def write_nifti(path: Path, data: np.ndarray, affine=None, **header) -> Path:
    """Write any array as NIfTI, however wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path


def write_dataset(root: Path, *names: str, data: np.ndarray | None = None) -> Path:
    """A raw BIDS dataset with the named images, as ``sub-01/anat/sub-01_T1w.nii.gz``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    )
    if data is None:
        data = np.arange(32**3, dtype=np.int16).reshape(32, 32, 32)
    for name in names:
        write_nifti(root / name, data)
    return root
