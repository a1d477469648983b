"""Which result goes into which file: the only place that knows the names of the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.names import LESION_MASKS
from bids_inpaint.dataset.template import reference
from bids_inpaint.networks.card import Model
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
        "Description": "Mean of inpainted minus original at standard contrast, as a fraction of the median "
        "of normal-appearing white matter: the scale of LesionThreshold"
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
#: What is made and saved for itself, so that what fails later takes nothing away; the first is the core.
PARTS = (*SEGMENTED, "flair")


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
    def of(cls, settings: Settings, networks: Networks) -> Products:
        """What a run with these settings and networks leaves."""
        reference = networks.reference is not None
        if settings.segmentation == "none":
            return cls((), reference, networks.flair is not None)
        asked = (True, settings.compare_segmentation, reference)
        segmented = tuple(n for n, a in zip(SEGMENTED, asked, strict=True) if a)
        return cls(segmented, reference, networks.flair is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of `PARTS` there are."""
        there = (True, "original" in self.segmented, self.reference, self.flair)
        return tuple(part for part, present in zip(PARTS, there, strict=True) if present)

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


#: Results that are made before lesions are looked at.
_BEFORE_LESIONS = ("native_preproc", "preproc", "brain_mask", "working_mask", "native_original", "original")
#: What earlier steps warn of, on the T1w and on masks that were given for it.
WARNINGS = ("input_warnings", "mask_warnings", "lesion_warnings")
#: Of a run with default options, and of one that makes everything.
USUAL, EVERYTHING = Products(), Products(SEGMENTED, reference=True, flair=True)


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
    return {"joint": "flair"}.get(stem, stem if stem in PARTS else PARTS[0])


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


def names_of(image: Image, template: str, products: Products) -> dict[str, str]:
    """Path of each result below the output folder, by its key."""
    stem = prefix(image)
    space = f"space-{template}_res-1"
    return {
        **{key: f"{stem}_{suffix}" for key, (suffix, _) in products.native().items()},
        **{key: f"{stem}_{space}_{suffix}" for key, (suffix, _) in products.standard().items()},
        "xfm": f"{stem}_from-T1w_to-{template}_mode-image_xfm.txt",
        "inverse_xfm": f"{stem}_from-{template}_to-T1w_mode-image_xfm.txt",
        "table": f"{stem}_{TABLE}",
    }


def figures_of(image: Image, products: Products) -> dict[str, str]:
    """Path of each figure below the output folder, by its key."""
    folder = f"sub-{image.subject}/figures"
    return {
        key: f"{folder}/{image.prefix}_{suffix}"
        for key, suffix in FIGURES.items()
        if (key != "tissues" or products.segmented) and (key != "flair" or products.flair)
    }


def given_files(image: Image) -> dict[str, str]:
    """The option that says what of an image another program made; empty if all is made here."""
    given = (("brain mask", image.brain_mask), ("affine", image.xfm))
    names = " and ".join(name for name, file in given if file)
    return {"GivenFiles": names} if names else {}


def provenance(settings: Settings, networks: Networks) -> dict[str, Any]:
    """What made the inpainted images of a run, for their sidecars: version, networks, options that matter.

    Of a single image, `given_files` is one more option.
    """
    model, second = networks.main, networks.second
    out: dict[str, Any] = {"SoftwareVersion": __version__, **_made_by(model, second)}
    options = {
        "Model": model.name,
        "SecondPass": second.name if second else "none",
        "Fill": settings.fill,
        "LesionThreshold": networks.threshold(settings),
        "LesionMinVolume": settings.lesion_min_volume,
        "Segmentation": settings.segmentation,
        "CompareSegmentation": settings.compare_segmentation,
        "SkullStrip": settings.skull_strip,
        "BiasCorrection": settings.bias_correction,
        "Template": settings.template,
        "Sampler": settings.sampler,
        "SamplingSteps": settings.sampling_steps,
        "RandomSeed": settings.random_seed,
        "Sloppy": settings.sloppy,
    }
    return out | {"Options": {name: value for name, value in options.items() if value is not None}}


def _made_by(model: Model, second: Model | None = None) -> dict[str, Any]:
    out = {"Model": model.name, "ModelSHA256": model.sha256}
    if second:
        out |= {"SecondPassModel": second.name, "SecondPassModelSHA256": second.sha256}
    return out


def standard_space(template: str) -> dict:
    """What the sidecar of an image on the working grid says of its space."""
    return {
        "SpatialReference": f"https://templateflow.s3.amazonaws.com/{reference(template)}",
        "Resolution": {"1": "1 mm isotropic, 182×218×182 voxels (FSL's MNI152 grid)"},
    }


def metadata_of(image: Image, settings: Settings, networks: Networks, products: Products) -> dict[str, dict]:
    """What the sidecar of each result says that is known before the run, by its key."""
    out = _described(image, settings, networks, products)
    model, second = networks.main, networks.second
    network = _made_by(model, second)
    if second:
        network |= {"SecondPassFill": "alone" if networks.second_alone else "mean of both"}
    of_inpainted = [tissue_key("inpainted", t) for t in _TISSUES] if products.segmented else []
    for key in ("native_inpainted", "inpainted", *of_inpainted, *(f"native_{k}" for k in of_inpainted)):
        out[key] |= network
    if networks.reference:
        for key in ("native_reference", "reference"):
            out[key] |= _made_by(networks.reference)
    if networks.flair:
        for key in _FLAIR:
            out[key] |= _made_by(networks.flair)
    origin = provenance(settings, networks)
    origin["Options"] |= given_files(image)
    for key in ("native_inpainted", "inpainted"):
        out[key] |= origin
    out["native_inpainted"]["Fill"] = settings.fill
    lesions = network | {
        "LesionThreshold": networks.threshold(settings),
        "LesionThresholdUnits": "fraction of the median of normal-appearing white matter",
        "LesionMinVolume": settings.lesion_min_volume,
        "LesionMinVolumeUnits": "mm^3",
    }
    if _fills_given_lesions(image, networks):
        lesions = network | {"LesionsGiven": True}
    for key in ("native_mask", "mask", "native_probability", "probability", "native_labels"):
        out[key] |= lesions
    out["native_labels"] |= _COLUMNS
    return out


def _fills_given_lesions(image: Image, networks: Networks) -> bool:
    return not networks.main.blind and image.lesion_mask is not None


def _described(image: Image, settings: Settings, networks: Networks, products: Products) -> dict[str, dict]:
    """What the sidecars say of the images themselves: their kind, their sources and their space."""
    xfm = names_of(image, settings.template, products)["xfm"]
    given = _fills_given_lesions(image, networks)

    def sources(key: str) -> list[str]:
        # a blind network does not see the lesion mask that leads to the reference
        sees_mask = "reference" in key or (given and key not in _BEFORE_LESIONS)
        of_masks = [s for s in image.sources if sees_mask or not s.startswith(f"bids:{LESION_MASKS}:")]
        return [image.uri, *of_masks]

    out: dict[str, dict] = {}
    for key, (_, metadata) in products.native().items():
        out[key] = {**metadata, "Sources": sources(key)}
    for key, (_, metadata) in products.standard().items():
        out[key] = {
            **metadata,
            "Sources": [*sources(key), f"bids::{xfm}"],
            **standard_space(settings.template),
        }
    return out


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
