"""The log of a training run: a CSV file, and TensorBoard's where that is installed."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bids_inpaint.io.files import replacing
from bids_inpaint.training.task import Sums

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Steps of which a row is the mean.
EVERY = 50


class Log:
    """Running means of the logged quantities, written to ``log.csv`` and to TensorBoard.

    Parameters
    ----------
    run : Path
        Folder of the run. Rows of an earlier, interrupted run are kept.
    step : int
        Step that the run goes on from; later rows are dropped.
    """

    def __init__(self, run: Path, step: int):
        self.path = run / "log.csv"
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open() as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.board = _tensorboard(run)
        self.sums: dict[str, list[Tensor]] = {}
        self.start = time.monotonic()

    def add(self, step: int, sums: Sums) -> None:
        """Add the sums and counts of a step; write a row every `EVERY` steps."""
        for key, (total, count) in sums.items():
            so_far = self.sums.setdefault(key, [torch.zeros((), dtype=torch.float64)] * 2)
            # a GPU is not waited for
            self.sums[key] = [so_far[0].to(total.device) + total, so_far[1].to(count.device) + count]
        if step % EVERY == 0:
            self.write(step)

    def write(self, step: int) -> None:
        """Write the means since the last row."""
        if not self.sums:
            return
        row = {key: float(total) / max(float(count), 1) for key, (total, count) in self.sums.items()}
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


def _tensorboard(run: Path) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra
        return None
    return SummaryWriter(str(run))
