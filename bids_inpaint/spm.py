"""Where SPM12 is, and how it is started: checked without starting it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bids_inpaint.images import InputError

#: Names the folder of SPM12 where ``--spm12`` doesn't.
VARIABLE = "BIDS_INPAINT_SPM12"
_REMEDY = (
    "get SPM12 from https://www.fil.ion.ucl.ac.uk/spm/software/spm12/ and name its folder with --spm12 "
    "(MATLAB or GNU Octave runs it), or set SPMMCRCMD to the command of the standalone version, such as "
    "'/opt/spm12/run_spm12.sh /opt/mcr/v97 script'; or choose --segmentation atropos"
)


@dataclass(frozen=True)
class Spm:
    """An SPM12 to run.

    Attributes
    ----------
    command : str
        Starts MATLAB, something that takes its arguments, or the standalone SPM12.
    standalone : bool
        Whether it is compiled, and runs with the MATLAB Runtime.
    folder : str, optional
        Of SPM12's code, for MATLAB.
    """

    command: str
    standalone: bool
    folder: str | None = None


def find(folder: Path | None) -> Spm:
    """The SPM12 of a folder, or else that of the environment.

    Parameters
    ----------
    folder : Path, optional
        Holds ``spm.m``; run by ``matlab`` (or what the variable ``MATLABCMD`` names), or by Octave if there
        is no MATLAB. By default that of the variable ``BIDS_INPAINT_SPM12``, and after that the standalone
        version of ``SPMMCRCMD``.

    Raises
    ------
    InputError
        If there is none, or nothing that runs it.
    """
    if folder is None and os.environ.get(VARIABLE):
        folder = Path(os.environ[VARIABLE])
    if folder is not None:
        return _of_folder(folder.absolute())
    words = _words("SPMMCRCMD")
    if not words:
        raise InputError(f"--segmentation spm12 finds no SPM12: {_REMEDY}.")
    if shutil.which(words[0]) is None:
        raise InputError(f"SPMMCRCMD names {words[0]}, which is not a program: {_REMEDY}.")
    if len(words) != 3 or not Path(words[1]).is_dir() or words[2] != "script":
        raise InputError(
            f"SPMMCRCMD is '{os.environ['SPMMCRCMD']}', but must be the program, the folder of the MATLAB "
            f"Runtime and the word 'script': {_REMEDY}."
        )
    return Spm(shlex.join(words), standalone=True)


def _words(variable: str) -> list[str]:
    """The command that a variable of the environment holds; nothing if it is blank or not set."""
    command = os.environ.get(variable, "")
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InputError(
            f"{variable} is '{command}', which is not a command of a shell ({error}): correct its quotes, or "
            "unset it."
        ) from None


def _of_folder(folder: Path) -> Spm:
    for needed in ("spm.m", "spm_jobman.m", "tpm/TPM.nii"):
        if not (folder / needed).is_file():
            raise InputError(f"{folder} is not a folder of SPM12, as it has no {needed}: {_REMEDY}.")
    matlab = _words("MATLABCMD") or ["matlab"]
    if shutil.which(matlab[0]):
        return Spm(shlex.join(matlab), standalone=False, folder=str(folder))
    if octave := shutil.which("octave-cli") or shutil.which("octave"):
        if not list(folder.glob("*.mex")):
            raise InputError(
                f"The SPM12 of {folder} is not compiled for Octave: run 'make PLATFORM=octave' and 'make "
                f"PLATFORM=octave install' in {folder / 'src'}."
            )
        # Octave takes other arguments than the MATLAB that Nipype starts
        starter = [sys.executable, str(Path(__file__).with_name("octave.py")), octave, str(folder)]
        return Spm(shlex.join(starter), standalone=False)
    raise InputError(
        f"Nothing runs the SPM12 of {folder}: install GNU Octave ('apt install octave') or MATLAB, and "
        "make sure that octave-cli or matlab is on the PATH."
    )
