"""Which inpainted images go into an export, what their sidecars say, and why others don't."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_inpaint.dataset.description import NAME
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import Products, names_of
from bids_inpaint.dataset.status import last_run
from bids_inpaint.errors import InputError
from bids_inpaint.io import images
from bids_inpaint.io.files import read_sidecar
from bids_inpaint.settings import Settings

#: Keys of the sidecar of an inpainted image that are taken over.
_TAKEN = (
    "SoftwareVersion", "Model", "ModelSHA256", "SecondPassModel", "SecondPassModelSHA256", "SecondPassFill",
    "Fill", "Options", "LesionEdit", "Sources",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """An inpainted image that can be exported.

    Attributes
    ----------
    relative : str
        Path of its T1w in the dataset.
    inpainted, mask : Path
        The image and its lesion map, both on the voxels of the T1w.
    provenance : dict
        What its sidecar says under the key ``Inpainting``.
    """

    relative: str
    inpainted: Path
    mask: Path
    provenance: dict[str, Any]


def result_of(image: Image, settings: Settings) -> Result | str:
    """The finished result of an image, or why there is none to export, as a sentence.

    Parameters
    ----------
    image : Image
    settings : Settings
    """
    again = "run the participant level for it"
    reason, _ = last_run(image, settings.output_dir)
    if reason:
        return f"{reason[:1].upper()}{reason[1:]}: {again}."
    names = names_of(image, settings.template, Products(()))
    inpainted, mask, table = (
        settings.output_dir / names[key] for key in ("native_inpainted", "native_mask", "table")
    )
    sidecar = inpainted.with_name(inpainted.name.removesuffix(".nii.gz") + ".json")
    if missing := [path for path in (inpainted, sidecar, mask, table) if not path.exists()]:
        return f"It is not finished, as {missing[0]} is missing: {again}."
    said = read_sidecar(sidecar)
    warnings = said.get("QualityWarnings")
    warnings = [str(one) for one in warnings] if isinstance(warnings, list) else []
    if warnings and not settings.include_warned:
        return (
            f"It has quality warnings ({' '.join(warnings)}): look at its report, and export it with "
            "--include-warned if it is good."
        )
    try:
        grids = [images.grid_of(images.load(path)) for path in (image.path, inpainted, mask)]
        volumes = _volumes(table)
    except InputError as error:
        return str(error)
    except (OSError, ValueError, LookupError) as error:
        return f"{table} can't be read ({error}): {again}."
    if not all(grid.same_as(grids[0]) for grid in grids):
        return f"{inpainted} is not on the voxels of {image.path}, which is another image now: {again}."
    provenance = {
        "SoftwareName": NAME,
        **{key: said[key] for key in _TAKEN if key in said},
        "LesionVolume": round(sum(volumes), 2),
        "LesionVolumeUnits": "mm^3",
        "LesionCount": len(volumes),
        "QualityWarnings": warnings,
    }
    return Result(image.uri.removeprefix("bids:raw:"), inpainted, mask, provenance)


def _volumes(table: Path) -> list[float]:
    """Volumes of the lesions in mm³."""
    with open(table, encoding="utf-8") as file:
        return [float(row["volume"]) for row in csv.DictReader(file, delimiter="\t")]
