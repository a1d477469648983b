"""The whole graph: a workflow an image, gathered by participant."""

from __future__ import annotations

from pathlib import Path

from nipype.pipeline import engine as pe

from bids_inpaint.bids import Image
from bids_inpaint.models import Model
from bids_inpaint.settings import Settings
from bids_inpaint.template import TemplateFiles
from bids_inpaint.workflows.flair import init_flair_wf
from bids_inpaint.workflows.inpaint import init_inpaint_wf
from bids_inpaint.workflows.lesions import init_lesions_wf
from bids_inpaint.workflows.outputs import (
    NATIVE,
    STANDARD,
    Products,
    given_files,
    provenance,
    threshold_of,
    tissue_key,
)
from bids_inpaint.workflows.preprocess import init_preprocess_wf, name_source
from bids_inpaint.workflows.saving import init_outputs_wf
from bids_inpaint.workflows.segment import TISSUE_MAPS, init_segment_wf


def init_participants_wf(
    *,
    images: list[Image],
    settings: Settings,
    model: Model,
    template: TemplateFiles,
    run_uuid: str,
    reference: Model | None = None,
    second: Model | None = None,
    second_alone: bool = False,
    flair: Model | None = None,
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
        Names the folders of crash files, and the run in the status of each image.
    reference : Model, optional
        Fills the lesions of given masks, beside what a blind network does.
    second : Model, optional
        Fills again what a blind network found.
    second_alone : bool
        Whether its filling is the result, not the mean of both.
    flair : Model, optional
        Makes a FLAIR and a lesion map of each T1w.

    Returns
    -------
    Workflow
        ``bids_inpaint_wf``, with one workflow an image inside.
    """
    whole = pe.Workflow(name="bids_inpaint_wf", base_dir=str(settings.work_dir))
    threads = settings.threads(len(images))
    for image in images:
        workflow = init_image_wf(
            image=image,
            settings=settings,
            model=model,
            template=template,
            run_uuid=run_uuid,
            reference=reference,
            second=second,
            second_alone=second_alone,
            flair=flair,
            threads=threads,
        )
        crashes = crash_folder(settings.output_dir, image.subject, run_uuid)
        for node in workflow._get_all_nodes():
            node.config = {"execution": {"crashdump_dir": str(crashes)}}
        whole.add_nodes([workflow])
    return whole


def crash_folder(output_dir: Path, subject: str, run_uuid: str) -> Path:
    """Where the crash files of a participant's run go."""
    return output_dir / f"sub-{subject}" / "log" / run_uuid


def image_wf_name(image: Image) -> str:
    """Name of an image's workflow, as ``sub_01_ses_1_wf``.

    Nipype takes no ``+``, which labels may have.

    Examples
    --------
    >>> image_wf_name(Image("p", "u", {"sub": "1+2", "ses": "1"}))
    'sub_1-2_ses_1_wf'
    """
    return image.prefix.translate(str.maketrans("-+", "_-")) + "_wf"


def init_image_wf(
    *,
    image: Image,
    settings: Settings,
    model: Model,
    template: TemplateFiles,
    run_uuid: str,
    reference: Model | None = None,
    second: Model | None = None,
    second_alone: bool = False,
    flair: Model | None = None,
    threads: int = 1,
) -> pe.Workflow:
    """Build everything of one T1w: preprocessing, inpainting, segmentation, lesions, outputs."""
    threshold = threshold_of(settings, model)
    products = Products.of(settings, model)
    workflow = pe.Workflow(name=image_wf_name(image))
    # a blind network makes its own map; given masks lead to the reference it is compared with
    given = None if model.blind else image.lesion_mask
    preprocess = init_preprocess_wf(
        template=template,
        skull_strip=settings.skull_strip,
        brain_mask=image.brain_mask,
        brain_mask_xfm=image.brain_mask_xfm,
        xfm=image.xfm,
        random_seed=settings.random_seed,
        omp_nthreads=threads,
        sloppy=settings.sloppy,
    )
    preprocess.inputs.inputnode.t1w = image.path
    drawn: dict = {
        "random_seed": settings.random_seed,
        "sampler": settings.sampler,
        "sampling_steps": settings.sampling_steps,
    }
    inpaint = init_inpaint_wf(
        model=model,
        template=template,
        lesion_mask=given,
        lesion_space=image.lesion_space,
        device=settings.device,
        omp_nthreads=threads,
        threshold=threshold,
        min_volume=settings.lesion_min_volume,
        confine=model.blind and settings.fill == "lesions",
        second=second,
        second_alone=second_alone,
        **drawn,
    )
    origin = provenance(settings, model, second)
    origin["Options"] |= given_files(image)
    outputs = init_outputs_wf(
        image=image,
        template=template,
        model=model,
        options={
            "fill": settings.fill,
            "threshold": threshold,
            "min_volume": settings.lesion_min_volume,
            "given": given is not None,
            "second_alone": second_alone,
            "provenance": origin,
        },
        output_dir=settings.output_dir,
        run_uuid=run_uuid,
        products=products,
        reference=reference,
        second=second,
        flair=flair,
    )

    def link(source, target, pairs):
        workflow.connect([(source, target, [(f"outputnode.{a}", f"inputnode.{b}") for a, b in pairs])])

    def same(*names):
        return [(n, n) for n in names]

    def segment(source, name, image_name, field):
        """Segment an image, and save its tissues."""
        step = init_segment_wf(template=template, spm=settings.spm, sloppy=settings.sloppy, name=name)
        link(source, step, [(field, "in_file")])
        link(preprocess, step, same("working_mask", "brain_mask", "inverse_xfm"))
        pairs = [(k, tissue_key(image_name, k)) for k in TISSUE_MAPS]
        native = [(f"native_{a}", f"native_{b}") for a, b in pairs]
        told = [(what, f"{image_name}_{what}") for what in ("volumes", "method")]
        link(step, outputs, [*pairs, *native, *told])
        return step

    def back(source, tissues, name, fill, given):
        """The lesion map of an inpainted image, and both on the voxels of the T1w."""
        step = init_lesions_wf(
            template=template,
            threshold=threshold,
            min_volume=settings.lesion_min_volume,
            fill=fill,
            given=given,
            segmented=tissues is not None,
            name=name,
        )
        step.inputs.inputnode.t1w = image.path
        link(
            preprocess,
            step,
            same("brain_mask", "denoised", "preproc", "bias", "scale", "offset", "inverse_xfm"),
        )
        link(source, step, [("whole", "inpainted"), *same("white", "exponent")])
        if given:
            link(source, step, same("given_lesions", "native_given_lesions"))
        if tissues:
            link(tissues, step, same("wm"))
        else:
            step.inputs.inputnode.wm = template.priors["WM"]
        return step

    inpaint.inputs.inputnode.t1w = image.path
    prepared = same("preproc", "working_mask", "xfm", "inverse_xfm")
    link(preprocess, inpaint, prepared)
    tissues = segment(inpaint, "segment_wf", "inpainted", "inpainted") if products.segmented else None
    lesions = back(inpaint, tissues, "lesions_wf", settings.fill, given is not None)
    steps = [preprocess, inpaint, *([tissues] if tissues else []), lesions]
    link(
        preprocess,
        outputs,
        same(
            "conformed", "brain_mask", "mask_method", "working_mask", "preproc", "xfm", "inverse_xfm",
            "input_warnings", "mask_warnings",
        ),
    )  # fmt: skip
    link(inpaint, outputs, same("inpainted", *(["lesion_warnings"] if given else [])))
    native = [key for key in NATIVE if key.startswith("native_")]
    mapped = [key for key in STANDARD if key in ("mask", "probability")]
    link(lesions, outputs, same(*native, *mapped, "darkening", "table"))
    if "original" in products.segmented:
        segment(preprocess, "segment_original_wf", "original", "preproc")
    if flair:
        make = init_flair_wf(
            model=flair, template=template, device=settings.device, omp_nthreads=threads
        )  # fmt: skip
        link(preprocess, make, same("preproc", "working_mask", "brain_mask", "inverse_xfm"))
        made = [("mask", "joint_mask"), ("native_mask", "native_joint_mask")]
        link(make, outputs, [*same("flair", "native_flair"), *made])
        steps.append(make)
    if reference:
        fill = init_inpaint_wf(
            model=reference,
            template=template,
            lesion_mask=image.lesion_mask,
            lesion_space=image.lesion_space,
            device=settings.device,
            omp_nthreads=threads,
            reference=True,
            **drawn,
            name="reference_wf",
        )
        fill.inputs.inputnode.t1w = image.path
        link(preprocess, fill, prepared)
        link(
            fill,
            outputs,
            [
                ("inpainted", "reference"),
                ("given_lesions", "reference_mask"),
                ("native_given_lesions", "native_reference_mask"),
                ("lesion_warnings", "reference_warnings"),
            ],
        )
        tissues = None
        if "reference" in products.segmented:
            tissues = segment(fill, "segment_reference_wf", "reference", "inpainted")
        filled = back(fill, tissues, "reference_lesions_wf", "lesions", True)
        link(filled, outputs, [("native_inpainted", "native_reference")])
        steps.append(fill)
    name_source(workflow, image.path)
    workflow.__desc__ = "".join(getattr(step, "__desc__", "") for step in steps)
    if others := [name for name in products.segmented if name != "inpainted"]:
        workflow.__desc__ += (
            f"For comparison, the {' and the '.join(others)} image was segmented in the same way.\n\n"
        )
    return workflow
