"""The networks of a run, as its options choose them."""

from __future__ import annotations

from dataclasses import dataclass

from bids_inpaint import options
from bids_inpaint.errors import InputError
from bids_inpaint.imaging.lesions import Rule
from bids_inpaint.networks import registry
from bids_inpaint.networks.card import Card, Model
from bids_inpaint.settings import Settings


@dataclass(frozen=True)
class Networks:
    """The networks of a run.

    Attributes
    ----------
    main : Model
        Makes the inpainted image: from the T1w alone if it is blind, else from given lesion masks.
    second : Model, optional
        Non-blind; fills again what a blind one found.
    second_alone : bool
        Whether the second filling is the result, not the mean of both.
    reference : Model, optional
        Fills the lesions of given masks, beside what a blind network does.
    flair : Model, optional
        Makes a FLAIR and a lesion map of each T1w that has none beside it.
    by_flair : Model, optional
        The blind network that tells lesions by a T1w and a real FLAIR together.
    """

    main: Model
    second: Model | None = None
    second_alone: bool = False
    reference: Model | None = None
    flair: Model | None = None
    by_flair: Model | None = None

    @classmethod
    def of(cls, settings: Settings) -> Networks:
        """Look up the networks of a run.

        A network that needs masks, and is given none, fills what the default network finds.

        Raises
        ------
        InputError
            If one can't be used, or doesn't fit the options.
        """
        main, second, second_alone = registry.find(settings.model), None, False
        if not main.blind and not settings.lesion_masks:
            main, second, second_alone = registry.find(registry.DEFAULT), main, True
        elif main.blind and settings.second_pass != options.NO_SECOND_PASS:
            second = registry.find(settings.second_pass)
            if second.blind:
                raise InputError(
                    f"Network {second.name} of --second-pass is blind: name one that fills masks, or 'none'."
                )
        draws = main.engine.draws or (second is not None and second.engine.draws)
        if (settings.sampler or settings.sampling_steps) and not draws:
            raise InputError(
                "--sampler and --sampling-steps are for diffusion models alone: leave them out, or choose "
                "one with --model ddpm."
            )
        if settings.tta and any(model and model.engine.slices for model in (main, second)):
            raise InputError(
                "--tta is not for networks that fill slices, which see the other side anyway: leave it out, "
                "or choose another network."
            )
        if settings.edits and not main.blind:
            raise InputError(
                f"--edits corrects the maps of a blind network, and {main.name} fills the masks of "
                "--lesion-masks: correct these masks, or leave --model out."
            )
        if settings.edits and second is None:
            raise InputError(
                "--edits needs a non-blind network for the lesions that were added: leave out --second-pass."
            )
        reference = registry.find(registry.REFERENCE) if settings.lesion_masks and main.blind else None
        flair = registry.find(settings.flair, "flair") if settings.flair else None
        by_flair = None
        if flair:
            by_flair = main if main.card.lesion_by_flair else registry.find(registry.DEFAULT)
        networks = cls(main, second, second_alone, reference, flair, by_flair)
        rule = networks.rule(settings)
        if settings.longitudinal and not (main.blind and rule.kind == "probability"):
            raise InputError(
                "--longitudinal needs a blind network and lesion maps by its probability: leave it out, or "
                f"leave out {'--lesion-map difference and --lesion-threshold' if main.blind else '--model'}."
            )
        return networks

    def rule(self, settings: Settings) -> Rule:
        """What counts as a lesion in a run: what is asked for, or by the network's own limits.

        Raises
        ------
        InputError
            If the network does not tell the probability that is asked for.
        """
        asked = settings.lesion_map, settings.lesion_threshold
        return rule_of(self.main.card, settings.lesion_min_volume, *asked)


def rule_of(card: Card, min_volume: float, kind: str | None = None, threshold: float | None = None) -> Rule:
    """What counts as a lesion that a network found, by what is asked for or by the network's own limits.

    Parameters
    ----------
    card : Card
    min_volume : float
        Of a lesion, in mm³.
    kind : {'probability', 'difference'}, optional
        The probability by default, if the network tells it and no threshold is given: alone, it is that of
        version 0.1, which knew the difference alone.
    threshold : float, optional

    Raises
    ------
    InputError
        If the network does not tell the probability that is asked for.
    """
    told = card.lesion_probability
    kind = kind or ("probability" if told and threshold is None else "difference")
    if kind == "difference":
        return Rule(kind, threshold or card.threshold, 0.0, min_volume)
    if told is None:
        raise InputError(
            f"Network {card.name} tells no lesion probability: leave out --lesion-map probability, or use a "
            "blind network that tells it."
        )
    threshold = threshold or told.threshold
    # the volumes were measured with the levels of the card
    volumes = card.lesion_volume if threshold == told.threshold else None
    return Rule(kind, threshold, min(told.low, threshold), min_volume, volumes)
