"""Lesions at the borders of white matter, what looks like a lesion and is none, and masks of experts."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import TOY

torch = pytest.importorskip("torch")

from bids_inpaint.space import MIRROR, WORKING_GRID
from bids_inpaint.training import synthesis
from bids_inpaint.training.borders import BODIES, Borders, draw_at_borders, fainter
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, find_subjects
from bids_inpaint.training.lesioned import Batch, Patches, check_ranges
from bids_inpaint.training.painters import PAINTERS, RealLesions, Scene, draw_lesions
from bids_inpaint.training.parameters import draw_image
from bids_inpaint.training.patches import Place
from bids_inpaint.training.tissue import draw_tracts, expert_support, redraw_contrast, vary_tissue

GREY = 0.64


@pytest.fixture(scope="module")
def head(cache, tmp_path_factory):
    """The cache with ventricles in a brain, and a cistern; and a patient with a lesion."""
    folder = tmp_path_factory.mktemp("borders") / "cache"
    shutil.copytree(cache, folder)
    image = np.array(np.load(folder / "toy_sub-01" / "image.npy"))
    for low, high in ((76, 84), (97, 105)):
        image[low:high, 80:140, 80:100] = 0.2
    # a cistern
    image[80:101, 85:100, 62:74] = 0.2
    np.save(folder / "toy_sub-01" / "image.npy", image)
    shutil.copytree(folder / "toy_sub-01", folder / "toy_sub-03")
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[110:122, 100:110, 80:92] = True
    np.save(folder / "toy_sub-03" / "target.npy", image)
    np.save(folder / "toy_sub-03" / "image.npy", np.where(lesions, 0.7 * image, image).astype(np.float16))
    np.save(folder / "toy_sub-03" / "lesions.npy", lesions)
    return folder


@pytest.fixture
def healthy(head):
    (subject,) = find_subjects(head, ["toy_sub-01"])
    return subject


def drawn(healthy, shapes, flip, times=12, **shares):
    """Lesions at the borders in a patch around the ventricles, and the patch."""
    place = Place((58, 80, 60), (64, 64, 64), flip)
    scene = Scene(Lesions.load(shapes), place.centre, np.array(place.size), "singles", GREY)
    settings = Synthesis(**shares)
    rng, borders = np.random.default_rng(0), Borders.of(healthy)
    lesions = [one for _ in range(times) for one in draw_at_borders(rng, scene, borders, flip, settings)]
    return place, lesions


def test_walls_are_those_of_the_lateral_ventricles_alone(healthy):
    borders = Borders.of(healthy)
    assert len(borders.wall) == len(borders.depth) > 1000
    # the cistern is no ventricle
    touching = (borders.depth > 0) & (borders.depth < 1.1)
    assert borders.wall[touching, 2].min() >= 79
    image = np.asarray(healthy.image)[tuple(borders.wall.T)]
    assert np.array_equal(image > 0.5, borders.depth > 0)
    both = borders.wall[touching, 0]
    assert (both < BODIES[0].start + 4).any()
    assert (both > BODIES[0].stop - 5).any()


@pytest.mark.parametrize("flip", [False, True])
def test_bands_and_caps_melt_into_the_ventricle_and_end_at_its_fluid(healthy, shapes, flip):
    place, lesions = drawn(healthy, shapes, flip, periventricular=1.0)
    tissue = place.crop(healthy.image)
    image, support = synthesis.paint(tissue, GREY, lesions, place.corner, 1)
    fluid = tissue < 0.3
    assert support[fluid].max() == 0
    assert torch.equal(image[fluid], tissue[fluid])
    # voxels that touch the fluid are lesion as those behind them
    beside = torch.zeros_like(fluid)
    beside[1:] |= fluid[:-1]
    beside[:-1] |= fluid[1:]
    beside &= ~fluid
    # the cistern has no lesions
    beside[:, :, :16] = False
    behind = torch.zeros_like(fluid)
    behind[2:] |= beside[1:-1] & fluid[:-2]
    behind[:-2] |= beside[1:-1] & fluid[2:]
    assert support[beside].mean() > 0.95 * support[behind & ~beside & ~fluid].mean() > 0.1
    assert (tissue - image)[beside][support[beside] > 0.9].mean() > 0.05


def test_half_of_the_bands_are_in_both_hemispheres(healthy, shapes):
    _, lesions = drawn(healthy, shapes, False, times=40, periventricular=1.0)
    sides = np.array([np.sign(one.voxels[:, 0].mean() - MIRROR / 2) for one in lesions])
    levels = np.array([np.abs(one.voxels[:, 0].mean() - MIRROR / 2) for one in lesions])
    pairs = (np.abs(np.diff(levels)) < 1.5) & (np.diff(sides) != 0)
    assert 0.15 < pairs.mean() < 0.6


def test_spots_lie_on_the_border_of_the_cortex(healthy, shapes):
    rng = np.random.default_rng(0)
    image = np.array(healthy.image, np.float32)
    # partial volume between white matter and cortex
    image[40, 30:190, 30:150] = 0.86
    soft = replace(healthy)
    object.__setattr__(soft, "image", image)
    borders = Borders.of(soft)
    assert set(borders.cortex[:, 0]) == {40}
    place = Place((20, 80, 60), (64, 64, 64), False)
    scene = Scene(Lesions.load(shapes), place.centre, np.array(place.size), "singles", GREY)
    settings = Synthesis(juxtacortical=1.0)
    spots = [one for _ in range(8) for one in draw_at_borders(rng, scene, borders, False, settings)]
    assert spots
    assert all(abs(np.median(one.voxels[:, 0]) - 40) < 4 for one in spots)
    tissue = place.crop(image)
    lesioned, support = synthesis.paint(tissue, GREY, spots, place.corner, 1)
    # in the cortex in part
    cortex, white = support[14:19], support[22:26]
    assert 0 < cortex.max() <= 0.6
    assert white.max() > 0.9
    assert (lesioned <= tissue).all()


@pytest.mark.parametrize("painter", PAINTERS)
def test_faint_lesions_of_each_painter_are_a_tenth_or_two_darker(painter, head, shapes):
    (patient,) = find_subjects(head, ["toy_sub-03"])
    real = RealLesions([patient])
    corner, size = (70, 70, 70), (48, 48, 48)
    rng = np.random.default_rng(2)
    scene = Scene(Lesions.load(shapes), np.array(corner) + 24, np.array(size), "singles", GREY, real)
    lesions = [one for _ in range(4) for one in draw_lesions(rng, scene, {painter: 1.0})]
    faint = [fainter(rng, one, GREY) for one in lesions]
    changes = torch.from_numpy(np.stack(real.changes))
    white = torch.ones(size)
    strong, weak = (synthesis.paint(white, GREY, some, corner, 1, changes) for some in (lesions, faint))
    inside = weak[1] > 0.9
    assert inside.sum() > 100
    assert 0.03 < (1 - weak[0][inside]).mean() < 0.25
    assert (1 - weak[0][inside]).mean() < (1 - strong[0][inside]).mean()
    # a border is wider than before
    soft, hard = (((s > 0.1) & (s < 0.9)).sum() / (s > 0.5).sum() for s in (weak[1], strong[1]))
    assert soft > hard


def test_tracts_are_smooth_alike_in_both_hemispheres_and_dark_in_white_matter_alone():
    place = Place((58, 80, 60), (64, 64, 64), False)
    lattice = draw_tracts(np.random.default_rng(1), place)
    assert lattice.shape == (16, 16, 16)
    assert 0.02 < lattice.max() <= 0.2
    parameters = replace(draw_image(np.random.default_rng(0), GREY, vary=False), tracts=lattice)
    tissue = torch.ones(1, 64, 64, 64)
    tissue[:, :, :, :8] = GREY
    draws = synthesis.Draws.seeded([3], tissue.shape[1:])
    (out,) = vary_tissue([tissue], torch.tensor([GREY]), [parameters], draws)
    # voxel x and MIRROR - x
    left, right = out[0, 1 : 90 - 58], out[0, 90 - 58 + 1 : 2 * (90 - 58)].flip(0)
    assert (left - right).abs().max() < 0.02
    assert out.min() < 0.98
    assert (out[0, 1:] - out[0, :-1])[..., 8:].abs().max() < 0.03
    assert torch.equal(out[..., :8], tissue[..., :8])


def test_sulci_grow_from_fluid_and_cortex_and_neither_from_noise_nor_from_beyond_the_brain():
    tissue = 1 + 0.02 * torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    tissue[:, :, 10:13] = 0.2
    tissue[:, :8] = 0
    parameters = replace(draw_image(np.random.default_rng(0), GREY, vary=False), sulci=1.0)
    draws = synthesis.Draws.seeded([3], tissue.shape[1:])
    lesioned = tissue.clone()
    lesioned[:, 20:24, 20:24, 20:24] *= 0.7
    one, two = vary_tissue([lesioned, tissue], torch.tensor([GREY]), [parameters], draws)
    assert torch.equal(two > 0, tissue > 0)
    beside = two[:, 10:, [9, 13]]
    assert beside.min() < 0.5
    assert beside.mean() < 0.85
    far = (slice(None), slice(8, None), slice(16, None))
    assert (two - tissue)[far].abs().mean() < 0.01
    # a lesion is as much darker as before
    assert (one / two - lesioned / tissue)[:, 8:].abs().max() < 1e-5


def test_contrast_of_fluid_and_deep_grey_matter_changes_and_never_falls():
    image = torch.linspace(0, 1.5, 301)[None, None, None]
    still = draw_image(np.random.default_rng(0), GREY, vary=False)
    for fluid, deep in ((0.6, 1.6), (1.6, 0.6)):
        out = redraw_contrast(image, torch.tensor([GREY]), [replace(still, fluid=fluid, deep=deep)])
        assert (out.diff() > 0).all()
        at = lambda level, out=out: float(out.flatten()[round(level * 200)])  # noqa: E731
        assert [at(0), at(GREY), at(1), at(1.5)] == pytest.approx([0, GREY, 1, 1.5], abs=0.005)
        assert at(GREY / 2) == pytest.approx(fluid * GREY / 2, abs=0.005)
        assert at((1 + GREY) / 2) == pytest.approx(GREY + deep * (1 - GREY) / 2, abs=0.005)


def test_of_an_expert_s_mask_what_is_not_dark_is_lesion_in_part():
    target = torch.ones(1, 24, 24, 24)
    image, mask = target.clone(), torch.zeros(target.shape, dtype=torch.bool)
    mask[:, 4:20, 4:20, 4:20] = True
    image[:, 4:12, 4:20, 4:20] = 0.7
    # dark beside the mask: as the lesion, and as fluid
    image[:, 4:12, 20, 4:20] = 0.7
    image[:, 4:12, 4:20, 20] = 0.1
    grey = torch.tensor([GREY])
    assert torch.equal(expert_support(image, target, mask, grey), mask.float())
    soft = expert_support(image, target, mask, grey, unseen=0.3, beyond=0.5)
    assert soft[:, 6:10, 8:16, 8:16].min() == 1
    assert soft[:, 15:18, 8:16, 8:16].max() == pytest.approx(0.3)
    assert (soft[:, 6:10, 20, 8:16] == 0.5).all()
    assert soft[:, 6:10, 8:16, 20].max() == 0
    assert soft[:, :4].max() == 0
    assert soft[:, :, 22:].max() == 0


def test_samples_with_everything_keep_their_contract(head, shapes, tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(TOY.format(steps=4, blind="true"))
    config = Config.load(path)
    on = dict.fromkeys(
        ("faint", "periventricular", "juxtacortical", "infratentorial", "tracts", "sulci", "contrast"), 0.7
    )
    config = replace(
        config,
        data=replace(config.data, train=["toy_sub-01", "toy_sub-02", "toy_sub-03"]),
        network=config.network | {"priors": True},
        schedule=replace(config.schedule, patch=48),
        synthesis=Synthesis(
            mix={"both": 1.0}, vary=True, artefacts=True, painters=dict.fromkeys(PAINTERS, 1.0),
            patients=0.3, unseen=0.3, beyond=0.5, **on,
        ),
    )  # fmt: skip
    patches = Patches(config, head, Lesions.load(shapes))
    recipes = [patches.draw(i) for i in range(16)]
    made = patches.make(Batch.of(recipes))
    check_ranges(made, grey=2)
    for i in (0, 5, 11, 15):
        for one, of_batch in zip(patches.sample(i), made, strict=True):
            assert (one - of_batch[i]).abs().max() < 2e-4
    # some lie in the brainstem
    assert min(r.place.corner[2] for r in recipes) < 30
    config.save(tmp_path / "again.toml")
    assert Config.load(tmp_path / "again.toml").synthesis == config.synthesis


def test_shares_are_shares():
    with pytest.raises(TypeError, match="tracts = 4 is no share"):
        Synthesis(tracts=4)
