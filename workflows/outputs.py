"""Which result goes into which file: the only place that knows the names of the outputs."""

from __future__ import annotations

from pathlib import Path

from nipype.pipeline import engine as pe

from bids_inpaint.bids import Image
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.figures import Contours, Difference, Flicker, LesionTable
from bids_inpaint.models import Model

#: Result -> (BIDS suffix with the entities that derivatives add, sidecar)
NATIVE: dict[str, tuple[str, dict]] = {
    "native_preproc": ("desc-preproc_T1w.nii.gz", {"SkullStripped": True}),
    "native_inpainted": ("desc-inpainted_T1w.nii.gz", {}),
    "brain_mask": ("desc-brain_mask.nii.gz", {"Type": "Brain"}),
    "native_mask": ("label-L_desc-inpaint_mask.nii.gz", {"Type": "Lesion"}),
    "native_probability": ("label-L_probseg.nii.gz", {}),
    "native_labels": ("desc-lesions_dseg.nii.gz", {}),
    "native_gm": ("label-GM_probseg.nii.gz", {}),
    "native_wm": ("label-WM_probseg.nii.gz", {}),
    "native_csf": ("label-CSF_probseg.nii.gz", {}),
    "native_dseg": ("dseg.nii.gz", {}),
}
STANDARD: dict[str, tuple[str, dict]] = {
    "preproc": ("desc-preproc_T1w.nii.gz", {"SkullStripped": True}),
    "inpainted": ("desc-inpainted_T1w.nii.gz", {"SkullStripped": True}),
    "working_mask": ("desc-brain_mask.nii.gz", {"Type": "Brain"}),
    "mask": ("label-L_desc-inpaint_mask.nii.gz", {"Type": "Lesion"}),
    "probability": ("label-L_probseg.nii.gz", {}),
    "gm": ("label-GM_probseg.nii.gz", {}),
    "wm": ("label-WM_probseg.nii.gz", {}),
    "csf": ("label-CSF_probseg.nii.gz", {}),
    "dseg": ("dseg.nii.gz", {}),
}
TABLE = "desc-lesions_dseg.tsv"
_COLUMNS = {
    "index": {"Description": "Value of the lesion in the labelled image"},
    "name": {"Description": "Name of the lesion"},
    "volume": {"Description": "Volume", "Units": "mm^3"},
    "x": {"Description": "World coordinate of the centroid, towards the right", "Units": "mm"},
    "y": {"Description": "World coordinate of the centroid, towards the front", "Units": "mm"},
    "z": {"Description": "World coordinate of the centroid, towards the top", "Units": "mm"},
    "contrast": {
        "Description": "Mean of inpainted minus original, as a fraction of the median of "
        "normal-appearing white matter"
    },
}
#: Figure -> suffix, in the order of the report
FIGURES = {
    "registration": "desc-registration_T1w.svg",
    "brain": "desc-brain_T1w.svg",
    "inpainting": "desc-inpainted_T1w.svg",
    "difference": "desc-difference_T1w.svg",
    "tissues": "desc-tissues_T1w.svg",
    "lesions": "desc-lesions_T1w.html",
}


def prefix(image: Image) -> str:
    """Path of an image's derivatives below the output folder, up to the entities they add."""
    return f"{image.folder}/{image.prefix}"


def expected(image: Image, template: str) -> list[str]:
    """Every file a finished image leaves below the output folder, but for the report."""
    names = _names(image, template)
    sidecars = [n.split(".")[0] + ".json" for n in names.values() if n.endswith(".nii.gz")]
    return sorted([*names.values(), *sidecars, *_figure_names(image).values()])


def _names(image: Image, template: str) -> dict[str, str]:
    stem = prefix(image)
    space = f"space-{template}_res-1"
    return {
        **{key: f"{stem}_{suffix}" for key, (suffix, _) in NATIVE.items()},
        **{key: f"{stem}_{space}_{suffix}" for key, (suffix, _) in STANDARD.items()},
        "xfm": f"{stem}_from-T1w_to-{template}_mode-image_xfm.txt",
        "inverse_xfm": f"{stem}_from-{template}_to-T1w_mode-image_xfm.txt",
        "table": f"{stem}_{TABLE}",
    }


def _figure_names(image: Image) -> dict[str, str]:
    folder = f"sub-{image.subject}/figures"
    return {key: f"{folder}/{image.prefix}_{suffix}" for key, suffix in FIGURES.items()}


