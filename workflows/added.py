"""Visits that are added to finished ones, which stay as they are."""

from __future__ import annotations

from nipype.pipeline import engine as pe

from bids_inpaint.dataset.people import Before, Person
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.interfaces.added import AddVisits
from bids_inpaint.interfaces.agreement import AgreeFillings, MatchIntensities, ShareMask
from bids_inpaint.interfaces.images import GivenAffine
from bids_inpaint.interfaces.visits import DecideLesions, ShareAffine
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.changes import add_results, gather_all, nth, result_of
from bids_inpaint.workflows.preprocess import name_source


def init_added_wf(
    *,
    workflow: pe.Workflow,
    gather: dict[str, pe.Node],
    person: Person,
    settings: Settings,
    networks: Networks,
    template: TemplateFiles,
    run_uuid: str,
) -> pe.Workflow:
    """Build what visits share that are added to finished ones.

    Parameters
    ----------
    workflow : Workflow
        Of the person. It is built upon, and has the nodes that
        :func:`bids_inpaint.workflows.person.weave` connects with the images that are processed.
    gather : dict of Node
        Gather what these images give.
    person : Person
        Some of its visits are kept. Their results are in the output folder.
    settings : Settings
    networks : Networks
    template : TemplateFiles
    run_uuid : str

    Returns
    -------
    Workflow
    """
    before = Before.read(settings.output_dir, person.subject)
    assert before is not None
    decide = _decide_node(person, settings, networks, template, before)
    kept = {
        key: [result_of(image, settings, key) for image in person.kept]
        for key in ("preproc", "working_mask", "inpainted", "mask")
    }
    match = pe.Node(
        MatchIntensities(
            wm_prior=template.priors["WM"], kept_files=kept["preproc"], kept_masks=kept["working_mask"]
        ),
        name="match", mem_gb=2,
    )  # fmt: skip
    agree = pe.Node(
        AgreeFillings(
            confine=settings.fill == "lesions",
            kept_files=kept["preproc"],
            kept_inpainted=kept["inpainted"],
            kept_masks=kept["mask"],
        ),
        name="agree", mem_gb=2,
    )  # fmt: skip
    register, share_mask = _add_space(workflow, gather, person, settings)
    brains, masks, told = (
        gather_all(person, settings, name, key)
        for name, key in (("all_brains", "preproc"), ("all_masks", "working_mask"), ("told", "probability"))
    )
    places = [person.images.index(image) + 1 for image in person.processed]
    for gathered, source, output in (
        (brains, match, "out_files"),
        (masks, share_mask, "working_masks"),
        (told, gather["probabilities"], "out"),
    ):
        workflow.connect([
            (source, gathered, [((output, nth, number), f"in{place}") for number, place in enumerate(places)])
        ])  # fmt: skip
    workflow.connect([
        (gather["normalised"], match, [("out", "in_files")]),
        (gather["biases"], match, [("out", "biases")]),
        (share_mask, match, [("working_masks", "masks")]),
        (told, decide, [("out", "probabilities")]),
        (brains, decide, [("out", "images")]),
        (masks, decide, [("out", "brain_masks")]),
        (workflow.get_node("align"), decide, [("template", "template")]),
        (register, decide, [("out_xfm", "standard_xfm")]),
        (match, agree, [("out_files", "in_files")]),
        (gather["fillings"], agree, [("out", "fillings")]),
        (decide, agree, [("masks", "masks")]),
    ])  # fmt: skip
    if settings.tta:
        workflow.connect(gather["spreads"], "out", agree, "spreads")
    add_results(
        workflow=workflow, person=person, settings=settings, networks=networks, run_uuid=run_uuid,
        before=before,
    )  # fmt: skip
    name_source(workflow, f"sub-{person.subject}")
    return workflow


def _add_space(
    workflow: pe.Workflow, gather: dict[str, pe.Node], person: Person, settings: Settings
) -> tuple[pe.Node, pe.Node]:
    """Build what places the visits; return the nodes that have the affine and the brain masks."""
    names = person.names(settings.template)
    files = {key: str(settings.output_dir / name) for key, name in names.items()}
    align = pe.Node(
        AddVisits(
            template=files["template"],
            template_mask=files["mask"],
            names=[image.prefix for image in person.processed],
            sloppy=settings.sloppy,
        ),
        name="align", mem_gb=4,
    )  # fmt: skip
    register = pe.Node(
        GivenAffine(xfm=files["to_standard"], inverse_xfm=files["from_standard"]), name="register"
    )
    share = pe.Node(ShareAffine(), name="share")
    share_mask = pe.Node(ShareMask(), name="share_mask", mem_gb=1)
    workflow.connect([
        (gather["conformed"], align, [("out", "conformed")]),
        (gather["masks"], align, [("out", "masks")]),
        (gather["methods"], align, [("out", "methods")]),
        (align, share, [("to_template", "to_template")]),
        (register, share, [("out_xfm", "standard_xfm")]),
        (align, share_mask, [("template_mask", "mask_file"), ("from_template", "from_template")]),
        (gather["conformed"], share_mask, [("out", "conformed")]),
        (register, share_mask, [("out_xfm", "standard_xfm")]),
    ])  # fmt: skip
    return register, share_mask


def _decide_node(
    person: Person, settings: Settings, networks: Networks, template: TemplateFiles, before: Before
) -> pe.Node:
    """The node that decides about the lesions of the visits that are added."""
    rule = networks.rule(settings)
    number = {image.prefix: i for i, image in enumerate(person.images)}
    stages = before.stages_of([image.prefix for image in person.kept])
    by_name = {image.prefix: image for image in person.kept}
    return pe.Node(
        DecideLesions(
            sessions=person.sessions,
            wm_prior=template.priors["WM"],
            threshold=rule.threshold,
            low=rule.low,
            min_volume=rule.min_volume,
            stages=[[number[name] for name in stage] for stage in stages],
            kept_masks=[result_of(by_name[name], settings, "mask") for stage in stages for name in stage],
        ),
        name="decide", mem_gb=2,
    )  # fmt: skip
