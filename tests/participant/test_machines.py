"""What a machine, its container, its scheduler and its locale allow, and folders with any name."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset, write_nifti

from bids_inpaint import cli, environment, resources
from bids_inpaint.environment import settle
from bids_inpaint.errors import InputError, is_utf8
from bids_inpaint.io import images
from bids_inpaint.participant import plugin
from bids_inpaint.participant.crashes import explain
from bids_inpaint.settings import Settings
from bids_inpaint.space import Grid

#: What means something to ANTs, a pattern, a format, a URL, a shell, a configuration file or a terminal.
ODD = 'a,b [c] 50% %02d d\'e #f? *g {h} "i" $j;\\ ~k é'

MANY = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A root folder with cgroups to fill, on a machine with many processors and no other limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))

    def make(membership: str, mounts: str, files: dict[str, str]) -> Path:
        for name, text in {
            "proc/self/cgroup": membership,
            "proc/self/mountinfo": mounts,
            **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_the_tightest_limit_of_nested_cgroups(machine):
    root = machine(
        "0::/slurm/job_1/step_0\n",
        V2,
        {
            "slurm/cpu.max": "max 100000\n",
            "slurm/job_1/cpu.max": "250000 100000\n",
            "slurm/job_1/step_0/cpu.max": "1600000 100000\n",
            "slurm/memory.max": "6442450944\n",
            "slurm/job_1/memory.max": "max\n",
            "slurm/job_1/memory.high": "4294967296\n",
            "slurm/job_1/step_0/memory.max": "8589934592\n",
        },
    )
    # two and a half processors can keep three busy
    assert resources.cpus(root, {}) == 3
    assert resources.memory_gb(root, {}) == 4


@pytest.mark.parametrize("seen_from", ["/", "/docker/ab"])
def test_limits_of_cgroups_of_version_1(machine, seen_from):
    """Docker shows a container its own part only, or all."""
    inside = "docker/ab/" if seen_from == "/" else ""
    root = machine(
        "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n",
        V1.format(root=seen_from),
        {
            f"cpu,cpuacct/{inside}cpu.cfs_quota_us": "150000\n",
            f"cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
            f"memory/{inside}memory.limit_in_bytes": "2147483648\n",
        },
    )
    assert resources.cpus(root, {}) == 2
    assert resources.memory_gb(root, {}) == 2


def test_no_limit_is_the_machine(machine):
    root = machine(
        "5:cpu,cpuacct:/\n4:memory:/\n0::/\n",
        V1.format(root="/"),
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert resources.cpus(root, {}) == 64
    assert resources.memory_gb(root, {}) == whole
    assert resources.memory_gb("/nonexistent", {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "0"}) == whole


@pytest.mark.parametrize("mounts", [V2, V1, "x - cgroup2", " - ", "1 2 0:28 / /sys/fs/cgroup rw - cgroup\n"])
@pytest.mark.parametrize("membership", ["0::/a", "0::/../../..", "0::/\0", ":::", "0", ""])
def test_nonsense_is_no_limit(machine, mounts, membership):
    names = ("cpu.max", "memory.max", "memory.high", "a/memory.max", "memory/memory.limit_in_bytes")
    variables = ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_CPU")
    for text in ("", "\0\xff", "-5 0", "max", "0 0", "nan nan", "²", "9" * 5000, "1e3 1 2"):
        root = machine(membership, mounts, dict.fromkeys(names, text))
        assert resources.cpus(root, dict.fromkeys(variables, text)) == 64
        assert resources.memory_gb(root, dict.fromkeys(variables, text)) > 1


@pytest.mark.parametrize(
    ("job", "processors"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "16"}, 4),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "6"}, 6),
        # left over in the shell of a login node
        ({"SLURM_CPUS_PER_TASK": "4"}, 64),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "128"}, 64),
        ({"PBS_JOBID": "7", "NCPUS": "3"}, 3),
        ({"SGE_TASK_ID": "undefined", "NSLOTS": "5"}, 5),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "2"}, 2),
    ],
)
def test_processors_of_a_job(machine, job, processors):
    assert resources.cpus(machine("", "", {}), job) == processors


@pytest.mark.parametrize(
    ("job", "gigabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "2048"}, 2),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_PER_TASK": "3"}, 1.5),
        ({"SLURM_MEM_PER_CPU": "1024"}, 1),
    ],
)
def test_memory_of_a_job(machine, job, gigabytes):
    root = machine("", "", {})
    assert resources.memory_gb(root, {"SLURM_JOB_ID": "7", **job}) == gigabytes
    assert resources.memory_gb(root, job) > gigabytes


@pytest.fixture
def settings(tmp_path):
    bids = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")

    def make(**options) -> Settings:
        return Settings(bids, tmp_path / "out", tmp_path / "work", **options)

    return make


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setattr(resources, "cpus", lambda: 3)
    monkeypatch.setattr(resources, "memory_gb", lambda: 10.0)


def test_a_run_takes_what_it_may(settings, allowed, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert settings().nprocs == 1
    _, args = plugin.choose(settings(nprocs=2), 50)
    assert (args["n_procs"], args["memory_gb"]) == (2, 9)


def test_more_than_there_is_is_warned_of(settings, allowed, caplog):
    with caplog.at_level(logging.WARNING):
        _, args = plugin.choose(settings(nprocs=4, mem_gb=12.5), 50)
    assert (args["n_procs"], args["memory_gb"]) == (4, 12.5)
    assert [r.getMessage().split(" that ")[0] for r in caplog.records] == [
        "--nprocs 4 is more than the 3 processors",
        "--mem-gb 12.5 is more than the 10 GB",
    ]


def test_plugins_of_this_machine_take_no_more_either(settings, allowed, tmp_path):
    file = tmp_path / "plugin.yml"
    file.write_text("plugin: MultiProc\nplugin_args: {n_procs: 1}\n")
    name, args = plugin.choose(settings(nprocs=3, use_plugin=file), 50)
    assert (name, args) == ("MultiProc", {"n_procs": 1, "memory_gb": 9, "raise_insufficient": False})
    file.write_text("plugin: SLURM\n")
    assert plugin.choose(settings(use_plugin=file), 50) == ("SLURM", {})


def test_work_folders_that_a_shell_would_take_apart_are_refused_for_jobs(tmp_path):
    bids = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    file = tmp_path / "plugin.yml"
    settings = Settings(bids, tmp_path / "out", tmp_path / "my work", use_plugin=file)
    file.write_text("plugin: SLURM\n")
    with pytest.raises(InputError, match="my work has characters that mean something to a shell"):
        plugin.choose(settings, 50)
    file.write_text("plugin: Linear\n")
    assert plugin.choose(settings, 50) == ("Linear", {})


def test_threads_of_steps_elsewhere_are_those_asked_for(settings, tmp_path):
    file = tmp_path / "slurm.yml"
    assert settings(nprocs=1, omp_nthreads=8, use_plugin=file).threads(100) == 8
    assert settings(nprocs=1, omp_nthreads=8).threads(100) == 1


def test_few_processes_are_fewer_workers_and_none_is_one_sentence(settings, allowed, monkeypatch):
    monkeypatch.setattr(resources, "startable", lambda wanted: min(wanted, 20))
    assert plugin.choose(settings(nprocs=3), 50)[1]["n_procs"] == 2
    monkeypatch.setattr(resources, "startable", lambda wanted: min(wanted, 5))
    with pytest.raises(InputError, match=r"Only 5 processes can be started: raise the limit \(ulimit -u"):
        plugin.choose(settings(nprocs=3), 50)


def test_what_can_be_started_is_tried(monkeypatch):
    before = threading.active_count()
    assert resources.startable(50) == 50
    start, begun = threading.Thread.start, []

    def limited(thread):
        if len(begun) == 7:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    assert resources.startable(50) == 7
    assert threading.active_count() == before


def test_a_server_of_workers_that_cannot_start_is_one_sentence(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    with pytest.raises(InputError, match="No process can be started"):
        plugin.prepare_workers()


@pytest.mark.parametrize(
    "error", [EOFError("unexpected EOF"), BlockingIOError(11, "?"), RuntimeError("can't start new thread")]
)
def test_a_worker_that_cannot_start_is_one_sentence(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(plugin.MultiProcPlugin, "_submit_job", refuse)
    with pytest.raises(InputError, match=r"No worker process can be started .*: raise the limit"):
        plugin.ImageByImage.__new__(plugin.ImageByImage)._submit_job(None)


def test_a_step_that_can_start_no_process_is_told_of_as_that(settings):
    crash = "Node: wf.step\n\nBlockingIOError: [Errno 11] Resource temporarily unavailable\n"
    assert "Step step could start no process: raise the limit" in explain(crash, settings())


# what a run in a process of its own does


@pytest.fixture
def small(tmp_path) -> Path:
    """An image too small for a head: its first step refuses it, in a worker."""
    write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz", data=np.ones((9, 9, 9), np.int16))
    return tmp_path


def run(root: Path, *options: str, python: tuple[str, ...] = ("-m", "bids_inpaint"), **variables: str):
    command = [
        sys.executable, *python, str(root / "bids"), str(root / "out"), "participant",
        "-w", str(root / "work"), "--skip-bids-validation", "--nprocs", "1", *options,
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, check=False, timeout=600, env=os.environ | variables
    )  # fmt: skip


def refused(result) -> None:
    """The image was refused in one sentence, by a worker."""
    told = result.stderr.decode(errors="replace")
    assert "covers only 36×36×36 mm" in told or r"covers only 36" in told
    assert "Traceback" not in told
    assert "0 of 1 images done" in told
    assert result.returncode == 1


def test_a_long_folder_for_temporary_files(small):
    long = small / ("x" * 120)
    long.mkdir()
    refused(run(small, TMPDIR=str(long)))
    assert list(long.iterdir()) == []


def test_sockets_are_short_and_other_files_stay_where_they_were(tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    code = (
        "import tempfile; from multiprocessing import forkserver\n"
        "from bids_inpaint.environment import settle\n"
        "settle(); forkserver.ensure_running(); print(tempfile.mkdtemp())\n"
        "print(forkserver._forkserver._forkserver_address)\n"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {"TMPDIR": str(long)}
    other, address = subprocess.run(
        command, capture_output=True, text=True, check=True, env=env
    ).stdout.split()  # fmt: skip
    assert Path(other).parent == long
    assert len(address) < 108
    assert not Path(address).parent.exists()


def test_no_folder_for_sockets_is_one_sentence(small, capsys, monkeypatch):
    monkeypatch.setattr(environment, "_takes_sockets", lambda _: False)
    assert cli.main([str(small / "bids"), str(small / "out"), "participant"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "name a folder on a local disk with TMPDIR" in told


def test_folders_that_take_no_sockets(tmp_path, monkeypatch):
    assert environment._takes_sockets(tempfile.gettempdir())
    assert not environment._takes_sockets(str(tmp_path / "nowhere"))

    def bind(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))
    assert not environment._takes_sockets(tempfile.gettempdir())


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _threads_of_numpy() -> list[str | None]:
    return [os.environ.get(name) for name in THREADS]


def test_workers_have_one_thread_of_blas_each(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    settle()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_threads_of_numpy) == ["1", "1", "3"]


# folders with any name


def _head(n: int = 40) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A ball with a core and a shell, where it is, and the priors of shell, middle and core."""
    radius = np.linalg.norm(np.indices((n, n, n)) - n / 2, axis=0)
    edges = (0, 9, 13, 15)
    tissues = [(radius >= a) & (radius < b) for a, b in pairwise(edges)][::-1]
    data = sum(v * t for v, t in zip((300, 600, 900), tissues, strict=True))
    noise = np.random.default_rng(0).normal(0, 40, data.shape)
    priors = [0.1 + 0.8 * np.roll(t, 1, axis=0) for t in tissues]
    return np.where(data > 0, data + noise, 0).astype(np.float32), data > 0, priors


