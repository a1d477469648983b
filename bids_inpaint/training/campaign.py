"""Several networks within a time budget, side by side, by a plan."""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bids_inpaint.training.config import Config

#: Part of the time that is kept for starting processes and reading brains.
SPARE = 0.08


@dataclass(frozen=True)
class Entry:
    """A network of a plan.

    Attributes
    ----------
    name : str
        Of its run.
    config : str
        TOML file (beside the plan), or name of a shipped configuration.
    share : float
        Of the time, in any unit.
    after : str
        Run whose last weights it starts from.
    leave_out : list of str
        Subjects and patients that it does not train on, neither on their images nor on their lesions' shapes;
        those that it would have are validated on.
    synthesis, fit, adversarial, network : dict
        What is other than in these tables of the configuration.
    """

    name: str
    config: str
    share: float = 1.0
    after: str = ""
    leave_out: list[str] = field(default_factory=list)
    synthesis: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    adversarial: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """What a campaign runs on: device, networks at a time, and processes that draw samples for each."""

    device: str = "cpu"
    jobs: int = 1
    workers: int = 1
    threads: int = 2


def read_plan(path: Path) -> list[Entry]:
    """Read a plan: tables ``[[network]]``.

    Raises
    ------
    ValueError
        If a key is unknown, a name occurs twice, or a network starts from one that is not before it.
    """
    raw = tomllib.loads(path.read_text())
    try:
        entries = [Entry(**table) for table in raw.pop("network", [])]
    except TypeError as error:
        raise ValueError(f"{path}: {error}; the keys are {', '.join(Entry.__dataclass_fields__)}") from None
    if raw or not entries:
        raise ValueError(f"{path}: a plan has tables [[network]] and nothing else")
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen or (entry.after and entry.after not in seen) or not entry.share > 0:
            raise ValueError(
                f"{path}: {entry.name} is there twice, has a share that is not above 0, "
                "or starts from what is not before it"
            )
        seen.add(entry.name)
    return entries


def is_plan(path: Path) -> bool:
    """Whether a TOML file is a plan, and not a configuration."""
    return path.is_file() and isinstance(tomllib.loads(path.read_text()).get("network"), list)


def configured(entry: Entry, plan: Path, out: Path, without: Path | None = None) -> Config:
    """The configuration of a network of a plan.

    Parameters
    ----------
    entry : Entry
    plan, out : Path
        The plan, and where the runs go.
    without : Path, optional
        Folder of blind networks: see :class:`bids_inpaint.training.config.Data`.

    Raises
    ------
    ValueError
        If the configuration is none, or does not have whom the network is to leave out.
    """
    beside = plan.parent / entry.config
    config = Config.load(beside if beside.exists() else entry.config)
    data = config.data
    known = {*data.train, *data.validation, *data.test}
    if unknown := [name for name in entry.leave_out if name not in known]:
        raise ValueError(
            f"{plan}: {entry.name} leaves out {', '.join(unknown)}, whom {entry.config} doesn't have"
        )
    data = data.leaving_out(entry.leave_out, "validation")
    if without:
        data = replace(data, without=str(without))
    start = str(out / entry.after / "checkpoint.pt") if entry.after else config.schedule.start
    try:
        schedule = replace(config.schedule, **{"start": start, **entry.fit})
        synthesis = replace(config.synthesis, **entry.synthesis)
        losses = replace(config.adversarial, **entry.adversarial)
    except TypeError as error:
        raise ValueError(f"{plan}: {entry.name}: {error}") from None
    network = {**config.network, **entry.network}
    return replace(
        config, data=data, schedule=schedule, synthesis=synthesis, adversarial=losses, network=network
    )


def durations(entries: Sequence[Entry], minutes: float, jobs: int) -> dict[str, float]:
    """Minutes that each network gets, so that all are done in time.

    Examples
    --------
    >>> plan = [Entry("a", "x", 2), Entry("b", "x", 1, after="a"), Entry("c", "x", 3)]
    >>> {name: round(m, 2) for name, m in durations(plan, 10 / (1 - SPARE), 2).items()}
    {'a': 6.67, 'b': 3.33, 'c': 10.0}
    """
    waiting, running, ends, now = list(entries), list[float](), dict[str, float](), 0.0
    while waiting:
        ready = [e for e in waiting if not e.after or ends.get(e.after, float("inf")) <= now]
        for entry in ready[: jobs - len(running)]:
            waiting.remove(entry)
            ends[entry.name] = now + entry.share
            heapq.heappush(running, ends[entry.name])
        now = heapq.heappop(running)
        while running and running[0] <= now:
            heapq.heappop(running)
    unit = minutes * (1 - SPARE) / max(ends.values())
    return {entry.name: entry.share * unit for entry in entries}


def campaign(
    plan: Path,
    cache: Path,
    out: Path,
    lesions: Path | None,
    minutes: float,
    machine: Machine,
    without: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Train the networks of a plan; those that are trained already stay as they are.

    Parameters
    ----------
    plan, cache : Path
    out : Path
        Where the runs go, a folder each; a campaign that was interrupted goes on there.
    lesions : Path, optional
        Folder of the lesion shapes.
    minutes : float
        For all of them.
    machine : Machine
    without : Path, optional
        Folder of blind networks that learned nothing from a person, for networks that see their output.

    Returns
    -------
    dict
        The last scores of each network on its validation subjects.

    Raises
    ------
    ValueError
        If the plan is none, or a network could not be trained; the others are.
    """
    entries = read_plan(plan)
    configs = {entry.name: configured(entry, plan, out, without) for entry in entries}
    budget = durations(entries, minutes, machine.jobs)
    waiting, running = list(entries), dict[str, subprocess.Popen[bytes]]()
    done, failed = set[str](), list[str]()
    try:
        while waiting or running:
            for name in [n for n, process in running.items() if process.poll() is not None]:
                ended = "failed" if running.pop(name).returncode else "done"
                (failed.append if ended == "failed" else done.add)(name)
                print(f"{name}: {ended}", flush=True)
            failed += [e.name for e in waiting if e.after in failed]
            waiting = [e for e in waiting if e.name not in failed]
            ready = [e for e in waiting if not e.after or e.after in done]
            for entry in ready[: machine.jobs - len(running)]:
                waiting.remove(entry)
                config, time_left = configs[entry.name], budget[entry.name]
                running[entry.name] = _start(config, cache, out / entry.name, lesions, time_left, machine)
            time.sleep(0.2)
    finally:
        # what is interrupted goes on from its checkpoint the next time
        for process in running.values():
            process.terminate()
    if failed:
        raise ValueError(f"{', '.join(failed)} could not be trained: see the log files in {out}")
    return {e.name: _last_scores(out / e.name) for e in entries}


def _start(
    config: Config, cache: Path, run: Path, lesions: Path | None, minutes: float, machine: Machine
) -> subprocess.Popen[bytes]:
    """Start the training of a network in a process of its own; its configuration and log are in its run."""
    run.mkdir(parents=True, exist_ok=True)
    config.save(run / "config.toml")
    command = [
        sys.executable,
        "-m",
        "bids_inpaint.training",
        "fit",
        str(run / "config.toml"),
        str(cache),
        str(run),
    ]
    command += ["--minutes", f"{minutes:.3f}", "--device", machine.device]
    command += ["--threads", str(machine.threads), "--workers", str(machine.workers)]
    command += ["--lesions", str(lesions)] if lesions else []
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _last_scores(run: Path) -> dict[str, float]:
    path = run / "validation.jsonl"
    return json.loads(path.read_text().splitlines()[-1]) if path.exists() else {}
