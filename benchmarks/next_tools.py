"""What inpainting does for the next tool: ``python benchmarks/next_tools.py HEALTHY PAINTED OUT WORK``.

HEALTHY is a raw BIDS dataset of people without lesions, PAINTED what ``bids_inpaint.training paint`` made of
it, and OUT the output folder of the participant level on PAINTED. Each T1w is taken in four ways: as it was
without lesions (the truth), with lesions, with lesions and their mask given to the registration
(cost-function masking), and inpainted by the app, which does not see the mask. Each is corrected by N4,
registered with the template by an affine and SyN of ANTs, and segmented by Atropos (without priors) and by
the mixture of this package. All are compared with what the same tools make of the truth. WORK keeps what was
computed, so that a run can go on.

Warp error is the distance between the points of the T1w that two registrations lead a voxel of the template
to. A Jacobian outlier is a voxel of the template whose log-Jacobian differs from that of the truth by more
than 0.2. Near are voxels within 10 mm of a painted lesion. The cortical ribbon is the grey matter of either
image within 4 mm of the surface of the brain.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bids_inpaint.dataset import template
from bids_inpaint.group.statistics import compare
from bids_inpaint.imaging import bias, mixture
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.space import WORKING_GRID, Grid, bounding_box, resample

#: Edges of the voxels that SyN works on (mm), and its iterations on every fourth, second and each of them.
SPACING, ITERATIONS = 2.0, (40, 40, 20)
NEAR_MM, RIBBON_MM = 10.0, 4.0
#: Log-Jacobians that differ by more are outliers.
OUTLYING = 0.2
TRUTH = "truth"
#: By column: the file that is taken, and whether the registration gets the lesion mask.
COLUMNS = {
    "with lesions": ("lesioned", False),
    "cost-function masking": ("lesioned", True),
    "inpainted": ("inpainted", False),
}
_FILES = {"inpainted": "desc-inpainted_T1w", "mask": "desc-brain_mask"}


@dataclass(frozen=True)
class Person:
    """The images of a person, cropped to the brain and on the same voxels.

    Attributes
    ----------
    name : str
    images : dict of array
        By kind: 'truth', 'lesioned' and 'inpainted'; 0 outside the brain.
    brain, lesions : array of bool
    grid : Grid
    xfm : array, shape (4, 4)
        From the T1w to the template by the app's affine.
    """

    name: str
    images: dict[str, np.ndarray]
    brain: np.ndarray
    lesions: np.ndarray
    grid: Grid
    xfm: np.ndarray

    @classmethod
    def read(cls, lesion_mask: Path, args: argparse.Namespace) -> Person:
        """Read the images that a lesion mask of PAINTED belongs to, and correct their bias fields."""
        name = lesion_mask.name.removesuffix("_label-lesion_mask.nii.gz")
        within = lesion_mask.relative_to(args.painted / "derivatives/painted").parent
        paths = {kind: args.output / within / f"{name}_{file}.nii.gz" for kind, file in _FILES.items()}
        brain = images.read(paths.pop("mask"))[0] > 0
        raw = f"{name}_T1w.nii.gz"
        paths |= {TRUTH: args.healthy / within / raw, "lesioned": args.painted / within / raw}
        box = bounding_box(brain, margin=3)
        lesions, grid = images.read(lesion_mask)
        kept = {}
        for kind, path in paths.items():
            image = images.read(path)[0][box].astype(np.float32)
            inside = brain[box] & (image > 0)
            kept[kind] = np.where(inside, image / bias.n4(image, inside), 0)
        (xfm,) = (args.output / within).glob(f"{name}_from-MNI*_to-T1w_mode-image_xfm.txt")
        return cls(name, kept, brain[box], lesions[box] > 0, grid.part(box), read_xfm(str(xfm)))

    @property
    def near(self) -> np.ndarray:
        """The brain near lesions."""
        far = ndimage.distance_transform_edt(~self.lesions, sampling=self.grid.voxel_sizes)
        return self.brain & (far <= NEAR_MM)

    @property
    def shell(self) -> np.ndarray:
        """The outer part of the brain, which has the cortical ribbon."""
        filled = ndimage.binary_fill_holes(self.brain)
        depth = ndimage.distance_transform_edt(filled, sampling=self.grid.voxel_sizes)
        return self.brain & (depth <= RIBBON_MM)


def main() -> None:
    """Compute what is missing and print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("healthy", "painted", "output", "work"):
        p.add_argument(name, type=Path, metavar={"output": "OUT"}.get(name, name.upper()))
    p.add_argument("--threads", default="1", help="of ANTs; with more than one, results vary a little")
    p.add_argument("--segmentation", choices=TOOLS, nargs="+", default=list(TOOLS))
    p.add_argument("--figure", type=Path, help="image file for the warp errors of a person")
    p.add_argument("--shown", help="name of the person in it, such as sub-01; the first by default")
    args = p.parse_args()
    # before ITK is loaded
    os.environ |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": args.threads, "ANTS_RANDOM_SEED": "1"}
    args.work.mkdir(parents=True, exist_ok=True)
    files = template.prepare(template.DEFAULT, args.work)
    masks = sorted(args.painted.glob("derivatives/painted/sub-*/**/*_label-lesion_mask.nii.gz"))
    everyone = [Results(Person.read(path, args), files, args) for path in masks]
    scores: dict[str, list[dict[str, float]]] = {}
    for column in COLUMNS:
        scores[column] = []
        for results in everyone:
            scores[column].append(results.scores(column))
            print(results.person.name, column, scores[column][-1], flush=True)
    print_table(scores)
    if args.figure:
        draw(args.figure, {r.person.name: r for r in everyone}.get(args.shown, everyone[0]))


