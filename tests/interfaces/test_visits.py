"""Once the visits of a person have decided, the rest goes as with an image by itself."""

import numpy as np
import pytest
from helpers import write_card

from bids_inpaint.errors import InputError
from bids_inpaint.imaging import bias, person
from bids_inpaint.interfaces import added
from bids_inpaint.interfaces.inpaint import FillDecided, Inpaint
from bids_inpaint.interfaces.visits import AlignVisits, ShareAffine, write_xfm
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import inpainting, registry
from bids_inpaint.space import WORKING_GRID, Grid

LESION = np.float32(0.45)


@pytest.fixture
def inputs(tmp_path, monkeypatch, toy_model) -> dict:
    """A box of white matter in grey matter with a lesion, and two toy networks."""
    monkeypatch.chdir(tmp_path)
    brain = np.zeros(WORKING_GRID.shape, np.float32)
    brain[30:150, 30:190, 30:150] = 0.4
    brain[40:140, 40:180, 40:140] = 1
    white, grey = (brain == 1).astype(np.float32), (brain == np.float32(0.4)).astype(np.float32)
    mask = brain > 0
    brain[60:70, 60:70, 60:70] = LESION
    filling = tmp_path / "filling.onnx"
    filling.write_bytes(toy_model.read_bytes())
    write_card(filling, blind=False)
    main, second = registry.find(str(toy_model)), registry.find(str(filling))
    volumes = {"in_file": brain, "mask_file": mask.astype(np.uint8), "wm_prior": white, "gm_prior": grey}
    for name, data in volumes.items():
        images.save(tmp_path / f"{name}.nii.gz", data, WORKING_GRID)
    return {
        **{name: str(tmp_path / f"{name}.nii.gz") for name in volumes},
        "model": main.identifier, "model_sha256": main.sha256,
        "second_model": second.identifier, "second_sha256": second.sha256, "device": "cpu",
    }  # fmt: skip


def test_what_all_decide_is_filled_as_what_one_finds(inputs, tmp_path, monkeypatch):
    """With the same lesions, the result is the same to the last bit."""
    brain = images.read(inputs["in_file"])[0]
    monkeypatch.setattr(inpainting, "found", lambda filled, image, *_: image == LESION)
    rule = {"lesion_map": "difference", "threshold": 0.1}
    whole = Inpaint(**inputs, **rule, confine=True).run(cwd=tmp_path).outputs
    kept = {name: images.read(getattr(whole, name))[0] for name in ("out_file", "whole_file")}
    assert (kept["out_file"] != brain)[brain == LESION].all()
    assert (kept["out_file"] != kept["whole_file"]).any()
    (tmp_path / "first").mkdir()
    once = {name: value for name, value in inputs.items() if not name.startswith("second")}
    first = Inpaint(**once).run(cwd=tmp_path / "first").outputs
    assert (images.read(first.whole_file)[0] != kept["whole_file"]).any()
    decided = images.save(tmp_path / "decided.nii.gz", brain == LESION, WORKING_GRID, np.uint8)
    rest = FillDecided(**inputs, first_file=first.whole_file, decided=decided, confine=True).run(cwd=tmp_path)
    for name, values in kept.items():
        assert np.array_equal(images.read(getattr(rest.outputs, name))[0], values)
    assert (rest.outputs.white, rest.outputs.exponent) == (whole.white, whole.exponent)


def test_visits_that_do_not_fit_upon_each_other_are_not_aligned(tmp_path, monkeypatch):
    """What all visits share would be wrong, and lead to errors that name other reasons."""
    grid = Grid.of((12, 12, 12), np.eye(4))
    image = images.save(tmp_path / "t1w.nii.gz", np.ones(grid.shape, np.float32), grid)
    mask = images.save(tmp_path / "mask.nii.gz", np.ones(grid.shape, np.uint8), grid, np.uint8)
    likeness = np.array([[1, 0.9, 0.36], [0.9, 1, 0.8], [0.36, 0.8, 1]])
    monkeypatch.setattr(bias, "correct", lambda data, *_: (data, data))
    monkeypatch.setattr(person, "middle_space", lambda visits: person.Middle([np.eye(4)] * 3, likeness, 0.0))
    align = AlignVisits(
        conformed=[image] * 3,
        masks=[mask] * 3,
        names=["a", "b", "c"],
        methods=["stripped"] * 3,
        source="sub-1",
    )
    with pytest.raises(InputError, match=r"sub-1 can't be aligned \(the correlation of a and c is 0.36 then"):
        align.run(cwd=tmp_path)


@pytest.mark.parametrize("like", [0.4, 0.7, 0.97])
def test_a_visit_is_added_if_it_is_like_the_template(tmp_path, monkeypatch, like):
    grid = Grid.of((12, 12, 12), np.eye(4))
    image = images.save(tmp_path / "t1w.nii.gz", np.ones(grid.shape, np.float32), grid)
    mask = images.save(tmp_path / "mask.nii.gz", np.ones(grid.shape, np.uint8), grid, np.uint8)
    shift = np.eye(4)
    shift[:3, 3] = 1, 2, 3
    monkeypatch.setattr(bias, "correct", lambda data, *_: (data, data))
    monkeypatch.setattr(added, "register", lambda visit, template: (shift, like))
    node = added.AddVisits(
        conformed=[image], masks=[mask], names=["sub-1_ses-3"], methods=["stripped"], source="sub-1",
        template=image, template_mask=mask,
    )  # fmt: skip
    if like < 0.5:
        with pytest.raises(InputError, match=r"^sub-1_ses-3 can't be added to the finished visits of sub-1"):
            node.run(cwd=tmp_path)
        return
    out = node.run(cwd=tmp_path).outputs
    np.testing.assert_allclose(read_xfm(out.from_template), shift, atol=1e-5)
    np.testing.assert_allclose(read_xfm(out.to_template), np.linalg.inv(shift), atol=1e-5)
    assert out.template == image
    assert len(out.warnings[0]) == (like < 0.85)
    assert out.facts == {"LikenessToTemplate": {"sub-1_ses-3": like}}


def test_the_affine_of_a_visit_is_its_rigid_one_and_that_of_all(tmp_path):
    affine = np.array([[1.1, 0.02, 0, 4], [-0.03, 0.97, 0.05, -3], [0, -0.04, 1.1, 6], [0, 0, 0, 1]])
    rigid = np.array([[0.0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 9], [0, 0, 0, 1]])
    standard = write_xfm(str(tmp_path / "standard.txt"), affine)
    visits = [
        write_xfm(str(tmp_path / f"{n}.txt"), matrix)
        for n, matrix in enumerate((rigid, np.linalg.inv(rigid)))
    ]
    out = ShareAffine(standard_xfm=standard, to_template=visits).run(cwd=tmp_path).outputs
    for path, back, matrix in zip(out.xfms, out.inverse_xfms, (rigid, np.linalg.inv(rigid)), strict=True):
        # a point of the standard goes to the template of the person, and from there to the visit
        # a point of the standard goes to the template of the person, and from there to the visit; the files
        # have six digits
        np.testing.assert_allclose(read_xfm(path), matrix @ affine, atol=1e-4)
        np.testing.assert_allclose(read_xfm(back) @ read_xfm(path), np.eye(4), atol=1e-4)
