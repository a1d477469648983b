import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.tools import create_pyscript
from nipype.utils.filemanip import loadpkl
from scipy import ndimage

from bids_inpaint import errors
from bids_inpaint.dataset import template
from bids_inpaint.demo import acquire, tilted
from bids_inpaint.errors import WorkerKilled
from bids_inpaint.imaging import bias, feathering, itk, lesions
from bids_inpaint.imaging.itk import _denoise, affine, alone, each_alone, itk_matrix
from bids_inpaint.interfaces.ants import Denoise, RegisterAffine
from bids_inpaint.interfaces.derivatives import SaveDerivatives
from bids_inpaint.interfaces.images import BrainMask, Conform, GivenAffine, ToWorkingGrid
from bids_inpaint.interfaces.lesions import LesionMask
from bids_inpaint.interfaces.native import BackToNative
from bids_inpaint.io import images
from bids_inpaint.io.files import publish
from bids_inpaint.io.images import write_like
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.participant.progress import Progress
from bids_inpaint.space import WORKING_GRID, Grid, resample


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_xfm(path, matrix):
    from nitransforms.io.itk import ITKLinearTransform

    ITKLinearTransform.from_ras(matrix).to_filename(path)
    return str(path)


XFM = np.array([[1.05, 0.02, 0, 4], [-0.03, 0.97, 0.05, -3], [0, -0.04, 1.1, 6], [0, 0, 0, 1]])


def test_transforms_survive_their_file(here):
    np.testing.assert_allclose(read_xfm(write_xfm(here / "x.txt", XFM)), XFM, atol=1e-6)


def test_affines_of_other_tools_are_checked(here):
    good, back = write_xfm(here / "x.txt", XFM), write_xfm(here / "back.txt", np.linalg.inv(XFM))
    assert GivenAffine(xfm=good, inverse_xfm=back).run(cwd=str(here)).outputs.out_inverse == back
    mirror = np.diag([-1.0, 1, 1, 1])
    for one, two, reason in (
        (good, good, "x.txt is not the inverse of .*x.txt"),
        (write_xfm(here / "m.txt", mirror), write_xfm(here / "m2.txt", mirror), "or a mirror"),
        (write_xfm(here / "v.txt", np.diag([20, 1, 1, 1.0])), back, "v.txt is no affine between a head"),
    ):
        with pytest.raises(errors.InputError, match=reason):
            GivenAffine(xfm=one, inverse_xfm=two).run(cwd=str(here))


def test_another_file_of_equal_size_and_time_is_not_taken_for_the_one_before(here):
    """As two images from an archive are, whose results share a work folder."""
    found = []
    for value in (1, 2):
        path = here / str(value) / "sub-01_T1w.nii"
        path.parent.mkdir()
        data = np.zeros((20, 20, 20), np.int16)
        data[5:15, 5:15, 5:15] = value * np.arange(1000).reshape(10, 10, 10)
        nib.Nifti1Image(data, np.diag([4, 4, 4, 1])).to_filename(path)
        os.utime(path, (1e9, 1e9))
        node = pe.Node(Conform(in_file=str(path)), name="conform", base_dir=str(here))
        found.append(images.read(node.run().outputs.out_file)[0].max())
    assert found == [999, 1998]


def test_registration_depends_on_the_seed_alone(here):
    grid = tilted((60, 72, 60), (3, 3, 3), 8)
    data = acquire(grid)[0].astype(np.float32)
    given = {
        "in_file": images.save(here / "t1w.nii.gz", data, grid),
        "mask_file": images.save(here / "mask.nii.gz", (data > 100).astype(np.uint8), grid),
        "template": template.prepare(template.DEFAULT, here).t1w,
    }
    one, again, other = (
        read_xfm(RegisterAffine(**given, random_seed=n, sloppy=True).run(cwd=str(here)).outputs.out_xfm)
        for n in (0, 0, 1)
    )
    assert (one == again).all()
    assert 0 < np.abs(one - other).max() < 1


