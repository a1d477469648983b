"""What the sidecars of the outputs say: sources, spaces, and what made them."""

from __future__ import annotations

from typing import Any

from bids_inpaint import __version__
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.names import EDITS, LESION_MASKS
from bids_inpaint.dataset.outputs import PARTS, TISSUES, Products, names_of, part_of, tissue_key
from bids_inpaint.dataset.template import reference
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.imaging.uncertainty import LEVEL
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings

_COLUMNS = {
    "index": {"Description": "Value of the lesion in the labelled image"},
    "name": {"Description": "Name of the lesion"},
    "volume": {"Description": "Volume", "Units": "mm^3"},
    "x": {"Description": "World coordinate of the centroid, towards the right", "Units": "mm"},
    "y": {"Description": "World coordinate of the centroid, towards the front", "Units": "mm"},
    "z": {"Description": "World coordinate of the centroid, towards the top", "Units": "mm"},
    "contrast": {
        "Description": "Mean of inpainted minus original at standard contrast, as a fraction of the median "
        "of normal-appearing white matter: the scale of λ"
    },
}
_PROBABILITY_COLUMN = {"probability": {"Description": "Mean lesion probability of its voxels"}}
_DOUBT_COLUMN = {
    "probability_sd": {
        "Description": "Mean standard deviation of their lesion probability between the brain and its mirror "
        "image"
    }
}
_INTERVAL_COLUMNS = {
    f"volume_{end}": {
        "Description": f"{which} end of the {LEVEL:.0%} interval of its true volume, fitted to people with "
        "painted lesions and to patients; from 0 if it may be no lesion",
        "Units": "mm^3",
    }
    for end, which in (("low", "Lower"), ("high", "Upper"))
}
_EDIT_COLUMN = {
    "edit": {
        "Description": "What a person did to the lesion",
        "Levels": {
            "none": "It is as the network told it",
            "changed": "Voxels were added or removed",
            "added": "The network told no voxel of it",
        },
    }
}
#: What the network tells of lesions, whatever a person makes of it.
_TOLD = ("native_probability", "probability", "native_doubt")
#: Results that are made before lesions are looked at.
_BEFORE_LESIONS = ("native_preproc", "preproc", "brain_mask", "working_mask", "native_original", "original")


def given_files(image: Image) -> dict[str, str]:
    """The option that says what of an image another program made; empty if all is made here."""
    given = (("brain mask", image.brain_mask), ("affine", image.xfm))
    names = " and ".join(name for name, file in given if file)
    return {"GivenFiles": names} if names else {}


def own_options(image: Image) -> dict[str, Any]:
    """The options of an image alone: which files were given, and whether it is one of several visits."""
    return given_files(image) | ({"Longitudinal": True} if image.visits else {})


