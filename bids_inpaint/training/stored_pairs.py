"""Pairs of T1w and FLAIR that are made once and stored, with what a blind network makes of the T1w."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks.card import Model
from bids_inpaint.networks.flair import as_inpainted
from bids_inpaint.space import bounding_box
from bids_inpaint.training.config import Config, Synthesis, person
from bids_inpaint.training.data import Lesions, Subject, find_subjects, storing, template_priors
from bids_inpaint.training.pairs import Kind, kind_of, make_pair
from bids_inpaint.training.patches import Place
from bids_inpaint.training.strangers import Strangers

#: Pairs that are made of each subject: patients are few, and no lesions are drawn for them.
DRAWS: dict[Kind, int] = {"patients": 4, "unmarked": 4, "label maps": 2, "healthy": 2}


class Stored:
    """A part of the working grid with several volumes: axes C, Z, X, Y, so that slices lie together.

    Parameters
    ----------
    volumes : Tensor, (C, Z, X, Y)
        On any device, of any type.
    corner : sequence of int
        X, Y and Z of its first voxel on the working grid.
    """

    def __init__(self, volumes: Tensor, corner: Sequence[int]):
        self.volumes, self.corner = volumes, tuple(int(c) for c in corner)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Stored:
        """What :func:`make_pairs` wrote into a folder; it stays a file unless it goes to a GPU.

        Its volumes are T1w, FLAIR, lesions and, as the configuration wants, the inpainted T1w and the lesion
        probability.
        """
        corner = json.loads((folder / "corner.json").read_text())
        volumes = torch.from_numpy(np.load(folder / "volumes.npy", mmap_mode="c"))
        return cls(volumes if device == "cpu" else volumes.to(device), corner)

    def put(self, out: Tensor, corner: Sequence[int]) -> None:
        """Copy what lies at a place of the working grid into a tensor.

        Parameters
        ----------
        out : Tensor, (C, Z, X, Y)
            It must be 0, and stays so beyond what is stored.
        corner : sequence of int
            X, Y and Z of its first voxel on the working grid.
        """
        x, y, z = (c - s for c, s in zip(corner, self.corner, strict=True))
        into, of = [slice(None)], [slice(None)]
        for start, n, stored in zip((z, x, y), out.shape[1:], self.volumes.shape[1:], strict=True):
            low, high = max(start, 0), min(start + n, stored)
            if low >= high:
                return
            of.append(slice(low, high))
            into.append(slice(low - start, high - start))
        out[tuple(into)].copy_(self.volumes[tuple(of)])


@dataclass(frozen=True)
class Order:
    """A pair, made or not.

    Attributes
    ----------
    subject : Subject
    folder : Path
        Where it is stored: see :meth:`Stored.load`.
    shapes : Lesions
        What is painted.
    synthesis : Synthesis
    blind : Model, optional
        The network whose output is stored, too.
    probability : bool
        Whether the lesion probability that it tells is.
    """

    subject: Subject
    folder: Path
    shapes: Lesions = field(repr=False)
    synthesis: Synthesis
    blind: Model | None
    probability: bool


def order(
    subjects: Sequence[Subject],
    shapes: Lesions,
    config: Config,
    cache: Path,
    draws: Mapping[Kind, int] = DRAWS,
) -> dict[str, list[Order]]:
    """The pairs of subjects by their names, which depend on no more than the attributes of :class:`Order`.

    Parameters
    ----------
    subjects : sequence of Subject
    shapes : Lesions
    config : Config
    cache : Path
    draws : mapping of str to int
        How many pairs of a subject, by its kind.

    Raises
    ------
    ValueError
        If a network sees the lesion probability of a person from whom the blind network learned.
    """
    strangers = Strangers(config)
    probability = bool(config.network.get("probability"))
    if probability:
        strangers.check(s.name for s in subjects if kind_of(s) in ("patients", "unmarked"))
    voxels = [v.astype("<i2").tobytes() for p in [*shapes.patients, shapes.singles] for v in p]
    painted = zlib.crc32(b"".join(voxels))
    orders: dict[str, list[Order]] = {}
    for subject in subjects:
        blind = strangers.of(subject.name)
        made_with = [asdict(config.synthesis), painted, blind.sha256 if blind else None, probability]
        key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12]
        folders = [cache / f"pairs-{key}" / f"{subject.name}_{i}" for i in range(draws[kind_of(subject)])]
        orders[subject.name] = [
            Order(subject, folder, shapes, config.synthesis, blind, probability) for folder in folders
        ]
    return orders


def order_validation(config: Config, cache: Path, lesions: Path) -> dict[str, list[Order]]:
    """A pair of each validation subject by its name, at standard contrast as in the app.

    What is painted are lesions of people who are in no split of the configuration, unless there are none.
    """
    data = config.data
    inside = {person(name) for name in (*data.train, *data.validation)}
    lenders = [name for name in data.leave_out_patients if name not in inside]
    plain = replace(config, synthesis=Synthesis(mix={"both": 1.0}))
    people = find_subjects(cache, data.validation)
    one: dict[Kind, int] = dict.fromkeys(DRAWS, 1)
    return order(people, _load(lesions, (), tuple(lenders)), plain, cache, one) if people else {}


@lru_cache
def _load(lesions: Path, leave_out: tuple[str, ...], only: tuple[str, ...] = ()) -> Lesions:
    return Lesions.load(lesions, list(leave_out), list(only) or None)


def make_pairs(
    orders: Iterable[Order], priors: Sequence[np.ndarray], cache: Path, processes: int | None = None
) -> None:
    """Make the pairs that are not in the cache yet, in several processes.

    Parameters
    ----------
    orders : iterable of Order
    priors : sequence of array
        White- and grey-matter probability of the template on the working grid.
    cache : Path
    processes : int, optional
        As many as processors by default.
    """
    wanted = {order.folder: order for order in orders}
    with _alone(cache / ".pairs.lock"):
        missing = [order for folder, order in wanted.items() if not folder.exists()]
        processes = min(processes or len(os.sched_getaffinity(0)), len(missing) // 4)
        make = partial(_make_stored, priors=priors)
        if processes > 1:
            spawn = get_context("spawn")
            with ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,)) as pool:
                list(pool.map(make, [missing[i::processes] for i in range(processes)]))
        else:
            make(missing)


def pairs_of(configs: Iterable[Config], cache: Path, lesions: Path, processes: int) -> int:
    """Make all pairs that networks learn from and are validated on, before they do; their number.

    Parameters
    ----------
    configs : iterable of Config
    cache, lesions : Path
    processes : int

    Raises
    ------
    ValueError
        See :func:`order`, or if a subject is not in the cache.
    """
    orders: dict[Path, Order] = {}
    for config in configs:
        shapes = _load(lesions, tuple(config.data.leave_out_patients))
        training = order(find_subjects(cache, config.data.train), shapes, config, cache)
        for of_subject in (*training.values(), *order_validation(config, cache, lesions).values()):
            orders |= {one.folder: one for one in of_subject}
    make_pairs(orders.values(), template_priors(cache), cache, processes)
    return len(orders)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process makes pairs in this cache: several networks may learn side by side."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_stored(orders: Sequence[Order], priors: Sequence[np.ndarray]) -> None:
    for order in orders:
        subject = order.subject
        rng = np.random.default_rng(zlib.crc32(order.folder.name.encode()))
        brain = subject.labels if subject.labelled else subject.image
        box = bounding_box(np.asarray(brain) > 0, margin=4)
        # networks of sub-volumes need even sizes
        corner, size = [s.start for s in box], [(s.stop - s.start) // 2 * 2 for s in box]
        place = Place(tuple(corner), tuple(size), False)
        volumes = [v.numpy() for v in make_pair(rng, subject, order.shapes, place, order.synthesis)]
        if order.blind:
            t1w, local = volumes[0], [place.crop(prior).numpy() for prior in priors]
            volumes += as_inpainted(
                order.blind, t1w, t1w > 0, Scale(1.0), local, probability=order.probability
            )
        with storing(order.folder) as part:
            np.save(part / "volumes.npy", np.stack(volumes).transpose(0, 3, 1, 2).astype(np.float16))
            (part / "corner.json").write_text(json.dumps(corner))
