"""What the visits of a person have in common: the template, the affine, and the lesions over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.utility import Function, Merge
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.outputs import image_wf_name
from bids_inpaint.dataset.people import PART, Person, status_file
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.ants import RegisterAffine
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.visits import AlignVisits, DecideLesions, ShareAffine
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.changes import SHOWN, add_pictures
from bids_inpaint.workflows.preprocess import name_source

#: What the workflow of a person takes of each of its images: node of the image and its output, and the node
#: of the person that gathers it.
_TAKEN = (
    ("preprocess_wf.conform", "out_file", "conformed"),
    ("preprocess_wf.mask", "out_file", "masks"),
    ("inpaint_wf.inpaint", "probability", "probabilities"),
    ("outputs_wf.save", "out_files", "saved"),
)
#: What it gives each: node of the person and its output, a list over the visits, and node of the image and
#: its input.
_GIVEN = (
    ("share", "xfms", "preprocess_wf.register", "xfm"),
    ("share", "inverse_xfms", "preprocess_wf.register", "inverse_xfm"),
    ("decide", "masks", "inpaint_wf.fill", "decided"),
    ("decide", "masks", "lesions_wf.map_lesions", "decided"),
    ("align", "warnings", "outputs_wf.inputnode", "visit_warnings"),
)


class Interwoven(pe.Workflow):
    """A workflow of workflows whose nodes are connected in both directions.

    Nipype takes no two workflows of which each waits for a part of the other. Here, such connections are made
    between nodes, once there are no workflows any more.
    """

    def __init__(self, name: str, base_dir: str | None = None):
        super().__init__(name, base_dir)
        #: Full name of a node, its output, and the same of another node and its input.
        self.threads: list[tuple[str, Any, str, str]] = []

    def take(self, workflow: pe.Workflow, crashes: Path) -> None:
        """Add a workflow whose crash files go into a folder."""
        for node in workflow._get_all_nodes():
            node.config = {"execution": {"crashdump_dir": str(crashes)}}
        self.add_nodes([workflow])

    def _generate_flatgraph(self) -> None:
        super()._generate_flatgraph()
        nodes = {node.fullname: node for node in self._graph.nodes()}
        for source, output, target, into in self.threads:
            self.connect(nodes[source], output, nodes[target], into)


def weave(whole: Interwoven, person: Person) -> None:
    """Connect the workflow of a person with those of its images, all of which are in the graph."""
    own = f"{whole.name}.{person.workflow}"
    for number, image in enumerate(person.images):
        of_image = f"{whole.name}.{image_wf_name(image)}"
        whole.threads += [
            (f"{of_image}.{node}", output, f"{own}.{gathered}", f"in{number + 1}")
            for node, output, gathered in (*_TAKEN, *SHOWN)
        ]
        whole.threads += [
            (f"{own}.{node}", (output, _nth, number), f"{of_image}.{target}", into)
            for node, output, target, into in _GIVEN
        ]


def init_person_wf(
    *,
    person: Person,
    settings: Settings,
    networks: Networks,
    template: TemplateFiles,
    run_uuid: str,
) -> pe.Workflow:
    """Build what the visits of a person have in common.

    Parameters
    ----------
    person : Person
    settings : Settings
    networks : Networks
        The main one tells the probability of lesions.
    template : TemplateFiles
    run_uuid : str
        Of the run, for the status of the person.

    Returns
    -------
    Workflow
        :func:`weave` connects it with its images. It saves the results of the person after those of all its
        visits, so that these are never there for other visits than they name.
    """
    workflow = pe.Workflow(name=person.workflow)
    gather = {
        name: pe.Node(Merge(len(person.images)), name=name, run_without_submitting=True)
        for *_, name in _TAKEN
    }
    align = pe.Node(
        AlignVisits(names=[image.prefix for image in person.images], sloppy=settings.sloppy),
        name="align", mem_gb=4,
    )  # fmt: skip
    register = pe.Node(
        RegisterAffine(template=template.t1w, random_seed=settings.random_seed, sloppy=settings.sloppy),
        name="register", mem_gb=2,
    )  # fmt: skip
    share = pe.Node(ShareAffine(), name="share")
    rule = networks.rule(settings)
    decide = pe.Node(
        DecideLesions(
            sessions=person.sessions, threshold=rule.threshold, low=rule.low, min_volume=rule.min_volume
        ),
        name="decide", mem_gb=2,
    )  # fmt: skip
    describe = pe.Node(
        Function(function=_describe, input_names=["aligned", "changed", "saved"], output_names=["out"]),
        name="describe", run_without_submitting=True,
    )  # fmt: skip
    save = _save_node(person, settings, networks, run_uuid)
    workflow.connect([
        (gather["conformed"], align, [("out", "conformed")]),
        (gather["masks"], align, [("out", "masks")]),
        (align, register, [("template", "in_file"), ("template_mask", "mask_file")]),
        (align, share, [("to_template", "to_template")]),
        (register, share, [("out_xfm", "standard_xfm")]),
        (gather["probabilities"], decide, [("out", "probabilities")]),
        (align, decide, [("template", "template")]),
        (register, decide, [("out_xfm", "standard_xfm")]),
        (align, describe, [("facts", "aligned")]),
        (decide, describe, [("facts", "changed")]),
        (gather["saved"], describe, [("out", "saved")]),
        (describe, save, [("out", "facts")]),
        (align, save, [("template", "template")]),
        (register, save, [("out_xfm", "to_standard"), ("out_inverse", "from_standard")]),
        (decide, save, [
            ("labels", "changes"), ("standard_labels", "standard_changes"), ("table", "table"),
        ]),
        (align, save, [
            ((f"{way}_template", _nth, number), f"{opposite}_visit{number}")
            for way, opposite in (("to", "from"), ("from", "to"))
            for number in range(len(person.images))
        ]),
    ])  # fmt: skip
    add_pictures(workflow, person.sessions)
    name_source(workflow, f"sub-{person.subject}")
    return workflow


def _save_node(person: Person, settings: Settings, networks: Networks, run_uuid: str) -> pe.Node:
    names = person.names(settings.template)
    return pe.Node(
        SaveDerivatives(
            keys=list(names),
            out_dir=str(settings.output_dir),
            names=names,
            metadata=person.metadata(settings, networks),
            status_file=str(status_file(settings.output_dir, person.subject)),
            part=PART,
            parts=[PART],
            run_uuid=run_uuid,
        ),
        name="save", mem_gb=0.2, run_without_submitting=True,
    )  # fmt: skip


def _nth(values, number):
    """The value of a visit."""
    return values[number]


def _describe(aligned, changed, saved):
    """What the sidecars of a person say that is known only after all visits are saved."""
    return {"template": aligned, "changes": changed, "standard_changes": changed}
