"""Tissue segmentation with SPM12 or SPM25, of which nothing is believed without a look at it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, traits

from bids_inpaint import errors
from bids_inpaint.imaging import tissues
from bids_inpaint.interfaces.base import FileInterface, InputSpec, SegmentationOutputSpec
from bids_inpaint.interfaces.images import save_tissues
from bids_inpaint.io import images
from bids_inpaint.space import Grid, bounding_box
from bids_inpaint.spm import job
from bids_inpaint.spm.program import Spm, check_version

#: Distance between the voxels that SPM fits, in mm: its default, and another where that fit fails.
_SAMPLINGS = (3.0, 4.0)


class SegmentSPMInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain on the working grid")
    mask_file = File(exists=True, mandatory=True, desc="where it is")
    priors = InputMultiObject(
        File(exists=True), mandatory=True, desc="CSF, GM, WM: SPM's maps must be like them"
    )
    command = traits.List(traits.Str, mandatory=True, desc="starts MATLAB, Octave or the standalone SPM")
    kind = traits.Enum("matlab", "octave", "standalone", mandatory=True, desc="which of these it is")
    folder = traits.Str(desc="of SPM's code, for MATLAB and Octave")


class SegmentSPM(FileInterface):
    """Unified segmentation of SPM (Ashburner and Friston 2005): six classes, of which three are kept."""

    input_spec = SegmentSPMInputSpec
    output_spec = SegmentationOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        priors = [images.read(path)[0] for path in self.inputs.priors]
        folder = Path(runtime.cwd) / "spm"
        refusals = []
        for sampling in _SAMPLINGS:
            answer, maps = self._segment(runtime, folder, np.where(mask, data, 0), mask, grid, sampling)
            gm, wm, csf = maps
            try:
                if not np.isfinite(answer.log_likelihood):
                    raise tissues.Implausible("its fit has no likelihood")
                tissues.check([csf, gm, wm], mask, priors)
            except tissues.Implausible as error:
                refusals.append(f"{error} with samples every {sampling:g} mm")
                continue
            shutil.rmtree(folder)
            method = f"{answer.name} (release {answer.release})"
            return {**save_tissues(runtime, maps, mask, grid, space_code=4), "method": method}
        raise errors.InputError(
            f"SPM failed to segment the brain of {self.source}, and did not notice ({'; '.join(refusals)}): "
            "look at the images of the report, or choose --segmentation gmm."
        )

    def _segment(
        self, runtime, folder: Path, brain: np.ndarray, mask: np.ndarray, grid: Grid, sampling: float
    ) -> tuple[job.Answer, list[np.ndarray]]:
        """Run SPM on the brain's box, and put its maps of GM, WM and CSF onto the whole grid."""
        # results of an earlier run would pass for those of one that failed
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        box = bounding_box(mask, margin=2)
        part = grid.part(box)
        sizes = job.padded_sizes(part.shape, part.voxel_sizes.tolist(), sampling)
        beyond = [(0, size - n) for size, n in zip(sizes, part.shape, strict=True)]
        padded = np.pad(brain[box], beyond)
        images.save(str(folder / job.IMAGE), padded, Grid.of(sizes, part.matrix), np.float32, space_code=4)
        folder_of_code = {"folder": self.inputs.folder} if self.inputs.folder else {}
        spm = Spm(tuple(self.inputs.command), self.inputs.kind, **folder_of_code)
        answer = job.run(spm, folder, sampling)
        # for Nipype, which writes them into the crash file of a step that fails
        runtime.cmdline = " ".join(spm.arguments(job.SCRIPT))
        runtime.stdout, runtime.stderr = answer.output, answer.errors
        # it would go by the exit code
        runtime.returncode, runtime.success_codes = 0, (0,)
        if not answer.name:
            raise errors.InputError(
                f"SPM could not be started by '{runtime.cmdline}' (it said: {(answer.failure or '')[:200]}): "
                "run that command by hand to see why."
            )
        check_version(answer.name, answer.release, f"'{runtime.cmdline}'")
        if answer.failure:
            raise errors.InputError(
                f"{answer.name} failed to segment the brain of {self.source} (it said: "
                f"{answer.failure[:300]}): look at the crash file, or choose --segmentation gmm."
            )
        maps = []
        for i in (1, 2, 3):
            values = images.read(str(folder / f"c{i}{job.IMAGE}"))[0]
            whole = np.zeros(mask.shape, np.float32)
            whole[box] = np.clip(values[tuple(slice(n) for n in part.shape)], 0, 1)
            maps.append(whole * mask)
        return answer, maps
