"""Fitting a network; resumes from its last checkpoint after a kill at any moment."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from bids_inpaint.files import replacing
from bids_inpaint.inference import MASKED
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, Subject, subjects
from bids_inpaint.training.networks import UNet, space_to_depth
from bids_inpaint.training.synthesis import (
    change_contrast,
    degrade,
    draw_centre,
    draw_image,
    draw_lesions,
    paint,
)


class Patches(IterableDataset):
    """Endless patches with painted lesions; patch *i* depends on the seed and on *i* alone.

    Yields
    ------
    lesioned, healthy, support : Tensor, each (patch, patch, patch)
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0):
        self.config = config
        self.shapes = shapes
        self.first = first
        self.subjects = subjects(cache, config.data.train)
        missing = set(config.data.train) - {s.name for s in self.subjects}
        if missing:
            raise ValueError(f"not in the cache {cache}: {', '.join(sorted(missing))}")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.first + start
        while True:
            yield self.patch(index)
            index += step

    def patch(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw and make the patch of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        return make_patch(rng, subject, self.shapes, self.config.fit.patch)


def make_patch(
    rng: np.random.Generator, subject: Subject, shapes: Lesions, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One lesioned patch, its healthy truth and the lesion support."""
    centre = draw_centre(rng, shapes)
    lesions = draw_lesions(rng, shapes, centre, size)
    appearance = draw_image(rng)
    flip = rng.random() < 0.5
    limit = np.array(WORKING_GRID.shape) - size
    corner = np.clip(np.round(centre - size / 2), 0, limit).astype(int)
    box = tuple(slice(c, c + size) for c in corner)
    raw = _crop(subject.image, box, flip)
    healthy = change_contrast(torch.from_numpy(raw), subject.grey_level, appearance)
    lesioned, support = paint(healthy, appearance.grey, lesions, corner.tolist(), appearance.seed)
    lesioned, healthy = degrade([lesioned, healthy], appearance)
    return lesioned, healthy, support


def _crop(image: np.ndarray, box: tuple[slice, ...], flip: bool) -> np.ndarray:
    if not flip:
        return np.asarray(image[box], dtype=np.float32)
    # mirror about x = 0 mm: voxel i becomes 180 - i
    first = 180 - np.arange(box[0].start, box[0].stop)
    return np.asarray(image[first.clip(0), box[1], box[2]], dtype=np.float32)


def network_input(lesioned: Tensor, support: Tensor, blind: bool) -> Tensor:
    """What the network sees, (N, 8, D, H, W): lesions as they are (blind), or masked by -1."""
    if not blind:
        lesioned = torch.where(support > 0.1, torch.full_like(lesioned, MASKED), lesioned)
    return space_to_depth(lesioned[:, None])


def loss_of(outputs: Iterator[Tensor], healthy: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error, summed over the supervised outputs."""
    total = weight.sum().clamp(min=1)
    return sum(((o.float() - healthy).square() * weight).sum() / total for o in outputs)  # type: ignore[return-value]


def gate_loss(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of the lesion probability with the lesion support."""
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), lesion, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1)


def rate(step: int, fit: Any) -> float:
    """Fraction of the learning rate at a step: warm-up, plateau, linear decay to zero."""
    warm = min(1.0, (step + 1) / fit.warmup_steps)
    return max(0.0, min(warm, (fit.steps - step) / fit.decay_steps))


def fit(
    config: Config,
    cache: Path,
    lesions: Path,
    run: Path,
    device: str = "cpu",
    threads: int = 2,
    workers: int = 1,
) -> Path:
    """Train a network.

    Parameters
    ----------
    config : Config
    cache : Path
        Made by ``prepare``.
    lesions : Path
        Folder of the lesion shapes.
    run : Path
        Where ``checkpoint.pt``, ``log.csv`` and TensorBoard's events go; resumed if it is there.
    device : {'cpu', 'cuda'}
    threads, workers : int
        CPU threads of the network, and processes that paint.

    Returns
    -------
    Path
        The last checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    channels_last = torch.channels_last_3d
    network = UNet(**config.network).to(device)
    network.to(memory_format=channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.fit.ema), use_buffers=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.fit.learning_rate)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    log = _Log(run, step)
    shapes = Lesions.load(lesions, config.data.leave_out_patients)
    data = Patches(config, cache, shapes, first=step * config.fit.batch)
    loader = iter(
        DataLoader(data, config.fit.batch, num_workers=workers, prefetch_factor=4 if workers else None)
    )
    network.train()
    frozen = False
    while step < config.fit.steps:
        if not frozen and step >= config.fit.freeze_normalisation:
            network.freeze_normalisation()
            frozen = True
        lesioned, healthy, support = (t.to(device, non_blocking=True) for t in next(loader))
        x = network_input(lesioned, support, config.blind).contiguous(memory_format=channels_last)
        target, lesion = space_to_depth(healthy[:, None]), space_to_depth(support[:, None])
        brain = (target > 0).float()
        for group in optimiser.param_groups:
            group["lr"] = config.fit.learning_rate * rate(step, config.fit)
        weight = brain * (1 + config.fit.lesion_weight * lesion)
        with torch.autocast(device, torch.bfloat16):
            if network.gate is None:
                outputs, logits = list(network.outputs(x)), None
            else:
                answer, logits = network.gated_output(x)
                outputs = [answer]
        loss = loss_of(iter(outputs), target, weight)
        if logits is not None:
            loss = loss + config.fit.gate_weight * gate_loss(logits, lesion, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        log.add(step, loss, outputs[-1].detach().float(), target, space_to_depth(lesioned[:, None]), lesion)
        if step % config.fit.checkpoint_every == 0 or step == config.fit.steps:
            _save(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                },
            )
    log.close()
    return checkpoint


def _save(path: Path, state: dict) -> None:
    with replacing(path) as part:
        torch.save(state, part)


class _Log:
    """Running means of the loss and the in-lesion errors, to a CSV and to TensorBoard."""

    every = 50

    def __init__(self, run: Path, step: int):
        path = run / "log.csv"
        kept = []
        if path.exists():
            with path.open() as file:
                kept = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]
        self.file = path.open("w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(["step", "loss", "lesion_rmse", "lesioned_rmse", "healthy_rmse", "seconds"])
        self.writer.writerows(kept)
        self.file.flush()
        self.board = _tensorboard(run)
        self.sums = np.zeros(6)
        self.start = time.monotonic()

    def add(self, step, loss, output, target, lesioned, lesion) -> None:
        """Add a step's figures; write a row every 50 steps."""
        inside, outside = lesion > 0.5, (lesion == 0) & (target > 0)
        before = (lesioned - target).square()
        after = (output - target).square()
        self.sums += [
            float(loss.detach()),
            *(float(error[where].sum()) for error, where in ((after, inside), (before, inside))),
            float(inside.sum()),
            float(after[outside].sum()),
            float(outside.sum()),
        ]
        if step % self.every:
            return
        loss_sum, after_sum, before_sum, n, healthy_sum, n_healthy = self.sums
        row = {
            "loss": loss_sum / self.every,
            "lesion_rmse": (after_sum / max(n, 1)) ** 0.5,
            "lesioned_rmse": (before_sum / max(n, 1)) ** 0.5,
            "healthy_rmse": (healthy_sum / max(n_healthy, 1)) ** 0.5,
            "seconds": time.monotonic() - self.start,
        }
        self.writer.writerow([step, *(f"{v:.6g}" for v in row.values())])
        self.file.flush()
        if self.board:
            for key, value in row.items():
                self.board.add_scalar(key, value, step)
        self.sums[:] = 0

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.board:
            self.board.close()


def _tensorboard(run: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra
        return None
    return SummaryWriter(str(run))
