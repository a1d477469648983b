"""What the libraries expect of the machine, and containers often lack."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import tempfile
from pathlib import Path


def settle() -> None:
    """Give libraries that keep files in the home folder a place where there is no home to write to.

    Raises
    ------
    OSError
        If there is no folder for temporary files either.
    """
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
