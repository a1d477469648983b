"""Calls in processes of their own, with one thread.

ITK reads its number of threads at the first filter of a process, and can't change it later. With more than
one, filters give another result each time or by their number: registration and N4 add up in another order,
and the threads of the denoising filter write into each other's borders.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bids_inpaint.errors import WorkerKilled


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own, with one thread."""
    return each_alone(function, [args])[0]


def each_alone(function: Callable, calls: list[tuple]) -> list:
    """Make calls at the same time, each in a process of its own, with one thread."""
    # the script of a batch job does nothing but this step, and a spawned process would run it again
    in_batch_job = Path(sys.argv[0]).name.startswith("pyscript_")
    fork = in_batch_job or multiprocessing.parent_process() is not None
    if fork:
        # this process runs no filter itself, and what it imports once serves every step
        import ants  # noqa: F401
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    jobs: list = []
    try:
        for args in calls:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_answer, args=(sender, function, args))
            process.start()
            sender.close()
            jobs.append((process, receiver))
        return [_outcome(process, receiver) for process, receiver in jobs]
    finally:
        # where one failed, another would wait for ever for its answer to be taken
        for process, _ in jobs:
            process.kill()
            process.join()


def _answer(sender: Connection, function: Callable, args: tuple) -> None:
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    try:
        answer = function(*args)
    except Exception as error:
        answer = error
    sender.send(answer)


def _outcome(process: Any, receiver: Connection) -> Any:
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise WorkerKilled(
            f"a worker process was killed (exit code {process.exitcode}), probably for want of memory"
        ) from None
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer
