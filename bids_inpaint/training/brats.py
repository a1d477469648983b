"""The BraTS challenge on inpainting: its cases, or brains with holes like its own, filled and scored."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.dataset import masks
from bids_inpaint.errors import InputError
from bids_inpaint.imaging.challenge import ChallengeScores, challenge_scores
from bids_inpaint.io import images
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.space import WORKING_GRID, Grid
from bids_inpaint.training.data import Subject
from bids_inpaint.training.tumours import draw_masks

#: Voxels of 1 mm of the challenge's volumes.
SHAPE = (240, 240, 155)
#: First voxel of these in the working grid: the brain of a template lies where the challenge's brains do.
CORNER = (-29, -11, 0)
#: What the names of the challenge's files end in.
VOIDED, MASK, HEALTHY, TRUTH = "-t1n-voided.nii.gz", "-mask.nii.gz", "-mask-healthy.nii.gz", "-t1n.nii.gz"


@dataclass(frozen=True)
class ChallengeCase:
    """A brain with a hole, of the challenge's size.

    Attributes
    ----------
    person, name : str
    truth, voided : array of float32
        In one unit; with 0 in all that is to be filled.
    mask, healthy : array of bool
        What is to be filled, and the part of it where the truth is healthy.
    grid : Grid
    """

    person: str
    name: str
    truth: np.ndarray
    voided: np.ndarray
    mask: np.ndarray
    healthy: np.ndarray
    grid: Grid


def cached_cases(people: Iterable[Subject], count: int, inside: bool = False) -> Iterator[ChallengeCase]:
    """Cases of brains in a cache, with masks drawn as the challenge's, by the name of the subject alone.

    The lesions of a patient are what is not healthy. Healthy people get a tumour-like region in their place.

    Parameters
    ----------
    people : iterable of Subject
    count : int
        Cases of each person.
    inside : bool
        Whether the masks end where the brain does. Those of the challenge may reach beyond it.

    Raises
    ------
    ValueError
        If a brain has no room for a healthy mask.
    """
    box = tuple(slice(c, c + n) for c, n in zip(CORNER, SHAPE, strict=True))
    grid = WORKING_GRID.part(box)
    for subject in people:
        truth = _of_size(np.asarray(subject.image, np.float32))
        brain = ndimage.binary_fill_holes(truth > 0)
        tumour = _of_size(np.asarray(subject.lesions)) if subject.patient else None
        rng = np.random.default_rng(zlib.crc32(subject.name.encode()))
        for number in range(1, count + 1):
            try:
                healthy, unhealthy = draw_masks(rng, brain, tumour)
            except ValueError as error:
                raise ValueError(f"{subject.name}: {error}") from None
            if inside:
                healthy, unhealthy = (m & (truth > 0) for m in (healthy, unhealthy))
            mask = healthy | unhealthy
            name = f"{subject.name}_{number}" if count > 1 else subject.name
            yield ChallengeCase(subject.name, name, truth, np.where(mask, 0, truth), mask, healthy, grid)


def _of_size(volume: np.ndarray) -> np.ndarray:
    """A volume of the working grid on the voxels of :data:`SHAPE`; the slices above the brain are cut off."""
    out = np.zeros(SHAPE, volume.dtype)
    x, y, _ = (-c for c in CORNER)
    height = min(SHAPE[2], volume.shape[2])
    out[x : x + volume.shape[0], y : y + volume.shape[1], :height] = volume[..., :height]
    return out


def stored_cases(folder: Path) -> Iterator[ChallengeCase]:
    """Cases of the challenge: all files ``*-t1n-voided.nii.gz`` in a folder, and those beside them.

    Each needs ``-mask.nii.gz`` and ``-t1n.nii.gz``. Without ``-mask-healthy.nii.gz`` the
    whole mask is healthy.

    Parameters
    ----------
    folder : Path
        Holds the files, or a folder for each case.

    Raises
    ------
    InputError
        If there is no case, or a file of a case is missing or does not fit the others.
    """
    found = sorted(folder.rglob(f"*{VOIDED}"))
    if not found:
        raise InputError(f"{folder} has no *{VOIDED}: name the folder that holds the challenge's cases.")
    for path in found:
        yield _stored_case(path)


def _stored_case(path: Path) -> ChallengeCase:
    name = path.name.removesuffix(VOIDED)
    mask_path, healthy_path, truth_path = (path.with_name(name + end) for end in (MASK, HEALTHY, TRUTH))
    if not truth_path.exists():
        raise InputError(
            f"{truth_path} is missing, so that {path.name} has no truth to be scored against: take cases "
            "that have one, such as those of the challenge's training set."
        )
    (voided, grid), (truth, other) = images.load_t1w(path), images.load_t1w(truth_path)
    if grid.shape != SHAPE:
        sizes = [" × ".join(map(str, shape)) for shape in (grid.shape, SHAPE)]
        raise InputError(
            f"{path} has {sizes[0]} voxels instead of the challenge's {sizes[1]}, on which its scores "
            "depend: give its own files."
        )
    if not other.same_as(grid):
        raise InputError(f"{truth_path} has other voxels than {path}: take both from the same case.")
    mask = _mask(mask_path, grid, path)
    healthy = _mask(healthy_path, grid, path) if healthy_path.exists() else mask
    if (healthy & ~mask).any():
        raise InputError(
            f"{healthy_path} reaches beyond {mask_path.name}, which is what gets filled: take both from the "
            "same case."
        )
    if voided[mask].any() or not np.array_equal(truth[~mask], voided[~mask]):
        raise InputError(
            f"{path} is not {truth_path.name} with 0 in {mask_path.name}: take all three from the same case."
        )
    return ChallengeCase(name, name, truth, voided, mask, healthy, grid)


def _mask(path: Path, grid: Grid, image: Path) -> np.ndarray:
    """A mask of the challenge, which lies on the voxels of its image and is not empty."""
    header = images.load_given(path)
    if header.shape[:3] != grid.shape or not Grid.of(grid.shape, header.affine).same_as(grid):
        raise InputError(f"{path} has other voxels than {image}: take both from the same case.")
    mask = masks.read_lesions(path, grid, image)
    if not mask.any():
        raise InputError(f"{path} is empty: there is nothing to fill or to score.")
    return mask


@dataclass
class Challenge:
    """What networks reach in the challenge.

    Attributes
    ----------
    rows : dict
        Scores and seconds by network, person and case.
    """

    rows: dict[str, dict[str, dict[str, dict[str, float]]]]

    def people(self, network: str) -> dict[str, dict[str, float]]:
        """Means over the cases of each person."""
        return {person: _mean(list(cases.values())) for person, cases in self.rows[network].items()}

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Mean and standard deviation over people of each score, by network."""
        out = {}
        for network in self.rows:
            of_people = list(self.people(network).values())
            spread = {key: float(np.std([row[key] for row in of_people])) for key in of_people[0]}
            out[network] = {"mean": _mean(of_people), "sd": spread}
        return out

    def table(self) -> str:
        """The scores of each person and their means as text, a line for each."""
        keys = list(next(iter(self.means().values()))["mean"])
        lines = [f"{'':<40}" + "".join(f"{key:>14}" for key in keys)]
        for network, means in self.means().items():
            named = self.people(network) | means
            for name, row in named.items():
                lines.append(
                    f"{f'{Path(network).stem}, {name}':<40}" + "".join(f"{row[k]:>14.4f}" for k in keys)
                )
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the scores of each case and their means as JSON."""
        path.write_text(json.dumps({"cases": self.rows, "networks": self.means()}, indent=1) + "\n")


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def run_challenge(
    cases: Iterable[ChallengeCase], networks: Sequence[str], runtime: session.Runtime, beyond: bool = False
) -> Challenge:
    """Fill each case by each network, and print its scores.

    Parameters
    ----------
    cases : iterable of ChallengeCase
    networks : sequence of str
        Those that fill slices, by name or ONNX file.
    runtime : Runtime
    beyond : bool
        Of :func:`bids_inpaint.networks.inpainting.fill_slices`.

    Raises
    ------
    ValueError
        If there is no such network, or a case can't be scored.
    """
    models = {name: registry.find(name) for name in networks}
    rows: dict[str, dict[str, dict[str, dict[str, float]]]] = {name: {} for name in networks}
    for case in cases:
        for name, model in models.items():
            start = time.perf_counter()
            filled = inpainting.fill_slices(model, case.voided, case.mask, case.grid, runtime, beyond)
            seconds = time.perf_counter() - start
            scores = _scored(case, filled)
            quality = f"SSIM {scores.ssim:.3f}, PSNR {scores.psnr:.1f} dB, MSE {scores.mse:.4f}"
            print(f"{name}, {case.name}: {quality}, {seconds:.1f} s", flush=True)
            row = asdict(scores) | {"seconds": seconds}
            rows[name].setdefault(case.person, {})[case.name] = row
    return Challenge(rows)


def _scored(case: ChallengeCase, filled: np.ndarray) -> ChallengeScores:
    try:
        return challenge_scores(filled, case.truth, case.voided, case.healthy)
    except ValueError as error:
        raise ValueError(f"{case.name} can't be scored: {error}") from None
