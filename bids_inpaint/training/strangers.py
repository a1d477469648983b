"""Blind networks that learned nothing from a person, for what another network sees of their output."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from bids_inpaint.networks import registry
from bids_inpaint.networks.card import Model
from bids_inpaint.training.config import Config, individual, person


class Strangers:
    """The blind network whose output a network for 'flair' sees of each subject.

    A blind network is surer of people whom it learned from than of strangers, whom it meets in use. So what
    is seen of a person comes from ``PERSON.onnx`` in the folder ``data.without`` of the configuration, if
    there is one, and else from the shipped network that the configuration names.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config):
        self.inpainter = str(config.network.get("inpainter", ""))
        self.folder = config.data.without
        self._own: dict[str, Model] = {}

    @cached_property
    def shipped(self) -> Model | None:
        """The one that the configuration names, if it names one."""
        return registry.find(self.inpainter) if self.inpainter else None

    def of(self, name: str) -> Model | None:
        """The network that sees a subject of the cache; None if the configuration wants none.

        Raises
        ------
        ValueError
            If a network of the folder learned from the person that it is called after.
        """
        path = Path(self.folder) / f"{person(name)}.onnx"
        if not self.inpainter or not self.folder or not path.exists():
            return self.shipped
        if str(path) not in self._own:
            self._own[str(path)] = registry.find(str(path))
        own = self._own[str(path)]
        if learned_from(own, name):
            raise ValueError(f"{path} learned from {name}: it is not a network without this person")
        return own

    def check(self, names: Iterable[str]) -> None:
        """Refuse people from whom the network learned that is to see them as strangers.

        Raises
        ------
        ValueError
            If there is one.
        """
        for name in names:
            blind = self.of(name)
            if blind and learned_from(blind, name):
                raise ValueError(
                    f"{blind.name} learned from {name}, and sees more there than in strangers: put a network "
                    f"that did not into a folder as {person(name)}.onnx, and name the folder by --without"
                )


def learned_from(blind: Model, name: str) -> bool:
    """Whether a network learned from a person, by its card; if the card doesn't say, it may have."""
    data = blind.card.more.get("data")
    train = data.get("train") if isinstance(data, dict) else None
    return train is None or individual(name) in {individual(subject) for subject in train}
