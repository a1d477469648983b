"""Start Octave with the arguments of MATLAB: ``octave.py OCTAVE SPM_FOLDER … -r CODE``."""

from __future__ import annotations

import os
import sys


def main(argv: list[str]) -> None:
    """Become Octave."""
    octave, folder, *arguments = argv
    code = arguments[arguments.index("-r") + 1]
    quoted = folder.replace("'", "''")
    os.execvp(octave, [octave, "--no-init-file", "--quiet", "--eval", f"addpath('{quoted}'); {code}"])


if __name__ == "__main__":
    main(sys.argv[1:])