def test_ants_and_our_matrices_agree(here):
    """A point moved by ANTs' own transform lands where our matrix puts it (LPS against RAS, centre)."""
    ants = pytest.importorskip("ants")
    transform = ants.create_ants_transform(
        transform_type="AffineTransform", dimension=3,
        matrix=XFM[:3, :3], translation=(5, -2, 7), center=(10, 20, -30),
    )  # fmt: skip
    point = np.array([12.0, -34.0, 56.0])
    lps = np.array(transform.apply_to_point((point * [-1, -1, 1]).tolist()))
    np.testing.assert_allclose(itk_matrix(transform)[:3] @ [*point, 1], lps * [-1, -1, 1], atol=1e-6)


def native_case(here, dtype=np.int16, slope=None):
    """A tilted anisotropic T1w whose world relates to the template's by XFM."""
    affine = np.array([[-0.9, 0, 0, 85], [0, 0.86, -0.9, -80], [0, 0.26, 2.9, -100], [0, 0, 0, 1]])
    grid = Grid.of((190, 200, 64), affine)
    rng = np.random.default_rng(0)
    raw = (rng.random(grid.shape) * 200).astype(dtype)
    image = nib.Nifti1Image(raw, affine)
    if slope:
        image.header.set_slope_inter(slope, 0)
    image.to_filename(here / "t1w.nii.gz")
    return raw, grid


def back_to_native(
    here, lesion: np.ndarray, fill="lesions", given: np.ndarray | None = None, keep_volume=False, **case
):
    raw, grid = native_case(here, **case)
    one = np.ones(WORKING_GRID.shape, np.float32)
    files = {
        "brain_mask": (np.ones(grid.shape, np.uint8), grid),
        "denoised": (raw.astype(np.float32), grid),
        "preproc": (one, WORKING_GRID),
        "inpainted": (one + 0.5 * lesion, WORKING_GRID),
        "bias": (one * 2, WORKING_GRID),
        "weight": (lesion.astype(np.float32), WORKING_GRID),
        "probability": (lesion.astype(np.float32), WORKING_GRID),
        "lesion_mask": (lesion.astype(np.uint8), WORKING_GRID),
        "darkening": (0.5 * lesion.astype(np.float32), WORKING_GRID),
    }
    if given is not None:
        kept, reached = lesions.transfer(given, grid, WORKING_GRID, XFM)
        files |= {
            "given": (given.astype(np.uint8), grid),
            "inpainted": (one + 0.5 * reached, WORKING_GRID),
            "weight": (feathering.feather(kept, WORKING_GRID), WORKING_GRID),
            "lesion_mask": (kept.astype(np.uint8), WORKING_GRID),
        }
    paths = {k: images.save(here / f"{k}.nii.gz", d, g) for k, (d, g) in files.items()}
    interface = BackToNative(
        t1w=str(here / "t1w.nii.gz"), scale=10.0, fill=fill, keep_volume=keep_volume,
        inverse_xfm=write_xfm(here / "inverse.txt", np.linalg.inv(XFM)), **paths,
    )  # fmt: skip
    return raw, grid, interface.run(cwd=str(here)).outputs


def test_lesions_of_several_visits_keep_their_volume(here):
    """Small ones, too, of which half a voxel as the limit would lose a part."""
    lesion = np.zeros(WORKING_GRID.shape)
    for x, y, z in np.random.default_rng(1).integers((60, 70, 60), (120, 150, 100), (40, 3)):
        lesion[x : x + 3, y : y + 3, z : z + 2] = 1
    volumes = {}
    for keep in (True, False):
        _, grid, outputs = back_to_native(here, lesion, keep_volume=keep)
        mask = images.read(outputs.lesion_mask)[0] > 0
        # the T1w is larger or smaller than the template by its affine
        volumes[keep] = mask.sum() * grid.voxel_volume / abs(np.linalg.det(XFM[:3, :3]))
    assert volumes[True] == pytest.approx(lesion.sum(), rel=0.01)
    assert volumes[False] < 0.97 * lesion.sum()


