"""Ways to fill a given hole: networks and three classical ones, and what each takes."""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import card, inpainting, session


@dataclass(frozen=True)
class Case:
    """A healthy brain, scaled to 0-1, and what is missing of it.

    Attributes
    ----------
    name : str
    healthy, lesioned, voided : array, shape of the working grid
        The truth; with painted lesions, if these are the hole; with 0 in the hole.
    hole, white : array of bool
        What is missing, and white matter by its intensity.
    scale : Scale
        Of what is known.
    """

    name: str
    healthy: np.ndarray
    lesioned: np.ndarray
    voided: np.ndarray
    hole: np.ndarray
    white: np.ndarray
    scale: Scale

    def save(self, folder: Path) -> None:
        """Write it into a folder, a file for each volume."""
        folder.mkdir()
        for name, value in self._volumes().items():
            np.save(folder / f"{name}.npy", value)
        (folder / "scale.json").write_text(json.dumps({"name": self.name, "scale": asdict(self.scale)}))

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Read it from a folder; what nobody looks at of its volumes takes no memory."""
        stored = json.loads((folder / "scale.json").read_text())
        volumes = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        return cls(name=stored["name"], scale=Scale(**stored["scale"]), **volumes)

    def _volumes(self) -> dict[str, np.ndarray]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def biharmonic(case: Case) -> np.ndarray:
    """The smoothest continuation of the surroundings, by scikit-image, slice by slice."""
    from skimage.restoration import inpaint_biharmonic

    out = np.array(case.voided)
    for z in np.flatnonzero(case.hole.any((0, 1))):
        out[..., z] = inpaint_biharmonic(case.voided[..., z], case.hole[..., z], split_into_regions=True)
    return out


def white_matter_median(case: Case) -> np.ndarray:
    """The median of white matter."""
    return np.where(case.hole, np.median(case.voided[case.white]), case.voided)


def local_histogram(case: Case) -> np.ndarray:
    """Each voxel is drawn from the white matter within 10 mm, as lesion filling by local histograms does."""
    reach = 10
    rng = np.random.default_rng(0)
    out = np.array(case.voided)
    source, values = (np.pad(v, reach) for v in (case.white, case.voided))
    every = case.voided[case.white]
    for voxel in np.argwhere(case.hole):
        box = tuple(slice(i, i + 2 * reach + 1) for i in voxel)
        local = values[box][source[box]]
        out[tuple(voxel)] = rng.choice(local if local.size else every)
    return out


#: What fills the hole of a case.
Fill = Callable[[Case], np.ndarray]

CLASSICAL: dict[str, Fill] = {
    "biharmonic": biharmonic,
    "white-matter median": white_matter_median,
    "local histogram": local_histogram,
}


def by_network(
    case: Case, model: card.Model, runtime: session.Runtime, priors: Sequence[np.ndarray]
) -> np.ndarray:
    """What a network makes of the hole, or of the lesions if it is blind."""
    image = np.array(case.lesioned if model.blind else case.voided)
    mask = case.healthy > 0
    return inpainting.inpaint(model, image, mask, case.scale, case.hole, runtime, priors, exact=True).image


@dataclass
class Worker:
    """A process of its own that fills cases one way, so that its memory is that of this way alone.

    Parameters
    ----------
    pool : ProcessPoolExecutor
        Of one process.
    fill : callable
        A function of a module, or one with some arguments given.
    name : str
        For messages.
    """

    pool: ProcessPoolExecutor
    fill: Fill
    name: str

    def run(self, folder: Path) -> tuple[np.ndarray, float, float]:
        """The filling of a case in a folder, and the seconds that it took by the clock and of the processors.

        Raises
        ------
        ValueError
            If the process was killed.
        """
        try:
            seconds, processor = self.pool.submit(_run, self.fill, folder).result()
        except BrokenProcessPool:
            raise ValueError(
                f"the process that filled by {self.name} was killed, probably for want of memory: close "
                "other programs, or leave this way out"
            ) from None
        return np.load(folder / "filled" / "out.npy"), seconds, processor

    def peak(self) -> float:
        """The most memory that the process has had at a time so far, in MB."""
        return self.pool.submit(_peak).result()


@contextmanager
def worker(name: str, fill: Fill) -> Iterator[Worker]:
    """A process that ends with the block."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield Worker(pool, fill, name)


def _run(fill: Fill, folder: Path) -> tuple[float, float]:
    case = Case.load(folder)
    start, processor = time.perf_counter(), time.process_time()
    filled = fill(case)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    (folder / "filled").mkdir(exist_ok=True)
    np.save(folder / "filled" / "out.npy", filled)
    return seconds, processor


def _peak() -> float:
    # that of getrusage is at least what the process had that started this one
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ways_of(
    networks: dict[str, card.Model], runtime: session.Runtime, priors: Sequence[np.ndarray]
) -> dict[str, Fill]:
    """All ways by name: the classical ones, and each network."""
    return CLASSICAL | {
        name: partial(by_network, model=model, runtime=runtime, priors=priors)
        for name, model in networks.items()
    }
