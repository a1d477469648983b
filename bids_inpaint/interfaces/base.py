"""What every interface of the project shares."""

from __future__ import annotations

import os
from hashlib import md5

from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.utils.filemanip import hash_infile

from bids_inpaint import __version__, options
from bids_inpaint.environment import release_memory
from bids_inpaint.errors import InputError
from bids_inpaint.space import Misplaced


class InputSpec(BaseInterfaceInputSpec):
    """Inputs of a :class:`FileInterface`; a trait with ``users=True`` is a file that the user gave."""

    version = traits.Str(__version__, usedefault=True, desc="results of another version aren't reused")
    source = traits.Str(nohash=True, desc="path of the T1w, for messages; in_file by default")

    def get_hashval(self, hash_method=None):
        """Nipype's digest of the inputs, and of the content of the user's files.

        Nipype looks at size and time alone, by which an image or mask of another dataset, out of an archive
        or a copy that keeps times, passes for the one whose results are in the work folder.
        """
        listed, digest = super().get_hashval(hash_method)
        user_files = [getattr(self, name) for name in sorted(self.traits(users=True))]
        contents = [hash_infile(path) for path in user_files if isdefined(path) and os.path.isfile(path)]
        return listed, md5("".join([digest, *contents]).encode()).hexdigest() if contents else digest


class PersonInputSpec(InputSpec):
    """Inputs of whatever brings visits of a person to the standard space."""

    standard_xfm = File(
        exists=True, mandatory=True, desc="ITK text: takes images from the person's template to the standard"
    )


class NetworkInputSpec(InputSpec):
    """Inputs of whatever runs a network on the working grid."""

    in_file = File(exists=True, mandatory=True, desc="preprocessed brain on the working grid")
    wm_prior = File(exists=True, mandatory=True, desc="probability of white matter in the template")
    gm_prior = File(exists=True, mandatory=True, desc="probability of grey matter in the template")
    model = traits.Str(mandatory=True, desc="name of the network, or path of its ONNX file")
    model_sha256 = traits.Str(mandatory=True, desc="so that another file of that name is another run")
    device = traits.Enum(*options.DEVICES, usedefault=True, desc="where the network runs")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="of the network")


class SegmentationOutputSpec(TraitedSpec):
    """Outputs of whatever segments a brain."""

    csf = File(exists=True, desc="probability of cerebrospinal fluid on the working grid, 0-1")
    gm = File(exists=True, desc="probability of grey matter on the working grid, 0-1")
    wm = File(exists=True, desc="probability of white matter on the working grid, 0-1")
    dseg = File(exists=True, desc="1 GM, 2 WM, 3 CSF")
    method = traits.Str(desc="name and version of what segmented")


class AffineOutputSpec(TraitedSpec):
    """Outputs of whatever gives the affine to the template."""

    out_xfm = File(exists=True, desc="ITK text: takes images from the T1w to the template")
    out_inverse = File(exists=True, desc="ITK text: takes images from the template to the T1w")


class FileInterface(BaseInterface):
    """An interface whose `run` returns its outputs; files are named in the node's own folder.

    A user knows the T1w, and none of the files between it and the results: errors name the former.
    """

    input_spec = InputSpec
    output_spec = TraitedSpec

    def _run_interface(self, runtime):
        try:
            self._results = self.process(runtime)
        except Misplaced as error:
            raise InputError(
                f"The brain of {self.source} {error}: check the orientation in its header, and the "
                "brain mask or affine given with -d, if there is one."
            ) from None
        finally:
            release_memory()
        return runtime

    @property
    def source(self) -> str:
        """Path of the T1w, for messages."""
        source = self.inputs.source
        return source if isdefined(source) else getattr(self.inputs, "in_file", "the T1w")

    def process(self, runtime) -> dict:
        """Do the work and return the outputs by name."""
        raise NotImplementedError

    def _list_outputs(self):
        return {**self.output_spec().get(), **self._results}


def within(runtime, name: str) -> str:
    """Path of a file in the node's working folder."""
    return os.path.join(runtime.cwd, name)
