"""All visits of a person have one brain, one unit and one filling, whatever their voxels."""

import numpy as np
import pytest

from bids_inpaint.interfaces.agreement import AgreeFillings, MatchIntensities, ShareMask
from bids_inpaint.interfaces.visits import write_xfm
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID, Grid


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Saves volumes on the working grid, and returns their paths."""
    monkeypatch.chdir(tmp_path)

    def save(name: str, *volumes: np.ndarray) -> list[str]:
        return [
            images.save(tmp_path / f"{name}{i}.nii.gz", v.astype(np.float32), WORKING_GRID, space_code=4)
            for i, v in enumerate(volumes)
        ]

    return save


def read(paths) -> list[np.ndarray]:
    return [images.read(path)[0] for path in paths]


def test_all_visits_have_one_mask_where_they_have_seen_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = Grid.of(
        (100, 100, 100), np.array([[1.0, 0, 0, -50], [0, 1, 0, -60], [0, 0, 1, -30], [0, 0, 0, 1]])
    )
    mask = np.zeros(grid.shape, np.uint8)
    mask[20:80, 20:80, 20:80] = 1
    standard = np.diag([0.9, 0.9, 0.9, 1.0])
    shift = np.eye(4)
    shift[:3, 3] = (3, -2, 5)
    # the second visit ends in the middle of the brain
    grids = [
        Grid.of((120, 120, 120), grid.matrix @ np.diag([0.9, 0.9, 0.9, 1])),
        grid.part((slice(0, 50),) * 2 + (slice(0, 100),)),
    ]
    out = (
        ShareMask(
            mask_file=images.save(tmp_path / "mask.nii.gz", mask, grid, np.uint8),
            conformed=[
                images.save(tmp_path / f"t1w{i}.nii.gz", np.ones(g.shape, np.float32), g)
                for i, g in enumerate(grids)
            ],
            standard_xfm=write_xfm(str(tmp_path / "standard.txt"), standard),
            from_template=[
                write_xfm(str(tmp_path / f"{i}.txt"), m) for i, m in enumerate((shift, np.eye(4)))
            ],
        )
        .run(cwd=tmp_path)
        .outputs
    )
    first, second = read(out.masks)
    assert first.sum() * grids[0].voxel_volume == pytest.approx(mask.sum(), rel=0.05)
    assert (second == mask[:50, :50]).all()
    # a point of the first visit is moved to the template
    centre = np.argwhere(first).mean(0) @ grids[0].matrix[:3, :3].T + grids[0].matrix[:3, 3] + shift[:3, 3]
    np.testing.assert_allclose(centre, grid.matrix[:3, 3] + 49.5, atol=0.5)
    working = [v > 0 for v in read(out.working_masks)]
    assert working[0].sum() == pytest.approx(mask.sum() / 0.9**3, rel=0.05)
    assert not (working[1] & ~working[0]).any()
    assert 0.2 < working[1].sum() / working[0].sum() < 0.35


def test_what_finished_visits_have_is_filled_as_there(files, tmp_path):
    """And the spread of the fillings is measured from that."""
    brain, lesion = np.full(WORKING_GRID.shape, 1.0), np.zeros(WORKING_GRID.shape)
    lesion[60:70, 60:70, 60:70] = 1
    more = lesion.copy()
    more[100:110, 60:70, 60:70] = 1
    finished = np.where(lesion > 0, 1.3, 1.0)
    out = AgreeFillings(
        in_files=files("brain", brain), fillings=files("filling", 1.7 * brain), masks=files("lesion", more),
        spreads=files("spread", 0.3 * brain), confine=True, kept_files=files("kept", brain, brain),
        kept_inpainted=files("inpainted", finished, finished), kept_masks=files("mask", lesion, lesion),
    ).run(cwd=tmp_path).outputs  # fmt: skip
    (filled,), (spread,) = read([out.out_files]), read([out.spreads])
    assert filled[65, 65, 65] == pytest.approx(1.3)
    assert filled[105, 65, 65] == pytest.approx(1.7)
    assert filled[20, 20, 20] == pytest.approx(1.0)
    # the network's own filling is 0.4 away
    assert spread[65, 65, 65] == pytest.approx(0.5)
    assert spread[105, 65, 65] == pytest.approx(0.3)


def test_what_was_removed_from_the_image_is_in_its_bias(files, tmp_path):
    brain = np.zeros(WORKING_GRID.shape, np.float32)
    brain[30:150, 30:190, 30:150] = 0.7
    brain[40:140, 40:180, 40:140] = 1
    white, mask = brain == 1, brain > 0
    noise = np.random.default_rng(0).normal(1, 0.01, (2, *brain.shape))
    brains = [brain * noise[0], 1.2 * brain * noise[1]]
    biases = [np.full(brain.shape, 2.0), np.full(brain.shape, 3.0)]
    out = MatchIntensities(
        in_files=files("brain", *brains), masks=files("mask", mask, mask), biases=files("bias", *biases),
        wm_prior=files("white", white)[0],
    ).run(cwd=tmp_path).outputs  # fmt: skip
    matched = read(out.out_files)
    assert np.median(matched[0][white]) == pytest.approx(np.median(matched[1][white]), rel=1e-3)
    for before, image, bias, field in zip(brains, matched, biases, read(out.biases), strict=True):
        np.testing.assert_allclose(image * field, before * bias, rtol=1e-4)


@pytest.mark.parametrize("confine", [True, False])
def test_a_lesion_of_two_visits_has_one_filling(files, tmp_path, confine):
    brains = [np.full(WORKING_GRID.shape, level) for level in (1.0, 1.02)]
    fillings = [np.full(WORKING_GRID.shape, level) for level in (1.2, 1.4)]
    lesions = np.zeros((2, *WORKING_GRID.shape))
    lesions[:, 60:70, 60:70, 60:70] = 1
    lesions[1, 100:110, 60:70, 60:70] = 1
    out = AgreeFillings(
        in_files=files("brain", *brains), fillings=files("filling", *fillings), confine=confine,
        masks=files("lesion", *lesions),
    ).run(cwd=tmp_path).outputs  # fmt: skip
    for volumes in (read(out.out_files), read(out.whole_files)):
        assert [v[65, 65, 65] for v in volumes] == pytest.approx([1.3, 1.3])
        # a lesion of one visit is filled as without the other
        assert volumes[1][105, 65, 65] == pytest.approx(1.4)
    away = [v[20, 20, 20] for v in read(out.out_files)]
    assert away == pytest.approx([1.0, 1.02] if confine else [1.2, 1.4])
