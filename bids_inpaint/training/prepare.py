"""Preprocess images for training with the app's own graph, cache them, and fill those of patients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from nipype.interfaces.base import Bunch, File, isdefined, traits
from nipype.pipeline import engine as pe

from bids_inpaint import errors
from bids_inpaint.dataset import bids, template
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import image_wf_name
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.imaging.itk import affine
from bids_inpaint.imaging.processes import alone
from bids_inpaint.interfaces.base import FileInterface, InputSpec
from bids_inpaint.interfaces.flair import FlairToWorkingGrid
from bids_inpaint.interfaces.lesions import LesionMask
from bids_inpaint.io import images
from bids_inpaint.io.files import replacing
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.participant.plugin import ImageByImage, set_nipype_level
from bids_inpaint.settings import Settings, check
from bids_inpaint.space import WORKING_GRID, Grid, resample
from bids_inpaint.training.data import LABELS, cache_subject, storing, subjects, template_priors
from bids_inpaint.training.heads import CSF, EXTRACEREBRAL, FLUID, WHITE, Head
from bids_inpaint.workflows.preprocess import init_preprocess_wf, name_source


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
    check(settings)

    def place(image: Image) -> Path:
        return settings.output_dir / f"{settings.bids_dir.name}_{image.prefix}"

    def finish(image: Image, files: template.TemplateFiles) -> pe.Node:
        store = CacheImage(
            folder=str(place(image)), gm_prior=files.priors["GM"], wm_prior=files.priors["WM"]
        )  # fmt: skip
        return pe.Node(store, name="store", mem_gb=1)

    return preprocess(settings, nprocs, place, finish)


def preprocess(
    settings: Settings,
    nprocs: int,
    place: Callable[[Image], Path],
    finish: Callable[[Image, template.TemplateFiles], pe.Node],
) -> int:
    """Preprocess images with the app's own graph, each followed by a last step.

    Parameters
    ----------
    settings : Settings
        Which images, and the work folder.
    nprocs : int
        Images at a time.
    place : callable
        Where the result of an image goes; one that is there is not made again.
    finish : callable
        Makes the node that writes it. Those outputs of the preprocessing that it has inputs for are given
        to it, and the lesion mask and the FLAIR on the working grid if it has ``lesions`` and ``flair``.

    Returns
    -------
    int
        Number of images that are there now.

    Raises
    ------
    InputError
        If some could not be preprocessed; the others are there.
    """
    set_nipype_level(logging.CRITICAL)
    work = settings.work_dir
    files = template.prepare(template.DEFAULT, work)
    collected = bids.collect(settings)
    selected = collected.images
    whole = pe.Workflow(name=f"{settings.output_dir.name}_wf", base_dir=str(work))
    whole.config["execution"] = {
        "remove_unnecessary_outputs": "false",
        "poll_sleep_duration": "0.3",
        "crashfile_format": "txt",
        "crashdump_dir": str(work / "crashes"),
    }
    for image in selected:
        if not place(image).exists():
            whole.add_nodes([_init_image_wf(image, finish(image, files), files)])
    try:
        whole.run(
            ImageByImage({"n_procs": nprocs, "raise_insufficient": False, "log_level": logging.CRITICAL})
        )
    except Exception as error:
        failed = [image.path for image in selected if not place(image).exists()]
        if not failed:
            raise
        raise errors.InputError(
            f"{len(failed)} of {len(selected)} images could not be preprocessed ({', '.join(failed)}): "
            f"look at {work / 'crashes'}."
        ) from error
    if collected.refused:
        raise errors.InputError(bids.nothing_left(collected.refused))
    return len(selected)


def _init_image_wf(image: Image, store: pe.Node, files: template.TemplateFiles) -> pe.Workflow:
    workflow = pe.Workflow(name=image_wf_name(image))
    preprocess = init_preprocess_wf(
        template=files,
        brain_mask=image.brain_mask,
        brain_mask_xfm=image.brain_mask_xfm,
    )
    preprocess.inputs.inputnode.t1w = image.path
    # its result may be gone while the work folder isn't
    store.overwrite = True
    outputs = set(preprocess.outputs.outputnode.get())
    wanted = outputs & set(store.inputs.copyable_trait_names())
    workflow.connect([(preprocess, store, [(f"outputnode.{key}", key) for key in sorted(wanted)])])
    if image.lesion_mask:
        mask = pe.Node(
            LesionMask(in_file=image.lesion_mask, space=image.lesion_space, t1w=image.path),
            name="lesion_mask",
        )
        workflow.connect([
            (preprocess, mask, [("outputnode.xfm", "xfm")]),
            (mask, store, [("out_file", "lesions")]),
        ])  # fmt: skip
    flair_file = _flair_of(image) if "flair" in store.inputs.copyable_trait_names() else None
    if flair_file:
        flair = pe.Node(FlairToWorkingGrid(in_file=flair_file), name="flair")
        workflow.connect([
            (preprocess, flair, [
                ("outputnode.conformed", "t1w"), ("outputnode.xfm", "xfm"),
                ("outputnode.working_mask", "mask_file"),
            ]),
            (flair, store, [("out_file", "flair")]),
        ])  # fmt: skip
    name_source(workflow, image.path)
    return workflow


def _flair_of(image: Image) -> str | None:
    """The FLAIR beside a T1w, whatever its other entities are.

    Raises
    ------
    InputError
        If there are several.
    """
    person = "_".join(f"{k}-{image.entities[k]}" for k in ("sub", "ses") if k in image.entities)
    files = sorted(Path(image.path).parent.glob(f"{person}_*FLAIR.nii*"))
    if len(files) > 1:
        raise errors.InputError(
            f"{files[0]} is one of {len(files)} FLAIR images beside {image.path}: leave one there."
        )
    return str(files[0]) if files else None


class CacheImageInputSpec(InputSpec):
    """Inputs of :class:`CacheImage`."""

    preproc = File(exists=True, mandatory=True, desc="preprocessed image on the working grid")
    working_mask = File(exists=True, mandatory=True, desc="brain mask on the working grid")
    gm_prior = File(exists=True, mandatory=True, desc="grey-matter probability of the template")
    wm_prior = File(exists=True, mandatory=True, desc="white-matter probability of the template")
    lesions = File(exists=True, desc="lesion mask of a patient")
    flair = File(exists=True, desc="FLAIR on the working grid")
    folder = traits.Str(mandatory=True, desc="where in the cache")


class CacheImage(FileInterface):
    """Store a preprocessed image in the cache."""

    input_spec = CacheImageInputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        """Standardise the image, and store it."""
        data, mask = (images.read(f)[0] for f in (self.inputs.preproc, self.inputs.working_mask))
        priors = {"GM": images.read(self.inputs.gm_prior)[0], "WM": images.read(self.inputs.wm_prior)[0]}
        lesions = images.read(self.inputs.lesions)[0] > 0 if isdefined(self.inputs.lesions) else None
        flair = images.read(self.inputs.flair)[0] if isdefined(self.inputs.flair) else None
        cache_subject(Path(self.inputs.folder), data, mask > 0, priors, lesions, flair)
        return {}


def prepare_labels(folder: Path, cache: Path, work: Path) -> int:
    """Bring head label maps that are not in the cache yet onto the working grid.

    Parameters
    ----------
    folder : Path
        Holds ``*.nii.gz`` with FreeSurfer's labels.
    cache, work : Path
        Where the arrays and the intermediate results go.

    Returns
    -------
    int
        Number of label maps now in the cache.

    Raises
    ------
    ValueError
        If there is no label map.
    """
    paths = sorted(folder.glob("*.nii.gz"))
    if not paths:
        raise ValueError(f"{folder} holds no label map (*.nii.gz)")
    files = template.prepare(template.DEFAULT, work)
    for path in paths:
        name = path.name.split(".")[0]
        if not (cache / name).exists():
            _cache_labels(path, cache / name, work, files)
    return len(paths)


def _cache_labels(path: Path, folder: Path, work: Path, files: template.TemplateFiles) -> None:
    head = Head.load(path)
    brain = head.brain.numpy() > 0
    labels = np.array(head.classes)[head.labels.numpy()]
    # what is left of the sulci is fluid
    labels = np.where(brain & ((labels == 0) | (labels >= EXTRACEREBRAL)), CSF, labels * brain)
    levels = np.full(EXTRACEREBRAL, 0.7)
    levels[list(WHITE)], levels[list(FLUID)], levels[0] = 1, 0.2, 0
    grid = Grid.of(labels.shape, np.eye(4))
    with TemporaryDirectory(dir=work) as scratch:
        picture, mask = (str(Path(scratch) / f"{name}.nii.gz") for name in ("picture", "mask"))
        images.save(picture, levels[labels], grid, np.float32)
        images.save(mask, brain, grid, np.uint8)
        world = alone(affine, picture, mask, files.t1w, "fast", scratch, 0)
    out = resample(labels, grid, WORKING_GRID, world, order=0)
    with storing(folder) as part:
        np.save(part / f"{LABELS}.npy", out.astype(np.uint8))


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
    model = registry.find(model_name)
    if model.blind:
        raise ValueError(f"{model_name} is a blind network: targets need one that fills given masks")
    priors = template_priors(cache)
    patients = [s for s in subjects(cache) if s.patient]
    for patient in patients:
        image = np.asarray(patient.image, np.float32)
        runtime = session.Runtime(threads=threads)
        scale = Scale.measure(image, image > 0, *priors)
        filled = inpainting.inpaint(model, image, image > 0, scale, patient.lesions, runtime, priors).image
        with replacing(patient.folder / "target.npy") as part:
            np.save(part, filled.astype(np.float16))
    return len(patients)
