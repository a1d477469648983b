"""Fitting a network; resumes from its last checkpoint after a kill at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from bids_inpaint.io.files import replacing
from bids_inpaint.networks import registry
from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.config import Config, Schedule, Synthesis
from bids_inpaint.training.engines import build, engine_of
from bids_inpaint.training.log import Log
from bids_inpaint.training.task import Sums, Task
from bids_inpaint.training.weights import load_average, load_exported

#: A validation comes so many times later than it takes, at least: on a CPU it takes minutes.
VALIDATIONS = 20


def rate(step: int, schedule: Schedule, position: float | None = None) -> float:
    """Fraction of the learning rate at a step: warm-up, plateau, linear decay to zero.

    Parameters
    ----------
    step : int
    schedule : Schedule
    position : float, optional
        How far the schedule is, in its steps, if that is not `step`.
    """
    position = step if position is None else position
    warm = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    left = (schedule.steps - position) / schedule.decay_steps if schedule.decay_steps else 1.0
    return max(0.0, min(warm, left))


def fit(
    config: Config,
    task: Task,
    run: Path,
    device: str = "cpu",
    threads: int = 2,
    workers: int = 1,
    minutes: float | None = None,
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
        CPU threads of the network, and processes that make samples, or draw those that a GPU makes.
    minutes : float, optional
        Train for so long, however many steps that is: the schedule is stretched to it. Once a minute, or more
        rarely where that takes long, what the task makes of the validation subjects is printed, and
        ``best.pt`` is the checkpoint that did best.

    Returns
    -------
    Path
        The last checkpoint.

    Raises
    ------
    ValueError
        If the network can't start from what the configuration names.
    """
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
    task.to(device)
    trainer = _Trainer(config, task, device, minutes)
    if checkpoint.exists():
        trainer.load(checkpoint, device)
    log = Log(run, trainer.step)
    batches = _batches(task, trainer.step, config.schedule.batch, device, workers)
    trainer.network.train()
    while not trainer.done:
        sums = trainer.advance(next(batches))
        log.add(trainer.step, sums)
        if trainer.is_due() or trainer.done:
            log.write(trainer.step)
            if minutes and (trainer.may_validate() or trainer.done):
                trainer.validate(run)
            trainer.save(checkpoint)
    log.close(trainer.step)
    return checkpoint


def chosen(config: Config) -> dict[str, Any]:
    """How samples are made, as far as it is not the default: a run goes on after there are more settings.

    Examples
    --------
    >>> from bids_inpaint.training.config import Config
    >>> chosen(Config.load("ddpm-together"))
    {'vary': True, 'squares': 0.15, 'tumours': 0.3, 'noisiest': 0.5}
    """
    usual = asdict(Synthesis())
    return {key: value for key, value in asdict(config.synthesis).items() if value != usual[key]}