def test_given_lesions_are_all_filled_and_mapped_as_they_are(here):
    """Single voxels and threads, too, which half of a voxel of the working grid does not hold."""
    given = np.zeros((190, 200, 64), bool)
    given[70, 80, 20:30:3] = given[90, 60:80, 32] = given[100:103, 100:104, 40] = True
    given[120, 90:110:4, 25] = True
    raw, _, outputs = back_to_native(here, np.zeros(WORKING_GRID.shape), given=given)
    np.testing.assert_array_equal(images.read(outputs.lesion_mask)[0] > 0, given)
    assert (
        len(Path(outputs.table).read_text().splitlines()) == 1 + ndimage.label(given, np.ones((3, 3, 3)))[1]
    )
    # as in the test below, but for what the corners of a voxel have no part in
    rise = np.asanyarray(nib.load(outputs.inpainted).dataobj)[given].astype(float) - raw[given]
    assert rise.min() > 7
    assert rise.mean() == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("dtype", "slope"), [(np.int16, None), (np.uint8, None), (np.float32, None), (np.int16, 0.5)]
)
def test_native_result_changes_the_lesion_alone_and_at_its_place(here, dtype, slope):
    lesion = np.zeros(WORKING_GRID.shape, bool)
    lesion[60:72, 120:132, 90:102] = True
    raw, grid, outputs = back_to_native(here, lesion, dtype=dtype, slope=slope)
    out = nib.load(outputs.inpainted)
    assert out.get_data_dtype() == dtype
    np.testing.assert_allclose(out.affine, grid.matrix, atol=1e-4)
    stored = np.asanyarray(out.dataobj.get_unscaled())
    changed = stored != raw
    # 0.5 brighter, times bias 2, times scale 10, in the unit of the stored values
    rise = 10 / (slope or 1)
    inside = resample(lesion, WORKING_GRID, grid, np.linalg.inv(XFM), order=1)
    assert not changed[inside == 0].any()
    np.testing.assert_allclose(
        stored[inside == 1].astype(float) - raw[inside == 1], rise, atol=0.51 if dtype != np.float32 else 1e-3
    )
    centre = np.array([65.5, 125.5, 95.5, 1]) @ WORKING_GRID.matrix.T
    with open(outputs.table) as file:
        header, row, *more = file.read().splitlines()
    assert not more
    values = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    np.testing.assert_allclose(
        [float(values[k]) for k in "xyz"], (XFM @ centre)[:3], atol=grid.voxel_sizes.max() / 2
    )
    assert float(values["volume"]) == pytest.approx(12**3 * np.linalg.det(XFM), rel=0.05)


def test_without_lesions_the_native_result_is_the_input(here):
    raw, _, outputs = back_to_native(here, np.zeros(WORKING_GRID.shape, bool))
    assert (np.asanyarray(nib.load(outputs.inpainted).dataobj) == raw).all()
    assert not images.read(outputs.lesion_mask)[0].any()


def test_full_fill_takes_the_network_output(here):
    raw, grid, outputs = back_to_native(
        here, np.zeros(WORKING_GRID.shape, bool), fill="full", dtype=np.float32
    )
    covered = resample(np.ones(WORKING_GRID.shape), WORKING_GRID, grid, np.linalg.inv(XFM), order=1) == 1
    out = images.read(outputs.inpainted)[0]
    np.testing.assert_allclose(out[covered], 20.0, rtol=1e-3)
    assert (out[~covered] == raw[~covered]).sum() > 10_000
    assert raw.std() > 10


def test_preprocessed_image_has_one_bias_everywhere(here):
    """Also in voxels of the brain that the working grid doesn't reach."""
    raw, _, outputs = back_to_native(here, np.zeros(WORKING_GRID.shape, bool))
    np.testing.assert_allclose(images.read(outputs.preproc)[0], raw / 2, rtol=1e-5)


