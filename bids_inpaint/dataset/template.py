"""The standard space: the brain image and tissue priors the affine and the segmentation need."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from bids_inpaint import errors, options
from bids_inpaint.errors import first_line
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, resample

DEFAULT = options.TEMPLATE
TISSUES = ("CSF", "GM", "WM")
#: What is needed of a template: key to the end of its file's name, and to words on it.
_NEEDED = {
    "T1w": ("T1w", "T1w image"),
    "mask": ("desc-brain_mask", "brain mask"),
    **{t: (f"label-{t}_probseg", f"tissue probability map of {t}") for t in TISSUES},
}
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
    InputError
        If the template can't be found or used, or is not brain-sized at 1 mm in MNI coordinates.
    """
    if name != DEFAULT:
        _check_usable(name)
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
        raise errors.InputError(
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


def reference(name: str) -> str:
    """Path of the 1 mm T1w of a template in TemplateFlow, as ``tpl-X/tpl-X_res-01_T1w.nii.gz``.

    Some of its templates write the resolution ``1``, others ``01``.
    """
    return _needed(name).get("T1w") or f"tpl-{name}/tpl-{name}_res-01_T1w.nii.gz"


def _templateflow(name: str) -> dict[str, str]:
    """Files of a template in ``TEMPLATEFLOW_HOME``, fetched if needed."""
    needed = _needed(name)
    files_by_key = {key: _home() / path for key, path in needed.items()}
    if not all(map(_is_here, files_by_key.values())):
        error = _fetch(name)
        if missing := [path.name for path in files_by_key.values() if not _is_here(path)]:
            raise errors.InputError(
                f"Files of template {name} are not in {_home()} and can't be fetched ({error}): {missing[0]}"
                f"{' and others' if missing[1:] else ''}; where there is network, fetch them with "
                f"'templateflow get {name}'."
            )
    return {key: str(path) for key, path in files_by_key.items()}


def _check_usable(name: str) -> None:
    """Raise an InputError that says why a template can't be used, whatever is on this machine."""
    identifier = name.split(":")[0]
    files = _files(identifier)
    if cohorts := sorted({m[1] for f in files if (m := re.search(r"/cohort-(\d+)/", f))}, key=int):
        raise errors.InputError(
            f"Template {name} can't be used: {identifier} has cohorts ({', '.join(cohorts)}), which the "
            "names of the outputs could not tell apart; name a template without, such as "
            f"{_usable()}."
        )
    if not files or identifier != name:
        every = {n.split("/")[0].removeprefix("tpl-") for n in _skeleton()}
        close = get_close_matches(name.lower(), [n.lower() for n in every], n=3)
        meant = [n for n in sorted(every) if n.lower() in close]
        raise errors.InputError(
            f"Template {name} was not found: TemplateFlow has none of that name; name another (its "
            f"identifier alone), such as {', '.join(meant) or _usable()}."
        )
    needed = _needed(name)
    if missing := [words for key, (_, words) in _NEEDED.items() if key not in needed]:
        raise errors.InputError(
            f"Template {name} can't be used: TemplateFlow has no {', no '.join(missing)} of it at "
            f"resolution 1; name one that has all, such as {_usable()}."
        )


def _usable() -> str:
    """Names of templates that have all that is needed."""
    names = ("MNI152NLin2009cAsym", DEFAULT, "MNI152NLin2009aAsym")
    return ", ".join(name for name in names if not _NEEDED.keys() - _needed(name))


def _needed(name: str) -> dict[str, str]:
    """Paths in TemplateFlow of what is needed of a template, as far as it has them."""
    stem = re.escape(f"tpl-{name}/tpl-{name}")
    files = _files(name)
    files_by_key = {}
    for key, (suffix, _) in _NEEDED.items():
        matching = [f for f in files if re.fullmatch(rf"{stem}_res-0?1_{suffix}\.nii\.gz", f)]
        if matching:
            files_by_key[key] = matching[0]
    return files_by_key


def _files(name: str) -> list[str]:
    """Paths of a template's files that TemplateFlow has, or only this machine."""
    if not re.fullmatch(r"\w+", name):
        return []
    here = [p.relative_to(_home()).as_posix() for p in (_home() / f"tpl-{name}").rglob("*")]
    known = [n for n in _skeleton() if n.startswith(f"tpl-{name}/") and not n.endswith("/")]
    return known + sorted({*here} - {*known})


@lru_cache(maxsize=1)
def _skeleton() -> tuple[str, ...]:
    """All files that TemplateFlow has, as the installed package lists them."""
    # located without importing it, as that fills a folder
    path = distribution("templateflow").locate_file("templateflow/conf/templateflow-skel.zip")
    try:
        with zipfile.ZipFile(str(path)) as skeleton:
            return tuple(skeleton.namelist())
    except (OSError, zipfile.BadZipFile):
        return ()


def _home() -> Path:
    from platformdirs import user_cache_dir

    return Path(os.getenv("TEMPLATEFLOW_HOME", user_cache_dir("templateflow"))).absolute()


def _is_here(path: Path) -> bool:
    # TemplateFlow has empty files for what it did not fetch yet
    return path.is_file() and path.stat().st_size > 0


def _fetch(name: str) -> str:
    """Fetch what is needed of a template into ``TEMPLATEFLOW_HOME``, or say why not."""
    try:
        with warnings.catch_warnings():
            # it announces a new, empty TEMPLATEFLOW_HOME, which it fills on import
            warnings.simplefilter("ignore", ResourceWarning)
            from templateflow import api
        for key, (suffix, _) in _NEEDED.items():
            query = {"label": key} if key in TISSUES else {"desc": "brain" if key == "mask" else None}
            api.get(name, resolution=1, extension=".nii.gz", suffix=suffix.split("_")[-1], **query)
    except Exception as error:  # whatever it and the network hit
        return first_line(error)
    return "they were not fetched"
