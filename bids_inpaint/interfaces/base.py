"""What every interface of the project shares."""

from __future__ import annotations

import os

from nipype.interfaces.base import BaseInterface, BaseInterfaceInputSpec, TraitedSpec, traits

from bids_inpaint import __version__


class InputSpec(BaseInterfaceInputSpec):
    """Inputs of a :class:`FileInterface`."""

    version = traits.Str(__version__, usedefault=True, desc="results of another version aren't reused")


class FileInterface(BaseInterface):
    """An interface whose `run` returns its outputs; files are named in the node's own folder."""

    input_spec = InputSpec
    output_spec = TraitedSpec

    def _run_interface(self, runtime):
        self._results = self.process(runtime)
        return runtime

    def process(self, runtime) -> dict:
        """Do the work and return the outputs by name."""
        raise NotImplementedError

    def _list_outputs(self):
        return {**self.output_spec().get(), **self._results}


def within(runtime, name: str) -> str:
    """Path of a file in the node's working folder."""
    return os.path.join(runtime.cwd, name)
