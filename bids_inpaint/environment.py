"""What the libraries expect of the machine, and containers often lack."""

from __future__ import annotations

import atexit
import codecs
import ctypes
import errno
import locale
import os
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from multiprocessing import util
from pathlib import Path

#: Threads of the numerical libraries that NumPy and SciPy may be built with.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def use_utf8() -> None:
    """Read and write UTF-8 whatever the locale, and show a terminal what it can show.

    Python's UTF-8 mode can't be entered later: where the locale has another encoding, this process starts the
    same command again, and the function doesn't return. All that it starts is in that mode too.
    """
    encoding = codecs.lookup(locale.getencoding()).name
    if encoding != "utf-8" and not sys.flags.utf8_mode and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # with ASCII alone, the locale says nothing of the terminal
    terminal = None if encoding == "ascii" or "PYTHONIOENCODING" in os.environ else encoding
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(encoding=terminal, errors="backslashreplace")


def settle() -> None:
    """Give libraries what they take for granted.

    That is: a folder for temporary files where sockets can be made, a place for files that are kept in the
    home folder, and one thread of the numerical libraries a process, unless the user says otherwise: there is
    a process for each processor.

    Raises
    ------
    OSError
        If there is no such folder: one sentence for the user.
    """
    _check_current_folder()
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    _settle_sockets()
    _settle_home()


def _check_current_folder() -> None:
    """Nipype writes its name into a configuration when it is imported."""
    try:
        usable = "\n" not in os.getcwd()
    except OSError:
        usable = False
    if not usable:
        raise OSError(
            errno.ENOENT,
            "the current folder is gone, can't be read or has a line break in its name: start in another.",
        )


def _settle_sockets() -> None:
    """Let multiprocessing make its sockets in a short folder; a path of theirs has 107 bytes at most."""
    try:
        usual = tempfile.gettempdir()
    except OSError as error:
        raise OSError(
            error.errno,
            f"no folder for temporary files ({error.strerror}): mount a writable /tmp, or name one with "
            "TMPDIR.",
        ) from None
    if _takes_sockets(usual):
        return
    for folder in ("/tmp", "/var/tmp", "/dev/shm", f"/run/user/{os.getuid()}"):
        if _takes_sockets(folder):
            tempfile.tempdir = folder
            try:
                # it is made at the first call
                util.get_temp_dir()
            finally:
                tempfile.tempdir = usual
            return
    raise OSError(
        errno.ENAMETOOLONG,
        f"no socket can be made in the folder for temporary files {usual}, nor in /tmp, /var/tmp or "
        "/dev/shm: name a folder on a local disk with TMPDIR, with a path of at most 75 characters.",
    )


def _takes_sockets(folder: str) -> bool:
    """Whether a socket with a name as long as multiprocessing's can be made in a folder."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pymp-", dir=folder) as inner,
            socket.socket(socket.AF_UNIX) as probe,
        ):
            probe.bind(os.path.join(inner, "listener-12345678"))
    except OSError:
        return False
    return True


def _settle_home() -> None:
    """Name another home folder for libraries that keep files there, where there is none to write to."""
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK | os.X_OK):
        return
    place = tempfile.mkdtemp(prefix="bids_inpaint-")
    owner = os.getpid()
    os.environ["HOME"] = place
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        if not os.access(os.environ.get(name, place), os.W_OK):
            os.environ[name] = str(Path(place) / name.lower())

    @atexit.register
    def remove() -> None:
        # workers that are forked inherit this
        if os.getpid() == owner:
            shutil.rmtree(place, ignore_errors=True)


def keep_memory() -> None:
    """Let this process keep the memory of freed arrays for the next ones, up to 512 MB (glibc; else nothing).

    By default, each array of some MB gets fresh pages, and clearing those costs as much as filling them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 512 << 20)
    mallopt(mmap_threshold, 32 << 20)


def release_memory() -> None:
    """Give the memory of freed arrays back to the system (glibc; else nothing).

    A worker would keep what a step has freed while it waits for the next one.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
