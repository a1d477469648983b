"""The lesion map, and everything back on the voxels of the T1w."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.imaging.history import Limits
from bids_inpaint.imaging.intensity import GREY
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.interfaces.lesions import MapLesions
from bids_inpaint.interfaces.native import BackToNative

_PREPROCESSED = ["brain_mask", "denoised", "preproc", "bias", "scale", "offset", "inverse_xfm"]
_INPUTS = [
    "t1w", *_PREPROCESSED, "inpainted", "white", "exponent", "lesion_probability", "spread", "doubt",
    "given_lesions", "native_given_lesions", "added", "removed", "wm",
]  # fmt: skip
_OUTPUTS = [
    "mask", "probability", "darkening", "native_inpainted", "native_preproc", "native_mask",
    "native_probability", "native_labels", "table", "native_spread", "native_doubt", "volume_interval",
]  # fmt: skip


def init_lesions_wf(
    *,
    template: TemplateFiles,
    rule: Rule,
    fill: str = "lesions",
    given: bool = False,
    segmented: bool = True,
    uncertain: tuple[str, ...] = (),
    together: bool = False,
    edited: bool = False,
    name: str = "lesions_wf",
) -> pe.Workflow:
    """Build the lesion map and the native results.

    Parameters
    ----------
    template : TemplateFiles
        Lesions are looked for near its white matter.
    rule : Rule
        What counts as a lesion; its smallest volume counts on the working grid and on the voxels of the T1w.
    fill : {'lesions', 'full'}
        Change the T1w at the lesions alone, or take the network's output in the whole brain.
    given : bool
        Whether lesion masks are given; they replace the map.
    segmented : bool
        Whether `wm` is that of a segmentation, and not the template's.
    uncertain : tuple of str
        Which of 'spread' and 'doubt' there are.
    together : bool
        Whether all visits of the person decide what is lesion, and their workflow gives the lesions to the
        node ``map_lesions`` (:func:`bids_inpaint.workflows.person.weave`).
    edited : bool
        Whether the given masks are the map as a person corrected it.

    Inputs
    ------
    t1w
        The raw image.
    brain_mask, denoised, preproc, bias, scale, offset, inverse_xfm
        Of the preprocessing.
    inpainted, white, exponent, lesion_probability, spread, doubt, given_lesions, native_given_lesions
        Of the inpainting.
    added, removed
        Of :func:`bids_inpaint.workflows.edits.init_edit_wf`, if the map was edited.
    wm
        White matter on the working grid.

    Outputs
    -------
    mask, probability, darkening
        On the working grid.
    native_inpainted, native_preproc, native_mask, native_probability, native_labels, table
        On the voxels of the T1w.
    native_spread, native_doubt
        The same of `spread` and `doubt`, if there are any.
    volume_interval
        Of the true volume of all lesions (mm³), if `rule` has what is known of it and the map is that of the
        network and of this image alone.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = "" if edited else _methods(rule, fill, given, segmented, together)
    inputnode = pe.Node(IdentityInterface(fields=_INPUTS), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    map_lesions = pe.Node(
        MapLesions(
            lesion_map=rule.kind,
            threshold=rule.threshold,
            low=rule.low,
            min_volume=rule.min_volume,
            wm_prior=template.priors["WM"],
        ),
        name="map_lesions",
        mem_gb=1,
    )
    told = edited or (rule.kind == "probability" and not given)
    # of a person with several visits, how they fall on their voxels is no change
    native = pe.Node(
        BackToNative(fill=fill, min_volume=rule.min_volume, keep_volume=together, told=told),
        name="native", mem_gb=3,
    )  # fmt: skip
    if rule.volumes and not (given or together):
        native.inputs.volumes = asdict(rule.volumes)
        workflow.connect(native, "volume_interval", outputnode, "volume_interval")
    workflow.connect([
        (inputnode, map_lesions, [
            (f, f) for f in ("preproc", "inpainted", "wm", "white", "exponent")
        ]),
        (inputnode, native, [(f, f) for f in ["t1w", *_PREPROCESSED, "inpainted"]]),
        (map_lesions, native, [
            ("weight", "weight"), ("probability", "probability"), ("mask", "lesion_mask"),
            ("darkening", "darkening"),
        ]),
        (map_lesions, outputnode, [
            ("mask", "mask"), ("probability", "probability"), ("darkening", "darkening"),
        ]),
        (native, outputnode, [
            ("inpainted", "native_inpainted"), ("preproc", "native_preproc"),
            ("lesion_mask", "native_mask"), ("probability", "native_probability"),
            ("labels", "native_labels"), ("table", "table"),
        ]),
    ])  # fmt: skip
    workflow.connect([
        (inputnode, native, [(f, f) for f in uncertain]),
        (native, outputnode, [(f, f"native_{f}") for f in uncertain]),
    ])  # fmt: skip
    if told:
        workflow.connect(inputnode, "lesion_probability", map_lesions, "lesion_probability")
    if given:
        # they are kept as they are
        workflow.connect([
            (inputnode, map_lesions, [("given_lesions", "given")]),
            (inputnode, native, [("native_given_lesions", "given")]),
        ])  # fmt: skip
    if edited:
        workflow.connect([(inputnode, native, [("added", "added"), ("removed", "removed")])])
    return workflow


def _methods(rule: Rule, fill: str, given: bool, segmented: bool, together: bool) -> str:
    """The paragraph of the methods text."""
    region = "inpainted image and near that of the template" if segmented else "template"
    if given:
        mapped = "Given lesion masks were used as the lesion map. "
    else:
        told = {
            "probability": "by the calibrated probability that the blind network told: connected voxels of "
            f"at least {rule.low:g}, one of which had at least {rule.threshold:g}; ",
            "difference": f"where, inside the white matter of the {region}, the original was darker than "
            f"the inpainted image by more than {rule.threshold:g} of the median of normal-appearing white "
            f"matter, once their contrast was stretched to grey matter at {GREY:g} of white matter; ",
        }
        mapped = (
            f"Lesions were mapped {told[rule.kind]}components below {rule.min_volume:g} mm³ were dropped, "
            "and so were those that became as small on the voxels of the T1w image. "
        )
        if together:
            mapped += (
                "All visits of a person decided together: their log odds were averaged where their images "
                "did not differ, and raised where a visit was darker than another by more than the noise. "
                "A voxel that had this probability at one visit then "
                f"needed {Limits.of(rule).supported:g} at the others. "
            )
    filled = (
        "The difference of both images, with the bias field and scale restored and feathered to 3 mm around "
        "the lesions, was resampled to the T1w image and subtracted from it; elsewhere the original is "
        "unchanged.\n\n"
        if fill == "lesions"
        else "The network's output, with the bias field and scale restored, was resampled to the T1w image "
        "and replaced it inside the brain.\n\n"
    )
    return mapped + filled