def test_header_text_stays_behind(here):
    raw, _ = native_case(here)
    image = nib.load(here / "t1w.nii.gz")
    header = image.header.copy()
    header["descrip"] = b"Jane Doe 1970"
    nib.Nifti1Image(raw, image.affine, header).to_filename(here / "named.nii.gz")
    out = nib.load(write_like(nib.load(here / "named.nii.gz"), raw, str(here / "o.nii.gz")))
    assert not out.header["descrip"].tobytes().strip(b"\0")


def test_lesion_masks_that_do_not_fit(here):
    _, grid = native_case(here)
    xfm = write_xfm(here / "x.txt", np.eye(4))

    def bring(data, where):
        path = images.save(here / "mask.nii.gz", data, where)
        node = LesionMask(in_file=path, t1w=str(here / "t1w.nii.gz"), xfm=xfm)
        return images.read(node.run(cwd=str(here)).outputs.out_file)[0]

    graded = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    with pytest.raises(errors.InputError, match=r"mask\.nii\.gz is not a binary mask"):
        bring(graded, grid)
    far = Grid.of((20, 20, 20), np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 900)
    with pytest.raises(errors.InputError, match="does not overlap the brain"):
        bring(np.ones((20, 20, 20), np.uint8), far)
    assert not bring(np.zeros(grid.shape, np.uint8), grid).any()
    # on another grid it is found by its header
    spot = np.zeros(WORKING_GRID.shape, np.uint8)
    spot[50:60, 60:70, 70:80] = 255
    assert (bring(spot, WORKING_GRID) == (spot > 0)).all()


def test_brains_outside_the_template_are_refused(here):
    _, grid = native_case(here)
    data = images.save(here / "d.nii.gz", np.ones(grid.shape, np.float32), grid)
    away = np.eye(4)
    away[0, 3] = 500
    node = ToWorkingGrid(in_file=data, mask_file=data, xfm=write_xfm(here / "x.txt", away))
    with pytest.raises(errors.InputError, match="lies outside the template"):
        node.run(cwd=str(here))


def test_precomputed_mask_on_another_grid(here):
    _, grid = native_case(here)
    t1w = images.save(here / "d.nii.gz", np.ones(grid.shape, np.float32), grid)
    coarse = Grid.of((60, 60, 60), np.diag([4.0, 4, 4, 1]) + np.array([[0, 0, 0, -120]] * 3 + [[0] * 4]))
    mask = np.zeros((60, 60, 60), np.uint8)
    mask[20:40, 20:40, 20:40] = 1
    given = images.save(here / "m.nii.gz", mask, coarse)
    out = BrainMask(in_file=t1w, precomputed=given).run(cwd=str(here)).outputs
    found, found_grid = images.read(out.out_file)
    assert found_grid.same_as(grid)
    assert found.sum() * grid.voxel_volume == pytest.approx(mask.sum() * 64, rel=0.15)
    assert out.method == "precomputed"


def test_saving_leaves_equal_files_alone_and_no_parts(here):
    (here / "in.txt").write_text("one")
    node = SaveDerivatives(
        keys=["a"], out_dir=str(here), names={"a": "sub-1/anat/a.nii.gz"}, metadata={"a": {"Type": "Brain"}}
    )
    node.inputs.a = str(here / "in.txt")
    target = here / "sub-1/anat/a.nii.gz"
    node.run()
    stamp = target.stat().st_mtime_ns
    node.run()
    assert target.stat().st_mtime_ns == stamp
    (here / "in.txt").write_text("two")
    node.run()
    assert target.read_text() == "two"
    assert json.loads((here / "sub-1/anat/a.json").read_text()) == {"Type": "Brain"}
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.json", "a.nii.gz"]


