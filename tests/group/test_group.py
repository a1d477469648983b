"""The group level on made-up outputs whose scores can be worked out by hand."""

import csv
import json
import re
import shutil
import tomllib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers import write_dataset, write_finished, write_nifti

from bids_inpaint import cli
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.sidecars import given_files
from bids_inpaint.dataset.template import DEFAULT
from bids_inpaint.group.measure import Task, measure
from bids_inpaint.group.tables import VOLUMES
from bids_inpaint.io import images
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID, Grid

NATIVE = Grid.of((91, 109, 91), [[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def block(start, stop, shape=WORKING_GRID.shape):
    out = np.zeros(shape, bool)
    out[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return out


def tissues(wrong: int) -> dict[str, np.ndarray]:
    """100 voxels of each tissue; in the original, `wrong` voxels of white matter are taken for grey."""
    reference = np.zeros(WORKING_GRID.shape, np.uint8)
    reference[50:60, 50:60, 50] = 1
    reference[50:60, 50:60, 60] = 2
    original = reference.copy()
    original.reshape(-1)[np.flatnonzero(reference == 2)[:wrong]] = 1
    return {"original": original, "inpainted": reference, "reference": reference}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three participants, of whom one has two sessions; the fourth is not finished."""
    root = tmp_path_factory.mktemp("group")
    names = ["sub-01/anat/sub-01", "sub-02/anat/sub-02", "sub-03/ses-a/anat/sub-03_ses-a",
             "sub-03/ses-b/anat/sub-03_ses-b", "sub-04/anat/sub-04"]  # fmt: skip
    write_dataset(root / "bids", *(f"{n}_T1w.nii.gz" for n in names))
    (root / "bids/participants.tsv").write_text('participant_id\tage\tgroup\nsub-02\t40\t"MS\nsub-03\t\tHC\n')
    out = root / "out"
    small, large = block((80, 80, 80), (84, 84, 84)), block((80, 80, 80), (88, 88, 88))
    brain = {"GM": 600_000.0, "WM": 500_000.0, "CSF": 250_000.0}
    write_finished(
        out, Image("", "", {"sub": "01"}), large, volumes=brain, tissues=tissues(20),
        reference=block((40, 40, 40), (44, 44, 42), NATIVE.shape), native=NATIVE,
    )  # fmt: skip
    write_finished(
        out, Image("", "", {"sub": "02"}), small, volumes=brain, tissues=tissues(10),
        reference=block((40, 40, 40), (42, 42, 42), NATIVE.shape), native=NATIVE,
    )  # fmt: skip
    for session, lesions in (("a", small), ("b", np.zeros_like(small))):
        write_finished(out, Image("", "", {"sub": "03", "ses": session}), lesions)
    return root


def group(root, *options) -> int:
    return cli.main([str(root / "bids"), str(root / "out"), "group", "-w", str(root / "w"), *options])


def table(root, name) -> list[dict[str, str]]:
    with (root / "out" / f"group_desc-{name}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def finished(root):
    assert group(root, "--nprocs", "2") == 0


def test_volumes(root, finished):
    rows = table(root, "volumes")
    assert [(r["participant_id"], r["session_id"]) for r in rows] == [
        ("sub-01", "n/a"), ("sub-02", "n/a"), ("sub-03", "ses-a"), ("sub-03", "ses-b"),
    ]  # fmt: skip
    assert [float(r["lesion_volume"]) for r in rows] == [0.512, 0.064, 0.064, 0]
    assert [r["lesion_count"] for r in rows] == ["1", "1", "1", "0"]
    assert [r["gm_volume"] for r in rows] == ["600", "600", "n/a", "n/a"]
    assert [r["age"] for r in rows] == ["n/a", "40", "n/a", "n/a"]
    assert [r["group"] for r in rows] == ["n/a", '"MS', "HC", "HC"]
    described = json.loads((root / "out/group_desc-volumes.json").read_text())
    assert described["lesion_volume"]["Units"] == "mL"


def test_tissue_dice(root, finished):
    one, two = table(root, "tissue_dice")
    # 2·100 / (120 + 100) and 2·80 / (80 + 100)
    assert float(one["gm_original"]) == pytest.approx(200 / 220, abs=1e-5)
    assert float(one["wm_original"]) == pytest.approx(160 / 180, abs=1e-5)
    assert float(one["average_original"]) == pytest.approx((200 / 220 + 160 / 180) / 2, abs=1e-5)
    assert one["wm_inpainted"] == "1"
    assert float(two["wm_original"]) == pytest.approx(180 / 190, abs=1e-5)
    wm = json.loads((root / "out/group_desc-tissue_dice.json").read_text())["Statistics"]["wm"]
    assert wm["Participants"] == 2
    assert wm["Original"]["Mean"] == pytest.approx((160 / 180 + 180 / 190) / 2)
    assert wm["MeanDifference"] == pytest.approx(1 - wm["Original"]["Mean"])
    # both improve: of 4 signs, 2 are as extreme
    assert wm["WilcoxonP"] == 0.5
    assert wm["RankBiserialCorrelation"] == 1


def test_lesion_dice(root, finished):
    one, two = table(root, "lesion_dice")
    # the map is a cube of 64 voxels of 8 mm³, the reference half of it
    assert float(one["dice"]) == pytest.approx(2 * 32 / 96, abs=1e-5)
    assert (one["sensitivity"], one["precision"], one["lesion_f1"]) == ("1", "0.5", "1")
    assert float(one["volume_error"]) == pytest.approx(0.256)
    # two layers of voxels away
    assert float(one["hausdorff95"]) == 4
    assert (two["dice"], two["hausdorff95"]) == ("1", "0")
    statistics = json.loads((root / "out/group_desc-lesion_dice.json").read_text())["Statistics"]
    assert statistics["VolumeBias"] == pytest.approx(0.128)
    assert statistics["Scores"]["dice"]["Mean"] == pytest.approx((2 / 3 + 1) / 2)


def test_lesion_probability(root, finished):
    share, grid = images.read(root / "out/group_space-MNI152NLin2009aSym_res-1_label-L_probseg.nii.gz")
    assert grid.same_as(WORKING_GRID)
    # all three, the third in one of two sessions; then the first alone
    assert share[81, 81, 81] == pytest.approx(2.5 / 3)
    assert share[86, 86, 86] == pytest.approx(1 / 3)
    assert np.count_nonzero(share) == 512


def test_page(root, finished):
    page = (root / "out/group.html").read_text()
    assert "Not finished, and left out (1): sub-04" in page
    assert 'href="sub-02.html#sub-02"' in page
    for title in ("Tissue segmentation with and without inpainting", "Lesion maps against given masks"):
        assert title in page
    # it opens without network: all that it shows is in the folder
    shown = [*re.findall(r'<(?:img|script|link)[^>]* (?:src|href)="([^"]*)"', page)]
    assert {"figures/group_lesion_map.svg", "figures/group_volumes.svg"} <= set(shown)
    assert all(name == "data:," or (root / "out" / name).is_file() for name in shown)
    linked = {name.split("#")[0] for name in re.findall(r'<a href="((?!https|#)[^"]*)"', page)}
    assert {"group_desc-quality.tsv", "group_desc-volumes.json", "figures/group_volumes.svg"} <= linked
    # reports are written by the participant level
    assert all((root / "out" / name).is_file() for name in linked if not name.endswith(".html"))


def test_given_masks(root, finished, tmp_path, caplog):
    """In MNI space, on another grid than the T1w, and one that is no mask."""
    shutil.copytree(root, tmp_path / "copy")
    masks = write_dataset(tmp_path / "masks", data=np.zeros(1))
    lesion = block((80, 80, 80), (84, 84, 84)).astype(np.uint8)
    space = "space-MNI152NLin2009aSym_label-lesion_mask.nii.gz"
    write_nifti(masks / f"sub-02/anat/sub-02_{space}", lesion, WORKING_GRID.matrix)
    write_nifti(masks / "sub-01/anat/sub-01_label-lesion_mask.nii.gz", lesion, WORKING_GRID.matrix)
    graded = np.linspace(0, 1, 32**3, dtype=np.float32).reshape((32,) * 3)
    write_nifti(masks / "sub-03/ses-a/anat/sub-03_ses-a_label-lesion_mask.nii.gz", graded)
    assert group(tmp_path / "copy", "--lesion-masks", str(masks), "--nprocs", "1") == 1
    assert "sub-03_ses-a_label-lesion_mask.nii.gz is not a binary mask" in caplog.text
    one, two = table(tmp_path / "copy", "lesion_dice")
    assert float(one["reference_volume"]) == pytest.approx(0.064)
    assert float(one["dice"]) == pytest.approx(2 * 8 / (64 + 8), abs=1e-5)
    assert two["dice"] == "1"


@pytest.fixture
def copy(root, finished, tmp_path):
    """The outputs, to change something."""
    return shutil.copytree(root, tmp_path / "copy")


def change(path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text() or "{}") | values))


def test_a_damaged_file_does_not_stop_the_others(copy):
    mask = copy / "out/sub-02/anat/sub-02_space-MNI152NLin2009aSym_res-1_label-L_desc-inpaint_mask.nii.gz"
    mask.write_bytes(mask.read_bytes()[:2000])
    assert group(copy) == 1
    assert [r["participant_id"] for r in table(copy, "volumes")] == ["sub-01", "sub-03", "sub-03"]
    assert "inpaint_mask.nii.gz is truncated or corrupt" in (copy / "out/group.html").read_text()


def test_whatever_is_in_a_file_the_others_go_on(copy):
    """Each file that the level reads, in turn, has everything that its kind must not hold."""
    task = Task(Image("", "", {"sub": "01"}), str(copy / "out"), DEFAULT, False)
    whole = measure(task)
    assert not whole.problem
    wrong = {
        ".json": ["{", "[]", "7", '{"TissueVolumes": [1]}', '{"TissueVolumes": {"GM": "x"}}', "\0"],
        ".tsv": ["volume", "volume\nx\n", "\0", "a\tb\n1\n"],
        ".gz": ["", "x"],
    }
    told = 0
    for path in sorted((copy / "out/sub-01/anat").iterdir()):
        content = path.read_bytes()
        for text in wrong.get(path.suffix, []) if content else []:
            path.write_text(text)
            found = measure(task)
            told += bool(found.problem)
            assert found.problem.isprintable()
            if not found.problem:
                assert found.volumes.keys() <= VOLUMES.keys()
                assert all(isinstance(v, float | int) for v in found.volumes.values())
        path.write_bytes(content)
    assert told > 20
    grid = Grid.of((20, 20, 20), np.eye(4))
    mask = copy / "out/sub-01/anat/sub-01_space-MNI152NLin2009aSym_res-1_label-L_desc-inpaint_mask.nii.gz"
    images.save(mask, np.ones(grid.shape), grid, np.uint8)
    assert "is not on the working grid" in measure(task).problem


def test_what_can_not_be_compared_is_left_out(copy):
    change(copy / "out/sub-01/anat/sub-01_desc-reference_dseg.json", Segmentation="SPM12")
    change(copy / "out/sub-02/anat/sub-02_label-L_desc-inpaint_mask.json", LesionsGiven=True)
    assert group(copy) == 0
    assert [r["participant_id"] for r in table(copy, "tissue_dice")] == ["sub-02"]
    assert [r["participant_id"] for r in table(copy, "lesion_dice")] == ["sub-01"]
    page = (copy / "out/group.html").read_text()
    assert "sub-01: its tissue maps come from different segmentations" in page
    # tissues of what another network made
    change(copy / "out/sub-02/anat/sub-02_dseg.json", ModelSHA256="2")
    assert group(copy) == 0
    assert not (copy / "out/group_desc-tissue_dice.tsv").exists()
    assert table(copy, "volumes")[1]["gm_volume"] == "n/a"


def last_run(copy, label: str, *parts: str, **options) -> None:
    """Let the status and the sidecar of an image say what its last run was; the files stay."""
    status = copy / f"out/sub-{label}/log/sub-{label}_status.json"
    status.parent.mkdir(exist_ok=True)
    status.write_text(json.dumps({"Status": "done", "RunUUID": "x", **({"Parts": parts} if parts else {})}))
    sidecar = copy / f"out/sub-{label}/anat/sub-{label}_desc-inpainted_T1w.json"
    change(sidecar, Options={"Segmentation": "atropos", "CompareSegmentation": True, **options})


def named(copy, name: str) -> list[str]:
    """The participants in a table, if it is there."""
    there = (copy / f"out/group_desc-{name}.tsv").exists()
    return [row["participant_id"] for row in table(copy, name)] if there else []


def test_tissue_maps_of_an_earlier_run_are_not_used(copy):
    last_run(copy, "01", "inpainted", "reference", Segmentation="none", CompareSegmentation=False)
    assert group(copy) == 0
    rows = table(copy, "volumes")
    assert [row["gm_volume"] for row in rows] == ["n/a", "600", "n/a", "n/a"]
    assert [row["lesion_volume"] for row in rows] == ["0.512", "0.064", "0.064", "0"]
    assert named(copy, "tissue_dice") == ["sub-02"]
    # the reference mask is of the last run
    assert named(copy, "lesion_dice") == ["sub-01", "sub-02"]
    page = (copy / "out/group.html").read_text()
    assert "sub-01: its tissue maps are not used, as its last run had --segmentation none" in page
    assert "Segmentation is none in 3 images, Atropos in sub-02" in page


def test_comparisons_with_an_earlier_run_are_not_made(copy):
    """The last run of one image had neither masks nor a comparison; of the other, all is of one run."""
    last_run(copy, "01", "inpainted", CompareSegmentation=False, LesionThreshold=0.2)
    last_run(copy, "02", "inpainted", "original", "reference")
    assert group(copy) == 0
    assert named(copy, "tissue_dice") == named(copy, "lesion_dice") == ["sub-02"]
    assert [row["gm_volume"] for row in table(copy, "volumes")] == ["600", "600", "n/a", "n/a"]
    page = (copy / "out/group.html").read_text()
    assert "sub-01: its reference mask is not used, as it is not of its last run" in page
    assert "sub-01: its tissue maps are not compared, as those of its original and reference are not" in page
    # a last run that adds them
    last_run(copy, "01", "inpainted", "original", "reference")
    assert group(copy) == 0
    assert named(copy, "tissue_dice") == named(copy, "lesion_dice") == ["sub-01", "sub-02"]
    assert "not of its last run" not in (copy / "out/group.html").read_text()


def test_statuses_of_earlier_versions_do_not_say_what_was_made(copy):
    """Their results are read as far as the options do not speak against it."""
    last_run(copy, "01", CompareSegmentation=False)
    last_run(copy, "02")
    assert group(copy) == 0
    assert named(copy, "lesion_dice") == ["sub-01", "sub-02"]
    assert named(copy, "tissue_dice") == ["sub-02"]


def test_results_in_another_template_than_that_of_the_last_run(copy):
    last_run(copy, "02", "inpainted", "original", "reference", Template="MNI152NLin6Asym")
    assert group(copy) == 1
    assert named(copy, "volumes") == ["sub-01", "sub-03", "sub-03"]
    page = (copy / "out/group.html").read_text()
    assert f"sub-02 in {DEFAULT} are not of its last run, which was in MNI152NLin6Asym: run the group" in page


def test_given_brain_masks_and_affines_are_options(copy):
    image = Image("", "", {"sub": "01"}, brain_mask="m.nii", xfm=("a.txt", "b.txt"))
    last_run(copy, "01", "inpainted", **given_files(image))
    last_run(copy, "02", "inpainted", **given_files(replace(image, xfm=None)))
    for session in ("a", "b"):
        change(
            copy / f"out/sub-03/ses-{session}/anat/sub-03_ses-{session}_desc-inpainted_T1w.json",
            Options={
                "Segmentation": "atropos",
                "CompareSegmentation": True,
                **given_files(Image("", "", {})),
            },
        )
    assert group(copy) == 0
    page = (copy / "out/group.html").read_text()
    assert (
        "Option GivenFiles is none in 2 images, brain mask and affine in sub-01, brain mask in sub-02" in page
    )


def test_images_without_lesions_are_no_test_of_inpainting(copy):
    nobody = np.zeros(NATIVE.shape)
    images.save(copy / "out/sub-02/anat/sub-02_label-L_desc-reference_mask.nii.gz", nobody, NATIVE, np.uint8)
    assert group(copy) == 0
    assert len(table(copy, "tissue_dice")) == 2
    tissue, lesion = (
        json.loads((copy / f"out/group_desc-{name}.json").read_text())["Statistics"]
        for name in ("tissue_dice", "lesion_dice")
    )
    assert tissue["wm"]["Participants"] == 1
    assert lesion["Scores"]["dice"] == {
        "Participants": 1,
        "Mean": pytest.approx(2 / 3),
        "StandardDeviation": None,
    }
    assert lesion["FalseVolumeWithoutLesions"]["Mean"] == pytest.approx(0.064)


def test_the_page_runs_nothing_that_a_dataset_holds(copy):
    attack = "<script>alert(1)</script>"
    people = copy / "bids/participants.tsv"
    people.write_text(people.read_text().replace("group", attack).replace("HC", attack))
    change(copy / "bids/dataset_description.json", Name=attack)
    for path in (copy / "out").glob("sub-*/**/*.json"):
        change(path, Model=attack, SecondPassModel=attack, Segmentation=attack)
    hostile = copy / "<img src=x>"
    hostile.mkdir()
    for name in ("bids", "out"):
        (copy / name).rename(hostile / name)
    assert group(hostile) == 0
    page = (hostile / "out/group.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<img src=x>" not in page


def test_a_single_participant(root, finished, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    assert group(tmp_path / "copy", "--participant-label", "03", "--session-label", "b") == 0
    rows = table(tmp_path / "copy", "volumes")
    assert [r["session_id"] for r in rows] == ["ses-b"]
    share = nib.load(tmp_path / "copy/out/group_space-MNI152NLin2009aSym_res-1_label-L_probseg.nii.gz")
    assert not np.asanyarray(share.dataobj).any()


def test_settings_lie_beside_the_logs(root, finished):
    """A file a run, which says what was looked at."""
    files = [*(root / "out/logs").glob("*/settings.toml")]
    assert len(files) == 1
    content = tomllib.loads(files[0].read_text())
    assert (content["analysis_level"], content["run_uuid"]) == ("group", files[0].parent.name)
    assert Settings.load(files[0]) == Settings(root / "bids", root / "out", root / "w", nprocs=2)


def test_more_log_lines_at_the_group_level(copy, caplog):
    for options, logged in (([], False), (["-v"], True)):
        caplog.clear()
        assert group(copy, "--nprocs", "1", *options) == 0
        assert ("sub-01: {'lesion_volume': 0.512" in caplog.text) == logged


def test_nobody_finished(root, tmp_path, capsys):
    shutil.copytree(root / "bids", tmp_path / "bids")
    assert group(tmp_path) == 2
    assert "has no finished participant" in capsys.readouterr().err
