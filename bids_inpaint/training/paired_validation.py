"""What a network for 'flair' makes of the validation subjects while it learns, where it learns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bids_inpaint.training.architectures.slice_unet import Joint
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import template_priors
from bids_inpaint.training.evaluate_flair import Row, mean_of
from bids_inpaint.training.paired_slices import template_volumes
from bids_inpaint.training.pairs import UNKNOWN, Kind, kind_of
from bids_inpaint.training.stored_pairs import Stored, make_pairs, order_validation
from bids_inpaint.training.task import mixed_precision

#: Slices that go through the network at once.
BATCH = 32


class PairedValidation:
    """The pairs of the validation subjects, at standard contrast as in the app.

    Parameters
    ----------
    config : Config
    cache, lesions : Path
    device : str
        Where they are scored; a GPU keeps them in its memory.
    """

    def __init__(self, config: Config, cache: Path, lesions: Path, device: str):
        self.config, self.device = config, device
        self.context = int(config.network.get("context", 0))
        priors = template_priors(cache)
        self.template = template_volumes(priors, device) if config.network.get("priors") else None
        orders = [one for (one,) in order_validation(config, cache, lesions).values()]
        make_pairs(orders, priors, cache)
        #: Kind of each subject, and its pair.
        self.cases: list[tuple[Kind, Stored]] = [
            (kind_of(one.subject), Stored.load(one.folder, device)) for one in orders
        ]

    @torch.no_grad()
    def scores(self, network: Joint) -> dict[str, float]:
        """Means over the subjects of each kind.

        Returns
        -------
        dict of float
            By kind: ``dice``, ``fpr`` and ``fnr`` of the lesions with a probability above 0.5, and ``mae`` of
            the FLAIR inside the brain in units of its standard deviation, as far as they are defined.
            ``score`` is the mean Dice coefficient less a quarter of the mean error.
        """
        rows: dict[Kind, list[Row]] = {}
        for kind, stored in self.cases:
            rows.setdefault(kind, []).append(self._score(stored, network))
        means = {kind: mean_of(of_kind) for kind, of_kind in rows.items()}
        out = {
            f"{kind.replace(' ', '_')}_{name}": value
            for kind, row in means.items()
            for name, value in row.items()
            if value is not None
        }
        if not out:
            return {}
        whole = mean_of([row for of_kind in rows.values() for row in of_kind])
        return out | {"score": (whole["dice"] or 0.0) - (whole["mae"] or 0.0) / 4}

    def _score(self, stored: Stored, network: Joint) -> Row:
        """Scores of one brain; None where undefined."""
        answers = torch.cat([_answer(network, x) for x in self._visible(stored, network.multiple)])
        height, width = stored.volumes.shape[2:]
        synthetic, logit = answers[:, :, :height, :width].unbind(1)
        t1w, flair, truth = stored.volumes[:3].float()
        brain = (t1w > 0) & (flair > 0)
        found, lesion = (logit > 0) & (t1w > 0), truth > 0.5
        row: Row = dict.fromkeys(("dice", "fpr", "fnr", "mae"))
        if network.generator is not None:
            off = (synthetic.clamp(min=0) - flair)[brain].abs().mean()
            row["mae"] = float(off / flair[brain].std(correction=0))
        if not (truth == UNKNOWN).any():
            hit, n_found, n_true = (float(v.sum()) for v in (found & lesion, found, lesion))
            shares = (2 * hit, n_found + n_true), (n_found - hit, n_found), (n_true - hit, n_true)
            for name, (part, whole) in zip(("dice", "fpr", "fnr"), shares, strict=True):
                row[name] = part / whole if whole else None
        return row

    def _visible(self, stored: Stored, multiple: int) -> Iterator[Tensor]:
        """What the network sees of each slice, some slices at a time."""
        volumes = stored.volumes.float()
        channels, depth, height, width = volumes.shape
        template = torch.zeros(2 if self.template else 0, depth, height, width, device=volumes.device)
        if self.template:
            self.template.put(template, stored.corner)
        around = functional.pad(volumes[0], (0, 0, 0, 0, self.context, self.context))
        t1w = around.unfold(0, 2 * self.context + 1, 1).permute(0, 3, 1, 2)
        others = torch.cat([template, volumes[3:channels]]).transpose(0, 1)
        frame = (0, -width % multiple, 0, -height % multiple)
        for first in range(0, depth, BATCH):
            some = slice(first, first + BATCH)
            yield functional.pad(torch.cat([t1w[some], others[some]], 1), frame)


def _answer(network: Joint, x: Tensor) -> Tensor:
    with mixed_precision(x):
        return network(x).float()
