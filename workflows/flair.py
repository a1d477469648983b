"""A FLAIR and a second lesion map from the preprocessed T1w."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.flair import SynthesiseFlair
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