def provenance(settings: Settings, networks: Networks) -> dict[str, Any]:
    """What made the inpainted images of a run, for their sidecars: version, networks, options that matter.

    Of a single image, there are `own_options` besides.
    """
    model, second = networks.main, networks.second
    out: dict[str, Any] = {"SoftwareVersion": __version__, **_made_by(model, second)}
    options = {
        "Model": model.name,
        "SecondPass": second.name if second else "none",
        "Fill": settings.fill,
        "TestTimeAugmentation": settings.tta,
        **_limits(networks.rule(settings)),
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
    of_inpainted = [tissue_key("inpainted", t) for t in TISSUES] if products.segmented else []
    for key in ("native_inpainted", "inpainted", *of_inpainted, *(f"native_{k}" for k in of_inpainted)):
        out[key] |= network
    if networks.reference:
        for key in ("native_reference", "reference"):
            out[key] |= _made_by(networks.reference)
    if networks.flair:
        _describe_flair(out, image, settings, networks)
    origin = provenance(settings, networks)
    origin["Options"] |= own_options(image)
    for key in ("native_inpainted", "inpainted"):
        out[key] |= origin
    out["native_inpainted"]["Fill"] = settings.fill
    if image.visits:
        out["native_inpainted"]["Visits"] = list(image.visits)
    if image.added_to:
        out["native_inpainted"]["AddedTo"] = list(image.added_to)
    rule = networks.rule(settings)
    unit = "fraction of the median of normal-appearing white matter"
    lesions = network | {
        **_limits(rule),
        "LesionThresholdUnits": "probability" if rule.kind == "probability" else unit,
        "LesionMinVolume": settings.lesion_min_volume,
        "LesionMinVolumeUnits": "mm^3",
    }
    if _fills_given_lesions(image, networks):
        lesions = network | {"LesionsGiven": True}
    told = ("native_doubt",) if "doubt" in products.uncertain else ()
    for key in ("native_mask", "mask", "native_probability", "probability", "native_labels", *told):
        out[key] |= lesions
    if "spread" in products.uncertain:
        out["native_spread"] |= network
    for key in ("native_inpainted", "native_mask", "native_labels"):
        out[key] |= _about_interval(why_no_interval(image, settings, networks))
    out["native_labels"] |= _columns(image, settings, networks, products)
    return out


def _describe_flair(out: dict[str, dict], image: Image, settings: Settings, networks: Networks) -> None:
    """Add what the results of a FLAIR say that is no matter of the T1w alone."""
    if image.flair is None:
        assert networks.flair is not None
        for key in ("native_flair", "native_joint_mask"):
            out[key] |= _made_by(networks.flair)
        return
    assert networks.by_flair is not None
    model = networks.by_flair
    by_flair = model.card.lesion_by_flair
    assert by_flair is not None
    uri = image.flair[1]
    out["native_flair_moved"] |= {"Sources": [uri], "SpatialReference": image.uri}
    for key in ("native_joint_mask", "native_joint_probability"):
        out[key] |= _made_by(model) | {
            "Description": "By the T1w and the FLAIR together",
            "Sources": [image.uri, uri],
            "LesionMap": "probability",
            "LesionThreshold": by_flair.threshold,
            "LesionThresholdUnits": "probability",
            "LesionMinVolume": settings.lesion_min_volume,
            "LesionMinVolumeUnits": "mm^3",
        }


def why_no_interval(image: Image, settings: Settings, networks: Networks) -> str:
    """Why the lesion volume of an image has no interval of its true value, as a sentence; empty if it has."""
    rule = networks.rule(settings)
    if image.edit or _fills_given_lesions(image, networks):
        return "A person drew the lesion map."
    if rule.kind != "probability":
        return "The lesion map is of the difference, of which no probability is known."
    if image.visits:
        return "All visits of the person decided about the lesion map."
    if networks.main.card.lesion_volume is None:
        return f"The card of {networks.main.name} has no lesion_volume."
    return "" if rule.volumes else "It was measured with the lesion threshold of the network's card alone."


def _about_interval(reason: str) -> dict[str, Any]:
    """What a sidecar says of the interval of the lesion volume before the run."""
    if reason:
        return {"LesionVolumeIntervalMissing": reason}
    return {"LesionVolumeIntervalLevel": LEVEL, "LesionVolumeIntervalUnits": "mm^3"}


def _columns(image: Image, settings: Settings, networks: Networks, products: Products) -> dict[str, Any]:
    """What the columns of the table of lesions mean."""
    told = networks.rule(settings).kind == "probability" and not _fills_given_lesions(image, networks)
    return {
        **_COLUMNS,
        **(_PROBABILITY_COLUMN if told else {}),
        **(_DOUBT_COLUMN if "doubt" in products.uncertain else {}),
        **({} if why_no_interval(image, settings, networks) else _INTERVAL_COLUMNS),
        **(_EDIT_COLUMN if image.edit else {}),
    }


def _limits(rule: Rule) -> dict[str, Any]:
    low = {"LesionLowThreshold": rule.low} if rule.kind == "probability" else {}
    return {"LesionMap": rule.kind, "LesionThreshold": rule.threshold, **low}


def _fills_given_lesions(image: Image, networks: Networks) -> bool:
    return not networks.main.blind and image.lesion_mask is not None


def _described(image: Image, settings: Settings, networks: Networks, products: Products) -> dict[str, dict]:
    """What the sidecars say of the images themselves: their kind, their sources and their space."""
    xfm = names_of(image, settings.template, products)["xfm"]
    given = _fills_given_lesions(image, networks)

    def sources(key: str) -> list[str]:
        # a blind network does not see the lesion mask that leads to the reference
        sees_mask = "reference" in key or (given and key not in _BEFORE_LESIONS)
        # nor does what is made before lesions are looked at, or apart from the map, know of its edit
        sees_edit = part_of(key) == PARTS[0] and key not in (*_BEFORE_LESIONS, *_TOLD)
        unseen = {LESION_MASKS: not sees_mask, EDITS: not sees_edit}
        prefixes = tuple(f"bids:{name}:" for name, is_unseen in unseen.items() if is_unseen)
        return [image.uri, *(s for s in image.sources if not s.startswith(prefixes))]

    out: dict[str, dict] = {}
    for key, (_, metadata) in products.native(image).items():
        out[key] = {**metadata, "Sources": sources(key)}
    for key, (_, metadata) in products.standard().items():
        out[key] = {
            **metadata,
            "Sources": [*sources(key), f"bids::{xfm}"],
            **standard_space(settings.template),
        }
    return out
