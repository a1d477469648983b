"""What the visits of a person leave together: pictures for their report, and the writing of results."""

from __future__ import annotations

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.checksums import SHARED, inputs_of, results_of
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import USUAL, names_of
from bids_inpaint.dataset.people import PART, Before, Person, status_file
from bids_inpaint.interfaces.added import DescribePerson
from bids_inpaint.interfaces.changes import ChangePictures
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings

#: What pictures show of each image: node of the image and its output, and the node of the person that gathers
#: it.
SHOWN = (
    ("outputs_wf.inputnode", "preproc", "preprocessed"),
    ("outputs_wf.inputnode", "inpainted", "inpainted"),
)


def add_results(
    *,
    workflow: pe.Workflow,
    person: Person,
    settings: Settings,
    networks: Networks,
    run_uuid: str,
    before: Before | None = None,
) -> None:
    """Add the pictures and the writing of the results to the workflow of a person, which is otherwise whole.

    Parameters
    ----------
    workflow : Workflow
        It has the nodes ``align``, ``register``, ``decide`` and ``saved``, and ``trim`` if no visit was
        finished before.
    person : Person
    settings : Settings
    networks : Networks
    run_uuid : str
        Of the run, for the status of the person.
    before : Before, optional
        What the visits are added to that are processed.
    """
    names = person.names(settings.template)
    save = pe.Node(
        SaveDerivatives(
            keys=list(names),
            out_dir=str(settings.output_dir),
            names=names,
            metadata=person.metadata(settings, networks, before),
            status_file=str(status_file(settings.output_dir, person.subject)),
            part=PART,
            parts=[PART],
            run_uuid=run_uuid,
        ),
        name="save", mem_gb=0.2, run_without_submitting=True,
    )  # fmt: skip
    node = workflow.get_node
    workflow.connect([
        (node("align"), save, [("template", "template")]),
        (node("register"), save, [("out_xfm", "to_standard"), ("out_inverse", "from_standard")]),
        (node("decide"), save, [
            ("labels", "changes"), ("standard_labels", "standard_changes"), ("table", "table"),
        ]),
        (node("align"), save, [
            ((f"{way}_template", nth, number), f"{opposite}_visit{person.images.index(image)}")
            for way, opposite in (("to", "from"), ("from", "to"))
            for number, image in enumerate(person.processed)
        ]),
    ])  # fmt: skip
    trimmed = (node("align"), "template_mask") if before else (node("trim"), "out_file")
    workflow.connect(*trimmed, save, "mask")
    for image in person.kept:
        for key in (f"{way}_visit{person.images.index(image)}" for way in ("from", "to")):
            setattr(save.inputs, key, str(settings.output_dir / names[key]))
    _add_facts(workflow, person, settings, before)
    _add_pictures(workflow, person, settings)


def _add_facts(workflow: pe.Workflow, person: Person, settings: Settings, before: Before | None) -> None:
    """What the sidecars say that is known only after all visits are saved."""
    describe = pe.Node(
        DescribePerson(
            given={image.prefix: inputs_of(image) for image in person.processed},
            results={
                image.prefix: results_of(image, settings.output_dir, settings.template)
                for image in person.processed
            },
            known=before.sidecar if before else {},
        ),
        name="describe", run_without_submitting=True,
    )  # fmt: skip
    node = workflow.get_node
    workflow.connect([
        (node("align"), describe, [("facts", "aligned")]),
        (node("decide"), describe, [("facts", "changed")]),
        (node("saved"), describe, [("out", "saved")]),
        (describe, node("save"), [("out", "facts")]),
    ])  # fmt: skip
    if before is None:
        shared = pe.Node(Merge(len(SHARED)), name="shared", run_without_submitting=True)
        sources = (
            ("align", "template"),
            ("trim", "out_file"),
            ("register", "out_xfm"),
            ("register", "out_inverse"),
        )
        workflow.connect([
            *((node(name), shared, [(output, f"in{i}")]) for i, (name, output) in enumerate(sources, 1)),
            (shared, describe, [("out", "shared")]),
        ])  # fmt: skip


def _add_pictures(workflow: pe.Workflow, person: Person, settings: Settings) -> None:
    """The pictures of all visits."""
    sessions = person.sessions
    pictures = pe.Node(ChangePictures(sessions=sessions), name="pictures", mem_gb=2)
    node = workflow.get_node
    before, after = (
        gather_all(person, settings, name, key)
        for (*_, name), key in zip(SHOWN, ("preproc", "inpainted"), strict=True)
    )
    workflow.connect([
        (before, pictures, [("out", "before")]),
        (after, pictures, [("out", "after")]),
        (node("align"), pictures, [("template_mask", "template_mask")]),
        (node("register"), pictures, [("out_xfm", "standard_xfm")]),
        (node("decide"), pictures, [
            ("all_masks", "masks"), ("standard_labels", "labels"), ("table", "table"),
        ]),
        (pictures, node("save"), [
            ((layer, nth, number), f"{layer}{number}")
            for layer in ("before", "after", "outlines")
            for number in range(len(sessions))
        ]),
    ])  # fmt: skip


def gather_all(person: Person, settings: Settings, name: str, key: str) -> pe.Node:
    """A node that gathers a file of each visit by time; those of finished ones are in the output folder.

    Parameters
    ----------
    person : Person
    settings : Settings
    name : str
        Of the node. Its input ``in1`` is the file of the first visit.
    key : str
        Of the result (:data:`bids_inpaint.dataset.checksums.LOOKED_AT`).
    """
    merge = pe.Node(Merge(len(person.images)), name=name, run_without_submitting=True)
    for number, image in enumerate(person.images, 1):
        if image.kept:
            setattr(merge.inputs, f"in{number}", result_of(image, settings, key))
    return merge


def result_of(image: Image, settings: Settings, key: str) -> str:
    """Path of a result of a finished visit on the working grid."""
    return str(settings.output_dir / names_of(image, settings.template, USUAL)[key])


def nth(values, number):
    """The value of a visit; Nipype makes a list of one file that file."""
    return values if isinstance(values, str) else values[number]
