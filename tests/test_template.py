import subprocess
import sys

import nibabel as nib
import numpy as np

from bids_inpaint import images, template
from bids_inpaint.run import _clean
from bids_inpaint.space import WORKING_GRID, Grid


def test_bundled_template(tmp_path):
    files = template.prepare(template.DEFAULT, tmp_path)
    t1w, grid = images.read(files.t1w)
    mask = images.read(files.mask)[0] > 0
    assert grid.same_as(WORKING_GRID)
    assert not t1w[~mask].any()
    assert 1.6e6 < mask.sum() < 2.1e6
    priors = [images.read(files.priors[t])[0] for t in template.TISSUES]
    assert np.min(priors) >= 0
    assert np.max(priors) <= 1
    np.testing.assert_allclose(np.sum(priors, 0)[mask].mean(), 1, atol=0.02)
    # the corpus callosum is white matter in the midline, above and before the anterior commissure
    voxel = tuple(np.round(np.linalg.solve(WORKING_GRID.matrix, [0, 18, 18, 1])[:3]).astype(int))
    assert priors[2][voxel] > 0.9


def test_other_templates_come_from_templateflow_home(tmp_path):
    """Run in a process of its own: TemplateFlow reads its folder at import."""
    import os

    bundled = template.prepare(template.DEFAULT, tmp_path)
    home = tmp_path / "home"
    folder = home / "tpl-MNI152NLin6Asym"
    folder.mkdir(parents=True)
    shifted = Grid.of((190, 224, 190), WORKING_GRID.matrix + np.array([[0, 0, 0, 4]] * 3 + [[0] * 4]))
    for path, name in (
        (bundled.t1w, "T1w"), (bundled.mask, "desc-brain_mask"),
        *((bundled.priors[t], f"label-{t}_probseg") for t in template.TISSUES),
    ):  # fmt: skip
        from bids_inpaint.space import resample

        moved = resample(images.read(path)[0], WORKING_GRID, shifted, order=1)
        nib.Nifti1Image(moved, shifted.matrix).to_filename(
            folder / f"tpl-MNI152NLin6Asym_res-01_{name}.nii.gz"
        )
    code = (
        "import sys; from bids_inpaint import template;"
        "print(template.prepare('MNI152NLin6Asym', sys.argv[1]).t1w)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "w")],
        capture_output=True, text=True, check=True, env=os.environ | {"TEMPLATEFLOW_HOME": str(home)},
    )  # fmt: skip
    ours, grid = images.read(result.stdout.strip())
    assert grid.same_as(WORKING_GRID)
    assert np.corrcoef(ours.ravel(), images.read(bundled.t1w)[0].ravel())[0, 1] > 0.999


def test_cleaning_spares_what_is_not_ours(tmp_path):
    for name in ("bids_inpaint_wf/sub_01_wf", "bids_inpaint_wf/sub_02_wf", "tpl-X", "precious"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / ".bids_inpaint.lock"
    hold = (
        "import sys; from bids_inpaint.run import _lock; file = open(sys.argv[1], 'a');"
        "_lock(file, 'sub_02_wf'); print(flush=True); input()"
    )
    # another run is at sub-02
    with (
        subprocess.Popen(
            [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
        path.open("a") as lock,
    ):
        other.stdout.readline()
        _clean(tmp_path, lock)
        assert {p.name for p in tmp_path.iterdir()} == {path.name, "precious", "tpl-X", "bids_inpaint_wf"}
        assert [p.name for p in tmp_path.glob("bids_inpaint_wf/*")] == ["sub_02_wf"]
        other.communicate(b"\n")
        _clean(tmp_path, lock)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "precious"}


def test_graph_is_written(tmp_path, toy_model):
    from helpers import write_dataset

    from bids_inpaint.cli import main

    root = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    main([str(root), str(tmp_path / "o"), "participant", "-w", str(tmp_path / "w"), "--model", str(toy_model),
          "--skip-bids-validation", "--write-graph", "--reports-only"])  # fmt: skip
    text = (tmp_path / "o/logs/workflow.dot").read_text()
    assert '"inpaint_wf.inpaint" -> "segment_wf.atropos"' in text
