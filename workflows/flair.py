"""A FLAIR and a second lesion map from the preprocessed T1w."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.flair import FindByFlair, FlairToWorkingGrid, SynthesiseFlair
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.inpaint import network_inputs


def init_lesions_by_flair_wf(
    image: Image, networks: Networks, settings: Settings, template: TemplateFiles, threads: int
) -> pe.Workflow:
    """Build the lesion map by a T1w and its FLAIR, which is made if it has none.

    The inputs and outputs are those of :func:`init_real_flair_wf` or :func:`init_flair_wf`.
    """
    common: dict[str, Any] = {"template": template, "device": settings.device, "omp_nthreads": threads}
    if image.flair:
        assert networks.by_flair is not None
        path, least = image.flair[0], settings.lesion_min_volume
        return init_real_flair_wf(flair=path, model=networks.by_flair, min_volume=least, **common)
    assert networks.flair is not None
    return init_flair_wf(model=networks.flair, **common)


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
    flair, joint_mask
        On the working grid; the mask is that of lesions.
    native_flair, native_joint_mask
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
    outputs = ["flair", "joint_mask", "native_flair", "native_joint_mask"]
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
        (synthesise, outputnode, [
            *((f, f) for f in ("flair", "native_flair")),
            *((f, f.replace("mask", "joint_mask")) for f in ("mask", "native_mask")),
        ]),
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
    flair, joint_mask
        On the working grid; the mask is that of lesions.
    native_flair_moved, native_joint_mask, native_joint_probability
        On the voxels of the T1w.
    flair_xfm
        Takes images from the FLAIR to the T1w.
    flair_stripped, flair_warnings
        Whether the FLAIR shows the brain alone, and what is unusual about it.
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
    registered = [
        ("out_file", "flair"),
        ("native_file", "native_flair_moved"),
        ("out_xfm", "flair_xfm"),
        ("stripped", "flair_stripped"),
    ]
    found = [
        ("mask", "joint_mask"),
        ("native_mask", "native_joint_mask"),
        ("native_probability", "native_joint_probability"),
        ("warnings", "flair_warnings"),
    ]
    outputs = [name for _, name in (*registered, *found)]
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
        (register, find, [("out_file", "flair"), ("warnings", "flair_warnings")]),
        (register, outputnode, registered),
        (find, outputnode, found),
    ])  # fmt: skip
    return workflow
