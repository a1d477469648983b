"""The network on the preprocessed brain."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.interfaces.inpaint import Inpaint, LesionMask
from bids_inpaint.models import Model
from bids_inpaint.template import TemplateFiles


def init_inpaint_wf(
    *,
    model: Model,
    template: TemplateFiles,
    lesion_mask: str | None = None,
    lesion_space: str = "T1w",
    device: str = "auto",
    omp_nthreads: int = 1,
    reference: bool = False,
    threshold: float | None = None,
    min_volume: float = 10.0,
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
    threshold : float, optional
        λ: what a blind network changed away from the lesions found with it is undone.
    min_volume : float
        Of these lesions, in mm³.

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
    """
    workflow = pe.Workflow(name=name)
    what = (
        "As a reference, the lesions of given masks were filled"
        if reference
        else f"Lesions were removed ({'blind, without masks' if model.blind else 'those of given masks'})"
    )
    workflow.__desc__ = (
        f"{what} with the network '{model.name}', "
        "a 3D U-Net on the eight parity sub-volumes of the image [@manjon2020]"
        f" (SHA-256 {model.sha256[:12]}…), run with ONNX Runtime."
    )
    if threshold is not None:
        workflow.__desc__ += (
            " For the segmentation, its changes were kept around voxels as bright as white matter which it "
            f"had brightened by more than {threshold:g} of it, and undone elsewhere."
        )
    workflow.__desc__ += "\n\n"
    inputnode = pe.Node(
        IdentityInterface(fields=["t1w", "preproc", "working_mask", "xfm", "inverse_xfm"]), name="inputnode"
    )
    outputnode = pe.Node(
        IdentityInterface(
            fields=["inpainted", "whole", "white", "exponent", "given_lesions", "native_given_lesions"]
        ),
        name="outputnode",
    )
    inpaint = pe.Node(
        Inpaint(
            model=model.name if model.path.parent.name == "models" else str(model.path),
            model_sha256=model.sha256,
            wm_prior=template.priors["WM"],
            gm_prior=template.priors["GM"],
            device=device,
            num_threads=omp_nthreads,
            **({} if threshold is None else {"threshold": threshold, "min_volume": min_volume}),
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
        given = pe.Node(LesionMask(in_file=lesion_mask, space=lesion_space), name="given", mem_gb=1)
        workflow.connect([
            (inputnode, given, [
                ("t1w", "t1w"), ("xfm", "xfm"), ("inverse_xfm", "inverse_xfm"),
                ("working_mask", "brain_mask"),
            ]),
            (given, inpaint, [("out_file", "lesion_mask")]),
            (given, outputnode, [
                ("out_file", "given_lesions"), ("native_file", "native_given_lesions"),
            ]),
        ])  # fmt: skip
    return workflow
