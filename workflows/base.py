"""The whole graph: a workflow an image, gathered by participant."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import (
    GRAPH,
    NATIVE,
    STANDARD,
    Products,
    crash_folder,
    image_wf_name,
    tissue_key,
)
from bids_inpaint.dataset.people import people
from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.edits import init_edit_wf
from bids_inpaint.workflows.flair import init_lesions_by_flair_wf
from bids_inpaint.workflows.inpaint import init_inpaint_wf
from bids_inpaint.workflows.lesions import init_lesions_wf
from bids_inpaint.workflows.person import Interwoven, init_person_wf, weave
from bids_inpaint.workflows.preprocess import init_preprocess_wf, name_source
from bids_inpaint.workflows.saving import init_outputs_wf
from bids_inpaint.workflows.segment import TISSUE_MAPS, init_segment_wf


def init_participants_wf(
    *,
    images: list[Image],
    settings: Settings,
    networks: Networks,
    template: TemplateFiles,
    run_uuid: str,
) -> pe.Workflow:
    """Build the graph of a run.

    Parameters
    ----------
    images : list of Image
        The T1w images to process, and those that are kept, to which others are added.
    settings : Settings
    networks : Networks
    template : TemplateFiles
    run_uuid : str
        Names the folders of crash files, and the run in the status of each image.

    Returns
    -------
    Workflow
        ``bids_inpaint_wf``, with one workflow an image inside, and one for each person with several visits
        (:func:`bids_inpaint.dataset.people.together`), whose images must all be there.
    """
    whole = Interwoven(name=GRAPH, base_dir=str(settings.work_dir))
    processed = [image for image in images if not image.kept]
    threads = settings.threads(len(processed))
    of_run: Any = {"settings": settings, "networks": networks, "template": template, "run_uuid": run_uuid}
    for image in processed:
        workflow = init_image_wf(image=image, threads=threads, **of_run)
        whole.take(workflow, crash_folder(settings.output_dir, image.subject, run_uuid))
    for person in people(images):
        workflow = init_person_wf(person=person, **of_run)
        whole.take(workflow, crash_folder(settings.output_dir, person.subject, run_uuid))
        weave(whole, person, settings.tta)
    return whole


def init_image_wf(
    *,
    image: Image,
    settings: Settings,
    networks: Networks,
    template: TemplateFiles,
    run_uuid: str,
    threads: int = 1,
) -> pe.Workflow:
    """Build everything of one T1w: preprocessing, inpainting, segmentation, lesions, outputs.

    Parameters
    ----------
    image : Image
    settings : Settings
    networks : Networks
    template : TemplateFiles
    run_uuid : str
        Of the run, for the status of the image.
    threads : int
        Of one step.

    Returns
    -------
    Workflow
        Named as :func:`bids_inpaint.dataset.outputs.image_wf_name` says. It has no inputs or outputs: what
        it makes goes into the output folder.
    """
    graph = _ImageGraph(image, settings, networks, template, run_uuid, threads)
    graph.add_inpainting()
    if "original" in graph.products.segmented:
        original = graph.segment(graph.preprocess, "segment_original_wf", "preproc")
        graph.save_segmented(original, "original")
    if networks.flair:
        graph.add_flair()
    if networks.reference:
        graph.add_reference()
    return graph.finished()


class _ImageGraph:
    """The graph of one T1w while it is built: what the parts of it connect to."""

    def __init__(
        self,
        image: Image,
        settings: Settings,
        networks: Networks,
        template: TemplateFiles,
        run_uuid: str,
        threads: int,
    ):
        self.image, self.settings, self.networks = image, settings, networks
        self.template, self.threads = template, threads
        self.products = Products.of(settings, networks)
        self.rule = networks.rule(settings)
        # a blind network makes its own map; given masks lead to the reference it is compared with
        self.lesion_mask = None if networks.main.blind else image.lesion_mask
        self.together = bool(image.visits)
        self.workflow = pe.Workflow(name=image_wf_name(image))
        self.steps: list[pe.Workflow] = []
        self.preprocess = init_preprocess_wf(
            template=template,
            skull_strip=settings.skull_strip,
            brain_mask=image.brain_mask,
            brain_mask_xfm=image.brain_mask_xfm,
            xfm=image.xfm,
            together=self.together,
            added=bool(image.added_to),
            bias_correction=settings.bias_correction,
            random_seed=settings.random_seed,
            omp_nthreads=threads,
            sloppy=settings.sloppy,
        )
        self.preprocess.inputs.inputnode.t1w = image.path
        self.outputs = init_outputs_wf(
            image=image,
            settings=settings,
            networks=networks,
            template=template,
            run_uuid=run_uuid,
            products=self.products,
        )
        self.link(
            self.preprocess,
            self.outputs,
            _same(
                "conformed", "brain_mask", "mask_method", "working_mask", "preproc", "xfm", "inverse_xfm",
                "input_warnings", "mask_warnings",
            ),
        )  # fmt: skip

    def link(self, source: pe.Workflow, target: pe.Workflow, pairs: list[tuple[str, str]]) -> None:
        """Connect outputs of a workflow to inputs of another."""
        fields = [(f"outputnode.{a}", f"inputnode.{b}") for a, b in pairs]
        self.workflow.connect([(source, target, fields)])

    def add_inpainting(self) -> None:
        """Inpaint, segment the result, and map the lesions."""
        inpaint = init_inpaint_wf(
            model=self.networks.main,
            settings=self.settings,
            template=self.template,
            lesion_mask=self.lesion_mask,
            lesion_space=self.image.lesion_space,
            omp_nthreads=self.threads,
            rule=self.rule,
            second=self.networks.second,
            second_alone=self.networks.second_alone,
            together=self.together,
        )
        inpaint.inputs.inputnode.t1w = self.image.path
        self.link(self.preprocess, inpaint, _same("preproc", "working_mask", "xfm", "inverse_xfm"))
        given, uncertain = self.lesion_mask is not None, self.products.uncertain
        segmented = None
        if self.products.segmented:
            segmented = self.segment(inpaint, "segment_wf", "inpainted")
        lesions = self.map_lesions(inpaint, segmented, "lesions_wf", self.settings.fill, given, uncertain)
        self.steps += [self.preprocess, inpaint, *([segmented] if segmented else []), lesions]
        if self.image.edit:
            inpaint, segmented, lesions = self.add_edit(inpaint, lesions)
            given = True
        if segmented:
            self.save_segmented(segmented, "inpainted")
        self.link(lesions, self.outputs, _same(*(f"native_{key}" for key in uncertain)))
        self.link(inpaint, self.outputs, _same("inpainted", *(["lesion_warnings"] if given else [])))
        native = [key for key in NATIVE if key.startswith("native_")]
        mapped = [key for key in STANDARD if key in ("mask", "probability")]
        self.link(lesions, self.outputs, _same(*native, *mapped, "darkening", "table", "volume_interval"))

    def add_edit(
        self, automatic: pe.Workflow, lesions: pe.Workflow
    ) -> tuple[pe.Workflow, pe.Workflow | None, pe.Workflow]:
        """Fill by the map that a person corrected; what is made by the network's own map stays in between."""
        assert self.image.edit is not None
        assert self.networks.second is not None
        uncertain = self.products.uncertain
        edit = init_edit_wf(
            edit=self.image.edit,
            model=self.networks.second,
            settings=self.settings,
            template=self.template,
            uncertain=uncertain,
            omp_nthreads=self.threads,
        )
        edit.inputs.inputnode.t1w = self.image.path
        masks = _same("preproc", "brain_mask", "working_mask", "xfm", "inverse_xfm")
        self.link(self.preprocess, edit, masks)
        self.link(automatic, edit, [("whole", "inpainted"), *_same("white", "exponent", *uncertain)])
        self.link(lesions, edit, _same("mask", "native_mask", "probability"))
        segmented = None
        if self.products.segmented:
            segmented = self.segment(edit, "segment_edited_wf", "inpainted")
        mapped = self.map_lesions(
            edit, segmented, "edited_lesions_wf", "lesions", True, uncertain, edited=True
        )
        self.link(edit, self.outputs, _same("edit"))
        self.steps.append(edit)
        return edit, segmented, mapped

    def segment(self, source: pe.Workflow, name: str, field: str) -> pe.Workflow:
        """Segment an image."""
        step = init_segment_wf(
            template=self.template,
            method=self.settings.segmentation,
            spm=self.settings.spm,
            sloppy=self.settings.sloppy,
            name=name,
        )
        self.link(source, step, [(field, "in_file")])
        self.link(self.preprocess, step, _same("working_mask", "brain_mask", "inverse_xfm"))
        return step

    def save_segmented(self, step: pe.Workflow, image_name: str) -> None:
        """Save the tissues of an image."""
        standard = [(tissue, tissue_key(image_name, tissue)) for tissue in TISSUE_MAPS]
        native = [(f"native_{a}", f"native_{b}") for a, b in standard]
        facts = [(fact, f"{image_name}_{fact}") for fact in ("volumes", "method")]
        self.link(step, self.outputs, [*standard, *native, *facts])

    def map_lesions(
        self,
        inpaint: pe.Workflow,
        segmented: pe.Workflow | None,
        name: str,
        fill: str,
        given: bool,
        uncertain: tuple[str, ...] = (),
        edited: bool = False,
    ) -> pe.Workflow:
        """The lesion map of an inpainted image, and both on the voxels of the T1w."""
        step = init_lesions_wf(
            template=self.template,
            rule=self.rule,
            fill=fill,
            given=given,
            segmented=segmented is not None,
            uncertain=uncertain,
            together=self.together and not given,
            edited=edited,
            name=name,
        )
        step.inputs.inputnode.t1w = self.image.path
        needed = ("brain_mask", "denoised", "preproc", "bias", "scale", "offset", "inverse_xfm")
        self.link(self.preprocess, step, _same(*needed))
        self.link(inpaint, step, [("whole", "inpainted"), *_same("white", "exponent", *uncertain)])
        if edited or (self.rule.kind == "probability" and not given):
            self.link(inpaint, step, [("probability", "lesion_probability")])
        if given:
            more = ("added", "removed") if edited else ()
            self.link(inpaint, step, _same("given_lesions", "native_given_lesions", *more))
        if segmented:
            self.link(segmented, step, _same("wm"))
        else:
            step.inputs.inputnode.wm = self.template.priors["WM"]
        return step

    def add_flair(self) -> None:
        """The lesion map by the T1w and its FLAIR, which is made if it has none."""
        step = init_lesions_by_flair_wf(self.image, self.networks, self.settings, self.template, self.threads)
        self.link(self.preprocess, step, _same(*step.inputs.inputnode.get()))
        self.link(step, self.outputs, _same(*step.outputs.outputnode.get()))
        self.steps.append(step)

    def add_reference(self) -> None:
        """Fill the lesions of given masks, for comparison."""
        assert self.networks.reference is not None
        reference = init_inpaint_wf(
            model=self.networks.reference,
            settings=self.settings,
            template=self.template,
            lesion_mask=self.image.lesion_mask,
            lesion_space=self.image.lesion_space,
            omp_nthreads=self.threads,
            reference=True,
            name="reference_wf",
        )
        reference.inputs.inputnode.t1w = self.image.path
        self.link(self.preprocess, reference, _same("preproc", "working_mask", "xfm", "inverse_xfm"))
        self.link(
            reference,
            self.outputs,
            [
                ("inpainted", "reference"),
                ("given_lesions", "reference_mask"),
                ("native_given_lesions", "native_reference_mask"),
                ("lesion_warnings", "reference_warnings"),
            ],
        )
        segmented = None
        if "reference" in self.products.segmented:
            segmented = self.segment(reference, "segment_reference_wf", "inpainted")
            self.save_segmented(segmented, "reference")
        native = self.map_lesions(reference, segmented, "reference_lesions_wf", "lesions", True)
        self.link(native, self.outputs, [("native_inpainted", "native_reference")])
        self.steps.append(reference)

    def finished(self) -> pe.Workflow:
        """The whole graph, with its methods text."""
        name_source(self.workflow, self.image.path)
        self.workflow.__desc__ = "".join(getattr(step, "__desc__", "") for step in self.steps)
        if others := [name for name in self.products.segmented if name != "inpainted"]:
            self.workflow.__desc__ += (
                f"For comparison, the {' and the '.join(others)} image was segmented in the same way.\n\n"
            )
        return self.workflow


def _same(*names: str) -> list[tuple[str, str]]:
    """Outputs connected to inputs of the same names."""
    return [(name, name) for name in names]
