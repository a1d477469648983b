"""Where SPM12 or SPM25 is, and how it is started: checked without starting it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from bids_inpaint.errors import InputError, unreadable

#: Names the folder of SPM where ``--spm12`` doesn't.
VARIABLE = "BIDS_INPAINT_SPM12"
#: Names the folder of a job for MATLAB and Octave.
FOLDER = "BIDS_INPAINT_SPM_JOB"
_REMEDY = (
    "get SPM12 from https://www.fil.ion.ucl.ac.uk/spm/software/spm12/ and name its folder with --spm12 "
    "(MATLAB or GNU Octave runs it), or set SPMMCRCMD to the command of the standalone version, such as "
    "'/opt/spm12/run_spm12.sh /opt/mcr/v97 script'; or choose --segmentation gmm"
)
#: The first SPM with the unified segmentation of six classes as a job of its own.
_OLDEST = 12


@dataclass(frozen=True)
class Spm:
    """An SPM to run.

    Attributes
    ----------
    command : tuple of str
        Starts MATLAB, Octave or the standalone SPM, with its arguments before those of a job.
    kind : {"matlab", "octave", "standalone"}
        What that is.
    folder : str, optional
        Of SPM's code, for MATLAB and Octave.
    """

    command: tuple[str, ...]
    kind: str
    folder: str | None = None

    def arguments(self, script: str) -> list[str]:
        """The command line that runs a script of MATLAB code in the current folder.

        Parameters
        ----------
        script : str
            Its name, letters and ``.m`` alone: it is put into MATLAB code. The variable `FOLDER` must name
            the current folder, which a user's startup.m may leave.
        """
        # found by name: Octave's 'run' fails where the path of its folder has an apostrophe
        code = f"cd(getenv('{FOLDER}')); {script.removesuffix('.m')}"
        return [
            *self.command,
            *{
                "matlab": ["-nodesktop", "-nosplash", "-singleCompThread", "-r", code],
                "octave": ["--no-init-file", "--quiet", "--eval", code],
                "standalone": [script],
            }[self.kind],
        ]


def find(folder: Path | None) -> Spm:
    """The SPM of a folder, or else that of the environment.

    Parameters
    ----------
    folder : Path, optional
        Holds ``spm.m``; run by ``matlab`` (or what the variable ``MATLABCMD`` names), or by Octave if there
        is no MATLAB. By default that of the variable ``BIDS_INPAINT_SPM12``, and after that the standalone
        version of ``SPMMCRCMD``.

    Raises
    ------
    InputError
        If there is none, it is too old, or nothing runs it.
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
    return Spm(tuple(words), "standalone")


def check_version(name: str, release: str, place: str) -> None:
    """Refuse what is older than SPM12.

    Parameters
    ----------
    name : str
        Such as ``SPM12`` or ``SPM25``.
    release : str
        Such as ``7771`` or ``25.01.02``.
    place : str
        The folder or the command, for the message.

    Raises
    ------
    InputError
        If it is, or if the name says nothing.
    """
    number = re.fullmatch(r"SPM(\d+)\w*", name)
    if number is None or int(number.group(1)) < _OLDEST:
        raise InputError(
            f"{place} has {name} (release {release}), but SPM12 or SPM25 is needed: name the folder of one "
            "with --spm12, or set SPMMCRCMD."
        )


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
    for needed in ("spm.m", "spm_jobman.m", "Contents.m", "tpm/TPM.nii"):
        if not (folder / needed).is_file():
            raise InputError(f"{folder} is not a folder of SPM12, as it has no {needed}: {_REMEDY}.")
    check_version(*_version(folder), str(folder))
    matlab = _words("MATLABCMD") or ["matlab"]
    if shutil.which(matlab[0]):
        return Spm(tuple(matlab), "matlab", str(folder))
    if octave := shutil.which("octave-cli") or shutil.which("octave"):
        if not list(folder.glob("*.mex")):
            raise InputError(
                f"The SPM12 of {folder} is not compiled for Octave: run 'make PLATFORM=octave' and 'make "
                f"PLATFORM=octave install' in {folder / 'src'}."
            )
        return Spm((octave,), "octave", str(folder))
    raise InputError(
        f"Nothing runs the SPM12 of {folder}: install GNU Octave ('apt install octave') or MATLAB, and "
        "make sure that octave-cli or matlab is on the PATH."
    )


def _version(folder: Path) -> tuple[str, str]:
    """Name and release of an SPM, as SPM itself reads them: from the second line of ``Contents.m``."""
    path = folder / "Contents.m"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} {unreadable(error)}") from None
    match = re.search(r"^%\s*Version\s+(\S+)\s+\((SPM\w*)\)", text, re.MULTILINE)
    return (match.group(2), match.group(1)) if match else ("no version that it tells", "unknown")
