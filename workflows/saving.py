"""The figures of one image, and the writing of its results."""

from __future__ import annotations

from itertools import chain

from nipype.interfaces.utility import Function, IdentityInterface, Merge
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import (
    PARTS,
    USUAL,
    WARNINGS,
    Products,
    figures_of,
    names_of,
    part_of,
    status_file,
)
from bids_inpaint.dataset.sidecars import metadata_of
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.figures import Difference, Thumbnail, View, Zoom
from bids_inpaint.interfaces.quality import CheckQuality
from bids_inpaint.networks.selection import Networks
from bids_inpaint.reports import figures
from bids_inpaint.settings import Settings


def init_outputs_wf(
    *,
    image: Image,
    settings: Settings,
    networks: Networks,
    template: TemplateFiles,
    run_uuid: str,
    products: Products = USUAL,
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Build the figures of one image, and the writing of its derivatives.

    Each part (`PARTS`) is written as soon as everything of it is there, whatever becomes of the others.

    Parameters
    ----------
    image : Image
        Gives the names.
    settings : Settings
    networks : Networks
        For the sidecars.
    template : TemplateFiles
    run_uuid : str
        Of the run, for the status of the image.
    products : Products, optional

    Inputs
    ------
    t1w
        Shown from near at the lesions; that of the image by default.
    conformed
        Below the outline of the brain mask in the report.
    mask_method
        How the brain mask came about.
    input_warnings, mask_warnings, lesion_warnings, reference_warnings, flair_warnings
        What is unusual about the T1w, the masks given for it, and the FLAIR beside it.
    darkening
        Shown in the figure of the difference.
    edit
        Who edited the lesion map, and by how much, if somebody did.
    volume_interval
        Of the true volume of the lesions (mm³), for the sidecars, if it is known.
    flair_stripped
        Whether the FLAIR shows the brain alone, for its sidecar.
    flair, joint_mask
        Shown in the figure of the FLAIR, if there is one.
    xfm, inverse_xfm, table and all keys of :meth:`Products.native` and :meth:`Products.standard`
        The results.
    inpainted_volumes, inpainted_method, and the same of the other segmented images
        Tissue volumes, and what segmented, for the sidecars.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = ""
    facts = _facts(image, products)
    more = ["flair", "joint_mask"] if products.flair else []
    names = names_of(image, template.name, products)
    more += ["edit"] if image.edit else []
    more += ["darkening", "mask_method", "volume_interval", *WARNINGS]
    fields = ["conformed", *more, *chain.from_iterable(facts.values())]
    inputnode = pe.Node(IdentityInterface(fields=["t1w", *fields, *names]), name="inputnode")
    inputnode.inputs.t1w = image.path
    every = names | figures_of(image, products)
    metadata = metadata_of(image, settings, networks, products)
    saves = {}
    for part in products.parts:
        keys = [key for key in every if part_of(key) == part]
        after = "" if part == PARTS[0] else f"_{part}"
        saves[part] = pe.Node(
            SaveDerivatives(
                keys=keys,
                out_dir=str(settings.output_dir),
                names={key: every[key] for key in keys},
                metadata={key: metadata[key] for key in keys if key in metadata},
                status_file=str(status_file(settings.output_dir, image)),
                part=part,
                parts=list(products.parts),
                run_uuid=run_uuid,
            ),
            name=f"save{after}", mem_gb=0.2, run_without_submitting=True,
        )  # fmt: skip
        known = ["mask_method", *facts.get(part, [])]
        known += ["edit"] if image.edit and part == PARTS[0] else []
        known += ["volume_interval"] if part == PARTS[0] else []
        describe = pe.Node(
            Function(
                function=_describe,
                input_names=[*known, *(["quality"] if part == PARTS[0] else [])],
                output_names=["out"],
            ),
            name=f"describe{after}", run_without_submitting=True,
        )  # fmt: skip
        workflow.connect([
            (inputnode, saves[part], [(key, key) for key in keys if key in names]),
            (inputnode, describe, [(fact, fact) for fact in known]),
            (describe, saves[part], [("out", "facts")]),
        ])  # fmt: skip
    _add_quality(workflow, image, template)
    _add_figures(workflow, template, saves[PARTS[0]])
    _add_zoom(workflow, saves[PARTS[0]])
    if products.flair:
        _add_flair_figure(workflow, saves["flair"], "both" if image.flair else "flair")
    if products.segmented:
        _add_tissue_figure(workflow, saves[PARTS[0]])
    return workflow


def _facts(image: Image, products: Products) -> dict[str, list[str]]:
    """What the sidecars of each part say that is known only after the run, by its inputs."""
    facts = {part: [f"{part}_volumes", f"{part}_method"] for part in products.segmented}
    if products.reference:
        facts["reference"] = [*facts.get("reference", []), "reference_warnings"]
    if products.has_flair(image, real=True):
        facts["flair"] = ["flair_warnings", "flair_stripped"]
    return facts


def _add_quality(workflow: pe.Workflow, image: Image, template: TemplateFiles) -> None:
    """Measure the image and what was made of it, for its sidecar."""
    inputnode, describe = workflow.get_node("inputnode"), workflow.get_node("describe")
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
    workflow.connect([
        (inputnode, quality, [(f, f) for f in ("preproc", "working_mask", "mask", "xfm", *WARNINGS)]),
        (quality, describe, [("quality", "quality")]),
    ])  # fmt: skip


def _add_figures(workflow: pe.Workflow, template: TemplateFiles, save: pe.Node) -> None:
    """The pictures that every report has."""
    registration = pe.Node(
        View(first=template.t1w, colours=[figures.LESION, figures.OTHER]), name="registration", mem_gb=1
    )
    outlines = pe.Node(Merge(2), name="both_outlines", run_without_submitting=True)
    outlines.inputs.in2 = template.mask
    brain = pe.Node(View(colours=[figures.LESION]), name="brain", mem_gb=1)
    lesions = pe.Node(View(colours=[figures.LESION], shared_range=True), name="lesions", mem_gb=1)
    difference = pe.Node(Difference(), name="difference", mem_gb=1)
    thumbnail = pe.Node(Thumbnail(), name="thumbnail", mem_gb=1)
    inputnode = workflow.get_node("inputnode")
    shared = [("working_mask", "brain"), ("mask", "lesions")]
    workflow.connect([
        (inputnode, outlines, [("working_mask", "in1")]),
        (inputnode, registration, [("preproc", "second"), ("working_mask", "brain")]),
        (outlines, registration, [("out", "masks")]),
        (inputnode, brain, [("conformed", "first"), ("brain_mask", "brain"), ("brain_mask", "masks")]),
        (inputnode, lesions, [
            ("preproc", "first"), ("inpainted", "second"), ("working_mask", "brain"), ("mask", "masks"),
            ("mask", "focus"),
        ]),
        (inputnode, difference, [("darkening", "image"), *shared]),
        (inputnode, thumbnail, [("preproc", "image"), *shared]),
        (difference, save, [("out_file", "lesions_difference")]),
        (thumbnail, save, [("out_file", "thumbnail")]),
    ])  # fmt: skip
    _save_layers(workflow, registration, save, "first", "second", "contours")
    _save_layers(workflow, brain, save, "first", "contours")
    _save_layers(workflow, lesions, save, "first", "second", "contours")


def _add_zoom(workflow: pe.Workflow, save: pe.Node) -> None:
    """Pictures of single lesions and the sheet for a paper, on the voxels of the T1w."""
    zoom = pe.Node(Zoom(), name="zoom", mem_gb=1.5)
    workflow.connect([
        (workflow.get_node("inputnode"), zoom, [
            ("t1w", "t1w"), ("native_inpainted", "inpainted"), ("brain_mask", "brain"),
            ("native_labels", "labels"), ("native_probability", "probability"),
        ]),
        (zoom, save, [("sheet", "sheet")]),
    ])  # fmt: skip
    _save_layers(workflow, zoom, save, "first", "second", "contours", "lesions")


def _save_layers(workflow: pe.Workflow, view: pe.Node, save: pe.Node, *layers: str) -> None:
    workflow.connect([(view, save, [(layer, f"{view.name}_{layer}") for layer in layers])])


def _add_flair_figure(workflow: pe.Workflow, save: pe.Node, name: str) -> None:
    view = pe.Node(View(colours=[figures.LESION]), name=name, mem_gb=1)
    # a real one is what is to be looked at first
    layers = ("flair", "preproc") if name == "both" else ("preproc", "flair")
    workflow.connect([
        (workflow.get_node("inputnode"), view, [
            *zip(layers, ("first", "second"), strict=True),
            ("working_mask", "brain"), ("joint_mask", "masks"), ("joint_mask", "focus"),
        ]),
    ])  # fmt: skip
    _save_layers(workflow, view, save, "first", "second", "contours")


def _add_tissue_figure(workflow: pe.Workflow, save: pe.Node) -> None:
    inputnode = workflow.get_node("inputnode")
    both = pe.Node(Merge(2), name="white_and_grey", run_without_submitting=True)
    tissues = pe.Node(View(colours=[figures.OTHER, figures.THIRD]), name="tissues", mem_gb=1)
    workflow.connect([
        (inputnode, both, [("wm", "in1"), ("gm", "in2")]),
        (inputnode, tissues, [("inpainted", "first"), ("working_mask", "brain")]),
        (both, tissues, [("out", "masks")]),
    ])  # fmt: skip
    _save_layers(workflow, tissues, save, "first", "contours")


def _describe(
    mask_method,
    quality=None,
    reference_warnings=None,
    flair_warnings=None,
    flair_stripped=None,
    edit=None,
    volume_interval=None,
    **facts,
):
    """What sidecars of a part say that is known only after the run.

    The T1w on its own voxels is skull-stripped if the raw one was.
    """
    quality = quality or {}
    stripped = {"SkullStripped": mask_method in ("stripped", "skipped")}
    out: dict = {
        "native_inpainted": {**stripped, **quality},
        "inpainted": quality,
        "native_reference": {
            **stripped,
            **({"QualityWarnings": reference_warnings} if reference_warnings else {}),
        },
        "native_flair_moved": {"SkullStripped": flair_stripped},
        "native_joint_mask": {"QualityWarnings": flair_warnings} if flair_warnings else {},
    }
    for key in ("native_inpainted", "inpainted", "native_mask", "mask", "native_labels") if edit else ():
        out[key] = {**out.get(key, {}), "LesionEdit": edit}
    for key in ("native_inpainted", "native_mask", "native_labels") if volume_interval else ():
        out[key] = {**out.get(key, {}), "LesionVolumeInterval": volume_interval}
    for image in ("inpainted", "original", "reference"):
        if f"{image}_volumes" not in facts:
            continue
        key = "dseg" if image == "inpainted" else f"{image}_dseg"
        out[key] = {"Segmentation": facts[f"{image}_method"]}
        volumes = {"TissueVolumes": facts[f"{image}_volumes"], "TissueVolumesUnits": "mm^3"}
        out[f"native_{key}"] = out[key] | volumes
    return out