@pytest.fixture(params=["plain", ODD])
def folder(request, tmp_path, monkeypatch) -> Path:
    place = tmp_path / request.param
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_tissues_are_those_of_the_image_in_folders_with_any_name(folder):
    """Where ANTs took parts of a folder's name for its options, there were other tissues or none."""
    from bids_inpaint.interfaces.ants import SegmentAtropos

    data, mask, priors = _head()
    grid = Grid.of(data.shape, np.eye(4))
    files = {name: images.save(str(folder / f"{name}.nii.gz"), v, grid) for name, v in (("t1w", data),)}
    mask_file = images.save(str(folder / "mask.nii.gz"), mask, grid, np.uint8)
    given = [images.save(str(folder / f"p{i}.nii.gz"), p, grid, np.float32) for i, p in enumerate(priors)]
    before = sorted(folder.iterdir())
    step = SegmentAtropos(in_file=files["t1w"], mask_file=mask_file, priors=given)
    outputs = step.run(cwd=str(folder)).outputs
    labels = images.read(outputs.dseg)[0]
    # 1 grey matter, 2 white matter, 3 fluid
    for label, value in ((3, 300), (1, 600), (2, 900)):
        inside = mask & (np.abs(data - value) < 60)
        assert (labels[inside] == label).mean() > 0.97
    made = {p.name for p in folder.iterdir()} - {p.name for p in before}
    assert made == {"csf.nii.gz", "gm.nii.gz", "wm.nii.gz", "dseg.nii.gz"}


