import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_inpaint import errors
from bids_inpaint.dataset import template
from bids_inpaint.dataset.sidecars import standard_space
from bids_inpaint.io import images
from bids_inpaint.participant.locks import clean
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
        "import sys; from bids_inpaint.dataset import template;"
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
        "import sys; from bids_inpaint.participant.locks import _lock; file = open(sys.argv[1], 'a');"
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
        clean(tmp_path, lock)
        assert {p.name for p in tmp_path.iterdir()} == {path.name, "precious", "tpl-X", "bids_inpaint_wf"}
        assert [p.name for p in tmp_path.glob("bids_inpaint_wf/*")] == ["sub_02_wf"]
        other.communicate(b"\n")
        clean(tmp_path, lock)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "precious"}


def test_graph_is_written(tmp_path, toy_model):
    from helpers import write_dataset

    from bids_inpaint.cli import main

    root = write_dataset(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    main([str(root), str(tmp_path / "o"), "participant", "-w", str(tmp_path / "w"), "--model", str(toy_model),
          "--skip-bids-validation", "--write-graph", "--reports-only"])  # fmt: skip
    text = (tmp_path / "o/logs/workflow.dot").read_text()
    assert '"inpaint_wf.inpaint" -> "segment_wf.gmm"' in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MNI152Nlin2009casym", "was not found: .* as MNI152NLin2009aSym, MNI152NLin2009cAsym,"),
        ("MNI152NLin2009cAsym:res-2", "was not found: .*its identifier alone"),
        ("../../etc", "was not found"),
        (
            "MNI152NLin6Asym",
            "can't be used: TemplateFlow has no tissue probability map of CSF, .*of WM",
        ),
        ("MNI152NLin2009bSym", "no brain mask, no tissue"),
        ("MNIPediatricAsym", r"has cohorts \(1, 2, 3, 4, 5, 6\)"),
        ("MNIPediatricAsym:cohort-2", r"has cohorts \(1, 2"),
        ("MNI152NLin2009cAsym", "are not in .* and can't be fetched .no network.: .*_res-01_T1w.nii.gz and"),
    ],
)
def test_why_a_template_can_not_be_used(tmp_path, monkeypatch, name, reason):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(template, "_fetch", lambda name: "no network")
    with pytest.raises(errors.InputError, match=f"(?s){re.escape(name)} .*{reason}") as raised:
        template.prepare(name, tmp_path)
    assert "\n" not in str(raised.value)
    # what an earlier version left in the work folder is not used either
    if "cohort" in reason:
        bundled = template.prepare(template.DEFAULT, tmp_path)
        Path(bundled.t1w).parent.rename(tmp_path / f"tpl-{name}")
        with pytest.raises(errors.InputError, match="has cohorts"):
            template.prepare(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("MNI152NLin2009aSym", "1"), ("MNI152NLin2009aAsym", "1"), ("MNI152NLin2009bSym", "1"),
        ("MNI152NLin2009bAsym", "1"), ("MNI152NLin2009cSym", "1"), ("MNI152NLin2009cAsym", "01"),
        ("MNI152NLin6Asym", "01"), ("MNI152NLin6Sym", "01"), ("MNI152Lin", "01"), ("Own", "1"),
    ],
)  # fmt: skip
def test_sidecars_name_a_file_of_templateflow(tmp_path, monkeypatch, name, resolution):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    (tmp_path / "tpl-Own").mkdir()
    (tmp_path / "tpl-Own/tpl-Own_res-1_T1w.nii.gz").touch()
    file = f"tpl-{name}/tpl-{name}_res-{resolution}_T1w.nii.gz"
    assert standard_space(name)["SpatialReference"] == f"https://templateflow.s3.amazonaws.com/{file}"
