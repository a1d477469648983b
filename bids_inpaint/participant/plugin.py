"""Running a graph on this machine: image by image, quietly, and no hang when a worker dies."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import shlex
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context
from typing import Any

import yaml
from nipype.pipeline import plugins
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer

from bids_inpaint import resources
from bids_inpaint.dataset.outputs import image_of
from bids_inpaint.errors import InputError, WorkerKilled, first_line, unreadable
from bids_inpaint.io.files import discard_unfinished
from bids_inpaint.settings import Settings

log = logging.getLogger("bids_inpaint")

NIPYPE_LOGGERS = ("nipype.workflow", "nipype.interface", "nipype.utils")


#: What the steps import, some seconds' worth: once, before the workers are forked.
PRELOADED = [
    "ants",
    "contourpy",
    "PIL.Image",
    "bids_inpaint.imaging.itk",
    "bids_inpaint.imaging.multimodal",
    "bids_inpaint.interfaces.ants",
    "bids_inpaint.interfaces.bias",
    "bids_inpaint.interfaces.derivatives",
    "bids_inpaint.interfaces.figures",
    "bids_inpaint.interfaces.images",
    "bids_inpaint.interfaces.flair",
    "bids_inpaint.interfaces.inpaint",
    "bids_inpaint.interfaces.lesions",
    "bids_inpaint.interfaces.mixture",
    "bids_inpaint.interfaces.native",
    "bids_inpaint.interfaces.quality",
    "bids_inpaint.interfaces.spm",
    "bids_inpaint.interfaces.agreement",
    "bids_inpaint.interfaces.visits",
]


#: Seconds between two looks at the work, where no worker said that it is done.
_LOOK = 0.2
#: Processes and threads of a run beside its workers, and of each worker with what it starts, rounded up.
_TASKS, _TASKS_A_WORKER = 8, 6


def prepare_workers() -> None:
    """Begin the imports of the workers to come, in the background.

    Raises
    ------
    InputError
        If no process can be started.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    try:
        forkserver.ensure_running()
    except OSError as error:
        raise InputError(f"No process can be started ({error.strerror}): {resources.NO_PROCESS}") from None


def choose(settings: Settings, level: int) -> tuple[Any, dict]:
    """Nipype plugin and its arguments: ours on this machine, or the user's.

    Parameters
    ----------
    settings : Settings
    level : int
        Of Nipype's loggers in the workers.

    Raises
    ------
    InputError
        If the user's can't be used.
    """
    if settings.use_plugin is None:
        return ImageByImage, _share(settings) | {"log_level": level}
    # Nipype's batch plugins name jobs by it; containers and cron have none
    os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")
    remedy = "it needs 'plugin: NAME' and, if wanted, 'plugin_args: {…}'."
    try:
        content = yaml.safe_load(settings.use_plugin.read_text(encoding="utf-8"))
        plugin, args = content["plugin"], dict(content.get("plugin_args") or {})
    except OSError as error:
        raise InputError(f"Plugin file {settings.use_plugin} {unreadable(error)}") from None
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"Plugin file {settings.use_plugin} can't be used ({reason}): {remedy}") from None
    if not hasattr(plugins, f"{plugin}Plugin"):
        raise InputError(
            f"Plugin file {settings.use_plugin} names {plugin!r}, which Nipype does not have: {remedy}"
        )
    if plugin in ("MultiProc", "LegacyMultiProc"):
        # Nipype would take all that the host has
        args = _share(settings) | args
    elif plugin not in ("Linear", "Debug") and shlex.quote(str(settings.work_dir)) != str(settings.work_dir):
        # Nipype puts it into the command that submits a job as it is
        raise InputError(
            f"Work folder {settings.work_dir} has characters that mean something to a shell, which Nipype's "
            f"plugin {plugin} can't handle: name another with -w."
        )
    return plugin, args


