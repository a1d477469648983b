"""Run a command that ends with the process that wanted it: ``tethered.py PID COMMAND …``.

MATLAB, its Runtime and Octave start processes of their own, which go on when only the first one is
killed; and nobody kills them where the process that waits for them is killed itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

#: How often, in seconds, this looks whether it is still wanted.
_INTERVAL = 0.5


def main(argv: list[str]) -> int:
    """Run the command; its exit code, or 128 and the number of the signal that ended it."""
    parent, *command = argv
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        try:
            code = child.wait(_INTERVAL)
        except subprocess.TimeoutExpired:
            if os.getppid() != int(parent):
                end()
        else:
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