class Results:
    """What the tools make of the images of a person; computed once and kept in a folder."""

    def __init__(self, person: Person, files: template.TemplateFiles, args: argparse.Namespace):
        self.person, self.files, self.work = person, files, args.work
        self.tools = {name: TOOLS[name] for name in args.segmentation}

    def scores(self, column: str) -> dict[str, float]:
        """All measures of a column of the table, against the truth."""
        kind, masked = COLUMNS[column]
        out = self._warp_scores(self.warp(kind, masked), self.warp(TRUTH))
        for name, tool in self.tools.items():
            found, truth = (self.tissues(k, tool) for k in (kind, TRUTH))
            near, shell = self.person.near, self.person.shell
            for tissue, value in (("GM", 2), ("WM", 3)):
                a, b = found == value, truth == value
                out[f"{tissue} Dice, {name}"] = dice(a, b)
                out[f"{tissue} Dice near lesions, {name}"] = dice(a & near, b & near)
            out[f"cortical ribbon Dice, {name}"] = dice((found == 2) & shell, (truth == 2) & shell)
            volumes = [np.count_nonzero(v == 2) for v in (found, truth)]
            out[f"GM volume error (%), {name}"] = 100 * abs(volumes[0] / volumes[1] - 1)
        return out

    def warp(self, kind: str, masked: bool = False) -> np.ndarray:
        """The points of the T1w (mm) that the voxels of the template lead to, shape (x, y, z, 3)."""
        path = self.work / f"{self.person.name}_{kind}{'_masked' * masked}_warp.npy"
        if not path.exists():
            exclude = self.person.lesions if masked else None
            np.save(path, register(self.person.images[kind], self.person.grid, exclude, self.files))
        return np.load(path)

    def tissues(self, kind: str, tool: Any) -> np.ndarray:
        """Labels of the tissues by a tool: 1 for fluid, 2 for grey and 3 for white matter."""
        path = self.work / f"{self.person.name}_{kind}_{tool.__name__}.npy"
        if not path.exists():
            np.save(path, tool(self.person.images[kind], self))
        return np.load(path)

    def template_near(self) -> np.ndarray:
        """Voxels of the template near lesions, by the truth's registration, bool."""
        return self.on_template(self.person.near)

    def on_template(self, volume: np.ndarray) -> np.ndarray:
        """A volume of the T1w at the voxels of the template, by the truth's registration."""
        points = np.moveaxis(self.warp(TRUTH), -1, 0).reshape(3, -1)
        world = np.linalg.inv(self.person.grid.matrix)
        voxels = world[:3, :3] @ points + world[:3, 3:]
        order = 0 if volume.dtype == bool else 1
        taken = ndimage.map_coordinates(volume.astype(np.float32), voxels, order=order)
        return taken.reshape(self.warp(TRUTH).shape[:3]).astype(volume.dtype)

    def _warp_scores(self, warp: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        error = np.linalg.norm(warp - truth, axis=-1)
        change = np.abs(log_jacobian(warp) - log_jacobian(truth))
        near, brain = self.template_near(), self.on_template(self.person.brain)
        lesions = self.on_template(self.person.lesions)
        return {
            "warp error in lesions (mm)": float(error[lesions].mean()),
            "warp error near lesions (mm)": float(error[near].mean()),
            "95th percentile near lesions (mm)": float(np.percentile(error[near], 95)),
            "warp error, whole brain (mm)": float(error[brain].mean()),
            "Jacobian outliers near lesions (%)": 100 * float((change[near] > OUTLYING).mean()),
            "Jacobian outliers, whole brain (%)": 100 * float((change[brain] > OUTLYING).mean()),
        }


def _image(data: np.ndarray, grid: Grid) -> Any:
    """An image of ANTs, whose world is LPS."""
    import ants

    matrix = np.diag([-1.0, -1, 1]) @ grid.matrix[:3]
    direction = matrix[:, :3] / grid.voxel_sizes
    return ants.from_numpy(
        np.asarray(data, np.float32),
        origin=matrix[:, 3].tolist(),
        spacing=list(map(float, grid.voxel_sizes)),
        direction=direction,
    )


def register(
    image: np.ndarray, grid: Grid, exclude: np.ndarray | None, files: template.TemplateFiles
) -> np.ndarray:
    """Register a brain with the template: an affine, then SyN with mutual information.

    Parameters
    ----------
    image : array
    grid : Grid
    exclude : array of bool, optional
        What the metric leaves out, as fMRIPrep does with lesions.
    files : TemplateFiles

    Returns
    -------
    array of float32, shape (x, y, z, 3)
        World points (mm, RAS+) of the image at the voxels of the template.
    """
    import tempfile

    import ants

    fixed = ants.image_read(files.t1w) * ants.image_read(files.mask)
    fixed = ants.crop_image(fixed, ants.iMath(ants.image_read(files.mask), "MD", 5))
    fixed = ants.resample_image(fixed, (SPACING,) * 3, use_voxels=False, interp_type=0)
    moving = _image(image, grid)
    mask = {} if exclude is None else {"moving_mask": _image(~exclude, grid), "mask_all_stages": True}
    with tempfile.TemporaryDirectory() as folder:
        affine = ants.registration(fixed, moving, "AffineFast", outprefix=f"{folder}/affine_", **mask)
        done = ants.registration(
            fixed, moving, "SyNOnly", initial_transform=affine["fwdtransforms"][0], syn_metric="mattes",
            syn_sampling=32, reg_iterations=ITERATIONS, outprefix=f"{folder}/syn_", **mask,
        )  # fmt: skip
        both = ants.apply_transforms(fixed, moving, done["fwdtransforms"], compose=f"{folder}/all_")
        field = ants.image_read(both).numpy()
    voxels = np.indices(fixed.shape).reshape(3, -1)
    points = (fixed.direction * np.array(fixed.spacing)) @ voxels + np.array(fixed.origin)[:, None]
    there = points.T.reshape(*fixed.shape, 3) + field
    return (there * [-1, -1, 1]).astype(np.float32)


def log_jacobian(warp: np.ndarray) -> np.ndarray:
    """Logarithm of the local change of volume; folds count as a shrinkage to a hundredth."""
    gradients = np.stack([np.stack(np.gradient(warp[..., i], SPACING), -1) for i in range(3)], -2)
    return np.log(np.maximum(np.abs(np.linalg.det(gradients)) * _upright(gradients), 0.01))


def _upright(gradients: np.ndarray) -> np.ndarray:
    """Whether each voxel has the handedness of most."""
    signs = np.sign(np.linalg.det(gradients))
    return signs == np.sign(np.median(signs))


def atropos(image: np.ndarray, results: Results) -> np.ndarray:
    """Three classes by k-means and a Markov random field, without priors."""
    import ants

    grid = results.person.grid
    found = ants.kmeans_segmentation(_image(image, grid), 3, _image(image > 0, grid), mrf=0.1)
    return np.rint(found["segmentation"].numpy()).astype(np.uint8)


def gaussian_mixture(image: np.ndarray, results: Results) -> np.ndarray:
    """The most probable tissue by the mixture of this package, with priors by the app's affine."""
    person = results.person
    priors = [
        resample(images.read(results.files.priors[t])[0], WORKING_GRID, person.grid, person.xfm)
        for t in ("CSF", "GM", "WM")
    ]
    maps = mixture.segment(image, person.brain & (image > 0), priors, person.grid.voxel_sizes)
    return np.where(image > 0, 1 + np.argmax(maps, axis=0), 0).astype(np.uint8)


TOOLS = {"atropos": atropos, "gmm": gaussian_mixture}


def print_table(scores: dict[str, list[dict[str, float]]]) -> None:
    """Mean, standard deviation and, against the image with lesions, p of each measure."""
    first, *_ = COLUMNS
    print(f"\n| {len(scores[first])} images | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for measure in scores[first][0]:
        values = {column: np.array([row[measure] for row in rows]) for column, rows in scores.items()}
        cells = []
        for column, v in values.items():
            p = "" if column == first else f", p = {compare(values[first], v).p:.3f}"
            cells.append(f"{v.mean():.3f} ± {v.std(ddof=1):.3f}{p}")
        print(f"| {measure} | {' | '.join(cells)} |")


def draw(path: Path, results: Results) -> None:
    """Draw the slice of the template with most lesions: the warped image, and the warp errors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    truth, lesions = results.warp(TRUTH), results.on_template(results.person.lesions)
    z = int(lesions.sum((0, 1)).argmax())
    image = results.on_template(results.person.images["lesioned"])[:, :, z].T
    inside = results.on_template(results.person.brain)[:, :, z].T
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    first, *axes = figure.subplots(1, 1 + len(COLUMNS))
    first.imshow(image, cmap="gray", origin="lower", vmax=np.percentile(image[inside], 99.5))
    first.contour(lesions[:, :, z].T, [0.5], colors="#e69f00", linewidths=0.8)
    first.set_title("T1w with lesions")
    for axis, (title, (kind, masked)) in zip(axes, COLUMNS.items(), strict=True):
        error = np.linalg.norm(results.warp(kind, masked) - truth, axis=-1)[:, :, z].T
        shown = axis.imshow(np.where(inside, error, np.nan), cmap="viridis", origin="lower", vmin=0, vmax=3)
        axis.contour(lesions[:, :, z].T, [0.5], colors="#e69f00", linewidths=0.8)
        axis.set_title(title)
    for axis in (first, *axes):
        axis.set_axis_off()
    figure.colorbar(shown, ax=axes, label="warp error (mm)", shrink=0.8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
