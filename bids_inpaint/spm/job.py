"""A job of SPM's unified segmentation (Ashburner and Friston 2005): lattice, code, run and answer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_inpaint.spm import tethered
from bids_inpaint.spm.program import FOLDER, Spm

#: Gaussians of each tissue class of SPM's own template: GM, WM, CSF, bone, soft tissue, air.
_GAUSSIANS = (1, 1, 2, 3, 4, 2)
#: The image of a job, in the folder where it runs. SPM writes ``c1brain.nii`` … beside it.
IMAGE = "brain.nii"
SCRIPT = "bids_inpaint_job.m"
#: Begins the lines that the job prints for us.
_MARK = "bids_inpaint:"


def padded_sizes(sizes: Sequence[int], voxel_sizes: Sequence[float], sampling: float) -> tuple[int, int, int]:
    """Sizes to which a volume must be padded so that SPM's solver survives it.

    SPM fits the deformation on every few voxels, and its multigrid solver (``spm_diffeo``, 'fmg') halves that
    lattice until each axis has one sample. Where the second axis takes one halving more than the first and
    the third, as in the 61 × 73 × 61 samples of 182 × 218 × 182 voxels, the solver diverges to NaN or 1e30,
    and SPM raises nothing: so it did 12 times of 12 at sizes drawn at random, and never of 84 times in any
    other case. The sizes are made so that all axes take equally many.

    Parameters
    ----------
    sizes : sequence of 3 ints
        Of the volume, in voxels.
    voxel_sizes : sequence of 3 floats
        In mm.
    sampling : float
        SPM's sampling distance in mm, which it rounds to whole voxels.

    Examples
    --------
    >>> padded_sizes((155, 192, 164), (1, 1, 1), 3)
    (155, 192, 164)
    >>> padded_sizes((182, 218, 182), (1, 1, 1), 3)
    (193, 218, 193)
    """
    steps = [max(round(sampling / size), 1) for size in voxel_sizes]
    samples = [-(-n // step) for n, step in zip(sizes, steps, strict=True)]
    halvings = max((n - 1).bit_length() for n in samples)
    # the fewest samples that take so many
    least = 2 ** (halvings - 1) + 1 if halvings else 1
    x, y, z = (max(n, (least - 1) * step + 1) for n, step in zip(sizes, steps, strict=True))
    return x, y, z


@dataclass(frozen=True)
class Answer:
    """What SPM said and made.

    Attributes
    ----------
    output, errors : str
        All that it printed, on standard output and on standard error.
    name, release : str
        Such as ``SPM12`` and ``7771``; empty if it did not come so far.
    log_likelihood : float
        Of the fit; NaN if that degenerated.
    failure : str, optional
        What went wrong, in SPM's own words where it had any. A program that crashes when all is written has
        done its work.
    """

    output: str
    errors: str
    name: str
    release: str
    log_likelihood: float
    failure: str | None


def run(spm: Spm, folder: Path, sampling: float) -> Answer:
    """Segment ``brain.nii`` of a folder, beside which SPM writes its maps.

    Parameters
    ----------
    spm : Spm
    folder : Path
        SPM sees no other name of it than the current folder.
    sampling : float
        SPM's sampling distance in mm.

    Raises
    ------
    OSError
        If no process can be started.
    """
    (folder / SCRIPT).write_text(code(spm, sampling), encoding="utf-8")
    environment = os.environ | {FOLDER: str(folder.absolute())}
    command = [sys.executable, tethered.__file__, str(os.getpid()), *spm.arguments(SCRIPT)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    return read(done.returncode, done.stdout, done.stderr)


def code(spm: Spm, sampling: float) -> str:
    """The job as MATLAB code: three tissues at SPM's defaults, but for the sampling distance."""
    classes = "\n".join(
        f"  job.tissue({k}).tpm = {{[tpm ',{k}']}};\n"
        f"  job.tissue({k}).ngaus = {gaussians};\n"
        f"  job.tissue({k}).native = [{int(k <= 3)} 0];\n"
        f"  job.tissue({k}).warped = [0 0];"
        for k, gaussians in enumerate(_GAUSSIANS, 1)
    )
    path = "" if spm.folder is None else "  addpath('{}');\n".format(spm.folder.replace("'", "''"))
    return f"""try
{path}  [name, release] = spm('Ver');
  fprintf('\\n{_MARK} version %s %s\\n', name, release);
  spm('defaults', 'FMRI');
  spm_jobman('initcfg');
  tpm = fullfile(spm('Dir'), 'tpm', 'TPM.nii');
  job.channel.vols = {{[fullfile(pwd, '{IMAGE}') ',1']}};
  job.channel.write = [0 0];
{classes}
  job.warp.samp = {sampling:g};
  job.warp.write = [0 0];
  batch{{1}}.spm.spatial.preproc = job;
  spm_jobman('run', batch);
  fit = load('{Path(IMAGE).stem}_seg8.mat', 'll');
  fprintf('\\n{_MARK} done %.9g\\n', fit.ll);
catch failure
  fprintf('\\n{_MARK} failed %s\\n', strrep(failure.message, sprintf('\\n'), ' '));
  exit(1);
end
exit(0);
"""


def read(code: int, output: str, errors: str) -> Answer:
    """What a run of the job says by its exit code and its words."""
    version = re.search(rf"^{_MARK} version (\S+) (\S+)", output, re.MULTILINE)
    name, release = version.groups() if version else ("", "")
    done = re.search(rf"^{_MARK} done (\S+)", output, re.MULTILINE)
    failure = None if done else _failure(code, output, errors)
    return Answer(output, errors, name, release, float(done.group(1)) if done else np.nan, failure)


def _failure(code: int, output: str, errors: str) -> str:
    """Why a job failed: what SPM says of its module or of the job, or the signal, or the last line."""
    if module := re.search(r"^.*Failed\s+'[^'\n]+'\s*\n((?:.*\n?)*)", output + "\n" + errors, re.MULTILINE):
        lines = []
        for line in module.group(1).splitlines():
            if not line.strip() or line.startswith(("In file", "The following modules", _MARK)):
                break
            lines.append(line.strip())
        if lines:
            return " ".join(lines)
    if failed := re.search(rf"^{_MARK} failed (.+)", output, re.MULTILINE):
        return failed.group(1).strip()
    if code > 128:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = f"signal {code - 128}"
        return f"it was ended by {name}, perhaps for want of memory"
    said = [line.strip() for line in (errors + "\n" + output).splitlines() if line.strip()]
    return said[-1] if said else "nothing"
