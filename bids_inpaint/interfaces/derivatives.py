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

from bids_inpaint.files import replacing
from bids_inpaint.interfaces.base import FileInterface


class SaveDerivativesInputSpec(DynamicTraitedSpec):
    out_dir = traits.Directory(exists=True, mandatory=True)
    names = traits.Dict(mandatory=True, desc="input to path below out_dir")
    metadata = traits.Dict(desc="input to content of its sidecar")
    found = traits.Dict(desc="input to what its sidecar says besides, known only after the run")


class SaveDerivativesOutputSpec(TraitedSpec):
    out_files = OutputMultiObject(File(exists=True))


class SaveDerivatives(FileInterface):
    """Copy results to their BIDS names, each with its sidecar, each whole or not at all.

    Files that are there already with the same content are left alone.
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
        written = []
        for key in self._keys:
            source = getattr(self.inputs, key)
            if not isdefined(source):
                continue
            target = root / self.inputs.names[key]
            target.parent.mkdir(parents=True, exist_ok=True)
            publish(source, target)
            written.append(str(target))
            if key in metadata:
                sidecar = target.with_name(target.name.split(".")[0] + ".json")
                write_json(sidecar, metadata[key] | found.get(key, {}))
        return {"out_files": written}


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
    """Write a text file atomically, unless it has that content already."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text)
