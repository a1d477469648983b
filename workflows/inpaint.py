"""The network on the preprocessed brain."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_inpaint.dataset.template import TemplateFiles
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.interfaces.inpaint import FillDecided, Inpaint
from bids_inpaint.interfaces.lesions import LesionMask
from bids_inpaint.networks.card import Model
from bids_inpaint.settings import Settings

_OUTPUTS = [
    "inpainted", "whole", "white", "exponent", "probability", "spread", "doubt", "given_lesions",
    "native_given_lesions", "lesion_warnings",
]  # fmt: skip


def init_inpaint_wf(
    *,
    model: Model,
    settings: Settings,
    template: TemplateFiles,
    lesion_mask: str | None = None,
    lesion_space: str = "T1w",
    omp_nthreads: int = 1,
    reference: bool = False,
    rule: Rule | None = None,
    second: Model | None = None,
    second_alone: bool = False,
    together: bool = False,
    name: str = "inpaint_wf",
) -> pe.Workflow:
    """Build the inpainting of one preprocessed brain.

    Parameters
    ----------
    model : Model
        The network.
    settings : Settings
        Where and how it runs, and what becomes of changes away from the lesions.
    template : TemplateFiles
        Its tissue priors set the intensity scale.
    lesion_mask : str, optional
        Given lesions; a non-blind network needs them.
    lesion_space : {'T1w', 'template'}
        Where they lie.
    omp_nthreads : int
    reference : bool
        Whether the result is what others are compared with.
    rule : Rule, optional
        What counts as a lesion that a blind network found.
    second : Model, optional
        Non-blind network that fills them again.
    second_alone : bool
        Whether its filling is the result, not the mean of both.
    together : bool
        Whether all visits of the person decide what is lesion, before it is filled again, and agree on the
        filling. Their workflow gives the lesions to the node ``fill``, and the agreed filling to
        ``outputnode`` (:func:`bids_inpaint.workflows.person.weave`).

    Inputs
    ------
    t1w, preproc, working_mask, xfm, inverse_xfm
        Of :func:`bids_inpaint.workflows.preprocess.init_preprocess_wf`.

    Outputs
    -------
    inpainted
        On the working grid, in the unit of `preproc`.
    whole
        The same with nothing undone.
    white, exponent
        The intensity scale of `preproc`.
    probability
        Of a lesion, if the rule needs it.
    spread, doubt
        Standard deviations among fillings and probabilities, if mirror images are to be looked at.
    given_lesions, native_given_lesions
        The given mask on the working grid and on the voxels of the T1w, if there is one.
    lesion_warnings
        What is unusual about it.
    """
    confine = model.blind and settings.fill == "lesions"
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = _methods(model, second, second_alone, rule, reference, confine, settings.tta)
    if together:
        workflow.__desc__ = (
            f"{workflow.__desc__.rstrip()} What was a lesion at several visits of a person was given the "
            "mean of its fillings at these visits.\n\n"
        )
    inputnode = pe.Node(
        IdentityInterface(fields=["t1w", "preproc", "working_mask", "xfm", "inverse_xfm"]), name="inputnode"
    )
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    network = network_inputs(model, template, settings.device, omp_nthreads)
    again = _second_inputs(settings, second, second_alone, rule, confine)
    once = _second_inputs(settings, None, False, None, False) if together else again
    inpaint = pe.Node(Inpaint(**network, **once), name="inpaint", n_procs=omp_nthreads, mem_gb=4)
    last = inpaint
    if together:
        # changes are undone once all visits have agreed
        again |= {"confine": False}
        last = pe.Node(FillDecided(**network, **again), name="fill", n_procs=omp_nthreads, mem_gb=4)
        workflow.connect([
            (inputnode, last, [("preproc", "in_file"), ("working_mask", "mask_file")]),
            (inpaint, last, [
                ("whole_file", "first_file"), ("probability", "probability"),
                *((f, f) for f in ("spread", "doubt") if settings.tta),
            ]),
        ])  # fmt: skip
    workflow.connect([
        (inputnode, inpaint, [("preproc", "in_file"), ("working_mask", "mask_file")]),
        (last, outputnode, [
            ("white", "white"), ("exponent", "exponent"), ("probability", "probability"), ("doubt", "doubt"),
        ]),
    ])  # fmt: skip
    if not together:
        workflow.connect([
            (last, outputnode, [
                ("out_file", "inpainted"), ("whole_file", "whole"), ("spread", "spread"),
            ]),
        ])  # fmt: skip
    if lesion_mask:
        given = pe.Node(
            LesionMask(in_file=lesion_mask, space=lesion_space, wm_prior=template.priors["WM"]),
            name="given", mem_gb=1,
        )  # fmt: skip
        workflow.connect([
            (inputnode, given, [
                ("t1w", "t1w"), ("xfm", "xfm"), ("inverse_xfm", "inverse_xfm"),
                ("working_mask", "brain_mask"), ("preproc", "preproc"),
            ]),
            (given, inpaint, [("void_file", "lesion_mask")]),
            (given, outputnode, [
                ("out_file", "given_lesions"), ("native_file", "native_given_lesions"),
                ("warnings", "lesion_warnings"),
            ]),
        ])  # fmt: skip
    return workflow


def network_inputs(model: Model, template: TemplateFiles, device: str, threads: int) -> dict[str, Any]:
    """Inputs of every node that runs a network (:class:`bids_inpaint.interfaces.base.NetworkInputSpec`)."""
    return {
        "model": model.identifier,
        "model_sha256": model.sha256,
        "wm_prior": template.priors["WM"],
        "gm_prior": template.priors["GM"],
        "device": device,
        "num_threads": threads,
    }


def filling_inputs(settings: Settings) -> dict[str, Any]:
    """Inputs of every node that fills (:class:`bids_inpaint.interfaces.inpaint.FillInputSpec`)."""
    draws = {"sampler": settings.sampler, "sampling_steps": settings.sampling_steps}
    given = {name: value for name, value in draws.items() if value}
    return {"random_seed": settings.random_seed, "mirror": settings.tta, **given}


def _second_inputs(
    settings: Settings, second: Model | None, second_alone: bool, rule: Rule | None, confine: bool
) -> dict[str, Any]:
    """Inputs of the inpainting node about draws, and about the lesions that were found."""
    out = filling_inputs(settings)
    if second:
        out |= {"second_model": second.identifier, "second_sha256": second.sha256}
        out |= {"second_alone": second_alone}
    if rule and (second or confine):
        out |= {"lesion_map": rule.kind, "threshold": rule.threshold, "low": rule.low}
        out |= {"min_volume": rule.min_volume, "confine": confine}
    return out


def _methods(
    model: Model,
    second: Model | None,
    second_alone: bool,
    rule: Rule | None,
    reference: bool,
    confine: bool,
    mirror: bool,
) -> str:
    """The paragraph of the methods text."""
    what = (
        "As a reference, the lesions of given masks were filled"
        if reference
        else f"Lesions were removed ({'blind, without masks' if model.blind else 'those of given masks'})"
    )
    text = (
        f"{what} with the network '{model.name}', {model.engine.describes}"
        f" (SHA-256 {model.sha256[:12]}…), run with ONNX Runtime."
    )
    if mirror:
        text += " It was also shown the mirror image of the brain, and the mean of both was taken."
    if rule and (second or confine):
        text += (
            " Where it told a lesion (below), that was taken for lesions in what follows."
            if rule.kind == "probability"
            else " What it had made as bright as white matter, and had brightened by more than "
            f"{rule.threshold:g} of it, was taken for lesions in what follows."
        )
    if second:
        text += (
            f" In a second pass, the non-blind network '{second.name}', {second.engine.describes} (SHA-256 "
            f"{second.sha256[:12]}…), filled these lesions in the output of the first"
            f"{'' if second_alone else ', and the mean of both fillings was taken'}."
        )
    if confine:
        text += " For the segmentation, changes were kept around these lesions and undone elsewhere."
    return text + "\n\n"
