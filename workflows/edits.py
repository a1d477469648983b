"""The lesion map as a person corrected it, and the filling by it."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.edits import Edit
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.edits import EditLesions, Refill
from bids_inpaint.networks.card import Model
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.inpaint import filling_inputs, network_inputs

_INPUTS = [
    "t1w", "preproc", "brain_mask", "working_mask", "xfm", "inverse_xfm", "inpainted", "white", "exponent",
    "spread", "doubt", "mask", "native_mask", "probability",
]  # fmt: skip
#: What is passed on.
_SAME = ["white", "exponent", "doubt", "probability"]
_OUTPUTS = [
    "inpainted", "whole", "spread", "given_lesions", "native_given_lesions", "added", "removed", "edit",
    "lesion_warnings", *_SAME,
]  # fmt: skip


def init_edit_wf(
    *,
    edit: Edit,
    model: Model,
    settings: Settings,
    template: TemplateFiles,
    uncertain: tuple[str, ...] = (),
    omp_nthreads: int = 1,
    name: str = "edit_wf",
) -> pe.Workflow:
    """Build the filling of one brain by its edited lesion map, beside that by the map of the network.

    Parameters
    ----------
    edit : Edit
    model : Model
        Non-blind network that fills the lesions that were added.
    settings : Settings
    template : TemplateFiles
    uncertain : tuple of str
        Which of 'spread' and 'doubt' there are.
    omp_nthreads : int

    Inputs
    ------
    t1w, preproc, brain_mask, working_mask, xfm, inverse_xfm
        Of :func:`bids_inpaint.workflows.preprocess.init_preprocess_wf`.
    inpainted, white, exponent, spread, doubt
        Of the inpainting by the map before the edit; `inpainted` is its output `whole`.
    mask, native_mask, probability
        This map, and what it was made from.

    Outputs
    -------
    inpainted, whole, spread, doubt, white, exponent, probability
        As of :func:`bids_inpaint.workflows.inpaint.init_inpaint_wf`, but by the edited map.
    given_lesions, native_given_lesions
        The edited map on the working grid and on the voxels of the T1w.
    added, removed
        How it differs from the map before, on the voxels of the T1w.
    edit
        Who edited the map and when, and how far it moved.
    lesion_warnings
        What is unusual about it.
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = (
        "Where a person had corrected the lesion map of an image, the corrected map was used: lesions that "
        f"had been added were filled with the non-blind network '{model.name}', lesions that had been "
        "removed are as in the original, and all others were filled as before.\n\n"
    )
    inputnode = pe.Node(IdentityInterface(fields=_INPUTS), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    edits = pe.Node(EditLesions(in_file=edit.path, space=edit.space, said=edit.said), name="edits", mem_gb=1)
    refill = pe.Node(
        Refill(
            **network_inputs(model, template, settings.device, omp_nthreads),
            **filling_inputs(settings),
        ),
        name="refill", n_procs=omp_nthreads, mem_gb=4,
    )  # fmt: skip
    workflow.connect([
        (inputnode, edits, [
            (f, f) for f in ("t1w", "brain_mask", "xfm", "inverse_xfm", "mask", "native_mask")
        ]),
        (inputnode, refill, [
            ("preproc", "in_file"), ("working_mask", "mask_file"), ("inpainted", "inpainted"),
            ("mask", "before"), ("white", "white"), ("exponent", "exponent"),
        ]),
        (edits, refill, [("mask", "lesion_mask"), ("void", "void_file")]),
        (inputnode, outputnode, [(f, f) for f in _SAME]),
        (edits, outputnode, [
            ("mask", "given_lesions"), ("native_mask", "native_given_lesions"), ("added", "added"),
            ("removed", "removed"), ("edit", "edit"), ("warnings", "lesion_warnings"),
        ]),
        (refill, outputnode, [("out_file", "inpainted"), ("whole_file", "whole")]),
    ])  # fmt: skip
    if "spread" in uncertain:
        workflow.connect([
            (inputnode, refill, [("spread", "spread")]), (refill, outputnode, [("spread", "spread")]),
        ])  # fmt: skip
    return workflow
