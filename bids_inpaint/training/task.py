"""What is common to all training: samples, tasks, and what an engine consists of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions

#: Sum and count of each quantity to log.
Sums = dict[str, tuple[Tensor, Tensor]]


class Samples(IterableDataset[tuple[Tensor, ...]]):
    """Endless samples, divided among the worker processes.

    Sample *i* depends on the seed and on *i* alone.

    Parameters
    ----------
    first : int
        Index of the first sample.
    """

    def __init__(self, first: int):
        self.first = first

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        worker = torch.utils.data.get_worker_info()
        if worker:
            torch.set_num_threads(1)
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in itertools.count(self.first + start, step):
            yield self.sample(index)

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Draw and make the sample of this index."""
        raise NotImplementedError

    def batches(self, size: int, workers: int) -> Iterator[list[Tensor]]:
        """Endless batches that are made on a GPU.

        Parameters
        ----------
        size : int
            Samples of a batch.
        workers : int
            Processes of the CPU that may help.
        """
        source = iter(self)
        while True:
            yield [torch.stack(t) for t in zip(*itertools.islice(source, size), strict=True)]


class Drawn(IterableDataset[Any]):
    """Endless batches that are drawn, and not made yet, divided among the worker processes.

    Parameters
    ----------
    draw : callable
        From the index of a sample to what it is made of.
    first, size : int
        Index of the first sample, and samples of a batch.
    joined : callable
        Makes a batch of a list.
    """

    def __init__(
        self, draw: Callable[[int], Any], first: int, size: int, joined: Callable[[list[Any]], Any] = list
    ):
        self.draw, self.first, self.size, self.joined = draw, first, size, joined

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(start, step):
            first = self.first + number * self.size
            yield self.joined([self.draw(i) for i in range(first, first + self.size)])


class Task:
    """What a network learns: samples and a loss.

    Parameters
    ----------
    config : Config
    cache : Path
        Folder of the training data, made by ``prepare``.
    lesions : Path, optional
        Folder of the lesion shapes.
    """

    #: Whether the task needs the lesion shapes.
    needs_lesions: ClassVar[bool] = False

    def __init__(self, config: Config, cache: Path, lesions: Path | None = None):
        self.config = config
        self.cache = cache

    def to(self, device: str) -> None:
        """Move what the task itself computes with to a device."""

    def samples(self, first: int, device: str) -> Samples:
        """Endless samples from an index on, on a device."""
        raise NotImplementedError

    def loss(self, network: Any, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """The loss of a batch, and what to log."""
        raise NotImplementedError

    def check(self, batch: list[Tensor]) -> None:
        """Refuse samples that can't be what the network is to learn from, before it does.

        Raises
        ------
        ValueError
            If a channel is out of its range.
        """

    def validate(self, network: Any) -> dict[str, float]:
        """Scores of a network on the validation subjects; ``score`` is higher for a better one."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of the task itself."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""


class LesionTask(Task):
    """What a network learns from brains and lesion shapes.

    Parameters
    ----------
    config : Config
    cache : Path
        Made by ``prepare``.
    lesions : Path
        Folder of the lesion shapes.

    Raises
    ------
    ValueError
        If there is no such folder.
    """

    needs_lesions = True

    def __init__(self, config: Config, cache: Path, lesions: Path | None = None):
        super().__init__(config, cache)
        if lesions is None:
            raise ValueError(f"task {config.task} needs a folder of lesion shapes")
        self.lesions_folder = lesions
        self.shapes = Lesions.load(lesions, config.data.leave_out_patients)


@dataclass(frozen=True)
class Engine:
    """All that training and exporting must know of a kind of network.

    Attributes
    ----------
    name : str
        As configurations and cards have it.
    architecture : type of Architecture
        Built from the table ``[network]`` of a configuration.
    description : str
        Of the architecture, for cards.
    tasks : mapping of str to type of Task
        What it can be trained for, by the task of a configuration.
    to_onnx : callable
        Writes a network (first argument) as ONNX (second); a keyword says if it ``tells`` its probability.
    card : callable
        What the cards of its networks say beside what all cards say.
    may_be_blind : bool
        Whether it can find lesions itself.
    volumes : bool
        Whether it works on volumes, (N, C, D, H, W), and not on slices, (N, C, H, W).
    starts_from_onnx : bool
        Whether training can start from an exported network, and not from a checkpoint alone.
    """

    name: str
    architecture: Callable[..., Architecture]
    description: str
    tasks: Mapping[str, type[Task]]
    to_onnx: Callable[..., None]
    card: Callable[[Config, Any], dict[str, Any]] = lambda config, network: {}
    may_be_blind: bool = False
    volumes: bool = False
    starts_from_onnx: bool = False


def mixed_precision(x: Tensor, multiple: int = 1) -> torch.autocast:
    """Compute in bfloat16 where the processor has instructions for it; emulated, it is 100 times slower.

    Parameters
    ----------
    x : Tensor
        The network's input: slices (N, C, H, W), or volumes (N, C, D, H, W).
    multiple : int
        Factor between the resolutions of the input and of the network's deepest level.
    """
    device = x.device.type
    fast = device != "cpu" or (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    # oneDNN's gradient of a 3D convolution of volumes two voxels wide has read memory that was never written
    narrow = device == "cpu" and x.ndim == 5 and min(x.shape[2:]) // multiple < 3
    return torch.autocast(device, torch.bfloat16, enabled=fast and not narrow)
