"""Paint lesions into the raw images of a BIDS dataset: patients with a known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nipype.interfaces.base import Bunch, File, traits
from nipype.pipeline import engine as pe

from bids_inpaint import __version__
from bids_inpaint.dataset import template
from bids_inpaint.dataset.image import Image
from bids_inpaint.imaging import feathering
from bids_inpaint.imaging.intensity import levels
from bids_inpaint.interfaces.base import FileInterface, InputSpec
from bids_inpaint.io import images
from bids_inpaint.io.files import write_json
from bids_inpaint.io.images import stored_values, write_like
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.settings import Settings, check
from bids_inpaint.space import WORKING_GRID, resample
from bids_inpaint.training.data import Lesions
from bids_inpaint.training.parameters import draw_patient
from bids_inpaint.training.prepare import preprocess
from bids_inpaint.training.synthesis import paint

#: Where the lesion masks go in the painted dataset.
MASKS = "derivatives/painted"


def paint_dataset(
    dataset: Path,
    output: Path,
    shapes: Path,
    work: Path,
    nprocs: int = 1,
    labels: tuple[str, ...] = (),
    patients: tuple[str, ...] = (),
    seed: int = 0,
) -> int:
    """Write a BIDS dataset whose T1w images are those of another with lesions painted into them.

    The lesion masks go to ``derivatives/painted`` in it, as ``label-lesion_mask``. Away from the lesions
    every voxel is that of the original.

    Parameters
    ----------
    dataset, output : Path
        BIDS roots.
    shapes : Path
        Folder with ``patients/`` and ``shapes.npz``.
    work : Path
        Where intermediate results go.
    nprocs : int
        Images at a time.
    labels : tuple of str
        Participants; all by default.
    patients : tuple of str
        Patients that lend their lesions; all by default.
    seed : int
        The same seed gives the same lesions.

    Returns
    -------
    int
        Number of images painted.

    Raises
    ------
    InputError
        If some could not be painted; the others are there.
    """
    settings = Settings(bids_dir=dataset, output_dir=output, work_dir=work, participant_label=labels)
    check(settings)
    output = settings.output_dir
    _describe(settings.bids_dir, output, seed)

    def place(image: Image) -> Path:
        return output / Path(image.path).relative_to(settings.bids_dir)

    def finish(image: Image, files: template.TemplateFiles) -> pe.Node:
        store = PaintLesions(
            t1w=image.path, gm_prior=files.priors["GM"], wm_prior=files.priors["WM"],
            shapes=str(shapes.absolute()), patients=list(patients), seed=seed,
            out_file=str(place(image)), out_mask=str(mask_path(output, place(image))),
        )  # fmt: skip
        return pe.Node(store, name="store", mem_gb=2)

    return preprocess(settings, nprocs, place, finish)


def _describe(dataset: Path, output: Path, seed: int) -> None:
    """Write the descriptions of the painted dataset and of its lesion masks."""
    generated = {"Name": "bids_inpaint", "Version": __version__, "Description": f"painted with seed {seed}"}
    for folder, kind in ((output, "raw"), (output / MASKS, "derivative")):
        write_json(
            folder / "dataset_description.json",
            {
                "Name": f"Painted lesions ({kind})",
                "BIDSVersion": "1.10.0",
                "DatasetType": kind,
                "GeneratedBy": [generated],
                "SourceDatasets": [{"URL": dataset.as_uri()}],
            },
        )


def mask_path(output: Path, t1w: Path) -> Path:
    """Where the lesion mask of a painted image goes: the same entities below :data:`MASKS`.

    Parameters
    ----------
    output : Path
        Root of the painted dataset.
    t1w : Path
        The painted image in it.
    """
    stem = t1w.name.split(".")[0].removesuffix("_T1w")
    return (output / MASKS / t1w.relative_to(output)).with_name(f"{stem}_label-lesion_mask.nii.gz")


class PaintLesionsInputSpec(InputSpec):
    """Inputs of :class:`PaintLesions`."""

    t1w = File(exists=True, mandatory=True, desc="the raw image")
    preproc = File(exists=True, mandatory=True, desc="preprocessed image on the working grid")
    working_mask = File(exists=True, mandatory=True, desc="brain mask on the working grid")
    bias = File(exists=True, mandatory=True, desc="bias field on the working grid")
    scale = traits.Float(mandatory=True, desc="intensity of the raw image by that of the preprocessed one")
    inverse_xfm = File(exists=True, mandatory=True, desc="transform from the working grid to the raw image")
    gm_prior = File(exists=True, mandatory=True, desc="grey-matter probability of the template")
    wm_prior = File(exists=True, mandatory=True, desc="white-matter probability of the template")
    shapes = traits.Str(mandatory=True, desc="folder with patients/ and shapes.npz")
    patients = traits.List(traits.Str, desc="patients that lend their lesions; all by default")
    seed = traits.Int(0, usedefault=True, desc="of the lesions")
    out_file = traits.Str(mandatory=True, desc="painted image to write")
    out_mask = traits.Str(mandatory=True, desc="lesion mask to write")


class PaintLesions(FileInterface):
    """The raw image with lesions, which are painted on the working grid, and their mask."""

    input_spec = PaintLesionsInputSpec

    def process(self, runtime: Bunch) -> dict[str, Any]:
        """Paint, and write both images."""
        inputs = self.inputs
        raw, stored, slope, grid = stored_values(inputs.t1w)
        preproc, mask, bias, gm, wm = (
            images.read(f)[0]
            for f in (inputs.preproc, inputs.working_mask, inputs.bias, inputs.gm_prior, inputs.wm_prior)
        )
        white, grey = levels(preproc, mask > 0, wm, gm)
        healthy = torch.from_numpy(np.where(mask > 0, preproc / white, 0).astype(np.float32))
        rng = np.random.default_rng([inputs.seed, *Path(inputs.t1w).name.encode()])
        drawn = draw_patient(rng, Lesions.load(Path(inputs.shapes), only=inputs.patients or None))
        lesioned, support = paint(healthy, grey, drawn, (0, 0, 0), inputs.seed)
        to_template = read_xfm(inputs.inverse_xfm)
        darker = (healthy - lesioned).numpy() * white * bias * inputs.scale
        change = resample(darker, WORKING_GRID, grid, to_template)
        out = feathering.compose(stored, change, change > 0, slope)
        lesion = resample((support > 0.5).numpy(), WORKING_GRID, grid, to_template) > 0.5
        for path in (inputs.out_mask, inputs.out_file):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        images.save(inputs.out_mask, lesion, grid, np.uint8)
        write_like(raw, out, inputs.out_file)
        return {}
