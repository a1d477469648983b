"""Writing finished results into the output folder."""

from __future__ import annotations

import filecmp
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    DynamicTraitedSpec,
    File,
    OutputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

from bids_inpaint import __version__
from bids_inpaint.files import read_sidecar, replacing
from bids_inpaint.images import InputError
from bids_inpaint.interfaces.base import FileInterface


class SaveDerivativesInputSpec(DynamicTraitedSpec):
    out_dir = traits.Directory(exists=True, mandatory=True)
    names = traits.Dict(mandatory=True, desc="input to path below out_dir")
    metadata = traits.Dict(desc="input to content of its sidecar")
    found = traits.Dict(desc="input to what its sidecar says besides, known only after the run")
    status_file = traits.Str(desc="says what became of the image; not written if this isn't given")
    parts = traits.List(traits.Str, desc="the parts of the image, each saved by a node of its own")
    part = traits.Str(desc="which of them these results are")
    run_uuid = traits.Str(nohash=True, desc="of the run that saves")


class SaveDerivativesOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True))


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
        metadata, found = (
            value if isdefined(value) else {} for value in (self.inputs.metadata, self.inputs.found)
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
                write_json(sidecar, metadata[key] | found.get(key, {}))
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


def saved_file(status_file: Path, run_uuid: str, part: str) -> Path:
    """The file whose existence says that a run has saved a part of an image; it is gone when the run ends."""
    return status_file.parent / run_uuid / status_file.name.replace("_status.json", f"_{part}.saved")


def is_held(status_file: Path, run_uuid: str) -> bool:
    """Whether a run that has begun to save an image is the last that did, and has met no other one."""
    content = read_sidecar(status_file)
    return content.get("RunUUID") == run_uuid and content.get("Status") != "failed"


def write_status(status_file: Path, run_uuid: str, status: str, **more: Any) -> None:
    """Say what became of an image: "done", "failed" or "unfinished", in which run, and what else there is."""
    content = {"Status": status, "SoftwareVersion": __version__, "RunUUID": run_uuid}
    write_json(status_file, content | more)


def publish(source: str | os.PathLike, target: Path) -> None:
    """Copy under a temporary name and rename, unless the target has that content already."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    with replacing(target) as part:
        shutil.copyfile(source, part)


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically, unless it is there already; numbers that JSON doesn't have become null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically, unless it has that content already."""
    # names of files are any bytes
    content = text.encode("utf-8", errors="backslashreplace")
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(content)
