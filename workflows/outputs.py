"""Which result goes into which file: the only place that knows the names of the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline import engine as pe

from bids_inpaint.bids import Image
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.figures import Contours, Difference, Flicker, LesionTable
from bids_inpaint.interfaces.quality import CheckQuality
from bids_inpaint.models import Model
from bids_inpaint.settings import Settings
from bids_inpaint.template import TemplateFiles, reference

#: Result -> (BIDS suffix with the entities that derivatives add, sidecar)
NATIVE: dict[str, tuple[str, dict]] = {
    "native_preproc": ("desc-preproc_T1w.nii.gz", {"SkullStripped": True}),
    "native_inpainted": ("desc-inpainted_T1w.nii.gz", {}),
    "brain_mask": ("desc-brain_mask.nii.gz", {"Type": "Brain"}),
    "native_mask": ("label-L_desc-inpaint_mask.nii.gz", {"Type": "Lesion"}),
    "native_probability": ("label-L_probseg.nii.gz", {}),
    "native_labels": ("desc-lesions_dseg.nii.gz", {}),
}
STANDARD: dict[str, tuple[str, dict]] = {
    "preproc": ("desc-preproc_T1w.nii.gz", {"SkullStripped": True}),
    "inpainted": ("desc-inpainted_T1w.nii.gz", {"SkullStripped": True}),
    "working_mask": ("desc-brain_mask.nii.gz", {"Type": "Brain"}),
    "mask": ("label-L_desc-inpaint_mask.nii.gz", {"Type": "Lesion"}),
    "probability": ("label-L_probseg.nii.gz", {}),
}
#: What the given lesion masks lead to.
_REFERENCE: dict[str, tuple[str, dict]] = {
    "reference": ("desc-reference_T1w.nii.gz", {}),
    "reference_mask": ("label-L_desc-reference_mask.nii.gz", {"Type": "Lesion"}),
}
#: What is made of a T1w without lesion masks or a FLAIR.
_FLAIR: dict[str, tuple[str, dict]] = {
    "native_flair": ("desc-synth_FLAIR.nii.gz", {"SkullStripped": True, "WhiteMatterLevel": 1}),
    "native_joint_mask": ("label-L_desc-joint_mask.nii.gz", {"Type": "Lesion"}),
}
_TISSUES = {
    "gm": "label-GM_{}probseg.nii.gz",
    "wm": "label-WM_{}probseg.nii.gz",
    "csf": "label-CSF_{}probseg.nii.gz",
    "dseg": "{}dseg.nii.gz",
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
    "quality": "desc-quality_T1w.html",
    "registration": "desc-registration_T1w.svg",
    "brain": "desc-brain_T1w.svg",
    "inpainting": "desc-inpainted_T1w.svg",
    "difference": "desc-difference_T1w.svg",
    "flair": "desc-synth_FLAIR.svg",
    "tissues": "desc-tissues_T1w.svg",
    "lesions": "desc-lesions_T1w.html",
}


#: Images that can be segmented; the last is the non-blind filling of given lesions.
SEGMENTED = ("inpainted", "original", "reference")


@dataclass(frozen=True)
class Products:
    """What a run leaves of each image.

    Attributes
    ----------
    segmented : tuple of str
        Which of `SEGMENTED` get tissue maps.
    reference : bool
        Whether given lesions are also filled by a non-blind network.
    flair : bool
        Whether a FLAIR and the lesions in it are made.
    """

    segmented: tuple[str, ...] = ("inpainted",)
    reference: bool = False
    flair: bool = False

    @classmethod
    def of(cls, settings: Settings, model: Model) -> Products:
        """What a run with these settings and this network leaves."""
        reference = settings.lesion_masks is not None and model.blind
        if settings.segmentation == "none":
            return cls((), reference, settings.flair is not None)
        asked = (True, settings.compare_segmentation, reference)
        segmented = tuple(n for n, a in zip(SEGMENTED, asked, strict=True) if a)
        return cls(segmented, reference, settings.flair is not None)

    def native(self) -> dict[str, tuple[str, dict]]:
        """Results on the voxels of the T1w: key to BIDS suffix and sidecar."""
        more = {f"native_{k}": v for k, v in (self._tissues() | self._reference()).items()}
        return NATIVE | more | (_FLAIR if self.flair else {})

    def standard(self) -> dict[str, tuple[str, dict]]:
        """Results on the working grid: key to BIDS suffix and sidecar."""
        stripped = {k: (s, m | {"SkullStripped": True} if k == "reference" else m)
                    for k, (s, m) in self._reference().items()}  # fmt: skip
        return STANDARD | self._tissues() | stripped

    def _tissues(self) -> dict[str, tuple[str, dict]]:
        return {
            tissue_key(image, tissue): (name.format("" if image == "inpainted" else f"desc-{image}_"), {})
            for image in self.segmented
            for tissue, name in _TISSUES.items()
        }

    def _reference(self) -> dict[str, tuple[str, dict]]:
        return _REFERENCE if self.reference else {}


_USUAL = Products()


def tissue_key(image: str, tissue: str) -> str:
    """Name of a result of a segmentation, as ``original_gm``."""
    return tissue if image == "inpainted" else f"{image}_{tissue}"


def prefix(image: Image) -> str:
    """Path of an image's derivatives below the output folder, up to the entities they add."""
    return f"{image.folder}/{image.prefix}"


