"""Fitting a network; resumes from its last checkpoint after a kill at any moment."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from bids_inpaint import models
from bids_inpaint.files import replacing
from bids_inpaint.inference import MASKED
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.config import Config, Fit, Synthesis
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
    """Endless samples; sample *i* depends on the seed and on *i* alone.

    Yields
    ------
    image, healthy, support : Tensor, each (patch, patch, patch) or of the size of the working grid
        With lesions, without, and how much of each voxel is lesion (0-1).
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, first: int = 0, device: str = "cpu"):
        self.config = config
        self.shapes = shapes
        self.first = first
        self.device = device
        self.subjects = subjects(cache, config.data.train)
        missing = set(config.data.train) - {s.name for s in self.subjects}
        if missing:
            raise ValueError(f"not in the cache {cache}: {', '.join(sorted(missing))}")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        if worker:
            torch.set_num_threads(1)
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.first + start
        while True:
            yield self.patch(index)
            index += step

    def patch(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw and make the sample of this index."""
        rng = np.random.default_rng([self.config.seed, index])
        subject = self.subjects[rng.integers(len(self.subjects))]
        size = self.config.fit.patch
        image, healthy, support = make_sample(
            rng, subject, self.shapes, size, self.config.synthesis, self.device
        )
        unit = subject.mean_level if self.config.intensity == "mean" else 1.0
        return image / unit, healthy / unit, support


def draw_box(rng: np.random.Generator, shapes: Lesions, size: int) -> tuple[slice, ...]:
    """Draw where a patch lies on the working grid; size 0 is the whole grid."""
    if not size:
        return tuple(slice(0, n) for n in WORKING_GRID.shape)
    limit = np.array(WORKING_GRID.shape) - size
    corner = np.clip(np.round(draw_centre(rng, shapes) - size / 2), 0, limit).astype(int)
    return tuple(slice(c, c + size) for c in corner)


def make_sample(
    rng: np.random.Generator,
    subject: Subject,
    shapes: Lesions,
    size: int,
    synthesis: Synthesis,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """An image with lesions, without, and the lesion support.

    A healthy image is painted; a patient's comes with its lesion-free target and its lesion mask
    (step 2 of Manjón 2020, section 2.3).
    """
    box = draw_box(rng, shapes, size)
    flip = rng.random() < 0.5
    grey = subject.grey_level
    appearance = draw_image(rng, grey, synthesis.vary)

    def crop(volume: np.ndarray) -> Tensor:
        return torch.from_numpy(_crop(volume, box, flip)).to(device)

    image = change_contrast(crop(subject.image), grey, appearance)
    if subject.patient:
        lesioned, support = image, crop(subject.lesions)
        healthy = change_contrast(crop(subject.target), grey, appearance)
    else:
        healthy = image
        centre = np.array([(s.start + s.stop) / 2 for s in box])
        lesions = draw_lesions(rng, shapes, centre, size or 64, synthesis.mix, appearance.grey)
        corner = [s.start for s in box]
        lesioned, support = paint(healthy, appearance.grey, lesions, corner, appearance.seed)
    lesioned, healthy = degrade([lesioned, healthy], appearance)
    return lesioned, healthy, support


def _crop(image: np.ndarray, box: tuple[slice, ...], flip: bool) -> np.ndarray:
    if not flip:
        return np.asarray(image[box], dtype=np.float32)
    # voxel i of the mirrored image is voxel 180 - i; beyond the grid it continues with its border
    first = 180 - np.arange(box[0].start, box[0].stop)
    return np.asarray(image[first.clip(0), box[1], box[2]], dtype=np.float32)


def network_input(lesioned: Tensor, support: Tensor, blind: bool) -> Tensor:
    """What the network sees, (N, 1, D, H, W): lesions as they are (blind), or masked by -1."""
    if not blind:
        lesioned = torch.where(support > 0.1, torch.full_like(lesioned, MASKED), lesioned)
    return lesioned[:, None]


def sub_volumes(volume: Tensor, multiple: int) -> Tensor:
    """(N, 1, D, H, W) as eight sub-volumes, padded with zeros as at inference."""
    parts = space_to_depth(volume)
    pads = [p for n in parts.shape[:1:-1] for p in (0, -n % multiple)]
    return functional.pad(parts, pads)


def loss_of(outputs: Iterator[Tensor], healthy: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error, summed over the supervised outputs."""
    total = weight.sum().clamp(min=1)
    return sum(((o.float() - healthy).square() * weight).sum() / total for o in outputs)  # type: ignore[return-value]


def gate_loss(logits: Tensor, lesion: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of the lesion probability with the lesion support."""
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), lesion, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1)


def rate(step: int, fit: Fit) -> float:
    """Fraction of the learning rate at a step: warm-up, plateau, linear decay to zero."""
    warm = min(1.0, (step + 1) / fit.warmup_steps) if fit.warmup_steps else 1.0
    left = (fit.steps - step) / fit.decay_steps if fit.decay_steps else 1.0
    return max(0.0, min(warm, left))


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
    schedule = config.fit
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    network = UNet(**config.network).to(device)
    if schedule.start:
        load_exported(network, models.find(schedule.start).path)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema), use_buffers=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    log = _Log(run, step)
    batches = _batches(config, cache, lesions, step, device, workers)
    network.train()
    while step < schedule.steps:
        if schedule.freeze_normalisation is not None and step >= schedule.freeze_normalisation:
            network.freeze_normalisation()
        image, healthy, support = next(batches)
        x, target, lesion, before = (
            sub_volumes(t, network.multiple).contiguous(memory_format=torch.channels_last_3d)
            for t in (
                network_input(image, support, config.blind),
                *(v[:, None] for v in (healthy, support, image)),
            )
        )
        brain = (target > 0).float()
        weight = brain * (1 + schedule.lesion_weight * lesion) + (1 - brain) * schedule.background_weight
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * rate(step, schedule)
        with torch.autocast(device, torch.bfloat16):
            if network.gate is None:
                outputs, logits = list(network.outputs(x)), None
            else:
                answer, logits = network.gated_output(x)
                outputs = [answer]
        loss = loss_of(iter(outputs), target, weight)
        if logits is not None:
            loss = loss + schedule.gate_weight * gate_loss(logits, lesion, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if schedule.clip:
            nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        log.add(step, loss, outputs[-1].detach().float(), target, before, lesion)
        if step % schedule.checkpoint_every == 0 or step == schedule.steps:
            with replacing(checkpoint) as part:
                torch.save(
                    {
                        "network": network.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                    },
                    part,
                )
    log.close()
    return checkpoint


def _batches(
    config: Config, cache: Path, lesions: Path, step: int, device: str, workers: int
) -> Iterator[list[Tensor]]:
    """Endless batches from a step on. On a GPU the samples are made there, in this process."""
    shapes = Lesions.load(lesions, config.data.leave_out_patients)
    size = config.fit.batch
    if device != "cpu":
        samples = iter(Patches(config, cache, shapes, step * size, device))
        while True:
            yield [torch.stack(t) for t in zip(*islice(samples, size), strict=True)]
    data = Patches(config, cache, shapes, first=step * size)
    yield from DataLoader(data, size, num_workers=workers, prefetch_factor=4 if workers else None)


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
