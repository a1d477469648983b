"""Samples of whole batches: the same as one by one, and as version 0.1.0 made them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import TOY
from scipy import ndimage

torch = pytest.importorskip("torch")
from torch.nn import functional

from bids_inpaint.space import WORKING_GRID
from bids_inpaint.training import filters, painting, synthesis
from bids_inpaint.training.brains import Brains
from bids_inpaint.training.config import Config, Synthesis
from bids_inpaint.training.data import Lesions, find_subjects
from bids_inpaint.training.lesioned import Batch, Patches, check_ranges
from bids_inpaint.training.painters import PAINTERS, RealLesions, Scene, draw_lesions
from bids_inpaint.training.parameters import LesionParameters, draw_image
from bids_inpaint.training.patches import Place
from bids_inpaint.training.tissue import vary_tissue


@pytest.fixture(scope="module")
def people(cache, tmp_path_factory):
    """The cache with a patient more, who has a dark lesion and a small one."""
    folder = tmp_path_factory.mktemp("people") / "cache"
    shutil.copytree(cache, folder)
    shutil.copytree(cache / "toy_sub-01", folder / "toy_sub-03")
    healthy = np.load(folder / "toy_sub-03" / "image.npy")
    lesions = np.zeros(WORKING_GRID.shape, bool)
    lesions[90:102, 100:110, 80:92] = True
    lesions[60:63, 100:103, 100:103] = True
    image = np.where(lesions, 0.7 * healthy, healthy).astype(np.float16)
    for name, volume in (("image", image), ("target", healthy), ("lesions", lesions)):
        np.save(folder / "toy_sub-03" / f"{name}.npy", volume)
    return folder


@pytest.fixture
def settings(tmp_path) -> Config:
    path = tmp_path / "toy.toml"
    path.write_text(TOY.format(steps=4, blind="true"))
    config = Config.load(path)
    return replace(
        config,
        data=replace(config.data, train=["toy_sub-01", "toy_sub-02", "toy_sub-03"]),
        network=config.network | {"priors": True},
        schedule=replace(config.schedule, patch=32),
        synthesis=Synthesis(
            mix={"patient": 0.3, "singles": 0.3, "both": 0.4}, vary=True, artefacts=True,
            painters=dict.fromkeys(PAINTERS, 1.0), patients=0.3,
        ),
    )  # fmt: skip


def gaussian(volume, sigma):
    """A Gaussian filter by convolutions of one axis after the other, cut off at three standard deviations."""
    out = volume[None, None]
    for axis, s in enumerate(sigma):
        if s < 0.05:
            continue
        radius = int(np.ceil(3 * s))
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / s) ** 2)
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[axis + 2], padding[axis] = -1, radius
        out = functional.conv3d(out, (kernel / kernel.sum()).view(shape), padding=padding)
    return out[0, 0]


def paint_one_by_one(healthy, grey, lesions, corner, seed):
    """Version 0.1.0's painter: one lesion after the other, each in the whole patch."""
    image, support = healthy.clone(), torch.zeros_like(healthy)
    low = torch.full(healthy.shape, grey + 0.35 * (1 - grey))
    deep = tuple(
        slice(*np.clip((s.start - c, s.stop - c), 0, n).tolist())
        for s, c, n in zip(painting.DEEP_GREY, corner, healthy.shape, strict=True)
    )
    low[deep] = grey - 0.3 * (1 - grey)
    white = ((gaussian(healthy, (0.7, 0.7, 0.7)) - low) / (0.4 * (1 - grey))).clamp(0, 1)
    coarse = torch.randn(
        [1, 1, *(max(2, n // 6) for n in healthy.shape)], generator=torch.Generator().manual_seed(seed)
    )
    texture = functional.interpolate(coarse, size=healthy.shape, mode="trilinear")[0, 0]
    for lesion in lesions:
        voxels = np.round(lesion.voxels - np.asarray(corner)).astype(int)
        near = ((voxels >= -2) & (voxels < np.array(healthy.shape) + 2)).all(1)
        if near.sum() < 5:
            continue
        inside = voxels[((voxels >= 0) & (voxels < healthy.shape)).all(1)]
        spot = torch.zeros_like(healthy)
        spot[tuple(torch.from_numpy(inside.T))] = 1
        spot = (gaussian(spot, (lesion.rim,) * 3) * 1.15).clamp(0, 1) * white
        target = lesion.level * (1 + lesion.unevenness * texture) + lesion.retained * (healthy - 1)
        darker = torch.minimum(healthy + spot * (target - healthy), image)
        image = torch.minimum(darker.clamp(min=0), healthy)
        support = torch.maximum(support, spot)
    return image, support


def tissue(shape=(40, 36, 44)):
    """Noise that is smooth, between grey and white matter."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return torch.from_numpy((0.85 + 1.2 * smooth).clip(0, 1.2).astype(np.float32))


def test_filters_are_those_of_convolutions():
    volumes = torch.stack([tissue(), tissue().flip(0)])
    sigmas = torch.tensor([[0.7, 0.0, 2.0], [1.3, 0.02, 0.4]])
    for volume, sigma, ours in zip(volumes, sigmas, filters.smooth(volumes, sigmas), strict=True):
        assert (ours - gaussian(volume, sigma.tolist())).abs().max() < 1e-6
    lattices = torch.randn(2, 4, 5, 7)
    theirs = functional.interpolate(lattices[:, None], size=(40, 36, 44), mode="trilinear")[:, 0]
    assert (filters.spread(lattices, (40, 36, 44)) - theirs).abs().max() < 1e-5


def test_the_same_parameters_give_the_patch_of_version_0_1_0():
    rng = np.random.default_rng(1)
    corner, healthy = (60, 80, 70), tissue()
    lesions = [
        LesionParameters(
            rng.uniform(0, 12, (4000, 3)) + rng.uniform(-4, 36, 3) + corner, *rng.uniform(0.3, 0.9, 2),
            rim=float(rng.uniform(0.5, 2.5)), unevenness=float(rng.uniform(0, 0.2)),
        )
        for _ in range(12)
    ]  # fmt: skip
    ours = synthesis.paint(healthy, 0.7, lesions, corner, seed=5)
    theirs = paint_one_by_one(healthy, 0.7, lesions, corner, seed=5)
    assert theirs[1].max() > 0.9
    for one, two in zip(ours, theirs, strict=True):
        assert (one - two).abs().max() < 1e-5


def test_a_batch_is_its_samples_one_by_one(people, shapes, settings):
    patches = Patches(settings, people, Lesions.load(shapes))
    recipes = [patches.draw(i) for i in range(12)]
    assert {bool(r.lesions) for r in recipes} == {True, False}
    made = patches.make(Batch.of(recipes))
    check_ranges(made, grey=2)
    for i in (0, 4, 7, 11):
        for one, of_batch in zip(patches.sample(i), made, strict=True):
            # of other orders of summation, at intensities up to 5
            assert (one - of_batch[i]).abs().max() < 2e-4


def test_the_template_is_averaged_where_the_sample_lies(people, shapes, settings):
    patches = Patches(settings, people, Lesions.load(shapes))
    recipes = [patches.draw(i) for i in range(8)]
    assert {r.place.flip for r in recipes} == {True, False}
    made = patches.make(Batch.of(recipes))[3]
    for recipe, ours in zip(recipes, made, strict=True):
        crops = torch.stack([recipe.place.crop(p, recipe.shift) for p in patches.priors])
        assert ours.max() > 0.1
        assert (ours - functional.avg_pool3d(crops, 2)).abs().max() < 1e-6


def test_brains_in_the_memory_of_a_gpu_are_cut_as_files_are(people):
    subjects = find_subjects(people, ["toy_sub-01", "toy_sub-03"])
    brains = Brains(subjects, [], RealLesions(subjects[1:]))
    kept = torch.from_numpy(np.stack([s.image for s in subjects]))
    places = [Place((20, 30, 40), (16, 16, 16), False), Place((-3, 200, 170), (16, 16, 16), True)]
    shifts = [(2, -1, 0), (0, 0, 3)]
    for which in ([0, 1], [1, 0]):
        one, two = (brains.crop(v, which, places, shifts) for v in (brains.images, kept))
        assert torch.equal(one, two)
        assert one[0].max() > 0


@pytest.mark.parametrize("painter", PAINTERS)
def test_lesions_of_each_painter_are_dark_and_in_white_matter(painter, people, shapes):
    (patient,) = find_subjects(people, ["toy_sub-03"])
    real = RealLesions([patient])
    corner, size = (70, 70, 70), (48, 48, 48)
    rng = np.random.default_rng(2)
    scene = Scene(Lesions.load(shapes), np.array(corner) + 24, np.array(size), "singles", 0.7, real)
    lesions = [lesion for _ in range(3) for lesion in draw_lesions(rng, scene, {painter: 1.0})]
    assert all(lesion.painter == painter for lesion in lesions)
    healthy = torch.ones(size)
    healthy[:, :, :10] = 0.5
    changes = torch.from_numpy(np.stack(real.changes))
    image, support = synthesis.paint(healthy, 0.7, lesions, corner, 1, changes)
    assert support.max() > 0.5
    assert 0 <= support.min() <= support.max() <= 1
    assert (image <= healthy).all()
    assert torch.equal(image[support == 0], healthy[support == 0])
    assert image[support > 0.5].mean() < 0.97
    # the cortex has none
    assert support[:, :, :8].max() == 0


def test_a_field_that_leaves_the_patch_is_the_same_in_a_larger_one(shapes):
    """Its box is cut off where the patch ends, but not what is in it."""
    scene = Scene(Lesions.load(shapes), np.array((80, 110, 86)), np.full(3, 64), "singles", 0.7)
    rng = np.random.default_rng(4)
    lesions = [lesion for _ in range(6) for lesion in draw_lesions(rng, scene, {"field": 1.0})]
    large = synthesis.paint(torch.ones(64, 64, 64), 0.7, lesions, (48, 78, 54), 1)[1]
    small = synthesis.paint(torch.ones(30, 28, 32), 0.7, lesions, (64, 94, 70), 1)[1]
    assert small.max() > 0.9
    # tissue is no white matter where the patch ends
    inside = (slice(3, -3),) * 3
    difference = (large[16:46, 16:44, 16:48] - small).abs()[inside]
    # a lesion of which fewer than five voxels are in the patch is not in it
    assert (difference > 1e-4).float().mean() < 0.01


def test_patches_of_patients_keep_what_their_lesions_look_like(people, shapes):
    """A lesion of 0.7 of white matter is as dark in another place, at the contrast of that image."""
    (patient,) = find_subjects(people, ["toy_sub-03"])
    real = RealLesions([patient])
    scene = Scene(Lesions.load(shapes), np.array((60, 120, 60)), np.full(3, 64), "singles", 0.6, real)
    drawn = PAINTERS["patch"].draw(np.random.default_rng(0), scene)
    lesion = replace(next(one for one in drawn if len(one.voxels) > 100), strength=1.0)
    corner = tuple((np.rint(lesion.voxels.mean(0)) - 24).astype(int).tolist())
    changes = torch.from_numpy(np.stack(real.changes))
    image, support = synthesis.paint(torch.ones(48, 48, 48), 0.6, [lesion], corner, 1, changes)
    expected = 1 - 0.3 * (1 - 0.6) / (1 - patient.grey_level)
    assert image[support > 0.99].median() == pytest.approx(expected, abs=0.02)


def test_what_is_no_lesion_is_in_both_versions(people, shapes, settings):
    parameters = replace(
        draw_image(np.random.default_rng(0), 0.7, vary=False), dirty=0.08, vessels=0.5, spaces=0.4,
        ghost=(0.05, 7, 1), ringing=(0.7, 1.0, 1.0),
    )  # fmt: skip
    healthy = torch.ones(1, 32, 32, 32)
    lesioned = healthy.clone()
    lesioned[:, :8] = 0.7
    draws = synthesis.Draws.seeded([3], healthy.shape[1:])
    one, two = vary_tissue([lesioned, healthy], torch.tensor([0.7]), [parameters], draws)
    assert torch.equal(one[:, 8:], two[:, 8:])
    assert two.min() < 0.9
    assert two.max() > 1.2
    one, two = synthesis.degrade([one, two], [parameters], draws)
    assert (one - two)[:, 20:].abs().mean() < 0.01


def test_batches_of_a_device_are_the_same_again(people, shapes, settings):
    first, second = (next(Patches(settings, people, Lesions.load(shapes), 8).batches(4, 0)) for _ in range(2))
    assert [t.shape[0] for t in first] == [4] * 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("channel", [0, 2, 3])
def test_channels_out_of_their_range_are_refused(channel, people, shapes, settings):
    made = Patches(settings, people, Lesions.load(shapes)).make(
        Batch.of([Patches(settings, people, Lesions.load(shapes)).draw(i) for i in range(2)])
    )
    made[channel] = made[channel] * 255
    with pytest.raises(ValueError, match="ranges from"):
        check_ranges(made)


def test_painters_of_real_lesions_need_patients(cache, shapes, settings):
    healthy = replace(settings, data=replace(settings.data, train=["toy_sub-01"]))
    with pytest.raises(ValueError, match="trains on none"):
        Patches(healthy, cache, Lesions.load(shapes))
