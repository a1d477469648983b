"""The whole graph: a workflow an image, gathered by participant."""

from __future__ import annotations

from pathlib import Path

from nipype.pipeline import engine as pe

from bids_inpaint.bids import Image
from bids_inpaint.models import Model
from bids_inpaint.settings import Settings
from bids_inpaint.template import TemplateFiles
from bids_inpaint.workflows.inpaint import init_inpaint_wf
from bids_inpaint.workflows.lesions import init_lesions_wf
from bids_inpaint.workflows.outputs import NATIVE, STANDARD, init_outputs_wf
from bids_inpaint.workflows.preprocess import init_preprocess_wf
from bids_inpaint.workflows.segment import init_segment_wf


def init_participants_wf(
    *, images: list[Image], settings: Settings, model: Model, template: TemplateFiles, run_uuid: str
) -> pe.Workflow:
    """Build the graph of a run.

    Parameters
    ----------
    images : list of Image
        The T1w images to process.
    settings : Settings
    model : Model
    template : TemplateFiles
    run_uuid : str
        Names the folders of crash files.

    Returns
    -------
    Workflow
        ``bids_inpaint_wf``, with one workflow an image inside.
    """
    whole = pe.Workflow(name="bids_inpaint_wf", base_dir=str(settings.work_dir))
    for image in images:
        workflow = init_image_wf(image=image, settings=settings, model=model, template=template)
        crashes = crash_folder(settings.output_dir, image.subject, run_uuid)
        for node in workflow._get_all_nodes():
            node.config = {"execution": {"crashdump_dir": str(crashes)}}
        whole.add_nodes([workflow])
    return whole


def crash_folder(output_dir: Path, subject: str, run_uuid: str) -> Path:
    """Where the crash files of a participant's run go."""
    return output_dir / f"sub-{subject}" / "log" / run_uuid


def image_wf_name(image: Image) -> str:
    """Name of an image's workflow, as ``sub_01_ses_1_wf``."""
    return image.prefix.replace("-", "_") + "_wf"


def init_image_wf(*, image: Image, settings: Settings, model: Model, template: TemplateFiles) -> pe.Workflow:
    """Build everything of one T1w: preprocessing, inpainting, segmentation, lesions, outputs."""
    threads = settings.threads
    threshold = settings.lesion_threshold or float(model.card["lesion_threshold"])
    workflow = pe.Workflow(name=image_wf_name(image))
    preprocess = init_preprocess_wf(
        template=template,
        skull_strip=settings.skull_strip,
        brain_mask=image.brain_mask,
        xfm=image.xfm,
        source=image.path,
        random_seed=settings.random_seed,
        omp_nthreads=threads,
        sloppy=settings.sloppy,
    )
    preprocess.inputs.inputnode.t1w = image.path
    inpaint = init_inpaint_wf(
        model=model,
        template=template,
        lesion_mask=image.lesion_mask,
        lesion_space=image.lesion_space,
        device=settings.device,
        omp_nthreads=threads,
    )
    inpaint.inputs.inputnode.t1w = image.path
    segment = init_segment_wf(template=template, omp_nthreads=threads, sloppy=settings.sloppy)
    lesions = init_lesions_wf(
        template=template,
        threshold=threshold,
        min_volume=settings.lesion_min_volume,
        fill=settings.fill,
        given=image.lesion_mask is not None,
    )
    lesions.inputs.inputnode.t1w = image.path
    outputs = init_outputs_wf(
        image=image,
        template=template.name,
        template_t1w=template.t1w,
        model=model,
        options={
            "fill": settings.fill,
            "threshold": threshold,
            "min_volume": settings.lesion_min_volume,
        },
        output_dir=settings.output_dir,
    )

    def link(source, target, pairs):
        workflow.connect([(source, target, [(f"outputnode.{a}", f"inputnode.{b}") for a, b in pairs])])

    def same(*names):
        return [(n, n) for n in names]

    link(preprocess, inpaint, same("preproc", "working_mask", "xfm"))
    link(inpaint, segment, [("inpainted", "in_file")])
    link(preprocess, segment, [("working_mask", "mask_file")])
    link(
        preprocess,
        lesions,
        same("brain_mask", "denoised", "preproc", "bias", "scale", "inverse_xfm"),
    )
    link(
        inpaint,
        lesions,
        same("inpainted", "white", "exponent", *(["given_lesions"] if image.lesion_mask else [])),
    )
    link(segment, lesions, same("gm", "wm", "csf"))
    link(
        preprocess,
        outputs,
        same("conformed", "brain_mask", "mask_method", "working_mask", "preproc", "xfm", "inverse_xfm"),
    )
    link(inpaint, outputs, same("inpainted"))
    link(segment, outputs, same("gm", "wm", "csf", "dseg"))
    native = [key for key in NATIVE if key.startswith("native_")]
    mapped = [key for key in STANDARD if key in ("mask", "probability")]
    link(lesions, outputs, same(*native, *mapped, "darkening", "table"))
    workflow.__desc__ = "".join(
        getattr(step, "__desc__", "") for step in (preprocess, inpaint, segment, lesions)
    )
    return workflow