def _metadata(image: Image, template: str, model: Model, options: dict) -> dict[str, dict]:
    names = _names(image, template)
    raw = [image.uri, *image.sources]
    out: dict[str, dict] = {}
    for key, (_, own) in NATIVE.items():
        out[key] = {**own, "Sources": raw}
    for key, (_, own) in STANDARD.items():
        out[key] = {
            **own,
            "Sources": [*raw, f"bids::{names['xfm']}"],
            "SpatialReference": f"https://templateflow.s3.amazonaws.com/tpl-{template}"
            f"/tpl-{template}_res-01_T1w.nii.gz",
            "Resolution": {"1": "1 mm isotropic, 182×218×182 voxels (FSL's MNI152 grid)"},
        }
    network = {"Model": model.name, "ModelSHA256": model.sha256}
    for key in ("native_inpainted", "inpainted"):
        out[key] |= network
    out["native_inpainted"]["Fill"] = options["fill"]
    found = network | {
        "LesionThreshold": options["threshold"],
        "LesionThresholdUnits": "fraction of the median of normal-appearing white matter",
        "LesionMinVolume": options["min_volume"],
        "LesionMinVolumeUnits": "mm^3",
    }
    for key in ("native_mask", "mask", "native_probability", "probability", "native_labels"):
        out[key] |= found
    out["native_labels"] |= _COLUMNS
    return out


def init_outputs_wf(
    *,
    image: Image,
    template: str,
    template_t1w: str,
    model: Model,
    options: dict,
    output_dir: Path,
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Build the figures of one image, and the writing of its derivatives after everything else.

    Parameters
    ----------
    image : Image
        Gives the names.
    template, template_t1w : str
        Name and image of the standard space.
    model : Model
    options : dict
        ``fill``, ``threshold`` and ``min_volume`` of the run, for the sidecars.
    output_dir : Path

    Inputs
    ------
    conformed
        Background of the brain mask's figure.
    mask_method
        How the brain mask came about.
    darkening
        Shown in the figure of the difference.
    xfm, inverse_xfm, table and all keys of `NATIVE` and `STANDARD`
        The results.
    """
    from nipype.interfaces.utility import IdentityInterface

    workflow = pe.Workflow(name=name)
    workflow.__desc__ = ""
    names = _names(image, template)
    figure_names = _figure_names(image)
    fields = ["conformed", "darkening", "mask_method", *names]
    inputnode = pe.Node(IdentityInterface(fields=fields), name="inputnode")
    registration = pe.Node(
        Flicker(before=template_t1w, labels=(template, "T1w")), name="registration", mem_gb=1
    )
    brain = pe.Node(Contours(colours=["#ff3030"]), name="brain", mem_gb=1)
    inpainting = pe.Node(
        Flicker(labels=("Original", "Inpainted"), shared_range=True), name="inpainting", mem_gb=1
    )
    difference = pe.Node(Difference(), name="difference", mem_gb=1)
    tissues = pe.Node(Contours(colours=["#00c8ff", "#ffd000"]), name="tissues", mem_gb=1)
    lesions = pe.Node(LesionTable(), name="lesions", mem_gb=0.2, run_without_submitting=True)
    save = pe.Node(
        SaveDerivatives(
            keys=[*names, *figure_names],
            out_dir=str(output_dir),
            names={**names, **figure_names},
            metadata=_metadata(image, template, model, options),
        ),
        name="save", mem_gb=0.2, run_without_submitting=True,
    )  # fmt: skip
    workflow.connect([
        (inputnode, registration, [("preproc", "after"), ("working_mask", "mask_file")]),
        (inputnode, brain, [("conformed", "background"), ("brain_mask", "masks")]),
        (inputnode, inpainting, [
            ("preproc", "before"), ("inpainted", "after"), ("working_mask", "mask_file"),
            ("mask", "contour"),
        ]),
        (inputnode, difference, [
            ("preproc", "background"), ("darkening", "darkening"), ("working_mask", "mask_file"),
            ("mask", "lesions"),
        ]),
        (inputnode, tissues, [("inpainted", "background"), (("wm", _pair, "gm"), "masks")]),
        (inputnode, lesions, [("table", "table")]),
        (inputnode, save, [(key, key) for key in names]),
        (inputnode, save, [(("mask_method", _stripped), "found")]),
        *((node, save, [("out_file", node.name)]) for node in
          (registration, brain, inpainting, difference, tissues, lesions)),
    ])  # fmt: skip
    return workflow


def _pair(path, other):
    """White matter, and grey matter which lies beside it."""
    import os

    return [path, os.path.join(os.path.dirname(path), f"{other}.nii.gz")]


def _stripped(method):
    """The T1w on its own voxels is skull-stripped if the raw one was."""
    return {"native_inpainted": {"SkullStripped": method in ("stripped", "skipped")}}
