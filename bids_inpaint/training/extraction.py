"""Brain extraction as a training task: heads of any contrast, and the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.training.architectures.unet import UNet
from bids_inpaint.training.config import Config
from bids_inpaint.training.heads import Head, draw_head, make_head
from bids_inpaint.training.patches import sub_volumes
from bids_inpaint.training.task import Samples, Sums, Task, mixed_precision


class BrainExtraction(Task):
    """What :func:`bids_inpaint.training.fit.fit` needs to train a brain extractor.

    Parameters
    ----------
    config : Config
        Its subjects are names of label maps.
    cache : Path
        Folder of the label maps.
    lesions : Path, optional
        Not used.

    Raises
    ------
    ValueError
        If a label map is missing.
    """

    def __init__(self, config: Config, cache: Path, lesions: Path | None = None):
        super().__init__(config, cache)
        self.heads = load_heads(cache, config.data.train)

    def samples(self, first: int, device: str) -> Heads:
        """The samples from an index on."""
        return Heads(self.heads, self.config.seed, self.config.schedule.patch, first, device)

    def loss(self, network: UNet, batch: list[Tensor]) -> tuple[Tensor, Sums]:
        """Cross-entropy and soft Dice of a batch of :class:`Heads`, and the Dice for the log."""
        x, target = (sub_volumes(t[:, None], network.multiple) for t in batch)
        with mixed_precision(x, network.multiple):
            logits = network(x)
        logits = logits.float()
        probability = torch.sigmoid(logits)
        overlap, total = 2 * (probability * target).sum(), probability.sum() + target.sum()
        loss = functional.binary_cross_entropy_with_logits(logits, target) + 1 - overlap / (total + 1)
        predicted, truth = logits > 0, target > 0.5
        return loss, {"dice": (2 * (predicted & truth).sum(), predicted.sum() + truth.sum())}


class Heads(Samples):
    """Endless pictures of heads; picture *i* depends on the seed and on *i* alone.

    Parameters
    ----------
    heads : list of Head
    seed : int
    size : int
        Edge of the pictures in voxels of `EDGE` mm.
    first : int
        Index of the first picture.
    device : str
        Where pictures go.

    Yields
    ------
    image, brain : Tensor, each (size, size, size)
        Intensity, and the share of each voxel that is brain, both 0-1.
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
    """Read the label maps ``NAME.nii.gz`` of a folder.

    Raises
    ------
    ValueError
        If one is missing.
    """
    paths = [folder / f"{name}.nii.gz" for name in names]
    if missing := [p.name for p in paths if not p.exists()]:
        raise ValueError(f"not in {folder}: {', '.join(missing)}")
    return [Head.load(p) for p in paths]