def test_publishing_on_a_full_disk_keeps_the_old_file(here, monkeypatch):
    (here / "new").write_text("new")
    (here / "old").write_text("old")

    def full(source, target):
        open(target, "w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        publish(here / "new", here / "old")
    assert (here / "old").read_text() == "old"
    assert sorted(p.name for p in here.iterdir()) == ["new", "old"]


class _Node:
    def __init__(self, name):
        self.fullname = f"bids_inpaint_wf.{name}"


def test_progress_is_plain_lines_without_a_terminal(here):
    import io

    out = io.StringIO()
    progress = Progress(3, out)
    progress.expect({"sub_01_wf": 2, "sub_02_wf": 1})
    for name, status in (
        ("sub_01_wf.a.x", "start"), ("sub_01_wf.a.x", "end"), ("sub_01_wf.a.y", "end"),
        ("sub_02_wf.a.x", "exception"),
    ):  # fmt: skip
        progress(_Node(name), status)
    text = out.getvalue()
    assert "\r" not in text
    assert "[2/4 steps, 1/3 images] sub_01_wf: finished" in text
    assert "sub_02_wf: x failed" in text


def test_denoising_in_slabs_changes_nothing(here):
    """Threads divide the brain; the result is that of the whole, to the last bit."""
    grid = tilted((64, 80, 64), (2.8, 2.7, 2.8), 8)
    data = acquire(grid)[0].astype(np.float32)
    data += np.random.default_rng(0).rayleigh(20, data.shape).astype(np.float32)
    data[5, 70, 5] = 5000
    paths = {
        "in_file": images.save(here / "t1w.nii.gz", data, grid),
        "mask_file": images.save(here / "mask.nii.gz", (data > 100).astype(np.uint8), grid),
    }
    one, three = (
        images.read(Denoise(num_threads=n, **paths).run(cwd=str(here)).outputs.out_file)[0] for n in (1, 3)
    )
    assert (one == three).all()
    assert (one != data).any()


def test_results_of_another_version_are_not_reused(here):
    data = np.zeros((4, 4, 4), np.float32)
    files = {n: images.save(here / f"{n}.nii", data, Grid.of(data.shape, np.eye(4))) for n in ("a", "b")}
    now, before = (Denoise(in_file=files["a"], mask_file=files["b"]).inputs for _ in range(2))
    assert now.get_hashval()[1] == before.get_hashval()[1]
    before.version = "0.0.1"
    assert now.get_hashval()[1] != before.get_hashval()[1]


def _die_or_fill(size: int) -> np.ndarray:
    if not size:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(size)


def test_a_call_that_is_killed_takes_the_others_with_it():
    """The others' answers fill their pipes, and nobody takes them."""
    with pytest.raises(RuntimeError, match="was killed"):
        each_alone(_die_or_fill, [(0,), (10**7,)])
    assert multiprocessing.active_children() == []


def _in_a_process_of_its_own():
    from bids_inpaint.imaging.processes import alone

    return alone(max, 3, 5)


def test_steps_run_in_batch_jobs(here):
    """Nipype's plugins for clusters write a script for each step, without a guarded main part."""
    node = pe.Node(
        Function(function=_in_a_process_of_its_own, output_names=["out"]), name="step", base_dir=here
    )
    node.config = pe.Workflow("all").config
    subprocess.run([sys.executable, create_pyscript(node)], check=True, capture_output=True)
    assert loadpkl(here / "step" / "result_step.pklz").outputs.out == 5


def test_calls_in_processes_of_their_own_answer_fail_and_die():
    assert alone(max, 3, 5) == 5
    with pytest.raises(ValueError, match="invalid literal"):
        alone(int, "x")
    with pytest.raises(WorkerKilled, match=r"worker process was killed \(exit code 9\)"):
        alone(os._exit, 9)


def starved(megabytes, data):
    """An image denoised with no more memory than this on top of what the process has."""
    limit = psutil.Process().memory_info().vms + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return _denoise(data, np.ones(data.shape, bool), slice(0, None))


def denoised_with(limits, data):
    """What is left of an image with each of these limits in megabytes, or None."""
    results = []
    for megabytes in limits:
        try:
            results.append(alone(starved, megabytes, data))
        except (MemoryError, RuntimeError):
            results.append(None)
    return results


def test_filters_of_ants_without_memory_give_nothing():
    """They used to give their input back."""
    data = np.random.default_rng(0).normal(500, 20, (60, 60, 60)).astype(np.float32)
    # this process may have memory to spare, a new one and what it forks have none
    *poor, rich = alone(denoised_with, (1, 2, 4, 6, 8, 10, 1000), data)
    assert any(result is None for result in poor)
    assert all(result is None or np.array_equal(result, rich) for result in poor)
    assert not np.array_equal(rich, data)


def test_a_sheared_head_is_placed_where_it_is():
    """ITK knows no shear: it gets the head on a lattice that it can place."""
    import ants

    from bids_inpaint.imaging.itk import _to_ants, _unsheared

    sheared = np.array([[-2.0, 0.12, 0, 30], [0, 1.9, -0.1, -40], [0.05, 0, 2.1, -20], [0, 0, 0, 1]])
    for matrix in (sheared, np.diag([-2.0, 2, 2, 1])):
        grid = Grid.of((20, 24, 22), matrix)
        # a slope along each axis of the world tells where a voxel is
        x, y, z = (grid.matrix @ [*np.indices(grid.shape).reshape(3, -1), np.ones(20 * 24 * 22)])[:3]
        slope = (100 + x + 2 * y + 3 * z).reshape(grid.shape)
        image = _to_ants(ants, *_unsheared(slope, grid))
        voxel = [n // 2 for n in image.shape]
        left, back, up = ants.transform_index_to_physical_point(image, voxel)
        assert image[tuple(voxel)] == pytest.approx(100 - left - 2 * back + 3 * up, abs=0.05)


def test_no_filter_of_ants_depends_on_the_unit_of_intensity(here):
    rng = np.random.default_rng(0)
    points = np.indices((24, 24, 24)).T - 11.5
    radius = np.sqrt((points**2).sum(-1)).T
    mask = radius < 10
    image = np.where(mask, np.where(radius < 6, 0.8, 0.5) + 0.05 * rng.normal(size=mask.shape), 0)
    image = np.clip(image, 0, 1).astype(np.float32)
    image[12, 12, 12] = 1
    grid = Grid.of(mask.shape, np.eye(4))
    images.save(here / "mask.nii.gz", mask, grid, np.uint8)

    def denoised(top):
        path = images.save(here / "image.nii.gz", image * np.float32(top), grid)
        done = Denoise(in_file=path, mask_file=str(here / "mask.nii.gz")).run(cwd=str(here))
        return images.read(done.outputs.out_file)[0] / np.float32(top)

    plain = denoised(1000)
    assert np.abs(plain - image)[mask].mean() > 0.01
    for top in (1e-4, 1e-2, 1, 1e7):
        np.testing.assert_allclose(denoised(top)[mask], plain[mask], rtol=5e-3)
    for power in (-20, 16):
        np.testing.assert_array_equal(denoised(1000 * 2.0**power), plain)
    for n4 in (bias.n4, itk.n4):
        field = bias.correct(np.float32(1000) * image, mask, n4)[1]
        for top in (1e-4, 1e7):
            found = bias.correct(np.float32(top) * image, mask, n4)[1]
            np.testing.assert_allclose(found[mask], field[mask], rtol=5e-3)


def test_the_affine_does_not_depend_on_the_unit_of_intensity(here):
    grid = tilted((60, 72, 60), (3, 3, 3), 8)
    data = acquire(grid)[0].astype(np.float32)
    mask = images.save(here / "mask.nii.gz", (data > 100).astype(np.uint8), grid)
    brain = template.prepare(template.DEFAULT, here).t1w
    found = []
    for factor in (1.0, 2.0**-20, 2.0**16):
        image = images.save(here / "t1w.nii.gz", data * np.float32(factor), grid)
        found.append(alone(affine, image, mask, brain, "sloppy", str(here), 0))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-3)
