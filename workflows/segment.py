"""Tissue segmentation of the inpainted brain."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.interfaces.ants import SegmentAtropos
from bids_inpaint.template import TISSUES, TemplateFiles


def init_segment_wf(
    *,
    template: TemplateFiles,
    omp_nthreads: int = 1,
    sloppy: bool = False,
    name: str = "segment_wf",
) -> pe.Workflow:
    """Build the segmentation with Atropos and template priors.

    Inputs
    ------
    in_file, mask_file
        A brain and its mask on the working grid.

    Outputs
    -------
    csf, gm, wm
        Posterior probabilities.
    dseg
        1 GM, 2 WM, 3 CSF.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = (
        "The inpainted image was segmented into cerebrospinal fluid, grey matter and white matter with "
        f"Atropos [@atropos] and the tissue priors of {template.name}.\n\n"
    )
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=["csf", "gm", "wm", "dseg"]), name="outputnode")
    atropos = pe.Node(
        SegmentAtropos(
            priors=[template.priors[t] for t in TISSUES], num_threads=omp_nthreads, sloppy=sloppy
        ),
        name="atropos", n_procs=omp_nthreads, mem_gb=3,
    )  # fmt: skip
    workflow.connect([
        (inputnode, atropos, [("in_file", "in_file"), ("mask_file", "mask_file")]),
        (atropos, outputnode, [("csf", "csf"), ("gm", "gm"), ("wm", "wm"), ("dseg", "dseg")]),
    ])  # fmt: skip
    return workflow
