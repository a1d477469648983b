"""What networks of slices have in common as training tasks: the scores on holes in validation subjects."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bids_inpaint.imaging.fidelity import psnr
from bids_inpaint.networks.slices import Sight, Sliced
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.holes import Holes, make_case
from bids_inpaint.training.slices import slice_card
from bids_inpaint.training.task import LesionTask, mixed_precision
from bids_inpaint.training.ways import Case

#: Validation subjects whose holes are filled while a network learns: each takes some seconds on a GPU.
SUBJECTS = 2


class SliceTask(LesionTask):
    """What a network learns that fills slice by slice."""

    device = "cpu"
    cases: dict[Holes, list[Case]] | None = None

    def to(self, device: str) -> None:
        """Validate on this device."""
        self.device = device

    def content(self, network: Any, brain: Sliced) -> np.ndarray:
        """What a network makes of the hole of a brain, (voxels,) of 0-1."""
        raise NotImplementedError

    @torch.no_grad()
    def validate(self, network: Any) -> dict[str, float]:
        """Peak signal-to-noise ratio (dB, peak 1) in the holes of the first validation subjects.

        Returns
        -------
        dict of float
            By kind of hole (:data:`bids_inpaint.training.holes.Holes`), and their mean as ``score``.
        """
        if self.cases is None:
            self.cases = self._cases()
        sight = Sight(multiple=network.multiple, **slice_card(self.config, network))
        scores: dict[str, float] = {}
        for kind, cases in self.cases.items():
            rows = []
            for case in cases:
                brain = Sliced(sight, case.voided, case.hole)
                filled = brain.filled(self.content(network, brain)).clip(0, 1)
                rows.append(psnr(filled[case.hole], case.healthy[case.hole], 1.0))
            scores[kind] = float(np.mean(rows))
        return scores | {"score": float(np.mean(list(scores.values())))} if scores else {}

    def _cases(self) -> dict[Holes, list[Case]]:
        names = self.config.data.validation[:SUBJECTS]
        shapes = Lesions.load(self.lesions_folder, only=self.config.data.lenders or None)
        priors = template_priors(self.cache) if names else []
        people = find_subjects(self.cache, names)
        kinds = get_args(Holes) if people else ()
        return {kind: [make_case(s, kind, shapes, priors) for s in people] for kind in kinds}

    def run(self, network: Any, channels: np.ndarray, *more: Tensor) -> np.ndarray:
        """The answer of a network on its device to the channels (1, C, H, W) of a slice."""
        x = torch.from_numpy(channels.astype(np.float32)).to(self.device)
        with mixed_precision(x):
            return network(x, *more).float().cpu().numpy()
