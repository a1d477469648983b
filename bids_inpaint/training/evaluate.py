"""Scores of an inpainting network on painted lesions of subjects kept apart, where the truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint import options
from bids_inpaint.imaging import feathering, lesions
from bids_inpaint.imaging.fidelity import filling_scores, psnr
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.networks.card import Filled
from bids_inpaint.networks.selection import rule_of
from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training.calibration import Counts, Scan, reliability
from bids_inpaint.training.config import Config, individual, person
from bids_inpaint.training.data import Lesions, Subject, subjects, template_priors, white_by_intensity
from bids_inpaint.training.painted import painted
from bids_inpaint.training.painters import PAINTERS, RealLesions
from bids_inpaint.training.pictures import View, draw_reliability, draw_slices, worst_slice
from bids_inpaint.training.scored import Scored, Sweep, map_scores, suggest_threshold, tabulate

#: λ that lesion maps are scored at.
THRESHOLDS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2)
#: Lesion probabilities that lesion maps are scored at.
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
#: A lesion voxel that is not darker than this fraction of white matter, at standard contrast, is not visible.
VISIBLE = 0.9
#: Smaller lesions are not mapped, as in the app.
SMALLEST_MM3 = options.LESION_MIN_VOLUME


def evaluate(
    scorer: Scorer,
    people: Sequence[Subject],
    output: Path | None = None,
    figure: Path | None = None,
    diagram: Path | None = None,
) -> dict[str, Any]:
    """Score a network and print a table.

    Every healthy subject is scored once with painted lesions and once as it is. Of patients with a lesion
    mask the lesion maps are scored. A non-blind network gets the mask, and has no lesion map.

    Parameters
    ----------
    scorer : Scorer
    people : sequence of Subject
    output : Path, optional
        JSON file for the scores.
    figure : Path, optional
        Image file for the three painted subjects with the largest error.
    diagram : Path, optional
        Image file for the reliability diagram of the lesion probability.

    Returns
    -------
    dict
        Mean and standard deviation of each score, and the subjects; those of the patients under ``patients``.
        Of a blind network there are

        ``threshold_sweep``, ``calibrated_threshold``
            Scores of the map of the difference by λ, and the λ they suggest. The lesions are those in white
            matter, where this map looks.
        ``probability_sweep``
            Scores of the map of the lesion probability by the least probability, against all lesions, if the
            network tells it.
        ``maps``
            Scores of the ``difference`` and of the ``probability`` as the app maps lesions, against all
            lesions.
        ``reliability``
            Of the probability: see :class:`bids_inpaint.training.calibration.Reliability`.
    """
    healthy = [s for s in people if not s.patient]
    scores = {"painter": scorer.painter} | tabulate(healthy, [scorer.painted(s) for s in healthy])
    if scorer.model.blind:
        scores["calibrated_threshold"] = suggest_threshold(scores["threshold_sweep"])
    if patients := [s for s in people if s.patient and scorer.model.blind]:
        scores["patients"] = tabulate(patients, [scorer.patient(s) for s in patients])
    print(json.dumps(scores, indent=1))
    if output:
        output.write_text(json.dumps(scores, indent=1) + "\n")
    if figure:
        worst = sorted(scorer.views, key=lambda view: -view[0])[:3]
        draw_slices(figure, [view for _, view in worst])
    if diagram:
        told = {"painted lesions": scores, "patients": scores.get("patients", {})}
        draw_reliability(
            diagram,
            {name: table["reliability"]["bins"] for name, table in told.items() if "reliability" in table},
        )
    return scores


class Scorer:
    """A network, and what is needed to score it.

    Parameters
    ----------
    config : Config
        Names the patients that lend their lesions: those that nobody learned from, and who are not tested.
    cache, shapes_folder : Path
    model_name : str
        Shipped name or ONNX file.
    threads : int
        Of the CPU.
    second_pass : str
        Shipped name or ONNX file of the non-blind network that fills again what a blind one maps as lesions.
    painter : str
        Paints the lesions: one of :data:`bids_inpaint.training.painters.PAINTERS`. Those that need real
        lesions take them from all patients in the cache who have a lesion-free target, but for those of the
        test.

    Attributes
    ----------
    views : list of (float, View)
        Error and picture of each painted subject.

    Raises
    ------
    ValueError
        If the painter needs patients, and there are none.
    """

    def __init__(
        self,
        config: Config,
        cache: Path,
        shapes_folder: Path,
        model_name: str,
        threads: int,
        second_pass: str = "none",
        painter: str = "parametric",
    ):
        self.model = registry.find(model_name)
        self.second = registry.find(second_pass) if self.model.blind and second_pass != "none" else None
        self.runtime = session.Runtime(threads=threads)
        tested = {person(name) for name in config.data.test}
        lenders = [name for name in config.data.lenders if name not in tested]
        self.shapes = Lesions.load(shapes_folder, only=lenders)
        self.painter = painter
        self.real = real_lesions(cache, config.data.test) if PAINTERS[painter].real else None
        if self.real and not self.real.components:
            raise ValueError(f"painter {painter} needs patients with a lesion-free target in {cache}")
        # the standard space, for the intensity scale
        self.priors = template_priors(cache)
        self.views: list[tuple[float, View]] = []

    def fill(self, image: np.ndarray, lesion: np.ndarray) -> tuple[Filled, Scale]:
        """The inpainted image (of a non-blind network, inside the lesion mask), and the intensity scale."""
        mask = image > 0
        scale = Scale.measure(image, mask, *self.priors)
        out = inpainting.inpaint(self.model, image, mask, scale, lesion, self.runtime, self.priors)
        if self.second:
            found = self.lesion_map(image, out, scale)
            out = inpainting.fill_again(self.second, out, found, mask, scale, self.runtime, self.priors)
        return out, scale

    def lesion_map(
        self, image: np.ndarray, filled: Filled, scale: Scale, kind: str | None = None
    ) -> np.ndarray:
        """The lesion map of a blind network by the limits of its card, as in the app or of a kind, bool."""
        rule = rule_of(self.model.card, SMALLEST_MM3, kind)
        return inpainting.found(filled, image, scale, self.priors[0], rule, WORKING_GRID)

    def scan(self, name: str, image: np.ndarray, truth: np.ndarray) -> Scan:
        """What the network tells of an image of a subject, without the calibration of its card.

        Raises
        ------
        ValueError
            If it tells nothing.
        """
        told = self.model.card.lesion_probability
        if told is None:
            raise ValueError(f"network {self.model.name} tells no lesion probability")
        card = replace(self.model.card, lesion_probability=replace(told, slope=1.0, intercept=0.0))
        mask, model = image > 0, replace(self.model, card=card)
        scale = Scale.measure(image, mask, *self.priors)
        filled = inpainting.inpaint(model, image, mask, scale, None, self.runtime, self.priors)
        assert filled.probability is not None
        return Scan.of(individual(name), filled.probability, truth, mask)

    def painted(self, subject: Subject) -> Scored:
        """Scores inside painted lesions and of the healthy image, and those of lesion maps."""
        healthy = np.asarray(subject.image, np.float32)
        mask = healthy > 0
        lesioned, support = painted(subject, self.shapes, self.painter, self.real)
        truth = support > 0.5
        out, scale = self.fill(lesioned, truth)
        filled = out.image
        peak = float(healthy.max())
        voided = np.where(inpainting.to_fill(truth), 0, healthy)
        row = asdict(filling_scores(filled, healthy, lesioned, truth))
        row |= {
            "volume_ml": float(truth.sum() / 1000),
            "whole_psnr": psnr(filled[mask], healthy[mask], peak),
            "lesioned_psnr": psnr(lesioned[mask], healthy[mask], peak),
            "voided_psnr": psnr(voided[mask], healthy[mask], peak),
            "whole_correlation": float(np.corrcoef(filled[mask], healthy[mask])[0, 1]),
        }
        title = f"{subject.name}: RMSE {row['rmse']:.3f}, gain {row['gain']:.1f} dB, SSIM {row['ssim']:.2f}"
        self.views.append((row["rmse"], (title, worst_slice(healthy, lesioned, filled, truth))))
        if not self.model.blind:
            return Scored(row)
        confined = feathering.confine(lesioned, filled, self.lesion_map(lesioned, out, scale), WORKING_GRID)
        row["confined_psnr"] = psnr(confined[mask], healthy[mask], peak)
        clean, clean_scale = self.fill(healthy, np.zeros_like(mask))
        row["healthy_psnr"] = psnr(clean.image[mask], healthy[mask], peak)
        # as in the app, the difference is looked at where the inpainted image is white matter
        visible = truth & white_by_intensity(healthy, subject)
        one = self._scored(lesioned, out, scale, white_by_intensity(filled, subject), truth, visible)
        nothing, white = np.zeros_like(mask), white_by_intensity(clean.image, subject)
        other = self._scored(healthy, clean, clean_scale, white, nothing, nothing)
        sweeps = {
            name: {
                key: values | {"false_ml": other.sweeps[name][key]["volume_error_ml"]}
                for key, values in sweep.items()
            }
            for name, sweep in one.sweeps.items()
        }
        return Scored(row | one.row, sweeps, one.counts + other.counts)

    def patient(self, subject: Subject) -> Scored:
        """Scores of lesion maps, and what of the lesions can be seen at all."""
        image, lesion = np.asarray(subject.image, np.float32), np.asarray(subject.lesions)
        filled, scale = self.fill(image, lesion)
        white = white_by_intensity(filled.image, subject)
        standard = scale.apply(image)
        level = np.median(standard[white & ~lesion])
        visible = float((standard[lesion] < VISIBLE * level).mean())
        row = {
            "volume_ml": float(lesion.sum() / 1000),
            "visible_share": visible,
            "dice_ceiling": 2 * visible / (1 + visible),
        }
        scored = self._scored(image, filled, scale, white, lesion, lesion)
        return replace(scored, row=row | scored.row)

    def _scored(
        self,
        image: np.ndarray,
        filled: Filled,
        scale: Scale,
        white: np.ndarray,
        truth: np.ndarray,
        visible: np.ndarray,
    ) -> Scored:
        """Scores of all lesion maps of an image.

        Parameters
        ----------
        image : array
            What the network got.
        filled : Filled
            What it made of it.
        scale : Scale
            Of `image`.
        white : array of bool
            White matter of the inpainted image.
        truth, visible : array of bool
            The lesions, and those in white matter, which alone the sweep of the difference is about.
        """
        sweeps = {"threshold_sweep": self.sweep(image, filled.image, scale, white, visible)}
        kinds, row, counts = ["difference"], {}, []
        if (told := filled.probability) is not None:
            kinds.append("probability")
            least = lesions.least_voxels(SMALLEST_MM3, WORKING_GRID)
            sweeps["probability_sweep"] = {
                str(p): map_scores(lesions.remove_small(told >= p, least), truth) for p in PROBABILITIES
            }
            counts.append(Counts.of(Scan.of("", told, truth, image > 0)))
            row["ece"] = reliability({"": counts[0]}).ece
        sweeps["maps"] = {
            kind: map_scores(self.lesion_map(image, filled, scale, kind), truth) for kind in kinds
        }
        return Scored(row, sweeps, counts)

    def sweep(
        self, image: np.ndarray, filled: np.ndarray, scale: Scale, white: np.ndarray, truth: np.ndarray
    ) -> Sweep:
        """Scores of the map of the difference at each λ.

        Parameters
        ----------
        image, filled : array
            What the network got and what it made of it, white matter 1.
        scale : Scale
            Of `image`.
        white, truth : array of bool
            White matter of `filled`, and the lesions.
        """
        region = lesions.search_region(white, self.priors[0], WORKING_GRID)
        dark = lesions.darkening(scale.apply(image), scale.apply(filled), white.astype(np.float32))
        least = lesions.least_voxels(SMALLEST_MM3, WORKING_GRID)
        return {
            str(t): map_scores(lesions.lesion_map(lesions.probability(dark, region, t), least), truth)
            for t in THRESHOLDS
        }


def real_lesions(cache: Path, without: Sequence[str] = ()) -> RealLesions:
    """Lesions of the patients in the cache who have a lesion-free target, but for some people.

    Parameters
    ----------
    cache : Path
    without : sequence of str
        Subjects whose people lend nothing.
    """
    people = {person(name) for name in without}
    patients = [s for s in subjects(cache) if s.patient and (s.folder / "target.npy").exists()]
    return RealLesions([s for s in patients if person(s.name) not in people])
