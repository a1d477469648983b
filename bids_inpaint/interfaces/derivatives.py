"""Writing finished results into the output folder."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    DynamicTraitedSpec,
    File,
    OutputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

from bids_inpaint.dataset.status import is_held, saved_file, write_status
from bids_inpaint.errors import InputError
from bids_inpaint.interfaces.base import FileInterface
from bids_inpaint.io.files import publish, write_json, write_text


class SaveDerivativesInputSpec(DynamicTraitedSpec):
    out_dir = traits.Directory(exists=True, mandatory=True, desc="output folder of the run")
    names = traits.Dict(mandatory=True, desc="input to path below out_dir")
    metadata = traits.Dict(desc="input to content of its sidecar")
    facts = traits.Dict(desc="input to what its sidecar says besides, known only after the run")
    status_file = traits.Str(desc="says what became of the image; not written if this isn't given")
    parts = traits.List(traits.Str, desc="the parts of the image, each saved by a node of its own")
    part = traits.Str(desc="which of them these results are")
    run_uuid = traits.Str(nohash=True, desc="of the run that saves")


class SaveDerivativesOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True), desc="the files in the output folder")


class SaveDerivatives(FileInterface):
    """Copy results to their BIDS names, each with its sidecar, each whole or not at all.

    Files that are there already with the same content are left alone. The image is "unfinished" from before
    the first change until this run has saved the last of its parts, so that a kill in between is seen. The
    status names the run, so that each of two runs that save an image at the same time sees the other one, on
    whatever machine and file system; nothing is locked, so that a run that was killed keeps none away.
    """

    input_spec = SaveDerivativesInputSpec
    output_spec = SaveDerivativesOutputSpec
    # cached results don't help if somebody removed the outputs
    _always_run = True

    def __init__(self, keys: list[str] | None = None, **inputs):
        super().__init__(**inputs)
        self._keys = list(keys or [])
        add_traits(self.inputs, self._keys)

    def process(self, runtime) -> dict:
        root = Path(self.inputs.out_dir)
        metadata, facts = (
            value if isdefined(value) else {} for value in (self.inputs.metadata, self.inputs.facts)
        )
        status = Path(self.inputs.status_file) if isdefined(self.inputs.status_file) else None
        if status:
            self._begin(status)
        written = []
        for key in self._keys:
            source = getattr(self.inputs, key)
            if not isdefined(source):
                # an earlier run's file would be taken for it
                raise ValueError(f"{key} was not made")
            target = root / self.inputs.names[key]
            target.parent.mkdir(parents=True, exist_ok=True)
            publish(source, target)
            written.append(str(target))
            if key in metadata:
                sidecar = target.with_name(target.name.split(".")[0] + ".json")
                write_json(sidecar, metadata[key] | facts.get(key, {}))
            if status:
                self._check_alone(status)
        if status:
            self._note(status)
        return {"out_files": written}

    def _begin(self, status: Path) -> None:
        run_uuid = self.inputs.run_uuid
        if any(saved_file(status, run_uuid, part).exists() for part in self.inputs.parts):
            self._check_alone(status)
        write_status(status, run_uuid, "unfinished")

    def _check_alone(self, status: Path) -> None:
        """Fail the whole image if another run has begun to save it since this one did: both fail then."""
        run_uuid = self.inputs.run_uuid
        if is_held(status, run_uuid):
            return
        name = status.name.removesuffix("_status.json")
        reason = (
            f"{self.inputs.out_dir} has results of {name} that two runs wrote at the same time, so they may "
            "be a mixture: wait until no other run of this image goes on, and run the same command again."
        )
        write_status(status, run_uuid, "failed", Error=reason, Failed=list(self.inputs.parts), Parts=[])
        raise InputError(reason)

    def _note(self, status: Path) -> None:
        """Note that this part is saved; the image is done when all are.

        Each part has a file of its own: on a cluster they may be saved at the same time.
        """
        run_uuid = self.inputs.run_uuid
        write_text(saved_file(status, run_uuid, self.inputs.part), "")
        if all(saved_file(status, run_uuid, part).exists() for part in self.inputs.parts):
            write_status(status, run_uuid, "done", Parts=list(self.inputs.parts))
