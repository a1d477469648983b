"""From the raw T1w to a normalised brain on the working grid."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.ants import Denoise, RegisterAffine
from bids_inpaint.interfaces.base import InputSpec
from bids_inpaint.interfaces.bias import CorrectBias
from bids_inpaint.interfaces.images import BrainMask, Conform, GivenAffine, Normalise, ToWorkingGrid, TrimMask

#: What the methods text of a visit says that is added to others.
_ADDED = (
    "This visit was added to others of the person, which were finished before and were not changed. It was "
    "registered rigidly to the template that those had made, took the affine and the brain mask of that "
    "template, and was brought to their intensity. Their images, lesion probabilities and lesion maps had a "
    "part in the decision about its lesions (below), but its own had none in theirs; where they had the same "
    "lesion, it was given their filling.\n\n"
)
OUTPUTS = [
    "conformed", "brain_mask", "denoised", "xfm", "inverse_xfm",
    "working_mask", "bias", "preproc", "scale", "offset", "mask_method",
    "input_warnings", "mask_warnings",
]  # fmt: skip


def init_preprocess_wf(
    *,
    template: TemplateFiles,
    skull_strip: str = "auto",
    brain_mask: str | None = None,
    brain_mask_xfm: str | None = None,
    xfm: tuple[str, str] | None = None,
    together: bool = False,
    added: bool = False,
    bias_correction: str = "n4",
    random_seed: int = 0,
    omp_nthreads: int = 1,
    sloppy: bool = False,
    name: str = "preprocess_wf",
) -> pe.Workflow:
    """Build the preprocessing of one T1w.

    Parameters
    ----------
    template : TemplateFiles
        The standard space, on the working grid.
    skull_strip : {'auto', 'force', 'skip'}
        Whether to extract the brain.
    brain_mask : str, optional
        Precomputed mask; nothing is extracted then.
    brain_mask_xfm : str, optional
        ITK text: takes images from the T1w to the space of `brain_mask`, where that is another.
    xfm : tuple of two str, optional
        Precomputed affine (T1w to template, and back) as ITK text; nothing is registered then.
    together : bool
        Whether this is one of several visits of a person, whose workflow gives the affine, the brain mask and
        the image in the unit of all visits (:func:`bids_inpaint.workflows.person.weave`).
    added : bool
        Whether it is added to visits that are finished.
    bias_correction : {'n4', 'ants'}
        Whose N4 removes the bias field: the app's or that of ANTs.

    Inputs
    ------
    t1w
        The raw image.

    Outputs
    -------
    conformed, brain_mask, denoised
        On the voxels of the T1w.
    xfm, inverse_xfm
        ITK text affines, T1w to template and back.
    working_mask, bias, preproc
        On the working grid; `preproc` has mean 1 over the mask.
    scale
        The mean `preproc` was divided by.
    offset
        What was subtracted from the intensities of the T1w before all else.
    mask_method
        How the brain mask came about.
    input_warnings, mask_warnings
        What is unusual about the T1w and about a precomputed mask.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = _describe(
        skull_strip, brain_mask, _describe_affine(template.name, xfm, together), bias_correction, together
    ) + (_ADDED if added else "")
    inputnode = pe.Node(IdentityInterface(fields=["t1w"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=OUTPUTS), name="outputnode")
    conform = pe.Node(Conform(), name="conform", mem_gb=1)
    mask = _mask_node(skull_strip, brain_mask, brain_mask_xfm, omp_nthreads)
    denoise = pe.Node(
        Denoise(num_threads=omp_nthreads), name="denoise", n_procs=omp_nthreads, mem_gb=2
    )  # fmt: skip
    trim = pe.Node(
        IdentityInterface(fields=["out_file"]) if together else TrimMask(template_mask=template.mask),
        name="trim", mem_gb=1,
    )  # fmt: skip
    resample = pe.Node(ToWorkingGrid(), name="resample", mem_gb=2)
    correct_bias = pe.Node(
        CorrectBias(method=bias_correction, sloppy=sloppy), name="correct_bias", mem_gb=2
    )  # fmt: skip
    normalise = pe.Node(Normalise(), name="normalise", mem_gb=1)
    register = _affine_node(template, xfm, together, random_seed, sloppy)
    workflow.connect([
        (inputnode, conform, [("t1w", "in_file")]),
        (conform, mask, [("out_file", "in_file")]),
        (conform, denoise, [("out_file", "in_file")]),
        (mask, denoise, [("out_file", "mask_file")]),
        (denoise, resample, [("out_file", "in_file")]),
        (trim, resample, [("out_file", "mask_file")]),
        (register, resample, [("out_xfm", "xfm")]),
        (resample, correct_bias, [("out_file", "in_file"), ("out_mask", "mask_file")]),
        (correct_bias, normalise, [("out_file", "in_file")]),
        (resample, normalise, [("out_mask", "mask_file")]),
        (conform, outputnode, [
            ("out_file", "conformed"), ("offset", "offset"), ("warnings", "input_warnings"),
        ]),
        (trim, outputnode, [("out_file", "brain_mask")]),
        (mask, outputnode, [("method", "mask_method"), ("warnings", "mask_warnings")]),
        (denoise, outputnode, [("out_file", "denoised")]),
        (register, outputnode, [("out_xfm", "xfm"), ("out_inverse", "inverse_xfm")]),
        (resample, outputnode, [("out_mask", "working_mask")]),
        (normalise, outputnode, [("scale", "scale")]),
    ])  # fmt: skip
    if not (together or xfm):
        workflow.connect([
            (denoise, register, [("out_file", "in_file")]),
            (mask, register, [("out_file", "mask_file")]),
        ])  # fmt: skip
    if not together:
        workflow.connect([
            (mask, trim, [("out_file", "in_file"), ("method", "method")]),
            (register, trim, [("out_inverse", "inverse_xfm")]),
            (correct_bias, outputnode, [("bias_file", "bias")]),
            (normalise, outputnode, [("out_file", "preproc")]),
        ])  # fmt: skip
    return workflow


def _mask_node(
    skull_strip: str, brain_mask: str | None, brain_mask_xfm: str | None, omp_nthreads: int
) -> pe.Node:
    """The node that finds the brain, or takes it from a given mask."""
    mask = pe.Node(
        BrainMask(skull_strip=skull_strip, num_threads=omp_nthreads),
        name="mask", n_procs=omp_nthreads, mem_gb=2,
    )  # fmt: skip
    if brain_mask:
        mask.inputs.precomputed = brain_mask
        if brain_mask_xfm:
            mask.inputs.precomputed_xfm = brain_mask_xfm
    return mask


def _affine_node(
    template: TemplateFiles, xfm: tuple[str, str] | None, together: bool, random_seed: int, sloppy: bool
) -> pe.Node:
    """The node that registers the brain, or checks an affine that it is given."""
    if together:
        return pe.Node(GivenAffine(), name="register")
    if xfm:
        return pe.Node(GivenAffine(xfm=xfm[0], inverse_xfm=xfm[1]), name="register")
    return pe.Node(
        RegisterAffine(template=template.t1w, random_seed=random_seed, sloppy=sloppy),
        name="register", mem_gb=2,
    )  # fmt: skip


def name_source(workflow: pe.Workflow, path: str) -> None:
    """Let messages of all steps of an image name its T1w."""
    for node in workflow._get_all_nodes():
        if isinstance(node.inputs, InputSpec):
            node.inputs.source = path


def _describe_affine(template: str, xfm: tuple[str, str] | None, together: bool) -> str:
    """How the brain came to the template."""
    if xfm:
        return "A precomputed affine was used"
    registered = (
        f"registered to {template} with an affine transform (ANTs [@ants]), which was moved to the nearest "
        "least-squares fit of both"
    )
    if not together:
        return f"The brain was {registered}"
    return (
        "The T1w images of each person with several sessions, one of each, were registered rigidly, each two "
        "of them symmetrically and robustly, and meet in their middle space, of which none is the "
        f"reference; their median image, without bias fields, was {registered}, as was the brain of all "
        "others. Both transforms of each image were composed, one brain mask was taken for all visits, where "
        "the mean of theirs is at least a half"
    )


def _describe(
    skull_strip: str, brain_mask: str | None, affine: str, bias_correction: str, together: bool
) -> str:
    network = "a 3D U-Net trained on heads of any contrast drawn from label maps [as in @synthstrip]"
    if brain_mask:
        brain = "A precomputed brain mask was used. "
    elif skull_strip == "skip":
        brain = "The T1w image was taken as already skull-stripped. "
    elif skull_strip == "force":
        brain = f"The brain was extracted with {network}. "
    else:
        brain = (
            "Images that were already skull-stripped were recognised by their constant background; "
            f"of all others the brain was extracted with {network}, and the mask was cut to within 4 mm "
            "of the registered template's brain. "
        )
    n4 = {
        "n4": "N4 [@n4], as bids_inpaint implements it, with 4 levels of 50 iterations",
        "ants": "N4 [@n4] of ANTs [@ants]",
    }[bias_correction]
    matched = ""
    if together:
        matched = (
            " The intensities of the visits of a person were matched: what differs smoothly between them was "
            "removed [as in @differential_bias], and the rest scaled to one median in stable white matter."
        )
    return (
        "Each T1-weighted (T1w) image was preprocessed as in @manjon2020. "
        + brain
        + "Rician noise was removed with an adaptive non-local means filter [@nlm]. "
        + affine
        + ", and the image was resampled once, with cubic splines, onto the 1 mm MNI grid of "
        "182×218×182 voxels. Intensity non-uniformity was corrected inside the brain mask "
        f"with {n4}, and the image was divided by its mean over the mask.{matched}\n\n"
    )
