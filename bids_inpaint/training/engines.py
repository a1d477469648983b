"""The engines that can be trained: a new one is a file with its ``ENGINE``, and its entry here."""

from __future__ import annotations

from pathlib import Path

from bids_inpaint.training import adversarial, diffusion, inpainting, joint
from bids_inpaint.training.architectures import Architecture
from bids_inpaint.training.config import Config
from bids_inpaint.training.task import Engine, Task

#: By name, as configurations have it.
ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (inpainting.ENGINE, diffusion.ENGINE, adversarial.ENGINE, joint.ENGINE)
}


def engine_of(config: Config) -> Engine:
    """The engine of a configuration.

    Raises
    ------
    ValueError
        If it can't be trained for the configuration's task, or can't be blind but is to be.
    """
    engine = ENGINES.get(config.engine)
    if engine is None or config.task not in engine.tasks:
        raise ValueError(f"engine {config.engine} can't be trained for task {config.task}")
    if config.blind and not engine.may_be_blind:
        raise ValueError(f"engine {config.engine} is not blind: set blind = false")
    return engine


def build(config: Config) -> Architecture:
    """The network of a configuration, untrained.

    Raises
    ------
    ValueError
        See :func:`engine_of`.
    """
    return engine_of(config).architecture(**config.network)


def task_type(config: Config) -> type[Task]:
    """The kind of task of a configuration.

    Raises
    ------
    ValueError
        See :func:`engine_of`.
    """
    return engine_of(config).tasks[config.task]


def make_task(config: Config, cache: Path, lesions: Path | None) -> Task:
    """The task of a configuration, with its samples and its loss.

    Parameters
    ----------
    config : Config
    cache : Path
        Made by ``prepare``, or the folder of the head label maps to learn brain extraction from.
    lesions : Path, optional
        Folder of the lesion shapes, which all but brain extraction needs.

    Raises
    ------
    ValueError
        If `lesions` is needed but missing, or the engine can't do the task: see :func:`engine_of`.
    """
    return task_type(config)(config, cache, lesions)