def test_affines_are_those_of_the_image_in_folders_with_any_name(folder):
    from bids_inpaint.imaging.itk import affine
    from bids_inpaint.imaging.processes import alone

    data, mask, _ = _head()
    data[12:20, 18:22, 18:30] = 1500
    grid = Grid.of(data.shape, np.eye(4))
    moved = Grid.of(data.shape, np.array([[1, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 4], [0, 0, 0, 1.0]]))
    template = images.save(str(folder / "template.nii.gz"), data, grid)
    image = images.save(str(folder / "image.nii.gz"), data, moved)
    mask_file = images.save(str(folder / "mask.nii.gz"), mask, moved, np.uint8)
    # files of an earlier attempt are none of this one's
    (folder / "ants_0GenericAffine.mat").write_bytes(b"nothing")
    matrix = alone(affine, image, mask_file, template, "sloppy", str(folder), 0)
    np.testing.assert_allclose(matrix, moved.matrix, atol=0.3)


def test_runs_in_folders_with_any_name(small):
    root = small / ODD
    root.mkdir()
    (small / "bids").rename(root / "bids")
    refused(run(root, TMPDIR=str(root)))
    assert "covers only 36×36×36 mm" in (root / "out/sub-01.html").read_text(encoding="utf-8")


def test_names_that_are_not_utf8(tmp_path):
    """Only what is named so is left out."""
    from bids_inpaint.dataset import bids

    root = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    (root / "sub-01/anat" / os.fsdecode(b"sub-01_acq-\xfc_T1w.nii.gz")).touch()
    found = bids.collect(Settings(root, tmp_path / "out", tmp_path / "work"))
    assert [image.prefix for image in found.images] == ["sub-01"]
    (refused,) = found.refused
    assert os.fsdecode(b"sub-01_acq-\xfc_T1w.nii.gz is not named as BIDS asks") in refused.reason


