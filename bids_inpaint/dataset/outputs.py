"""Which result goes into which file: the only place that knows the names of the outputs.

:mod:`bids_inpaint.dataset.sidecars` knows what stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_inpaint.dataset.image import Image
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings

#: Name of the graph of a run, below which each image has a workflow and each step of it another.
GRAPH = "bids_inpaint_wf"
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
#: The lesions by a T1w and a FLAIR; the FLAIR if it was made of the T1w, and what a real one leads to.
_JOINT: dict[str, tuple[str, dict]] = {
    "native_joint_mask": ("label-L_desc-joint_mask.nii.gz", {"Type": "Lesion"}),
}
_MADE_FLAIR: dict[str, tuple[str, dict]] = {
    "native_flair": ("desc-synth_FLAIR.nii.gz", {"SkullStripped": True, "WhiteMatterLevel": 1}),
}
_REAL_FLAIR: dict[str, tuple[str, dict]] = {
    "native_flair_moved": (
        "space-T1w_FLAIR.nii.gz",
        {"Description": "The FLAIR as it is, interpolated once onto the voxels of the T1w"},
    ),
    "native_joint_probability": ("label-L_desc-joint_probseg.nii.gz", {}),
}
#: How far what is averaged differs: of fillings and of lesion probabilities.
_UNCERTAIN: dict[str, tuple[str, dict]] = {
    "native_spread": (
        "desc-uncertainty_T1w.nii.gz",
        {"Description": "Standard deviation among the fillings"},
    ),
    "native_doubt": (
        "label-L_desc-uncertainty_probseg.nii.gz",
        {"Description": "Standard deviation of the probability between the brain and its mirror image"},
    ),
}
#: Tissue map -> BIDS suffix with a place for the entity desc.
TISSUES = {
    "gm": "label-GM_{}probseg.nii.gz",
    "wm": "label-WM_{}probseg.nii.gz",
    "csf": "label-CSF_{}probseg.nii.gz",
    "dseg": "{}dseg.nii.gz",
}
TABLE = "desc-lesions_dseg.tsv"
_FLAIR_XFM = "from-FLAIR_to-T1w_mode-image_xfm.txt"
#: Layer of a view of the report -> suffix
FIGURES = {
    "thumbnail": "desc-thumbnail_T1w.png",
    "lesions_first": "desc-original_T1w.png",
    "lesions_second": "desc-inpainted_T1w.png",
    "lesions_difference": "desc-difference_T1w.png",
    "lesions_contours": "desc-lesions_T1w.svg",
    "zoom_first": "desc-zoom_T1w.png",
    "zoom_second": "desc-zoomInpainted_T1w.png",
    "zoom_contours": "desc-zoom_T1w.svg",
    "zoom_lesions": "desc-zoom_T1w.json",
    "sheet": "desc-sheet_T1w.png",
    "flair_first": "desc-joint_T1w.png",
    "flair_second": "desc-synth_FLAIR.png",
    "flair_contours": "desc-synth_FLAIR.svg",
    "both_first": "space-T1w_FLAIR.png",
    "both_second": "desc-both_T1w.png",
    "both_contours": "space-T1w_FLAIR.svg",
    "brain_first": "desc-brain_T1w.png",
    "brain_contours": "desc-brain_T1w.svg",
    "registration_first": "desc-template_T1w.png",
    "registration_second": "desc-registration_T1w.png",
    "registration_contours": "desc-registration_T1w.svg",
    "tissues_first": "desc-tissues_T1w.png",
    "tissues_contours": "desc-tissues_T1w.svg",
}
#: Views that need a FLAIR, and whether it is a real one.
_FLAIR_VIEWS = {"flair": False, "both": True}
#: Images that can be segmented; the last is the non-blind filling of given lesions.
SEGMENTED = ("inpainted", "original", "reference")
#: What is made and saved for itself, so that what fails later takes nothing away; the first is the core.
PARTS = (*SEGMENTED, "flair")
#: Parts whose warnings stand in a sidecar (``QualityWarnings``), and which it is.
WARNED = {
    "inpainted": "desc-inpainted_T1w",
    "reference": "desc-reference_T1w",
    "flair": "label-L_desc-joint_mask",
}


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
        Whether there are lesions by a FLAIR, too, which is made where an image has none.
    any_flair : bool
        Whether it counts no matter which of both an image has.
    uncertain : tuple of str
        Whether it is told how far fillings ('spread') and lesion probabilities ('doubt') differ.
    """

    segmented: tuple[str, ...] = ("inpainted",)
    reference: bool = False
    flair: bool = False
    any_flair: bool = False
    uncertain: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, networks: Networks) -> Products:
        """What a run with these settings and networks leaves."""
        reference = networks.reference is not None
        asked = (True, settings.compare_segmentation, reference)
        segmented = tuple(n for n, a in zip(SEGMENTED, asked, strict=True) if a)
        uncertain: tuple[str, ...] = ()
        if settings.tta:
            told = networks.main.blind and networks.rule(settings).kind == "probability"
            uncertain = ("spread", "doubt") if told else ("spread",)
        return cls(
            segmented if settings.segmentation != "none" else (),
            reference,
            networks.flair is not None,
            uncertain=uncertain,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of `PARTS` there are."""
        there = (True, "original" in self.segmented, self.reference, self.flair)
        return tuple(part for part, present in zip(PARTS, there, strict=True) if present)

    def has_flair(self, image: Image, real: bool) -> bool:
        """Whether an image has the results of a real FLAIR, or those of one that is made."""
        return self.flair and (self.any_flair or (image.flair is not None) == real)

    def native(self, image: Image) -> dict[str, tuple[str, dict]]:
        """Results of an image on its own voxels: key to BIDS suffix and sidecar."""
        more = {f"native_{k}": v for k, v in (self._tissues() | self._reference()).items()}
        uncertain = {f"native_{k}": _UNCERTAIN[f"native_{k}"] for k in self.uncertain}
        if self.flair:
            more |= _JOINT
        for real, results in ((False, _MADE_FLAIR), (True, _REAL_FLAIR)):
            more |= results if self.has_flair(image, real) else {}
        return NATIVE | more | uncertain

    def standard(self) -> dict[str, tuple[str, dict]]:
        """Results on the working grid: key to BIDS suffix and sidecar."""
        stripped = {k: (s, m | {"SkullStripped": True} if k == "reference" else m)
                    for k, (s, m) in self._reference().items()}  # fmt: skip
        return STANDARD | self._tissues() | stripped

    def _tissues(self) -> dict[str, tuple[str, dict]]:
        return {
            tissue_key(image, tissue): (name.format("" if image == "inpainted" else f"desc-{image}_"), {})
            for image in self.segmented
            for tissue, name in TISSUES.items()
        }

    def _reference(self) -> dict[str, tuple[str, dict]]:
        return _REFERENCE if self.reference else {}


#: What earlier steps warn of: of the T1w, masks that were given for it, and the other visits of the person.
WARNINGS = ("input_warnings", "mask_warnings", "lesion_warnings", "visit_warnings")
#: Of a run with default options, and of one that makes everything.
USUAL, EVERYTHING = Products(), Products(SEGMENTED, reference=True, flair=True, any_flair=True)


def tissue_key(image: str, tissue: str) -> str:
    """Name of a result of a segmentation, as ``original_gm``."""
    return tissue if image == "inpainted" else f"{image}_{tissue}"


def part_of(key: str) -> str:
    """Which of `PARTS` a result or a figure belongs to.

    Examples
    --------
    >>> part_of("native_inpainted"), part_of("native_reference_gm"), part_of("native_joint_mask")
    ('inpainted', 'reference', 'flair')
    """
    stem = key.removeprefix("native_").split("_")[0]
    return {"joint": "flair", "both": "flair"}.get(stem, stem if stem in PARTS else PARTS[0])


def status_file(output_dir: Path, image: Image) -> Path:
    """Where the output folder says what became of an image."""
    return output_dir / f"sub-{image.subject}" / "log" / f"{image.prefix}_status.json"


def prefix(image: Image) -> str:
    """Path of an image's derivatives below the output folder, up to the entities they add."""
    return f"{image.folder}/{image.prefix}"


def expected(
    image: Image, template: str, products: Products = USUAL, parts: tuple[str, ...] = PARTS
) -> list[str]:
    """Every file a finished image, or some parts of it, leave below the output folder, but for the report."""
    every = names_of(image, template, products) | figures_of(image, products)
    names = [name for key, name in every.items() if part_of(key) in parts]
    sidecars = [n.split(".")[0] + ".json" for n in names if n.endswith(".nii.gz")]
    return sorted([*names, *sidecars])


def is_finished(image: Image, settings: Settings, products: Products, parts: tuple[str, ...] = PARTS) -> bool:
    """Whether every file that an image, or some parts of it, are to leave is in the output folder."""
    names = expected(image, settings.template, products, parts)
    return all((settings.output_dir / name).exists() for name in names)


def has_results(image: Image, settings: Settings) -> bool:
    """Whether the results that every image has are in the output folder, be there figures of them or not."""
    names = names_of(image, settings.template, Products(())).values()
    sidecars = [name.split(".")[0] + ".json" for name in names if name.endswith(".nii.gz")]
    return all((settings.output_dir / name).exists() for name in (*names, *sidecars))


def names_of(image: Image, template: str, products: Products) -> dict[str, str]:
    """Path of each result below the output folder, by its key."""
    stem = prefix(image)
    space = f"space-{template}_res-1"
    return {
        **{key: f"{stem}_{suffix}" for key, (suffix, _) in products.native(image).items()},
        **{key: f"{stem}_{space}_{suffix}" for key, (suffix, _) in products.standard().items()},
        "xfm": f"{stem}_from-T1w_to-{template}_mode-image_xfm.txt",
        "inverse_xfm": f"{stem}_from-{template}_to-T1w_mode-image_xfm.txt",
        "table": f"{stem}_{TABLE}",
        **({"flair_xfm": f"{stem}_{_FLAIR_XFM}"} if products.has_flair(image, real=True) else {}),
    }


def figures_of(image: Image, products: Products) -> dict[str, str]:
    """Path of each figure below the output folder, by its key."""
    folder = f"sub-{image.subject}/figures"
    absent = [view for view, real in _FLAIR_VIEWS.items() if not products.has_flair(image, real)]
    if not products.segmented:
        absent.append("tissues")
    return {
        key: f"{folder}/{image.prefix}_{suffix}"
        for key, suffix in FIGURES.items()
        if key.split("_")[0] not in absent
    }


def crash_folder(output_dir: Path, subject: str, run_uuid: str) -> Path:
    """Where the crash files of a participant's run go."""
    return output_dir / f"sub-{subject}" / "log" / run_uuid


def image_of(fullname: str) -> str:
    """Name of the workflow of the image that a node belongs to, from the full name of the node.

    Examples
    --------
    >>> image_of("bids_inpaint_wf.sub_01_wf.inpaint_wf.inpaint")
    'sub_01_wf'
    """
    return fullname.split(".")[1]


def image_wf_name(image: Image) -> str:
    """Name of an image's workflow, as ``sub_01_ses_1_wf``.

    Nipype takes no ``+``, which labels may have.

    Examples
    --------
    >>> image_wf_name(Image("p", "u", {"sub": "1+2", "ses": "1"}))
    'sub_1-2_ses_1_wf'
    """
    return image.prefix.translate(str.maketrans("-+", "_-")) + "_wf"
