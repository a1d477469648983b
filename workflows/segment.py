"""Tissue segmentation of a brain, with or without its lesions."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TISSUES, TemplateFiles
from bids_inpaint.interfaces.ants import SegmentAtropos
from bids_inpaint.interfaces.images import TissuesToNative
from bids_inpaint.interfaces.spm import SegmentSPM
from bids_inpaint.spm.program import Spm

TISSUE_MAPS = ("csf", "gm", "wm", "dseg")


def init_segment_wf(
    *,
    template: TemplateFiles,
    spm: Spm | None = None,
    sloppy: bool = False,
    name: str = "segment_wf",
) -> pe.Workflow:
    """Build the segmentation of one image, and its way to the voxels of the T1w.

    Parameters
    ----------
    template : TemplateFiles
        Atropos uses its tissue priors, and maps that are not like them are refused.
    spm : Spm, optional
        Use this SPM12 or SPM25 in place of Atropos.

    Inputs
    ------
    in_file, working_mask
        A brain and its mask on the working grid.
    brain_mask, inverse_xfm
        Of the preprocessing.

    Outputs
    -------
    csf, gm, wm
        Posterior probabilities on the working grid.
    dseg
        1 GM, 2 WM, 3 CSF.
    native_csf, native_gm, native_wm, native_dseg
        On the voxels of the T1w.
    volumes
        Of the tissues, in mm³.
    method
        Name and version of what segmented.
    """
    workflow = pe.Workflow(name=name)
    how = (
        "the unified segmentation of SPM [@spm12]"
        if spm
        else f"Atropos [@atropos] and the tissue priors of {template.name}"
    )
    workflow.__desc__ = (
        "The inpainted image was segmented into cerebrospinal fluid, grey matter and white matter with "
        f"{how}.\n\n"
    )
    inputnode = pe.Node(
        IdentityInterface(fields=["in_file", "working_mask", "brain_mask", "inverse_xfm"]), name="inputnode"
    )
    outputnode = pe.Node(
        IdentityInterface(fields=[*TISSUE_MAPS, *(f"native_{k}" for k in TISSUE_MAPS), "volumes", "method"]),
        name="outputnode",
    )
    priors = [template.priors[t] for t in TISSUES]
    segment = (
        pe.Node(
            SegmentSPM(
                command=list(spm.command),
                kind=spm.kind,
                priors=priors,
                **({"folder": spm.folder} if spm.folder else {}),
            ),
            name="spm12", mem_gb=4,
        )
        if spm
        else pe.Node(SegmentAtropos(priors=priors, sloppy=sloppy), name="atropos", mem_gb=3)
    )  # fmt: skip
    native = pe.Node(TissuesToNative(), name="native", mem_gb=2)
    workflow.connect([
        (inputnode, segment, [("in_file", "in_file"), ("working_mask", "mask_file")]),
        (inputnode, native, [("brain_mask", "brain_mask"), ("inverse_xfm", "inverse_xfm")]),
        (segment, native, [(k, k) for k in ("gm", "wm", "csf")]),
        (segment, outputnode, [(k, k) for k in (*TISSUE_MAPS, "method")]),
        (native, outputnode, [
            *((k, f"native_{k}") for k in TISSUE_MAPS), ("volumes", "volumes"),
        ]),
    ])  # fmt: skip
    return workflow
