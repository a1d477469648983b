"""Brain extraction as a training task: heads of any contrast, and the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.training.config import Config
from bids_inpaint.training.fit import Samples, Sums, Task, mixed_precision
from bids_inpaint.training.heads import Head, draw_head, make_head
from bids_inpaint.training.inpainting import sub_volumes
from bids_inpaint.training.networks import UNet


class BrainExtraction(Task):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a brain extractor.

    Parameters
    ----------
    config : Config
        Its subjects are names of label maps.
    labels : Path
        Folder of the label maps.
    """

    def __init__(self, config: Config, labels: Path):
        self.config = config
        self.heads = load_heads(labels, config.data.train)

    def samples(self, first: int, device: str) -> Heads:
        """The samples from an index on."""
        return Heads(self.heads, self.config.seed, self.config.fit.patch, first, device)

    def loss(self, network: UNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Cross-entropy and soft Dice of a batch of :class:`Heads`, and the Dice for the log."""
        x, target = (
            sub_volumes(t[:, None], network.multiple).contiguous(memory_format=torch.channels_last_3d)
            for t in batch
        )
        with mixed_precision(x, network.multiple):
            logits = network(x)
        logits = logits.float()
        probability = torch.sigmoid(logits)
        overlap, total = 2 * (probability * target).sum(), probability.sum() + target.sum()
        loss = functional.binary_cross_entropy_with_logits(logits, target) + 1 - overlap / (total + 1)
        found, truth = logits > 0, target > 0.5
        return loss, {"dice": (2 * (found & truth).sum(), found.sum() + truth.sum())}


class Heads(Samples):
    """Endless pictures of heads; picture *i* depends on the seed and on *i* alone.

    Yields
    ------
    image, brain : Tensor, each (size, size, size)
    """

    def __init__(self, heads: list[Head], seed: int, size: int, first: int = 0, device: str = "cpu"):
        super().__init__(first)
        self.heads, self.seed, self.device = heads, seed, device
        self.shape = (size, size, size)

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Draw and make the picture of this index."""
        rng = np.random.default_rng([self.seed, index])
        head = self.heads[rng.integers(len(self.heads))]
        image, brain = make_head(head, draw_head(rng, head, self.shape), self.shape)
        return image.to(self.device), brain.to(self.device)


def load_heads(folder: Path, names: list[str]) -> list[Head]:
    """Read label maps by name.

    Raises
    ------
    ValueError
        If one is missing.
    """
    paths = [folder / f"{name}.nii.gz" for name in names]
    if missing := [p.name for p in paths if not p.exists()]:
        raise ValueError(f"not in {folder}: {', '.join(missing)}")
    return [Head.load(p) for p in paths]
