"""The standard space: the brain image and tissue priors the affine and the segmentation need."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from bids_inpaint import images
from bids_inpaint.files import first_line
from bids_inpaint.space import WORKING_GRID, resample

DEFAULT = "MNI152NLin2009aSym"
TISSUES = ("CSF", "GM", "WM")
_NILEARN = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class TemplateFiles:
    """A template on the working grid, as files.

    Attributes
    ----------
    name : str
        TemplateFlow identifier.
    t1w : str
        Brain-only T1w image.
    mask : str
        Brain mask, 0 or 1.
    priors : dict of str
        Tissue probability (0-1) for CSF, GM and WM.
    """

    name: str
    t1w: str
    mask: str
    priors: dict[str, str]


def prepare(name: str, folder: str | os.PathLike) -> TemplateFiles:
    """Put a template onto the working grid in `folder`, once.

    Parameters
    ----------
    name : str
        TemplateFlow identifier. The default ships with nilearn; any other is looked up in
        ``TEMPLATEFLOW_HOME`` and fetched where the network allows.

    Raises
    ------
    images.InputError
        If the template can't be found or is not brain-sized at 1 mm in MNI coordinates.
    """
    folder = Path(folder) / f"tpl-{name}"
    files = TemplateFiles(
        name,
        str(folder / "T1w.nii.gz"),
        str(folder / "mask.nii.gz"),
        {t: str(folder / f"{t}.nii.gz") for t in TISSUES},
    )
    if all(Path(p).exists() for p in (files.t1w, files.mask, *files.priors.values())):
        return files
    sources = _bundled() if name == DEFAULT else _templateflow(name)
    folder.mkdir(parents=True, exist_ok=True)

    def on_working_grid(key: str) -> np.ndarray:
        data, grid = images.read(sources[key])
        return resample(data, grid, WORKING_GRID, order=1)

    t1w = on_working_grid("T1w")
    mask = on_working_grid("mask") > 0.5 if "mask" in sources else t1w > 0
    volume = mask.sum() / 1e6
    if not 0.8 < volume < 3:
        raise images.InputError(
            f"Template {name} has {volume:.2f} l of brain where the MNI brain lies: "
            "only templates in MNI152 coordinates of adults can be used (default: " + DEFAULT + ")."
        )
    priors = {t: on_working_grid(t) for t in TISSUES if t in sources}
    top = max(float(p.max()) for p in priors.values())
    priors = {t: np.clip(p / top, 0, 1) * mask for t, p in priors.items()}
    if "CSF" not in priors:
        priors["CSF"] = np.clip(mask - priors["GM"] - priors["WM"], 0, 1)
    images.save(files.t1w, (t1w * mask).astype(np.float32), WORKING_GRID, space_code=4)
    images.save(files.mask, mask.astype(np.uint8), WORKING_GRID, space_code=4)
    for tissue, path in files.priors.items():
        images.save(path, priors[tissue].astype(np.float32), WORKING_GRID, space_code=4)
    return files


def _bundled() -> dict[str, str]:
    # located without importing nilearn, which takes seconds
    nilearn = distribution("nilearn")
    names = {"T1w": "t1", "GM": "gm", "WM": "wm"}
    return {key: str(nilearn.locate_file(_NILEARN.format(n))) for key, n in names.items()}


def _templateflow(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    wanted: dict[str, dict] = {
        "T1w": {"suffix": "T1w", "desc": None},
        "mask": {"suffix": "mask", "desc": "brain"},
        **{t: {"suffix": "probseg", "label": t} for t in TISSUES},
    }
    try:
        with warnings.catch_warnings():
            # it announces a new, empty TEMPLATEFLOW_HOME, which it fills on import
            warnings.simplefilter("ignore", ResourceWarning)
            from templateflow import api
        for key, query in wanted.items():
            path = api.get(name, resolution=1, extension=".nii.gz", raise_empty=True, **query)
            path = path[0] if isinstance(path, list) else path
            if Path(path).stat().st_size == 0:
                raise FileNotFoundError(path)
            found[key] = str(path)
    except Exception as error:
        raise images.InputError(
            f"Template {name} was not found in TemplateFlow at "
            f"{os.environ.get('TEMPLATEFLOW_HOME', '~/.cache/templateflow')} ({first_line(error)}): "
            f"check its name, or fetch it there where there is network with 'templateflow get {name}'."
        ) from None
    return found
