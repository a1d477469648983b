"""Fitting a network; resumes from its last checkpoint after a kill at any moment."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from bids_inpaint.io.files import replacing
from bids_inpaint.networks import registry
from bids_inpaint.training.config import Config, Fit
from bids_inpaint.training.data import Lesions
from bids_inpaint.training.fold import unfold
from bids_inpaint.training.networks import UNet, build

#: Sum and count of each quantity to log.
Sums = dict[str, tuple[Tensor, Tensor]]


class Samples(IterableDataset):
    """Endless samples from an index on, divided among the worker processes.

    Sample *i* depends on the seed and on *i* alone.
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


class Task:
    """What a network learns."""

    def samples(self, first: int, device: str) -> Samples:
        """Endless samples from an index on."""
        raise NotImplementedError

    def loss(self, network: Any, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """The loss of a batch, and what to log."""
        raise NotImplementedError

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
    """

    def __init__(self, config: Config, cache: Path, lesions: Path):
        self.config = config
        self.cache = cache
        self.shapes = Lesions.load(lesions, config.data.leave_out_patients)


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


def rate(step: int, fit: Fit) -> float:
    """Fraction of the learning rate at a step: warm-up, plateau, linear decay to zero."""
    warm = min(1.0, (step + 1) / fit.warmup_steps) if fit.warmup_steps else 1.0
    left = (fit.steps - step) / fit.decay_steps if fit.decay_steps else 1.0
    return max(0.0, min(warm, left))


def fit(
    config: Config, task: Task, run: Path, device: str = "cpu", threads: int = 2, workers: int = 1
) -> Path:
    """Train a network.

    Parameters
    ----------
    config : Config
    task : Task
        Samples and loss.
    run : Path
        Where ``checkpoint.pt``, ``log.csv`` and TensorBoard's events go; resumed if it is there.
    device : {'cpu', 'cuda'}
    threads, workers : int
        CPU threads of the network, and processes that make samples.

    Returns
    -------
    Path
        The last checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    schedule = config.fit
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    network = build(config).to(device)
    if schedule.start.endswith(".pt"):
        network.load_state_dict(load_average(config, Path(schedule.start)).state_dict())
    elif schedule.start and config.engine != "unet":
        raise ValueError(f"{schedule.start}: engine {config.engine} starts from a checkpoint (*.pt) alone")
    elif schedule.start:
        load_exported(network, registry.find(schedule.start, config.task).path)
    volumes = config.engine == "unet"  # the other networks see slices
    network.to(memory_format=torch.channels_last_3d if volumes else torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema), use_buffers=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        task.load_state_dict(state.get("task", {}))
        step = state["step"]
    log = _Log(run, step)
    batches = _batches(task, step, schedule.batch, device, workers)
    network.train()
    while step < schedule.steps:
        if schedule.freeze_normalisation is not None and step >= schedule.freeze_normalisation:
            assert isinstance(network, UNet)
            network.freeze_normalisation()
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * rate(step, schedule)
        loss, sums = task.loss(network, next(batches))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if schedule.clip:
            nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        log.add(step, {"loss": (loss.detach(), torch.tensor(1)), **sums})
        if step % schedule.checkpoint_every == 0 or step == schedule.steps:
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "task": task.state_dict(),
                "step": step,
                "start": schedule.start,
            }
            with replacing(checkpoint) as part:
                torch.save(state, part)
    log.close(step)
    return checkpoint


def _batches(task: Task, step: int, size: int, device: str, workers: int) -> Iterator[list[Tensor]]:
    """Endless batches from a step on. On a GPU the samples are made there, in this process."""
    samples = task.samples(step * size, device)
    if device == "cpu":
        yield from DataLoader(samples, size, num_workers=workers, prefetch_factor=4 if workers else None)
    source = iter(samples)
    while True:
        yield [torch.stack(t) for t in zip(*itertools.islice(source, size), strict=True)]


def load_average(config: Config, checkpoint: Path) -> nn.Module:
    """The network of a checkpoint with its averaged weights, ready for inference."""
    network = build(config)
    average = AveragedModel(network, use_buffers=True)
    average.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["average"])
    return average.module.eval()


def load_exported(network: nn.Module, path: Path) -> None:
    """Give a network the weights of one that was exported with the same architecture.

    Raises
    ------
    ValueError
        If the architecture is another.
    """
    import onnx

    state = {
        tensor.name.removesuffix("_half"): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in onnx.load(path).graph.initializer
    }
    state = unfold(state)
    for name, own in network.state_dict().items():
        # a network that sees more channels begins by not looking at them
        if name in state and own.ndim == 5 and (more := own.shape[1] - state[name].shape[1]) > 0:
            state[name] = nn.functional.pad(state[name], (0, 0, 0, 0, 0, 0, 0, more))
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} has another architecture: {error}") from None
    missing = [k for k in keys.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or keys.unexpected_keys:
        raise ValueError(
            f"{path} has another architecture: {', '.join([*missing, *keys.unexpected_keys][:3])}"
        )


class _Log:
    """Running means over 50 steps, to a CSV and to TensorBoard."""

    every = 50

    def __init__(self, run: Path, step: int):
        self.path = run / "log.csv"
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open() as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.board = _tensorboard(run)
        self.sums: dict[str, list[float]] = {}
        self.start = time.monotonic()

    def add(self, step: int, sums: Sums) -> None:
        """Add a step's figures; write a row every 50 steps."""
        for key, (total, count) in sums.items():
            so_far = self.sums.setdefault(key, [0.0, 0.0])
            so_far[0] += float(total)
            so_far[1] += float(count)
        if step % self.every == 0:
            self.write(step)

    def write(self, step: int) -> None:
        """Write the means since the last row."""
        if not self.sums:
            return
        row = {key: total / max(count, 1) for key, (total, count) in self.sums.items()}
        row["seconds"] = time.monotonic() - self.start
        self.rows.append({"step": str(step), **{k: f"{v:.6g}" for k, v in row.items()}})
        with replacing(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        if self.board:
            for key, value in row.items():
                self.board.add_scalar(key, value, step)
        self.sums = {}

    def close(self, step: int) -> None:
        """Write what is left, and close TensorBoard's file."""
        self.write(step)
        if self.board:
            self.board.close()


def _tensorboard(run: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra
        return None
    return SummaryWriter(str(run))