@pytest.mark.parametrize(("name", "shown"), [(b"o\xfct", r"o\udcfct"), (b"o\nt", r"o\nt")])
def test_folders_that_are_not_utf8_or_one_line_are_refused(tmp_path, capfd, name, shown):
    root = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    out = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    assert cli.main([str(root), out, "participant", "-w", str(tmp_path / "work")]) == 2
    assert f"{shown} (the output folder) isn't UTF-8 or has a line break" in capfd.readouterr().err
    assert not os.path.exists(out)


@pytest.mark.parametrize("kind", ["deleted", "two lines"])
def test_current_folders_that_nothing_can_be_done_in(small, kind):
    here = small / ("a\nb" if kind == "two lines" else "gone")
    here.mkdir()
    before = f"import os, sys; os.chdir({str(here)!r}); {'os.rmdir(os.getcwd());' * (kind == 'deleted')}"
    code = f"{before} from bids_inpaint.cli import main; sys.exit(main())"
    result = run(small, python=("-c", code))
    assert result.returncode == 2
    assert result.stderr.decode().splitlines() == [
        "bids_inpaint: error: the current folder is gone, can't be read or has a line break in its name: "
        "start in another."
    ]


# locales


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> Path:
    """A locale that is not UTF-8, or skip."""
    folder = tmp_path_factory.mktemp("locales")
    try:
        command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
        subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no localedef")
    if not list(folder.iterdir()):
        pytest.skip("there is no source of locales")
    return folder


def test_files_are_utf8_in_every_locale(small, locales):
    named = small / "Gehirn é Ω"
    named.mkdir()
    (small / "bids").rename(named / "bids")
    variables = {"LOCPATH": str(locales), "LC_ALL": "de_DE.ISO-8859-1"}
    result = run(named, **variables)
    refused(result)
    # the terminal gets its own encoding, and what that lacks is escaped
    told = result.stderr.decode("latin-1")
    assert "covers only 36×36×36 mm" in told
    assert r"Gehirn é \u03a9/bids/sub-01" in told
    assert "covers only 36×36×36 mm" in (named / "out/sub-01.html").read_text(encoding="utf-8")
    assert not (named / "out/logs/CITATION.md").read_text(encoding="utf-8").isascii()
    # where the work of libraries is, too
    crash = next((named / "out").rglob("crash*.txt")).read_text(encoding="utf-8")
    assert "Gehirn é Ω" in crash


def test_the_mode_of_python_is_asked_for_once(small, locales):
    """Also where the command's own options forbid it."""
    code = "from bids_inpaint.cli import main; main()"
    variables = {"LOCPATH": str(locales), "LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}
    for python in (("-c", code), ("-X", "utf8=0", "-c", code)):
        result = run(small, "--boilerplate-only", python=python, **variables)
        assert b"Traceback" not in result.stderr


def test_utf8():
    assert is_utf8("ü")
    assert not is_utf8(os.fsdecode(b"\xfc"))


def test_images_written_and_read_in_folders_with_any_name(tmp_path):
    place = tmp_path / ODD
    path = write_nifti(place / "image.nii.gz", np.ones((4, 4, 4), np.float32))
    assert (images.read(path)[0] == 1).all()
