"""Tissue segmentation of a brain, with or without its lesions."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint import options
from bids_inpaint.dataset.template import TISSUES, TemplateFiles
from bids_inpaint.imaging import mixture
from bids_inpaint.interfaces.ants import SegmentAtropos
from bids_inpaint.interfaces.images import TissuesToNative
from bids_inpaint.interfaces.mixture import SegmentMixture
from bids_inpaint.interfaces.spm import SegmentSPM
from bids_inpaint.spm.program import Spm

TISSUE_MAPS = ("csf", "gm", "wm", "dseg")


def init_segment_wf(
    *,
    template: TemplateFiles,
    method: options.Segmentation = options.SEGMENTATIONS[0],
    spm: Spm | None = None,
    sloppy: bool = False,
    name: str = "segment_wf",
) -> pe.Workflow:
    """Build the segmentation of one image, and its way to the voxels of the T1w.

    Parameters
    ----------
    template : TemplateFiles
        The Gaussian mixture and Atropos use its tissue priors, and maps that are not like them are refused.
    method : str
        One of `bids_inpaint.options.SEGMENTATIONS`, but not none.
    spm : Spm, optional
        The SPM12 or SPM25 of the method spm12.
    sloppy : bool
        Of low quality, for tests; of Atropos alone, as the mixture is fast.

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
    workflow.__desc__ = (
        "The inpainted image was segmented into cerebrospinal fluid, grey matter and white matter with "
        f"{_methods(method, template.name)}.\n\n"
    )
    inputnode = pe.Node(
        IdentityInterface(fields=["in_file", "working_mask", "brain_mask", "inverse_xfm"]), name="inputnode"
    )
    outputnode = pe.Node(
        IdentityInterface(fields=[*TISSUE_MAPS, *(f"native_{k}" for k in TISSUE_MAPS), "volumes", "method"]),
        name="outputnode",
    )
    segment = _node(method, [template.priors[t] for t in TISSUES], spm, sloppy)
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


def _node(method: str, priors: list[str], spm: Spm | None, sloppy: bool) -> pe.Node:
    """What segments, named as its method."""
    if method == "spm12":
        assert spm is not None
        folder = {"folder": spm.folder} if spm.folder else {}
        node = SegmentSPM(command=list(spm.command), kind=spm.kind, priors=priors, **folder)
        return pe.Node(node, name=method, mem_gb=4)
    if method == "atropos":
        return pe.Node(SegmentAtropos(priors=priors, sloppy=sloppy), name=method, mem_gb=3)
    return pe.Node(SegmentMixture(priors=priors), name=method, mem_gb=1)


def _methods(method: str, template: str) -> str:
    """The end of the sentence of the methods text."""
    if method == "spm12":
        return "the unified segmentation of SPM [@spm12]"
    if method == "atropos":
        return f"Atropos [@atropos] and the tissue priors of {template}"
    return (
        "bids_inpaint's own mixture of three Gaussians, fitted by expectation-maximisation [@dempster1977; "
        f"compare @spm12] with the tissue priors of {template}, blurred by {mixture.PRIOR_BLUR_MM:g} mm and "
        f"with the odds of fluid to the power of {mixture.FLUID_WEIGHT:g}, and a Markov random field with "
        "mean-field updates [@vanleemput1999; @zhang2001]"
    )
