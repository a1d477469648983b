"""Slices of T1w, FLAIR and lesions as training samples, cut from pairs that are made once and stored."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import inpainting, registry
from bids_inpaint.networks.card import Model
from bids_inpaint.space import WORKING_GRID, bounding_box
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, find_subjects, storing, template_priors
from bids_inpaint.training.pairs import Kind, by_kind, make_pair
from bids_inpaint.training.parameters import draw_centre
from bids_inpaint.training.patches import Place
from bids_inpaint.training.task import Samples

#: Pairs that are made of each subject.
DRAWS = 2
#: Slices that are taken from one patch, and the distance of one from the next.
SLICES, GAP = 4, 3


class Pairs(Samples):
    """Endless samples of `SLICES` slices of a brain; sample *i* depends on the seed and on *i* alone.

    They are taken from whole pairs, `DRAWS` of each subject, that are made and stored in the cache first.

    Parameters
    ----------
    config : Config
    cache : Path
    shapes : Lesions
    first : int
        Index of the first sample.
    device : str
        Where samples go.

    Yields
    ------
    t1w : Tensor, (SLICES, 2·context + 1, size, size)
        White matter 1; followed by the template's white- and grey-matter probability and by the inpainted
        slice, if the network looks at them.
    flair, lesion : Tensor, (SLICES, 1, size, size)
        White matter 1, and 0 outside the brain; 0, 1, or :data:`bids_inpaint.training.pairs.UNKNOWN`.

    Raises
    ------
    ValueError
        If a subject is not in the cache, or a patient has no FLAIR.
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.config, self.shapes, self.device = config, shapes, device
        self.context = int(config.network.get("context", 0))
        kinds = by_kind(find_subjects(cache, config.data.train))
        for patient in kinds.get("patients", []):
            patient.check_flair()
        self.kinds = list(kinds.values())
        self.priors = template_priors(cache)
        self.stored = {
            subject.name: [_Stored(folder) for folder in folders]
            for subject, folders in make_pairs(kinds, shapes, self.priors, config, cache).items()
        }

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subjects = self.kinds[rng.integers(len(self.kinds))]
        subject = subjects[rng.integers(len(subjects))]
        drawn = self.stored[subject.name]
        stored = drawn[rng.integers(len(drawn))]
        edge = self.config.schedule.patch
        size = np.array([edge, edge, 2 * self.context + (SLICES - 1) * GAP + 1])
        corner = np.round(draw_centre(rng, self.shapes) - size / 2)
        corner = corner.clip(0, np.array(WORKING_GRID.shape) - size).astype(int)
        place = Place(tuple(corner.tolist()), tuple(size.tolist()), False)
        t1w, flair, lesion, *inpainted = stored.crop(place)
        priors = []
        if self.config.network.get("priors"):
            # the template fits some brains worse than those of the training
            shift = tuple(np.round(rng.normal(0, 1.5, 3)).astype(int).tolist())
            priors = [place.crop(prior, shift) for prior in self.priors]
        middles = [self.context + i * GAP for i in range(SLICES)]
        mirrored = bool(rng.random() < 0.5)

        def slices(volume: Tensor, around: int = 0) -> Tensor:
            chosen = torch.stack([volume[..., z - around : z + around + 1] for z in middles])
            out = chosen.permute(0, 3, 1, 2)
            return (out.flip(2) if mirrored else out).contiguous().to(self.device)

        visible = [slices(t1w, self.context), *(slices(v) for v in (*priors, *inpainted))]
        return torch.cat(visible, 1), slices(flair), slices(lesion)


class _Stored:
    """A stored pair; volumes of the box of the brain, slices first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.corner = np.array(json.loads((folder / "corner.json").read_text()))

    @cached_property
    def volumes(self) -> np.ndarray:
        return np.load(self.folder / "volumes.npy", mmap_mode="r")

    def crop(self, place: Place) -> Tensor:
        """The volumes in a place of the working grid, (C, X, Y, Z), 0 outside the box."""
        out = torch.zeros(len(self.volumes), *place.size)
        shape = np.array(self.volumes.shape)[[2, 3, 1]]
        start = np.array(place.corner) - self.corner
        low, high = start.clip(0, shape), (start + place.size).clip(0, shape)
        x, y, z = (slice(*v) for v in zip(low, high, strict=True))
        to = [slice(*v) for v in zip(low - start, high - start, strict=True)]
        out[:, *to] = torch.from_numpy(self.volumes[:, z, x, y].astype(np.float32)).permute(0, 2, 3, 1)
        return out


def make_pairs(
    kinds: Mapping[Kind, Sequence[Subject]],
    shapes: Lesions,
    priors: Sequence[np.ndarray],
    config: Config,
    cache: Path,
) -> dict[Subject, list[Path]]:
    """Make the pairs that are not in the cache yet, in several processes.

    They depend on the subjects, the lesion shapes, the inpainting network and `config.synthesis` alone.

    Parameters
    ----------
    kinds : mapping of str to sequence of Subject
        See :func:`bids_inpaint.training.pairs.by_kind`.
    shapes : Lesions
    priors : sequence of array
        White- and grey-matter probability of the template on the working grid.
    config : Config
    cache : Path

    Returns
    -------
    dict
        Folders of the pairs of each subject.
    """
    voxels = [v.astype("<i2").tobytes() for p in [*shapes.patients, shapes.singles] for v in p]
    inpainter = config.network.get("inpainter")
    blind = registry.find(inpainter) if inpainter else None
    made_with = [asdict(config.synthesis), zlib.crc32(b"".join(voxels)), blind.sha256 if blind else None]
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12]
    folders = {
        subject: [cache / f"pairs-{key}" / f"{subject.name}_{i}" for i in range(DRAWS)]
        for group in kinds.values()
        for subject in group
    }
    missing = [(subject, f) for subject, pairs in folders.items() for f in pairs if not f.exists()]
    processes = min(len(os.sched_getaffinity(0)), len(missing) // 4)
    make = partial(_make_stored, shapes=shapes, priors=priors, config=config, blind=blind)
    if processes > 1:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,)) as pool:
            list(pool.map(make, [missing[i::processes] for i in range(processes)]))
    else:
        make(missing)
    return folders


def _make_stored(
    missing: Sequence[tuple[Subject, Path]],
    shapes: Lesions,
    priors: Sequence[np.ndarray],
    config: Config,
    blind: Model | None,
) -> None:
    for subject, folder in missing:
        rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
        brain = subject.labels if subject.labelled else subject.image
        box = bounding_box(np.asarray(brain) > 0, margin=4)
        # networks of sub-volumes need even sizes
        corner, size = [s.start for s in box], [(s.stop - s.start) // 2 * 2 for s in box]
        place = Place(tuple(corner), tuple(size), False)
        volumes = [v.numpy() for v in make_pair(rng, subject, shapes, place, config.synthesis)]
        if blind:
            t1w, local_priors = volumes[0], [place.crop(prior).numpy() for prior in priors]
            volumes.append(inpainting.inpaint(blind, t1w, t1w > 0, Scale(1.0), priors=local_priors).image)
        with storing(folder) as part:
            np.save(part / "volumes.npy", np.stack(volumes).transpose(0, 3, 1, 2).astype(np.float16))
            (part / "corner.json").write_text(json.dumps(corner))
