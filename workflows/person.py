"""What the visits of a person have in common: the template, the affine, and the lesions over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.outputs import image_wf_name
from bids_inpaint.dataset.people import Person
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.agreement import AgreeFillings, MatchIntensities, ShareMask
from bids_inpaint.interfaces.ants import RegisterAffine
from bids_inpaint.interfaces.images import TrimMask
from bids_inpaint.interfaces.visits import AlignVisits, DecideLesions, ShareAffine
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.added import init_added_wf
from bids_inpaint.workflows.changes import SHOWN, add_results, nth
from bids_inpaint.workflows.preprocess import name_source

#: What the workflow of a person takes of each of its images: node of the image and its output, and the node
#: of the person that gathers it.
_TAKEN = (
    ("preprocess_wf.conform", "out_file", "conformed"),
    ("preprocess_wf.mask", "out_file", "masks"),
    ("preprocess_wf.mask", "method", "methods"),
    ("preprocess_wf.normalise", "out_file", "normalised"),
    ("preprocess_wf.correct_bias", "bias_file", "biases"),
    ("inpaint_wf.inpaint", "probability", "probabilities"),
    ("inpaint_wf.fill", "whole_file", "fillings"),
    ("outputs_wf.save", "out_files", "saved"),
)
#: What it gives each: node of the person and its output, a list over the visits, and node of the image and
#: its input.
_GIVEN = (
    ("share", "xfms", "preprocess_wf.register", "xfm"),
    ("share", "inverse_xfms", "preprocess_wf.register", "inverse_xfm"),
    ("share_mask", "masks", "preprocess_wf.trim", "out_file"),
    ("share_mask", "working_masks", "preprocess_wf.resample", "working_mask"),
    ("match", "out_files", "preprocess_wf.outputnode", "preproc"),
    ("match", "biases", "preprocess_wf.outputnode", "bias"),
    ("decide", "masks", "inpaint_wf.fill", "decided"),
    ("decide", "masks", "lesions_wf.map_lesions", "decided"),
    ("agree", "out_files", "inpaint_wf.outputnode", "inpainted"),
    ("agree", "whole_files", "inpaint_wf.outputnode", "whole"),
    ("align", "warnings", "outputs_wf.inputnode", "visit_warnings"),
)
#: The same if mirror images are looked at, too.
_TAKEN_OF_MIRROR = (*_TAKEN, ("inpaint_wf.fill", "spread", "spreads"))
_GIVEN_OF_MIRROR = (*_GIVEN, ("agree", "spreads", "inpaint_wf.outputnode", "spread"))


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


def weave(whole: Interwoven, person: Person, mirror: bool) -> None:
    """Connect the workflow of a person with those of its images, all of which are in the graph.

    Parameters
    ----------
    whole : Interwoven
    person : Person
    mirror : bool
        Whether networks look at mirror images, too, and tell the spread of the fillings.
    """
    taken, given = (_TAKEN_OF_MIRROR, _GIVEN_OF_MIRROR) if mirror else (_TAKEN, _GIVEN)
    own = f"{whole.name}.{person.workflow}"
    for number, image in enumerate(person.processed):
        of_image, place = f"{whole.name}.{image_wf_name(image)}", person.images.index(image)
        whole.threads += [
            (f"{of_image}.{node}", output, f"{own}.{gathered}", f"in{of_visit + 1}")
            for some, of_visit in ((taken, number), (SHOWN, place))
            for node, output, gathered in some
        ]
        whole.threads += [
            (f"{own}.{node}", (output, nth, number), f"{of_image}.{target}", into)
            for node, output, target, into in given
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
        name: pe.Node(Merge(len(person.processed)), name=name, run_without_submitting=True)
        for *_, name in (_TAKEN_OF_MIRROR if settings.tta else _TAKEN)
    }
    workflow.add_nodes([gather["saved"]])
    if person.kept:
        return init_added_wf(
            workflow=workflow, gather=gather, person=person, settings=settings, networks=networks,
            template=template, run_uuid=run_uuid,
        )  # fmt: skip
    align, register, share_mask = _add_space(workflow, gather, person, settings, template)
    match = pe.Node(MatchIntensities(wm_prior=template.priors["WM"]), name="match", mem_gb=2)
    rule = networks.rule(settings)
    decide = pe.Node(
        DecideLesions(
            sessions=person.sessions,
            wm_prior=template.priors["WM"],
            threshold=rule.threshold,
            low=rule.low,
            min_volume=rule.min_volume,
        ),
        name="decide", mem_gb=2,
    )  # fmt: skip
    agree = pe.Node(AgreeFillings(confine=settings.fill == "lesions"), name="agree", mem_gb=2)
    workflow.connect([
        (gather["normalised"], match, [("out", "in_files")]),
        (gather["biases"], match, [("out", "biases")]),
        (share_mask, match, [("working_masks", "masks")]),
        (match, agree, [("out_files", "in_files")]),
        (gather["fillings"], agree, [("out", "fillings")]),
        (decide, agree, [("masks", "masks")]),
        (gather["probabilities"], decide, [("out", "probabilities")]),
        (match, decide, [("out_files", "images")]),
        (share_mask, decide, [("working_masks", "brain_masks")]),
        (align, decide, [("template", "template")]),
        (register, decide, [("out_xfm", "standard_xfm")]),
    ])  # fmt: skip
    if settings.tta:
        workflow.connect(gather["spreads"], "out", agree, "spreads")
    add_results(
        workflow=workflow, person=person, settings=settings, networks=networks, run_uuid=run_uuid
    )  # fmt: skip
    name_source(workflow, f"sub-{person.subject}")
    return workflow


def _add_space(
    workflow: pe.Workflow,
    gather: dict[str, pe.Node],
    person: Person,
    settings: Settings,
    template: TemplateFiles,
) -> tuple[pe.Node, pe.Node, pe.Node]:
    """Build what places all visits: the nodes that align them, register their template and share its mask."""
    align = pe.Node(
        AlignVisits(names=[image.prefix for image in person.images], sloppy=settings.sloppy),
        name="align", mem_gb=4,
    )  # fmt: skip
    register = pe.Node(
        RegisterAffine(template=template.t1w, random_seed=settings.random_seed, sloppy=settings.sloppy),
        name="register", mem_gb=2,
    )  # fmt: skip
    share = pe.Node(ShareAffine(), name="share")
    trim = pe.Node(TrimMask(template_mask=template.mask), name="trim", mem_gb=1)
    share_mask = pe.Node(ShareMask(), name="share_mask", mem_gb=1)
    workflow.connect([
        (gather["conformed"], align, [("out", "conformed")]),
        (gather["masks"], align, [("out", "masks")]),
        (gather["methods"], align, [("out", "methods")]),
        (align, register, [("template", "in_file"), ("template_mask", "mask_file")]),
        (align, share, [("to_template", "to_template")]),
        (register, share, [("out_xfm", "standard_xfm")]),
        (align, trim, [("template_mask", "in_file"), ("method", "method")]),
        (register, trim, [("out_inverse", "inverse_xfm")]),
        (trim, share_mask, [("out_file", "mask_file")]),
        (gather["conformed"], share_mask, [("out", "conformed")]),
        (register, share_mask, [("out_xfm", "standard_xfm")]),
        (align, share_mask, [("from_template", "from_template")]),
    ])  # fmt: skip
    return align, register, share_mask
