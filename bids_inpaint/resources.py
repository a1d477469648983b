"""What this process may use of the machine: processors and memory.

The tightest of what the kernel, a container (cgroups) and a scheduler allow counts. None of what is read here
is worth an error: what can't be understood is no limit.
"""

from __future__ import annotations

import math
import os
import resource
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

GIB = 2**30

#: Variable that each job of a scheduler has, and those of its processors: the first that is set counts.
_SCHEDULERS = {
    "SLURM_JOB_ID": ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    "PBS_JOBID": ("NCPUS", "PBS_NUM_PPN"),
    "SGE_TASK_ID": ("NSLOTS",),
    "LSB_JOBID": ("LSB_DJOB_NUMPROC",),
}


#: What helps where no process can be started, as the end of a sentence.
NO_PROCESS = (
    "raise the limit (ulimit -u, or pids.max of the container), or run again with a smaller --nprocs."
)


def cpus(root: str | os.PathLike = "/", environ: Mapping[str, str] = os.environ) -> int:
    """Processors this process may use, at least 1.

    Parameters
    ----------
    root : path
        Where ``proc`` and the mounts of cgroups are, for tests.
    environ : mapping
        Variables of the scheduler.

    Returns
    -------
    int
        The least of: those it may be scheduled on; the quota of its cgroup and of those around it, rounded
        up; those that SLURM, PBS, SGE or LSF gave the job.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(share) for share in _cpu_quotas(Path(root))]
    granted = _granted_cpus(environ)
    return max(min([available, *quotas, *([granted] if granted else [])]), 1)


def memory_gb(root: str | os.PathLike = "/", environ: Mapping[str, str] = os.environ) -> float:
    """Memory this process and its workers may use, in GiB, as Nipype counts.

    Parameters
    ----------
    root : path
        Where ``proc`` and the mounts of cgroups are, for tests.
    environ : mapping
        Variables of the scheduler.

    Returns
    -------
    float
        The least of: the machine's memory; the limit of its cgroup and of those around it; what SLURM gave
        the job; the limit of a process' address space (``ulimit -v``), by which SGE limits a job.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    limits += [
        n for folder in _cgroups(Path(root), "memory") for name in names if (n := _read(folder / name))
    ]
    if "SLURM_JOB_ID" in environ:
        # in megabytes; 0 is all of the node's
        a_node = _number(environ.get("SLURM_MEM_PER_NODE"))
        a_cpu = _number(environ.get("SLURM_MEM_PER_CPU"))
        limits += [n << 20 for n in (a_node, a_cpu * (_granted_cpus(environ) or 1)) if n]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits) / GIB


def startable(wanted: int) -> int:
    """How many of so many processes or threads can be started (``ulimit -u``, ``pids.max`` of a container).

    It is tried with threads: what counts for the limits is seen by nobody inside a container.
    """
    end = threading.Event()
    started: list[threading.Thread] = []
    usual = threading.stack_size(256 << 10)
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        threading.stack_size(usual)
        end.set()
        for thread in started:
            thread.join()
    return len(started)


def _granted_cpus(environ: Mapping[str, str]) -> int:
    """Processors of a scheduler's job, or 0."""
    for job, names in _SCHEDULERS.items():
        if job in environ:
            return next((n for name in names if (n := _number(environ.get(name)))), 0)
    return 0


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroups(root, "cpu"):
        # version 2: '150000 100000' or 'max 100000'
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        pairs = [(_number(quota), _number(period))]
        # version 1: -1 is no limit
        pairs.append((_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
        yield from (quota / period for quota, period in pairs if quota and period)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the cgroup of this process and those around it, as far as they are seen here.

    Of version 2 and of the hierarchy of version 1 with the controller, as some systems have both.
    """
    memberships = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        # 4:memory:/slurm/job_1 or, in version 2, 0::/slurm/job_1
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        memberships.update(dict.fromkeys(controllers.split(","), path))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        # 31 23 0:26 /docker/1 /sys/fs/cgroup/memory ro,nosuid shared:5 - cgroup cgroup rw,memory
        before, _, after = line.partition(" - ")
        fields, kind, options = before.split(" "), after.split(" ")[0], after.split(" ")[-1]
        if len(fields) < 5 or not (
            kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))
        ):
            continue
        path = memberships.get("" if kind == "cgroup2" else controller, "/")
        mount = root / fields[4].lstrip("/")
        inside = PurePosixPath(path)
        # a container that sees only its own part has the path as seen from outside
        folder = mount / inside.relative_to(fields[3]) if inside.is_relative_to(fields[3]) else mount
        while True:
            yield folder
            if folder == mount or mount not in folder.parents:
                break
            folder = folder.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _read(path: Path) -> int:
    return _number(_text(path))


def _number(text: str | None) -> int:
    """A number that limits something, or 0: 'max', -1, nothing and nonsense do not."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
