"""Preprocess images for training with the app's own graph, cache them, and fill those of patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.pipeline import engine as pe

from bids_inpaint import bids, images, inference, models, template
from bids_inpaint.files import replacing
from bids_inpaint.intensity import Scale
from bids_inpaint.interfaces.inpaint import LesionMask
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
    """
    settings = Settings(
        bids_dir=dataset,
        output_dir=cache,
        work_dir=work,
        participant_label=labels,
        lesion_masks=lesion_masks,
    )
    files = template.prepare(template.DEFAULT, work)
    found = bids.collect(settings)
    todo = [image for image in found if not (cache / cache_name(dataset, image)).exists()]
    whole = pe.Workflow(name="prepare_wf", base_dir=str(work))
    for image in todo:
        name = image.prefix.replace("-", "_")
        step = init_preprocess_wf(
            template=files, brain_mask=image.brain_mask, source=image.path, name=f"{name}_wf"
        )
        step.inputs.inputnode.t1w = image.path
        whole.add_nodes([step])
        if image.lesion_mask:
            given = pe.Node(
                LesionMask(in_file=image.lesion_mask, space=image.lesion_space, t1w=image.path),
                name=f"{name}_lesions",
            )
            whole.connect([(step, given, [("outputnode.xfm", "xfm")])])
    if todo:
        whole.config["execution"] = {"remove_unnecessary_outputs": "false", "poll_sleep_duration": "0.3"}
        whole.run("MultiProc", plugin_args={"n_procs": nprocs})
    priors = {tissue: images.read(path)[0] for tissue, path in files.priors.items()}
    for image in todo:
        folder = work / "prepare_wf" / f"{image.prefix.replace('-', '_')}_wf"
        data, _ = images.read(folder / "normalise" / "normalised.nii.gz")
        mask, _ = images.read(folder / "resample" / "mask.nii.gz")
        lesions = None
        if image.lesion_mask:
            given = work / "prepare_wf" / f"{image.prefix.replace('-', '_')}_lesions"
            lesions = images.read(given / "lesions.nii.gz")[0] > 0
        cache_subject(cache / cache_name(dataset, image), data, mask > 0, priors, lesions)
    return len(found)


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
