"""Tissue segmentation with the Gaussian mixture of this package."""

from __future__ import annotations

from nipype.interfaces.base import File, InputMultiObject

from bids_inpaint import __version__
from bids_inpaint.errors import InputError
from bids_inpaint.imaging import mixture, tissues
from bids_inpaint.interfaces.base import FileInterface, InputSpec, SegmentationOutputSpec
from bids_inpaint.interfaces.images import save_tissues
from bids_inpaint.io import images


class SegmentMixtureInputSpec(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="brain on the working grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the working grid")
    priors = InputMultiObject(File(exists=True), mandatory=True, desc="CSF, GM, WM")


class SegmentMixture(FileInterface):
    """Three-tissue segmentation: a Gaussian mixture, template priors and a Markov random field."""

    input_spec = SegmentMixtureInputSpec
    output_spec = SegmentationOutputSpec

    def process(self, runtime) -> dict:
        data, grid = images.read(self.inputs.in_file)
        mask = images.read(self.inputs.mask_file)[0] > 0
        priors = [images.read(path)[0] for path in self.inputs.priors]
        try:
            csf, gm, wm = mixture.segment(data, mask, priors, grid.voxel_sizes)
            tissues.check([csf, gm, wm], mask, priors)
        except tissues.Implausible as error:
            raise InputError(
                f"The brain of {self.source} could not be segmented into tissues ({error}): look at the "
                "images of the report, or choose another --segmentation."
            ) from None
        outputs = save_tissues(runtime, [gm, wm, csf], mask, grid, space_code=4)
        return outputs | {"method": f"Gaussian mixture (bids_inpaint {__version__})"}
