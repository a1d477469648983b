"""Visits that are added to finished ones, and what is noted so that they can be, as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from bids_inpaint.dataset import checksums
from bids_inpaint.errors import InputError
from bids_inpaint.imaging import person
from bids_inpaint.imaging.rigid import Visit, register
from bids_inpaint.interfaces.base import FileInterface, InputSpec, within
from bids_inpaint.interfaces.visits import AlignVisitsInputSpec, AlignVisitsOutputSpec, read_visit, write_xfm
from bids_inpaint.io import images


class AddVisitsInputSpec(AlignVisitsInputSpec):
    template = File(exists=True, mandatory=True, desc="of the person, made of visits that are finished")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")


class AddVisits(FileInterface):
    """Rigid transforms of visits into the space of a template that other visits have made.

    The template stays as it is.
    """

    input_spec = AddVisitsInputSpec
    output_spec = AlignVisitsOutputSpec

    def process(self, runtime) -> dict:
        inputs = self.inputs
        data, grid = images.read(inputs.template)
        template = Visit(data, grid, images.read(inputs.template_mask, np.uint8)[0] > 0)
        out: dict[str, Any] = {
            "template": inputs.template,
            "template_mask": inputs.template_mask,
            "method": min(inputs.methods, key=lambda method: method != "extracted"),
            "to_template": [],
            "from_template": [],
            "warnings": [],
        }
        likeness = {}
        for number, name in enumerate(inputs.names):
            visit = read_visit(inputs.conformed[number], inputs.masks[number], inputs.sloppy)
            matrix, like = self._register(name, visit, template)
            likeness[name] = round(like, 4)
            for key, points in (("to_template", np.linalg.inv(matrix)), ("from_template", matrix)):
                out[key].append(write_xfm(within(runtime, f"{key}_{number}.txt"), points))
            out["warnings"].append(self._doubts(name, like))
        return out | {"facts": {"LikenessToTemplate": likeness}}

    def _register(self, name: str, visit: Visit, template: Visit) -> tuple[np.ndarray, float]:
        try:
            matrix, like = register(visit, template)
        except ValueError as error:
            raise InputError(
                f"{name} can't be added to the finished visits of {self.source} ({error}): check the image "
                "and its brain mask, or leave it out with --session-label."
            ) from error
        if like < person.ALIGNED:
            raise InputError(
                f"{name} can't be added to the finished visits of {self.source} (its correlation with their "
                f"template is {like:.2f}, and that of a visit of the person 0.95): check that it is of that "
                "person, or leave it out with --session-label."
            )
        return matrix, like

    def _doubts(self, name: str, like: float) -> list[str]:
        if like >= person.SAME_PERSON:
            return []
        return [unlike(name, self.source, like)]


def unlike(name: str, source: str, like: float) -> str:
    """What is said of a visit that may be of another person than the finished ones."""
    return (
        f"{name} and the template of {source} are as unlike after their alignment as images of two people "
        f"(their correlation is {like:.2f}): check that it is of {source}."
    )


class DescribePersonInputSpec(InputSpec):
    aligned = traits.Dict(mandatory=True, desc="how well the visits agree")
    changed = traits.Dict(mandatory=True, desc="volumes and numbers of lesions")
    saved = traits.List(traits.Str, mandatory=True, desc="results of the visits, which must be there")
    shared = InputMultiObject(File(exists=True), desc="what all visits share, if none was finished before")
    given = traits.Dict(mandatory=True, desc="files that each visit was made of, by its prefix")
    results = traits.Dict(mandatory=True, desc="files in the output folder that others look at, likewise")
    known = traits.Dict(usedefault=True, desc="what the sidecar of the template says before")


class DescribePersonOutputSpec(TraitedSpec):
    out = traits.Dict(desc="what the sidecars of the person say")


class DescribePerson(FileInterface):
    """What the sidecars of a person say that is known only after all visits are saved."""

    input_spec = DescribePersonInputSpec
    output_spec = DescribePersonOutputSpec
    # the files may be others though their names are the same
    _always_run = True

    def process(self, runtime) -> dict:
        inputs = self.inputs
        sums = {kind: dict(checksums.known(inputs.known, kind)) for kind in ("Inputs", "Results")}
        if isdefined(inputs.shared):
            sums["Results"]["template"] = checksums.checksum(inputs.shared)
        for kind, files in (("Inputs", inputs.given), ("Results", inputs.results)):
            sums[kind] |= {visit: checksums.checksum(paths) for visit, paths in files.items()}
        facts = dict(inputs.aligned)
        if before := inputs.known.get("LikenessToTemplate"):
            facts["LikenessToTemplate"] = before | facts["LikenessToTemplate"]
        facts[checksums.KEY] = sums
        return {"out": {"template": facts, "changes": inputs.changed, "standard_changes": inputs.changed}}
