"""The network on the preprocessed brain."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.interfaces.inpaint import Inpaint, LesionMask
from bids_inpaint.models import Model
from bids_inpaint.template import TemplateFiles

#: What kind of network an engine is, for the methods text.
ENGINES = {
    "unet": "a 3D U-Net on the eight parity sub-volumes of the image [@manjon2020]",
    "ddpm": "a denoising diffusion model that draws axial slices [@durrer2023]",
    "ip-medgan": "an adversarially trained cascade of U-blocks that fills axial slices [@ipmedgan]",
}


def init_inpaint_wf(
    *,
    model: Model,
    template: TemplateFiles,
    lesion_mask: str | None = None,
    lesion_space: str = "T1w",
    device: str = "auto",
    omp_nthreads: int = 1,
    reference: bool = False,
    threshold: float = 0.1,
    min_volume: float = 10.0,
    confine: bool = False,
    second: Model | None = None,
    second_alone: bool = False,
    random_seed: int = 0,
    sampler: str | None = None,
    sampling_steps: int | None = None,
    name: str = "inpaint_wf",
) -> pe.Workflow:
    """Build the inpainting of one preprocessed brain.

    Parameters
    ----------
    model : Model
        The network.
    template : TemplateFiles
        Its tissue priors set the intensity scale.
    lesion_mask : str, optional
        Given lesions; a non-blind network needs them.
    lesion_space : {'T1w', 'template'}
        Where they lie.
    reference : bool
        Whether the result is what others are compared with.
    threshold : float
        λ of the lesions that a blind network found.
    min_volume : float
        Of these lesions, in mm³.
    confine : bool
        Whether what a blind network changed away from them is undone.
    second : Model, optional
        Non-blind network that fills them again.
    second_alone : bool
        Whether its filling is the result, not the mean of both.
    random_seed, sampler, sampling_steps
        Of a network that draws what it fills; None for the network's own.

    Inputs
    ------
    t1w, preproc, working_mask, xfm, inverse_xfm
        Of :func:`bids_inpaint.workflows.preprocess.init_preprocess_wf`.

    Outputs
    -------
    inpainted
        On the working grid, in the unit of `preproc`.
    whole
        The same with nothing undone.
    white, exponent
        The intensity scale of `preproc`.
    given_lesions, native_given_lesions
        The given mask on the working grid and on the voxels of the T1w, if there is one.
    lesion_warnings
        What is unusual about it.
    """
    workflow = pe.Workflow(name=name)
    what = (
        "As a reference, the lesions of given masks were filled"
        if reference
        else f"Lesions were removed ({'blind, without masks' if model.blind else 'those of given masks'})"
    )
    workflow.__desc__ = (
        f"{what} with the network '{model.name}', {ENGINES[model.engine]}"
        f" (SHA-256 {model.sha256[:12]}…), run with ONNX Runtime."
    )
    if second or confine:
        workflow.__desc__ += (
            " What it had made as bright as white matter, and had brightened by more than "
            f"{threshold:g} of it, was taken for lesions in what follows."
        )
    if second:
        workflow.__desc__ += (
            f" In a second pass, the non-blind network '{second.name}', {ENGINES[second.engine]} (SHA-256 "
            f"{second.sha256[:12]}…), filled these lesions in the output of the first"
            f"{'' if second_alone else ', and the mean of both fillings was taken'}."
        )
    if confine:
        workflow.__desc__ += (
            " For the segmentation, changes were kept around these lesions and undone elsewhere."
        )
    workflow.__desc__ += "\n\n"
    inputnode = pe.Node(
        IdentityInterface(fields=["t1w", "preproc", "working_mask", "xfm", "inverse_xfm"]), name="inputnode"
    )
    outputnode = pe.Node(
        IdentityInterface(
            fields=[
                "inpainted",
                "whole",
                "white",
                "exponent",
                "given_lesions",
                "native_given_lesions",
                "lesion_warnings",
            ]
        ),
        name="outputnode",
    )
    more: dict = {"random_seed": random_seed}
    if second:
        more |= {"second_model": second.identifier, "second_sha256": second.sha256}
        more |= {"second_alone": second_alone}
    more |= {"sampler": sampler} if sampler else {}
    more |= {"sampling_steps": sampling_steps} if sampling_steps else {}
    if second or confine:
        more |= {"threshold": threshold, "min_volume": min_volume, "confine": confine}
    inpaint = pe.Node(
        Inpaint(
            model=model.identifier,
            model_sha256=model.sha256,
            wm_prior=template.priors["WM"],
            gm_prior=template.priors["GM"],
            device=device,
            num_threads=omp_nthreads,
            **more,
        ),
        name="inpaint", n_procs=omp_nthreads, mem_gb=4,
    )  # fmt: skip
    workflow.connect([
        (inputnode, inpaint, [("preproc", "in_file"), ("working_mask", "mask_file")]),
        (inpaint, outputnode, [
            ("out_file", "inpainted"), ("whole_file", "whole"),
            ("white", "white"), ("exponent", "exponent"),
        ]),
    ])  # fmt: skip
    if lesion_mask:
        given = pe.Node(
            LesionMask(in_file=lesion_mask, space=lesion_space, wm_prior=template.priors["WM"]),
            name="given", mem_gb=1,
        )  # fmt: skip
        workflow.connect([
            (inputnode, given, [
                ("t1w", "t1w"), ("xfm", "xfm"), ("inverse_xfm", "inverse_xfm"),
                ("working_mask", "brain_mask"), ("preproc", "preproc"),
            ]),
            (given, inpaint, [("void_file", "lesion_mask")]),
            (given, outputnode, [
                ("out_file", "given_lesions"), ("native_file", "native_given_lesions"),
                ("warnings", "lesion_warnings"),
            ]),
        ])  # fmt: skip
    return workflow
