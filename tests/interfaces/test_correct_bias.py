"""The node that removes the bias field."""

import numpy as np
from scipy import ndimage

from bids_inpaint.interfaces.bias import CorrectBias
from bids_inpaint.io import images
from bids_inpaint.space import Grid


def test_both_methods_remove_the_same_field(tmp_path):
    shape = (64, 70, 60)
    place = np.indices(shape) / np.array(shape)[:, None, None, None] - 0.5
    mask = (place**2).sum(0) < 0.2
    tissues = np.where(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 3) > 0, 1, 0.7)
    image = np.where(mask, tissues * np.exp(place[1]), 0).astype(np.float32)
    grid = Grid.of(shape, np.diag([-1.0, 1, 1, 1]))
    files = {
        "in_file": str(images.save(tmp_path / "image.nii.gz", image, grid)),
        "mask_file": str(images.save(tmp_path / "mask.nii.gz", mask, grid, np.uint8)),
    }
    fields = {}
    for method in ("n4", "ants"):
        for sloppy in (False, True):
            folder = tmp_path / f"{method}-{sloppy}"
            folder.mkdir()
            done = CorrectBias(method=method, sloppy=sloppy, **files).run(cwd=str(folder)).outputs
            corrected, found = images.read(done.out_file)
            assert found.same_as(grid)
            field = images.read(done.bias_file)[0]
            np.testing.assert_allclose((corrected * field)[mask], image[mask], rtol=1e-5)
            assert not corrected[~mask].any()
            white = mask & (tissues == 1)
            assert corrected[white].std() / corrected[white].mean() < 0.1 < image[white].std()
            fields[method, sloppy] = field
    for sloppy in (False, True):
        np.testing.assert_allclose(fields["n4", sloppy][mask], fields["ants", sloppy][mask], rtol=0.01)
    # fewer voxels give another field
    assert not np.allclose(fields["n4", True][mask], fields["n4", False][mask], rtol=1e-3)
