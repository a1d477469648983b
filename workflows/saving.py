"""The figures of one image, and the writing of its results."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.bids import Image
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.figures import Contours, Difference, Flicker, LesionTable
from bids_inpaint.interfaces.quality import CheckQuality
from bids_inpaint.models import Model
from bids_inpaint.template import TemplateFiles
from bids_inpaint.workflows.outputs import (
    PARTS,
    USUAL,
    WARNINGS,
    Products,
    figures_of,
    metadata_of,
    names_of,
    part_of,
    status_file,
)


def init_outputs_wf(
    *,
    image: Image,
    template: TemplateFiles,
    model: Model,
    options: dict,
    output_dir: Path,
    run_uuid: str,
    products: Products = USUAL,
    reference: Model | None = None,
    second: Model | None = None,
    flair: Model | None = None,
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Build the figures of one image, and the writing of its derivatives.

    Each part (`PARTS`) is written as soon as everything of it is there, whatever becomes of the others.

    Parameters
    ----------
    image : Image
        Gives the names.
    template : TemplateFiles
    model : Model
    options : dict
        ``fill``, ``threshold`` and ``min_volume`` of the run, whether its lesions were ``given``, whether
        the second pass fills alone (``second_alone``), and its ``provenance``, for the sidecars.
    output_dir : Path
    run_uuid : str
        Of the run, for the status of the image.
    products : Products, optional
    reference : Model, optional
        The network that filled given lesions.
    second : Model, optional
        The network of the second pass.
    flair : Model, optional
        The network that made a FLAIR.

    Inputs
    ------
    conformed
        Background of the brain mask's figure.
    mask_method
        How the brain mask came about.
    input_warnings, mask_warnings, lesion_warnings, reference_warnings
        What is unusual about the T1w, and about the masks given for it.
    darkening
        Shown in the figure of the difference.
    flair, joint_mask
        Shown in the figure of the FLAIR, if there is one.
    xfm, inverse_xfm, table and all keys of :meth:`Products.native` and :meth:`Products.standard`
        The results.
    inpainted_volumes, inpainted_method, and the same of the other segmented images
        Tissue volumes, and what segmented, for the sidecars.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = ""
    names = names_of(image, template.name, products)
    figure_names = figures_of(image, products)
    told = {part: [f"{part}_volumes", f"{part}_method"] for part in products.segmented}
    shown = ["flair", "joint_mask"] if products.flair else []
    if products.reference:
        told["reference"] = [*told.get("reference", []), "reference_warnings"]
    later = [*shown, *chain.from_iterable(told.values())]
    fields = ["conformed", "darkening", "mask_method", *WARNINGS, *later, *names]
    inputnode = pe.Node(IdentityInterface(fields=fields), name="inputnode")
    registration = pe.Node(
        Flicker(before=template.t1w, labels=(template.name, "T1w")), name="registration", mem_gb=1
    )
    quality = pe.Node(
        CheckQuality(
            template=template.t1w,
            template_mask=template.mask,
            wm_prior=template.priors["WM"],
            gm_prior=template.priors["GM"],
            dataset_warnings=list(image.warnings),
        ),
        name="quality", mem_gb=1,
    )  # fmt: skip
    brain = pe.Node(Contours(colours=["#ff3030"]), name="brain", mem_gb=1)
    inpainting = pe.Node(
        Flicker(labels=("Original", "Inpainted"), shared_range=True), name="inpainting", mem_gb=1
    )
    difference = pe.Node(Difference(), name="difference", mem_gb=1)
    lesions = pe.Node(LesionTable(), name="lesions", mem_gb=0.2, run_without_submitting=True)
    every = names | figure_names
    metadata = metadata_of(image, template.name, model, reference, second, flair, options, products)
    saves, founds = {}, {}
    for part in products.parts:
        keys = [key for key in every if part_of(key) == part]
        known = ["mask_method", *told.get(part, [])]
        after = "" if part == PARTS[0] else f"_{part}"
        saves[part] = pe.Node(
            SaveDerivatives(
                keys=keys,
                out_dir=str(output_dir),
                names={key: every[key] for key in keys},
                metadata={key: metadata[key] for key in keys if key in metadata},
                status_file=str(status_file(output_dir, image)),
                part=part,
                parts=list(products.parts),
                run_uuid=run_uuid,
            ),
            name=f"save{after}", mem_gb=0.2, run_without_submitting=True,
        )  # fmt: skip
        inputs = [*known, "quality"] if part == PARTS[0] else known
        founds[part] = pe.Node(
            Function(function=_found, input_names=inputs, output_names=["out"]),
            name=f"found{after}", run_without_submitting=True,
        )  # fmt: skip
        workflow.connect([
            (inputnode, saves[part], [(key, key) for key in keys if key in names]),
            (inputnode, founds[part], [(name, name) for name in known]),
            (founds[part], saves[part], [("out", "found")]),
        ])  # fmt: skip
    save = saves[PARTS[0]]
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
        (inputnode, lesions, [("table", "table")]),
        (inputnode, quality, [(f, f) for f in ("preproc", "working_mask", "mask", "xfm", *WARNINGS)]),
        (quality, founds[PARTS[0]], [("quality", "quality")]),
        *((node, save, [("out_file", node.name)]) for node in
          (quality, registration, brain, inpainting, difference, lesions)),
    ])  # fmt: skip
    if products.flair:
        made = pe.Node(Flicker(labels=("T1w", "FLAIR")), name="flair", mem_gb=1)
        workflow.connect([
            (inputnode, made, [
                ("preproc", "before"), ("flair", "after"), ("working_mask", "mask_file"),
                ("joint_mask", "contour"),
            ]),
            (made, saves["flair"], [("out_file", "flair")]),
        ])  # fmt: skip
    if products.segmented:
        tissues = pe.Node(Contours(colours=["#00c8ff", "#ffd000"]), name="tissues", mem_gb=1)
        workflow.connect([
            (inputnode, tissues, [("inpainted", "background"), (("wm", _pair, "gm"), "masks")]),
            (tissues, save, [("out_file", "tissues")]),
        ])  # fmt: skip
    return workflow


def _pair(path, other):
    """White matter, and grey matter which lies beside it."""
    import os

    return [path, os.path.join(os.path.dirname(path), f"{other}.nii.gz")]


def _found(mask_method, quality=None, reference_warnings=None, **told):
    """What sidecars of a part say that is known only after the run.

    The T1w on its own voxels is skull-stripped if the raw one was.
    """
    quality = quality or {}
    stripped = {"SkullStripped": mask_method in ("stripped", "skipped")}
    found: dict = {
        "native_inpainted": {**stripped, **quality},
        "inpainted": quality,
        "native_reference": {
            **stripped,
            **({"QualityWarnings": reference_warnings} if reference_warnings else {}),
        },
    }
    for name in told:
        image, what = name.split("_")
        if what != "volumes":
            continue
        key = "dseg" if image == "inpainted" else f"{image}_dseg"
        found[key] = {"Segmentation": told[f"{image}_method"]}
        found[f"native_{key}"] = {**found[key], "TissueVolumes": told[name], "TissueVolumesUnits": "mm^3"}
    return found
