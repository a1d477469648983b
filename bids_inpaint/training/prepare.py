"""Preprocess images for training with the app's own graph, cache them, and fill those of patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, isdefined, traits
from nipype.pipeline import engine as pe

from bids_inpaint import bids, images, inference, models, template
from bids_inpaint.files import replacing
from bids_inpaint.intensity import Scale
from bids_inpaint.interfaces.base import FileInterface, InputSpec
from bids_inpaint.interfaces.inpaint import LesionMask
from bids_inpaint.plugin import ImageByImage
from bids_inpaint.settings import Settings
from bids_inpaint.training.data import cache_subject, subjects
from bids_inpaint.workflows.preprocess import init_preprocess_wf


def prepare(
    dataset: Path,
    cache: Path,
    work: Path,
    nprocs: int,
    labels: tuple[str, ...] = (),
    lesion_masks: Path | None = None,
) -> int:
    """Preprocess every T1w of a BIDS dataset that is not in the cache yet.

    Parameters
    ----------
    dataset : Path
        BIDS root; its folder name begins the names in the cache.
    cache, work : Path
        Where the arrays and the intermediate results go.
    nprocs : int
        Images at a time.
    labels : tuple of str
        Participants; all by default.
    lesion_masks : Path, optional
        BIDS derivative with the lesion masks of patients.

    Returns
    -------
    int
        Number of images now in the cache from this dataset.

    Raises
    ------
    InputError
        If some could not be preprocessed; the others are in the cache.
    """
    settings = Settings(
        bids_dir=dataset,
        output_dir=cache,
        work_dir=work,
        participant_label=labels,
        lesion_masks=lesion_masks,
    )
    files = template.prepare(template.DEFAULT, work)
    found = {cache / cache_name(dataset, image): image for image in bids.collect(settings)}
    whole = pe.Workflow(name="prepare_wf", base_dir=str(work))
    whole.config["execution"] = {
        "remove_unnecessary_outputs": "false",
        "poll_sleep_duration": "0.3",
        "crashfile_format": "txt",
        "crashdump_dir": str(work / "crashes"),
    }
    for folder, image in found.items():
        if not folder.exists():
            whole.add_nodes([_init_image_wf(image, folder, files)])
    try:
        whole.run(ImageByImage({"n_procs": nprocs, "raise_insufficient": False}))
    except Exception as error:
        failed = [image.path for folder, image in found.items() if not folder.exists()]
        if not failed:
            raise
        raise images.InputError(
            f"{len(failed)} of {len(found)} images could not be preprocessed ({', '.join(failed)}): "
            f"look at {work / 'crashes'}."
        ) from error
    return len(found)


def _init_image_wf(image: bids.Image, folder: Path, files: template.TemplateFiles) -> pe.Workflow:
    workflow = pe.Workflow(name=f"{image.prefix.replace('-', '_')}_wf")
    preprocess = init_preprocess_wf(template=files, brain_mask=image.brain_mask, source=image.path)
    preprocess.inputs.inputnode.t1w = image.path
    store = pe.Node(
        CacheImage(folder=str(folder), gm_prior=files.priors["GM"], wm_prior=files.priors["WM"]),
        # the cache may be gone while the work folder isn't
        name="store", mem_gb=1, overwrite=True,
    )  # fmt: skip
    workflow.connect([
        (preprocess, store, [("outputnode.preproc", "in_file"), ("outputnode.working_mask", "mask_file")]),
    ])  # fmt: skip
    if image.lesion_mask:
        given = pe.Node(
            LesionMask(in_file=image.lesion_mask, space=image.lesion_space, t1w=image.path), name="given"
        )
        workflow.connect([
            (preprocess, given, [("outputnode.xfm", "xfm")]),
            (given, store, [("out_file", "lesions")]),
        ])  # fmt: skip
    return workflow


class CacheImageInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed, on the working grid")
    mask_file = File(exists=True, mandatory=True)
    gm_prior = File(exists=True, mandatory=True)
    wm_prior = File(exists=True, mandatory=True)
    lesions = File(exists=True, desc="lesion mask of a patient")
    folder = traits.Str(mandatory=True, desc="where in the cache")


class CacheImage(FileInterface):
    """Store a preprocessed image in the cache."""

    input_spec = CacheImageInputSpec

    def process(self, runtime) -> dict:
        data, mask = (images.read(f)[0] for f in (self.inputs.in_file, self.inputs.mask_file))
        priors = {"GM": images.read(self.inputs.gm_prior)[0], "WM": images.read(self.inputs.wm_prior)[0]}
        given = images.read(self.inputs.lesions)[0] > 0 if isdefined(self.inputs.lesions) else None
        cache_subject(Path(self.inputs.folder), data, mask > 0, priors, given)
        return {}


def make_targets(model_name: str, cache: Path, threads: int) -> int:
    """Make the lesion-free targets of the patients in a cache (Manjón 2020, section 2.3, step 1).

    Outside the lesion mask, dilated by a voxel, a target is the image itself.

    Parameters
    ----------
    model_name : str
        Non-blind network: its name, or ONNX file.
    cache : Path
    threads : int

    Returns
    -------
    int
        Number of patients.

    Raises
    ------
    ValueError
        If the network is blind.
    """
    model = models.find(model_name)
    if model.blind:
        raise ValueError(f"{model_name} is a blind network: targets need one that fills given masks")
    files = template.prepare(template.DEFAULT, cache / "template")
    priors = [images.read(files.priors[tissue])[0] for tissue in ("WM", "GM")]
    patients = [s for s in subjects(cache) if s.patient]
    for patient in patients:
        image = np.asarray(patient.image, np.float32)
        runtime = inference.Runtime(threads=threads)
        scale = Scale.measure(image, image > 0, *priors)
        filled = inference.inpaint(model, image, image > 0, scale, patient.lesions, runtime)
        with replacing(patient.folder / "target.npy") as part:
            np.save(part, np.where(inference.to_fill(patient.lesions), filled, image).astype(np.float16))
    return len(patients)


def cache_name(dataset: Path, image: bids.Image) -> str:
    """Name of an image in the cache, as ``ds002748_sub-01``."""
    return f"{dataset.resolve().name}_{image.prefix}"
