"""Preprocess images for training with the app's own graph, and cache them."""

from __future__ import annotations

from pathlib import Path

from nipype.pipeline import engine as pe

from bids_inpaint import bids, images, template
from bids_inpaint.settings import Settings
from bids_inpaint.training.data import cache_subject
from bids_inpaint.workflows.preprocess import init_preprocess_wf


def prepare(dataset: Path, cache: Path, work: Path, nprocs: int, labels: tuple[str, ...] = ()) -> int:
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

    Returns
    -------
    int
        Number of images now in the cache from this dataset.
    """
    settings = Settings(bids_dir=dataset, output_dir=cache, work_dir=work, participant_label=labels)
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
    if todo:
        whole.config["execution"] = {"remove_unnecessary_outputs": "false", "poll_sleep_duration": "0.3"}
        whole.run("MultiProc", plugin_args={"n_procs": nprocs})
    priors = {tissue: images.read(path)[0] for tissue, path in files.priors.items()}
    for image in todo:
        folder = work / "prepare_wf" / f"{image.prefix.replace('-', '_')}_wf"
        data, _ = images.read(folder / "normalise" / "normalised.nii.gz")
        mask, _ = images.read(folder / "resample" / "mask.nii.gz")
        cache_subject(cache / cache_name(dataset, image), data, mask > 0, priors)
    return len(found)


def cache_name(dataset: Path, image: bids.Image) -> str:
    """Name of an image in the cache, as ``ds002748_sub-01``."""
    return f"{dataset.resolve().name}_{image.prefix}"
