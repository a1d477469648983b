"""A FLAIR and a second lesion map from the preprocessed T1w."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.flair import FindByFlair, FlairToWorkingGrid, SynthesiseFlair
from bids_inpaint.networks.card import Model
from bids_inpaint.workflows.inpaint import network_inputs


def init_flair_wf(
    *,
    model: Model,
    template: TemplateFiles,
    device: str = "auto",
    omp_nthreads: int = 1,
    name: str = "flair_wf",
) -> pe.Workflow:
    """Build the joint synthesis of FLAIR and segmentation of lesions.

    Parameters
    ----------
    model : Model
        A network for 'flair'.
    template : TemplateFiles
        Its tissue priors set the intensity scale.

    Inputs
    ------
    preproc, working_mask, brain_mask, inverse_xfm
        Of :func:`bids_inpaint.workflows.preprocess.init_preprocess_wf`.

    Outputs
    -------
    flair, mask
        On the working grid.
    native_flair, native_mask
        On the voxels of the T1w.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = (
        "A fluid-attenuated inversion recovery (FLAIR) image was synthesised from the T1w image, and lesions "
        f"were segmented in both, with the network '{model.name}', {model.engine.describes} "
        f"(SHA-256 {model.sha256[:12]}…).\n\n"
    )
    inputnode = pe.Node(
        IdentityInterface(fields=["preproc", "working_mask", "brain_mask", "inverse_xfm"]), name="inputnode"
    )
    outputs = ["flair", "mask", "native_flair", "native_mask"]
    outputnode = pe.Node(IdentityInterface(fields=outputs), name="outputnode")
    synthesise = pe.Node(
        SynthesiseFlair(
            **network_inputs(model, template, device, omp_nthreads),
        ),
        name="synthesise", n_procs=omp_nthreads, mem_gb=2,
    )  # fmt: skip
    workflow.connect([
        (inputnode, synthesise, [
            ("preproc", "in_file"),
            *((f, f) for f in ("working_mask", "brain_mask", "inverse_xfm")),
        ]),
        (synthesise, outputnode, [(f, f) for f in outputs]),
    ])  # fmt: skip
    return workflow


def init_real_flair_wf(
    *,
    flair: str,
    model: Model,
    template: TemplateFiles,
    min_volume: float,
    device: str = "auto",
    omp_nthreads: int = 1,
    name: str = "flair_wf",
) -> pe.Workflow:
    """Build the registration of a FLAIR and the map of lesions by both images.

    Parameters
    ----------
    flair : str
        Path of the FLAIR.
    model : Model
        A blind network whose card says how a FLAIR decides about lesions.
    template : TemplateFiles
        Its tissue priors set the intensity scale.
    min_volume : float
        Of a lesion (mm³).

    Inputs
    ------
    conformed, preproc, working_mask, brain_mask, xfm, inverse_xfm
        Of :func:`bids_inpaint.workflows.preprocess.init_preprocess_wf`.

    Outputs
    -------
    flair, mask
        On the working grid.
    native_flair, native_mask, native_probability
        On the voxels of the T1w.
    flair_xfm
        Takes images from the FLAIR to the T1w.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = (
        "The fluid-attenuated inversion recovery (FLAIR) image was registered to the T1w image with a rigid "
        "transform (ANTs [@ants]), and corrected for its bias field (N4 [@n4]). Lesions were segmented in "
        f"both by a logistic model of the lesion probability of the network '{model.name}' (SHA-256 "
        f"{model.sha256[:12]}…), which sees the T1w alone, and of the intensity of the FLAIR as a "
        "fraction of healthy white matter.\n\n"
    )
    needed = ["conformed", "preproc", "working_mask", "brain_mask", "xfm", "inverse_xfm"]
    inputnode = pe.Node(IdentityInterface(fields=needed), name="inputnode")
    outputs = ["flair", "mask", "native_flair", "native_mask", "native_probability", "flair_xfm"]
    outputnode = pe.Node(IdentityInterface(fields=outputs), name="outputnode")
    register = pe.Node(FlairToWorkingGrid(in_file=flair), name="register", mem_gb=2)
    find = pe.Node(
        FindByFlair(
            flair_source=flair,
            min_volume=min_volume,
            **network_inputs(model, template, device, omp_nthreads),
        ),
        name="find", n_procs=omp_nthreads, mem_gb=3,
    )  # fmt: skip
    workflow.connect([
        (inputnode, register, [("conformed", "t1w"), ("xfm", "xfm"), ("working_mask", "mask_file")]),
        (inputnode, find, [
            ("preproc", "in_file"),
            *((f, f) for f in ("working_mask", "brain_mask", "inverse_xfm")),
        ]),
        (register, find, [("out_file", "flair")]),
        (register, outputnode, [
            ("out_file", "flair"), ("native_file", "native_flair"), ("out_xfm", "flair_xfm"),
        ]),
        (find, outputnode, [(f, f) for f in ("mask", "native_mask", "native_probability")]),
    ])  # fmt: skip
    return workflow