class _Trainer:
    """A network, the running average of its weights, its optimiser, and how far it is."""

    def __init__(self, config: Config, task: Task, device: str, minutes: float | None):
        self.schedule, self.task, self.step = config.schedule, task, 0
        seen_by = [config.data.without] if config.data.without else []
        data = (config.data.train, config.data.leave_out_patients, *seen_by)
        self.learns = repr((config.name, config.seed, config.blind, config.network, data, chosen(config)))
        self.seconds, self.budget, self.best = 0.0, 60 * minutes if minutes else None, -float("inf")
        self.network = build(config).to(device)
        if self.schedule.start:
            _start(self.network, config)
        volumes = engine_of(config).volumes
        memory_format = torch.channels_last_3d if volumes else torch.channels_last
        self.network.to(memory_format=memory_format)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(self.schedule.ema)
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.schedule.learning_rate)
        self.since = self.saved = time.monotonic()
        self.next_validation = self.since

    @property
    def position(self) -> float:
        """How far the schedule is, in its steps."""
        if self.budget is None:
            return self.step
        used = self.seconds + time.monotonic() - self.since
        return min(1.0, used / self.budget) * self.schedule.steps

    @property
    def done(self) -> bool:
        """Whether the schedule is at its end."""
        return self.position >= self.schedule.steps

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.budget is None:
            return self.step % self.schedule.checkpoint_every == 0
        return time.monotonic() - self.saved > min(60, self.budget / 3)

    def may_validate(self) -> bool:
        """Whether the last validation was short beside the time since then."""
        return time.monotonic() >= self.next_validation

    def advance(self, batch: list[Tensor]) -> Sums:
        """Take one step; what to log of it."""
        position = self.position
        frozen_from = self.schedule.freeze_normalisation
        if frozen_from is not None and position >= frozen_from:
            _freeze_normalisation(self.network)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate * rate(self.step, self.schedule, position)
        if self.step == 0:
            self.task.check(batch)
        loss, sums = self.task.loss(self.network, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.schedule.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return {"loss": (loss.detach(), torch.tensor(1)), **sums}

    def validate(self, run: Path) -> None:
        """Print what the averaged network makes of the validation subjects, and keep the best one."""
        began = time.monotonic()
        scores = self.task.validate(self.average.module.eval())
        self.next_validation = time.monotonic() + VALIDATIONS * (time.monotonic() - began)
        minutes = (self.seconds + time.monotonic() - self.since) / 60
        row = {"step": self.step, "minutes": round(minutes, 2)} | {k: round(v, 4) for k, v in scores.items()}
        print(run.name, json.dumps(row), flush=True)
        with (run / "validation.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if scores.get("score", self.best) > self.best:
            self.best = scores["score"]
            self.save(run / "best.pt")

    def load(self, checkpoint: Path, device: str) -> None:
        """Go on from a checkpoint of the same run.

        Raises
        ------
        ValueError
            If that run learns other things, or from others.
        """
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state.get("learns", self.learns) != self.learns:
            raise ValueError(
                f"{checkpoint} is of a run with other subjects, samples or network: name another folder, or "
                "remove it"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.load_state_dict(state.get("task", {}))
        self.step = state["step"]
        self.seconds, self.best = state.get("seconds", 0.0), state.get("best", self.best)
        self.since = time.monotonic()

    def save(self, checkpoint: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        self.saved = time.monotonic()
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "task": self.task.state_dict(),
            "step": self.step,
            "start": self.schedule.start,
            "learns": self.learns,
            "seconds": self.seconds + self.saved - self.since,
            "best": self.best,
        }
        with replacing(checkpoint) as part:
            torch.save(state, part)


def _start(network: Architecture, config: Config) -> None:
    """Give a network the weights that the configuration lets it start from."""
    start = config.schedule.start
    if start.endswith(".pt"):
        network.load_state_dict(load_average(config, Path(start)).state_dict())
    elif engine_of(config).starts_from_onnx:
        model = registry.find(start, config.task)
        if not model.sha256.startswith(config.schedule.start_sha256):
            raise ValueError(
                f"{config.name} starts from the network with SHA-256 {config.schedule.start_sha256}, and "
                f"{start} is another ({model.sha256[:12]}): name its ONNX file, or what else to start from, "
                "with --start"
            )
        load_exported(network, model.path)
    else:
        raise ValueError(f"{start}: engine {config.engine} starts from a checkpoint (*.pt) alone")


def _freeze_normalisation(network: nn.Module) -> None:
    """Normalise with the statistics gathered so far from now on, as at inference."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _batches(task: Task, step: int, size: int, device: str, workers: int) -> Iterator[list[Tensor]]:
    """Endless batches from a step on. On a GPU the samples are made there, in this process."""
    samples = task.samples(step * size, device)
    if device == "cpu":
        yield from DataLoader(samples, size, num_workers=workers, prefetch_factor=4 if workers else None)
    yield from samples.batches(size, workers)
