"""What a network of volumes makes of the validation subjects while it learns, in seconds, where it learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from bids_inpaint.imaging.intensity import GREY, Scale
from bids_inpaint.imaging.lesions import PRIOR_BLUR_MM
from bids_inpaint.networks.inpainting import to_fill
from bids_inpaint.networks.volumes import MASKED
from bids_inpaint.training.architectures.unet import UNet, depth_to_space, space_to_depth
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, find_subjects, template_priors
from bids_inpaint.training.painted import painted
from bids_inpaint.training.painters import PAINTERS
from bids_inpaint.training.patches import padded
from bids_inpaint.training.task import mixed_precision

#: Lesion probability from which a voxel is one.
LESION = 0.5


@dataclass(frozen=True)
class Case:
    """An image to score a network on, at standard contrast as in the app.

    Attributes
    ----------
    kind : str
        Its painter, or 'patient', or 'healthy'.
    image : Tensor, (1, 1, D, H, W)
        What the network gets.
    truth : Tensor or None
        What it should make of it, if that is known.
    lesion : Tensor of bool
    """

    kind: str
    image: Tensor
    truth: Tensor | None
    lesion: Tensor


class Validation:
    """The validation subjects of a configuration: healthy ones, the same with painted lesions, and patients.

    Parameters
    ----------
    config : Config
    cache : Path
    shapes : Lesions
        Of the lesions that are painted: not those of the training.
    device : str
    """

    def __init__(self, config: Config, cache: Path, shapes: Lesions, device: str):
        self.config, self.device = config, device
        self.template = template_priors(cache)
        blurred = ndimage.gaussian_filter(self.template[0], PRIOR_BLUR_MM)
        self.region = self._volume(blurred) >= 0.5
        priors = self._volume(np.stack(self.template))[:, None]
        self.priors = functional.avg_pool3d(priors, 2).transpose(0, 1)
        self.cases = list(self._cases(cache, shapes))

    def _volume(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self.device)

    def _cases(self, cache: Path, shapes: Lesions) -> Iterator[Case]:
        for subject in find_subjects(cache, self.config.data.validation):
            image = np.asarray(subject.image, np.float32)
            scale = Scale.measure(image, image > 0, *self.template)

            def standard(volume: np.ndarray, scale: Scale = scale) -> Tensor:
                return self._volume(scale.apply(volume))[None, None]

            if subject.patient:
                yield Case("patient", standard(image), None, self._volume(subject.lesions) > 0.5)
                continue
            nothing = torch.zeros(image.shape, dtype=torch.bool, device=self.device)
            if self.config.blind:
                yield Case("healthy", standard(image), standard(image), nothing)
            if subject.name.startswith("oasis"):
                # of older people: what looks like a lesion may be one
                continue
            for painter in (name for name, p in PAINTERS.items() if not p.real):
                lesioned, support = painted(subject, shapes, painter, device=self.device)
                lesion = self._volume(support) > 0.5
                if not self.config.blind:
                    mask = to_fill(support > 0.5) & (image > 0)
                    lesioned_standard = scale.apply(lesioned)
                    lesioned_standard[mask] = MASKED
                    yield Case(painter, self._volume(lesioned_standard)[None, None], standard(image), lesion)
                else:
                    yield Case(painter, standard(lesioned), standard(image), lesion)

    @torch.no_grad()
    def scores(self, network: UNet) -> dict[str, float]:
        """Means over the cases of each kind.

        Returns
        -------
        dict of float
            By kind: ``gain`` (dB in painted lesions; of a network that gets the mask, beside plain white
            matter), ``dice`` of the lesion probability, ``false_ml`` (found in healthy heads) and
            ``change_db`` (PSNR of these). ``score`` sums up what is better when it is higher.
        """
        rows: dict[str, list[float]] = {}
        for case in self.cases:
            for name, value in self._score(case, network).items():
                rows.setdefault(f"{case.kind}_{name}", []).append(value)
        means = {name: float(np.mean(values)) for name, values in rows.items()}
        gains = [v for k, v in means.items() if k.endswith("_gain")]
        dices = [v for k, v in means.items() if k.endswith("_dice")]
        score = sum(gains) / max(len(gains), 1) / 10 + (2 * sum(dices) / len(dices) if dices else 0)
        return means | {"score": score - 0.2 * means.get("healthy_false_ml", 0)}

    def _score(self, case: Case, network: UNet) -> dict[str, float]:
        output, probability = self._run(case.image, network)
        brain = case.image[0, 0] > 0
        out = {}
        if case.truth is not None and case.lesion.any():
            before = (case.image - case.truth)[0, 0][case.lesion].square().mean()
            if not self.config.blind:
                # the network sees nothing there: beside plain white matter
                before = (1 - case.truth)[0, 0][case.lesion].square().mean()
            after = (output - case.truth[0, 0])[case.lesion].square().mean()
            out["gain"] = float(10 * torch.log10(before / after))
        if self.config.blind and probability is not None:
            found = (probability >= LESION) & self.region & (output > (1 + GREY) / 2) & brain
            if case.kind == "healthy":
                error = (output - case.image[0, 0])[brain].square().mean()
                out |= {"false_ml": float(found.sum()) / 1000, "change_db": float(-10 * torch.log10(error))}
            else:
                truth = case.lesion & self.region if case.kind != "patient" else case.lesion
                both = float((found & truth).sum())
                out["dice"] = 2 * both / max(float(found.sum() + truth.sum()), 1)
        return out

    def _run(self, image: Tensor, network: UNet) -> tuple[Tensor, Tensor | None]:
        """The inpainted volume, and the lesion probability if the network has one."""
        x = space_to_depth(image)
        if network.inputs > 8:
            x = torch.cat([x, self.priors], 1)
        sizes = x.shape[2:]
        x = padded(x, network.multiple)
        with mixed_precision(x, network.multiple):
            if network.gate is None:
                output, logits = network(x), None
            else:
                output, logits = network.gated_output(x)
        outputs = [output] if logits is None else [output, torch.sigmoid(logits.float())]
        volumes = [depth_to_space(t.float()[:, :, : sizes[0], : sizes[1], : sizes[2]])[0, 0] for t in outputs]
        return volumes[0], volumes[1] if len(volumes) > 1 else None