def expected(image: Image, template: str, products: Products = _USUAL) -> list[str]:
    """Every file a finished image leaves below the output folder, but for the report."""
    names = _names(image, template, products)
    sidecars = [n.split(".")[0] + ".json" for n in names.values() if n.endswith(".nii.gz")]
    return sorted([*names.values(), *sidecars, *_figure_names(image, products).values()])


def is_finished(image: Image, settings: Settings, products: Products) -> bool:
    """Whether every file that an image is to leave is in the output folder."""
    return all((settings.output_dir / name).exists() for name in expected(image, settings.template, products))


def _names(image: Image, template: str, products: Products) -> dict[str, str]:
    stem = prefix(image)
    space = f"space-{template}_res-1"
    return {
        **{key: f"{stem}_{suffix}" for key, (suffix, _) in products.native().items()},
        **{key: f"{stem}_{space}_{suffix}" for key, (suffix, _) in products.standard().items()},
        "xfm": f"{stem}_from-T1w_to-{template}_mode-image_xfm.txt",
        "inverse_xfm": f"{stem}_from-{template}_to-T1w_mode-image_xfm.txt",
        "table": f"{stem}_{TABLE}",
    }


def _figure_names(image: Image, products: Products) -> dict[str, str]:
    folder = f"sub-{image.subject}/figures"
    return {
        key: f"{folder}/{image.prefix}_{suffix}"
        for key, suffix in FIGURES.items()
        if (key != "tissues" or products.segmented) and (key != "flair" or products.flair)
    }


def standard_space(template: str) -> dict:
    """What the sidecar of an image on the working grid says of its space."""
    return {
        "SpatialReference": f"https://templateflow.s3.amazonaws.com/{reference(template)}",
        "Resolution": {"1": "1 mm isotropic, 182×218×182 voxels (FSL's MNI152 grid)"},
    }


def _metadata(
    image: Image,
    template: str,
    model: Model,
    reference: Model | None,
    second: Model | None,
    flair: Model | None,
    options: dict,
    products: Products,
) -> dict[str, dict]:
    names = _names(image, template, products)
    raw = [image.uri, *image.sources]
    out: dict[str, dict] = {}
    for key, (_, own) in products.native().items():
        out[key] = {**own, "Sources": raw}
    for key, (_, own) in products.standard().items():
        out[key] = {
            **own,
            "Sources": [*raw, f"bids::{names['xfm']}"],
            **standard_space(template),
        }
    network = {"Model": model.name, "ModelSHA256": model.sha256}
    if second:
        network |= {"SecondPassModel": second.name, "SecondPassModelSHA256": second.sha256}
        network |= {"SecondPassFill": "alone" if options["second_alone"] else "mean of both"}
    of_inpainted = [tissue_key("inpainted", t) for t in _TISSUES] if products.segmented else []
    for key in ("native_inpainted", "inpainted", *of_inpainted, *(f"native_{k}" for k in of_inpainted)):
        out[key] |= network
    if reference:
        for key in ("native_reference", "reference"):
            out[key] |= {"Model": reference.name, "ModelSHA256": reference.sha256}
    if flair:
        for key in _FLAIR:
            out[key] |= {"Model": flair.name, "ModelSHA256": flair.sha256}
    out["native_inpainted"]["Fill"] = options["fill"]
    found = network | {
        "LesionThreshold": options["threshold"],
        "LesionThresholdUnits": "fraction of the median of normal-appearing white matter",
        "LesionMinVolume": options["min_volume"],
        "LesionMinVolumeUnits": "mm^3",
    }
    if options["given"]:
        found = network | {"LesionsGiven": True}
    for key in ("native_mask", "mask", "native_probability", "probability", "native_labels"):
        out[key] |= found
    out["native_labels"] |= _COLUMNS
    return out


