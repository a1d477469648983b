"""Tissue segmentation with SPM12 through Nipype's interfaces, which let many failures pass."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, traits
from nipype.utils.filemanip import indirectory

from bids_inpaint import images
from bids_inpaint.interfaces.base import FileInterface, InputSpec, SegmentationOutputSpec
from bids_inpaint.interfaces.images import save_tissues

#: Gaussians of each tissue class of SPM12's own template: GM, WM, CSF, bone, soft tissue, air.
_GAUSSIANS = (1, 1, 2, 3, 4, 2)
#: What SPM, MATLAB and Octave say when a job fails, also where they then exit with 0.
_COMPLAINTS = re.compile(
    r"MATLAB code threw an exception|Job execution failed|^Failed\s|^Error (?:using|in)\b"
    r"|^error: (?!ignoring)",
    re.MULTILINE,
)


class SegmentSPMInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    command = traits.Str(mandatory=True, desc="starts MATLAB, or the standalone SPM12")
    standalone = traits.Bool(mandatory=True)
    folder = traits.Str(desc="of SPM12's code, for MATLAB")


class SegmentSPM(FileInterface):
    """Unified segmentation of SPM12 (Ashburner and Friston 2005): six classes, of which three are kept."""

    input_spec = SegmentSPMInputSpec
    output_spec = SegmentationOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        # results of an earlier run would pass for those of one that failed
        folder = Path(runtime.cwd) / "spm"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        brain = str(folder / "brain.nii")
        images.save(brain, np.where(mask, data, 0), grid, np.float32, space_code=4)
        with indirectory(str(folder)):
            method = self._segment(brain)
        maps = [np.clip(images.read(str(folder / f"c{i}brain.nii"))[0], 0, 1) * mask for i in (1, 2, 3)]
        shutil.rmtree(folder)
        return {**save_tissues(runtime, maps, mask, grid, space_code=4), "method": method}

    def _segment(self, brain: str) -> str:
        """Run the job in the current folder, and tell which SPM did."""
        from nipype.interfaces import spm

        if not self.inputs.standalone:
            # Nipype would take MATLAB for the standalone version
            os.environ.pop("FORCE_SPMMCR", None)

        command = self.inputs.command
        where = {
            "matlab_cmd": command,
            "paths": [self.inputs.folder] if self.inputs.folder else None,
            "use_mcr": self.inputs.standalone,
        }
        # Nipype keeps the answer of the last probe, also of one that failed
        spm.Info._command = None
        try:
            spm.SPMCommand.set_mlab_paths(**where)
            info = spm.Info.getinfo(*where.values())
        except (OSError, ValueError, KeyError):
            info = None
        if info is None:
            raise images.InputError(
                f"SPM12 could not be started by '{command}': run that command by hand to see why."
            )
        version = f"{info['name'].removeprefix('SPM')}.{info['release']}".strip()
        if not version.startswith("12."):
            raise images.InputError(
                f"'{command}' starts {info['name']} (release {info['release'].strip()}), but SPM12 is "
                "needed: name its folder with --spm12, or set SPMMCRCMD."
            )
        template = os.path.join(info["path"].strip(), "tpm", "TPM.nii")
        step = spm.NewSegment(
            channel_files=brain,
            channel_info=(1e-3, 60.0, (False, False)),
            tissues=[
                ((template, i), gaussians, (i <= 3, False), (False, False))
                for i, gaussians in enumerate(_GAUSSIANS, 1)
            ],
        )
        # what SPM said is lost if Nipype raises
        result = step.run(ignore_exception=True).runtime
        said = "\n".join(getattr(result, name, None) or "" for name in ("stdout", "stderr", "traceback"))
        complaints = [said[m.start() :].splitlines()[0] for m in _COMPLAINTS.finditer(said)]
        failed = result.returncode not in (0, None) or getattr(result, "traceback", None) or complaints
        made = [os.path.exists(os.path.join(os.path.dirname(brain), f"c{i}brain.nii")) for i in (1, 2, 3)]
        if failed or not all(made):
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            told = [*complaints, *lines[-1:], "nothing"][0]
            raise images.InputError(
                f"SPM12 failed to segment the brain of {self.source} (it said: {told[:200]}): "
                "look at the crash file, or choose --segmentation atropos."
            )
        return f"SPM12 (release {info['release'].strip()})"
