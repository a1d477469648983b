"""The pictures of the visits of a person, for their report."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from bids_inpaint.interfaces.changes import ChangePictures

#: What they show of each image: node of the image and its output, and the node of the person that gathers it.
SHOWN = (
    ("outputs_wf.inputnode", "preproc", "preprocessed"),
    ("outputs_wf.inputnode", "inpainted", "inpainted"),
)


def add_pictures(workflow: pe.Workflow, sessions: Sequence[str]) -> None:
    """Add the pictures to the workflow of a person, which is otherwise whole.

    Parameters
    ----------
    workflow : Workflow
        It has the nodes ``align``, ``register``, ``decide`` and ``save``.
    sessions : sequence of str
        As ``ses-1``, in the order of time.
    """
    pictures = pe.Node(ChangePictures(sessions=list(sessions)), name="pictures", mem_gb=2)
    before, after = (
        pe.Node(Merge(len(sessions)), name=name, run_without_submitting=True) for *_, name in SHOWN
    )
    node = workflow.get_node
    workflow.connect([
        (before, pictures, [("out", "before")]),
        (after, pictures, [("out", "after")]),
        (node("align"), pictures, [("template_mask", "template_mask")]),
        (node("register"), pictures, [("out_xfm", "standard_xfm")]),
        (node("decide"), pictures, [
            ("masks", "masks"), ("standard_labels", "labels"), ("table", "table"),
        ]),
        (pictures, node("save"), [
            ((layer, _nth, number), f"{layer}{number}")
            for layer in ("before", "after", "outlines")
            for number in range(len(sessions))
        ]),
    ])  # fmt: skip


def _nth(values, number):
    """The value of a visit."""
    return values[number]
