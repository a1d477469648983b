"""The graph of an image whose lesion map a person edited."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bids_inpaint.dataset import template
from bids_inpaint.dataset.edits import Edit
from bids_inpaint.dataset.image import Image
from bids_inpaint.networks.selection import Networks
from bids_inpaint.settings import Settings
from bids_inpaint.workflows.base import init_image_wf


def edges(tmp_path, image: Image, **options) -> dict[str, dict[str, str]]:
    """Node to its inputs that come from others, each with the node and its output."""
    settings = Settings(tmp_path / "bids", tmp_path / "out", work_dir=tmp_path / "work", **options)
    (tmp_path / "out").mkdir(exist_ok=True)
    files = template.prepare(settings.template, tmp_path / "work")
    networks = Networks.of(settings)
    workflow = init_image_wf(image=image, settings=settings, networks=networks, template=files, run_uuid="u")
    graph = workflow._create_flat_graph()
    found: dict[str, dict[str, str]] = {}
    for source, target, data in graph.edges(data=True):
        for output, field in data["connect"]:
            name = target.fullname.split(".", 1)[1]
            found.setdefault(name, {})[field] = f"{source.fullname.split('.', 1)[1]}.{output}"
    return found


@pytest.fixture
def image(tmp_path) -> Image:
    for name in ("sub-01_T1w.nii.gz", "edit.nii.gz", "mask.nii.gz"):
        (tmp_path / name).write_text("x")
    edit = Edit(str(tmp_path / "edit.nii.gz"), "T1w", {"Editor": "A"})
    t1w, mask = str(tmp_path / "sub-01_T1w.nii.gz"), str(tmp_path / "mask.nii.gz")
    return Image(t1w, "bids:raw:x", {"sub": "01"}, lesion_mask=mask, edit=edit)


def source_of(found: dict[str, dict[str, str]], node: str, field: str) -> str:
    """The node that computes an input, behind those that pass it on."""
    place = found[node][field]
    while place.rpartition(".")[0].endswith(("inputnode", "outputnode")):
        above, _, output = place.rpartition(".")
        place = found[above][output]
    return place


@pytest.mark.parametrize("options", [{"tta": True}, {"segmentation": "none"}, {"lesion_threshold": 0.2}])
def test_results_come_from_the_edit_and_what_is_before_stays(tmp_path, image, options):
    found = edges(tmp_path, image, edits=tmp_path, **options)
    save = "outputs_wf.save"
    for field in ("native_inpainted", "native_mask", "table"):
        assert source_of(found, save, field).startswith("edited_lesions_wf.native.")
    assert source_of(found, save, "inpainted") == "edit_wf.refill.out_file"
    assert source_of(found, "edit_wf.refill", "inpainted") == "inpaint_wf.inpaint.whole_file"
    assert source_of(found, "edit_wf.edits", "native_mask") == "lesions_wf.native.lesion_mask"
    assert source_of(found, "edit_wf.edits", "mask") == "lesions_wf.map_lesions.mask"
    if "tta" in options:
        assert source_of(found, save, "native_spread") == "edited_lesions_wf.native.spread"
        assert source_of(found, "edited_lesions_wf.native", "spread") == "edit_wf.refill.spread"
    if options.get("segmentation") != "none":
        assert source_of(found, save, "dseg").startswith("segment_edited_wf.")
    plain = edges(tmp_path, replace(image, edit=None), **options)
    for node in ("lesions_wf.native", "lesions_wf.map_lesions", "inpaint_wf.inpaint"):
        assert found[node] == plain[node]


def test_given_masks_lead_to_the_reference_beside_an_edit(tmp_path, image):
    found = edges(tmp_path, image, edits=tmp_path, lesion_masks=tmp_path)
    assert source_of(found, "outputs_wf.save_reference", "native_reference").startswith(
        "reference_lesions_wf."
    )
    assert source_of(found, "outputs_wf.save", "native_mask").startswith("edited_lesions_wf.")