def _share(settings: Settings) -> dict:
    """Processors and memory of a run on this machine, as Nipype's arguments."""
    memory = resources.memory_gb()
    for option, asked, unit, available in (
        ("--nprocs", settings.nprocs, "processors", resources.cpus()),
        ("--mem-gb", settings.mem_gb or 0, "GB", memory),
    ):
        if asked > available:
            log.warning(
                "%s %g is more than the %.4g %s that the machine, its container and the scheduler allow.",
                option, asked, available, unit,
            )  # fmt: skip
    workers = settings.nprocs
    possible = resources.startable(_TASKS + workers * _TASKS_A_WORKER)
    workers = min((possible - _TASKS) // _TASKS_A_WORKER, workers)
    if workers < 1:
        raise InputError(f"Only {possible} processes can be started: {resources.NO_PROCESS}")
    if workers < settings.nprocs:
        log.warning(
            "Only %d of %d processors are used, as only %d processes can be started (see ulimit -u, or "
            "pids.max of the container).", workers, settings.nprocs, possible,
        )  # fmt: skip
    return {
        "n_procs": workers,
        "memory_gb": settings.mem_gb or 0.9 * memory,
        # a step that asks for more than there is runs alone
        "raise_insufficient": False,
    }


def set_nipype_level(level: int) -> None:
    """Let Nipype's loggers of this process say what is at least this urgent."""
    from nipype import logging as nipype_logging

    for name in NIPYPE_LOGGERS:
        logger = nipype_logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False


def _begin_worker(cwd: str, level: int) -> None:
    process_initializer(cwd)
    set_nipype_level(level)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(scheduler) -> None:
    """End this worker when its scheduler is killed: it would wait for work for ever."""
    scheduler.join()
    for child in multiprocessing.active_children():
        child.kill()
    discard_unfinished()
    os._exit(1)


class ImageByImage(MultiProcPlugin):
    """Nipype's MultiProc that finishes one image before it begins the next where it can.

    The order Nipype gives runs the first step of all images first, so that nothing would be finished
    until nearly everything is. A worker that is killed fails its steps; Nipype itself would wait for it
    for ever.

    Parameters
    ----------
    plugin_args : dict
        Of MultiProc, and ``log_level`` for Nipype's loggers in the workers.
    """

    def __init__(self, plugin_args: dict):
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)  # type: ignore[has-type]
        self.pool: ProcessPoolExecutor = self._new_pool()
        self._ended = threading.Event()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=_begin_worker,
            initargs=(os.getcwd(), self.plugin_args.get("log_level", logging.WARNING)),
            # libraries that have started threads don't survive a plain fork
            mp_context=get_context("forkserver"),
        )

    def run(self, graph, config, updatehash=False):
        """Run the graph.

        Nipype looks for garbage before each step, which with hundreds of images takes a second: it needn't
        look at the graph.
        """
        gc.freeze()
        try:
            return super().run(graph, config, updatehash=updatehash)
        finally:
            gc.unfreeze()

    def _send_procs_to_workers(self, updatehash=False, graph=None):
        """Submit what can begin, and wait until a step ends, where Nipype sleeps for some time."""
        super()._send_procs_to_workers(updatehash, graph)
        if self.pending_tasks:
            self._ended.wait(_LOOK)
            self._ended.clear()

    def _sort_jobs(self, jobids, scheduler="tsort"):
        return sorted(jobids, key=lambda job: (image_of(self.procs[job].fullname), job))

    def _submit_job(self, node, updatehash=False):
        try:
            return super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            # a worker was killed, which breaks its pool for good
            self.pool = self._new_pool()
            return super()._submit_job(node, updatehash)
        except (BlockingIOError, EOFError, ConnectionError, RuntimeError) as error:
            # the server that forks workers ended as it could not, or no thread could be started
            if isinstance(error, RuntimeError) and "thread" not in str(error):
                raise
            raise InputError(f"No worker process can be started ({error}): {resources.NO_PROCESS}") from None

    def _async_callback(self, args):
        try:
            self._note_result(args)
        finally:
            self._ended.set()

    def _note_result(self, args) -> None:
        error = args.exception()
        if error is None:
            super()._async_callback(args)
            return
        for task, future in list(self._task_obj.items()):
            if future is args:
                self._taskresult[task] = {
                    "result": None,
                    "traceback": [
                        "Traceback (most recent call last):\n",
                        f"{WorkerKilled.__name__}: probably for want of memory.\n"
                        if isinstance(error, BrokenProcessPool)
                        else f"{type(error).__name__}: {error}\n",
                    ],
                    "taskid": task,
                }
