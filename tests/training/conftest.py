"""People and a configuration for networks that make a FLAIR."""

import numpy as np
import pytest
from helpers import TOY

PEOPLE = ["map", "ms_sub-01", "ms_sub-02", "toy_sub-01"]
TOY_JOINT = (
    TOY.replace("blind = {blind}", 'task = "flair"\nengine = "joint"')
    .replace("filters = 4\nlevels = 3\nresidual = true\nfull_resolution = false",
             "channels = [4, 8]\ncontext = 1\nsub_images = true\npriors = true")
    .replace("freeze_normalisation = 3\n", "")
    .replace("patch = 16", "patch = 32")
    .replace('"toy_sub-01", "toy_sub-02"', ", ".join(f'"{name}"' for name in PEOPLE))
)  # fmt: skip


@pytest.fixture(scope="module")
def people(cache, tmp_path_factory):
    """A healthy brain, a label map, and two patients with a lesion: dark in the T1w, bright in the FLAIR."""
    from bids_inpaint.training.data import cache_subject, subjects, template_priors

    folder = tmp_path_factory.mktemp("people")
    (folder / "toy_sub-01").symlink_to(cache / "toy_sub-01")
    image = np.asarray(subjects(cache)[0].image, np.float32)
    priors = {"WM": (image > 0.85).astype(np.float32), "GM": ((image > 0.1) & (image < 0.85)).astype(float)}
    lesion = np.zeros(image.shape, bool)
    lesion[80:90, 80:90, 80:90] = True
    t1w, flair = np.where(lesion, 0.7 * image, image), np.where(lesion, 900, 600 * (image > 0))
    for name in ("ms_sub-01", "ms_sub-02"):
        cache_subject(folder / name, t1w, image > 0, priors, lesion, flair)
    labels = np.where(image > 0.85, 2, np.where(image > 0.1, 3, 0)).astype(np.uint8)
    labels[100:105, 100:105, 100:105] = 4
    labels[60:66, 60:66, 80:84] = 77
    (folder / "map").mkdir()
    np.save(folder / "map" / "labels.npy", labels)
    template_priors(folder)
    return folder


@pytest.fixture
def config(tmp_path):
    """Of a network for a FLAIR of `people` that is trained in seconds."""
    from bids_inpaint.training.config import Config

    (tmp_path / "toy.toml").write_text(TOY_JOINT.format(steps=4))
    return Config.load(tmp_path / "toy.toml")