def init_outputs_wf(
    *,
    image: Image,
    template: TemplateFiles,
    model: Model,
    options: dict,
    output_dir: Path,
    products: Products = _USUAL,
    reference: Model | None = None,
    second: Model | None = None,
    flair: Model | None = None,
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Build the figures of one image, and the writing of its derivatives after everything else.

    Parameters
    ----------
    image : Image
        Gives the names.
    template : TemplateFiles
    model : Model
    options : dict
        ``fill``, ``threshold`` and ``min_volume`` of the run, whether its lesions were ``given`` and whether
        the second pass fills alone (``second_alone``), for the sidecars.
    output_dir : Path
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
    darkening
        Shown in the figure of the difference.
    flair, joint_mask
        Shown in the figure of the FLAIR, if there is one.
    xfm, inverse_xfm, table and all keys of :meth:`Products.native` and :meth:`Products.standard`
        The results.
    inpainted_volumes, inpainted_method, and the same of the other segmented images
        Tissue volumes, and what segmented, for the sidecars.
    """
    from nipype.interfaces.utility import Function, IdentityInterface

    workflow = pe.Workflow(name=name)
    workflow.__desc__ = ""
    names = _names(image, template.name, products)
    figure_names = _figure_names(image, products)
    told = [f"{segmented}_{what}" for segmented in products.segmented for what in ("volumes", "method")]
    shown = ["flair", "joint_mask"] if products.flair else []
    fields = ["conformed", "darkening", "mask_method", *shown, *told, *names]
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
            told=list(image.told),
        ),
        name="quality", mem_gb=1,
    )  # fmt: skip
    brain = pe.Node(Contours(colours=["#ff3030"]), name="brain", mem_gb=1)
    inpainting = pe.Node(
        Flicker(labels=("Original", "Inpainted"), shared_range=True), name="inpainting", mem_gb=1
    )
    difference = pe.Node(Difference(), name="difference", mem_gb=1)
    lesions = pe.Node(LesionTable(), name="lesions", mem_gb=0.2, run_without_submitting=True)
    found = pe.Node(
        Function(function=_found, input_names=["mask_method", "quality", *told], output_names=["out"]),
        name="found", run_without_submitting=True,
    )  # fmt: skip
    save = pe.Node(
        SaveDerivatives(
            keys=[*names, *figure_names],
            out_dir=str(output_dir),
            names={**names, **figure_names},
            metadata=_metadata(image, template.name, model, reference, second, flair, options, products),
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
        (inputnode, lesions, [("table", "table")]),
        (inputnode, save, [(key, key) for key in names]),
        (inputnode, quality, [(f, f) for f in ("preproc", "working_mask", "mask", "xfm")]),
        (inputnode, found, [("mask_method", "mask_method"), *((v, v) for v in told)]),
        (quality, found, [("found", "quality")]),
        (found, save, [("out", "found")]),
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
            (made, save, [("out_file", "flair")]),
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


def _found(mask_method, quality, **told):
    """What sidecars say that is known only after the run.

    The T1w on its own voxels is skull-stripped if the raw one was.
    """
    stripped = {"SkullStripped": mask_method in ("stripped", "skipped")}
    found: dict = {
        "native_inpainted": {**stripped, **quality},
        "inpainted": quality,
        "native_reference": stripped,
    }
    for name in told:
        image, what = name.split("_")
        if what != "volumes":
            continue
        key = "dseg" if image == "inpainted" else f"{image}_dseg"
        found[key] = {"Segmentation": told[f"{image}_method"]}
        found[f"native_{key}"] = {**found[key], "TissueVolumes": told[name], "TissueVolumesUnits": "mm^3"}
    return found
