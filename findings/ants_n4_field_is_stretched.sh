#!/usr/bin/env bash
# antspyx 0.6.3: the bias field of N4 is stretched by up to a shrink factor's voxels, so that a field is corrected in part.
#
# N4 fits its B-splines to an image that is shrunken first: of 40 voxels with a shrink factor of 4, to 10 voxels, of
# which the outer ones lie 36 voxels apart. The field that is returned has the lattice of that fit, but spans all of the
# image, whose outer voxels lie 39 apart. So the field of an image with an exponential bias, which is a straight line in
# its logarithm, has a slope of 36 / 39 of that of the bias. One would expect the slope itself, as without shrinking.
# The default shrink factor is 4, and the smaller the image, the larger is what is left of the bias.
#
# Ends with 1 if the slopes are others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/slopes.py" <<'EOF'
import sys
from importlib.metadata import version

import ants
import numpy as np
from scipy import ndimage

N, SLOPE = 40, 0.3
rng = np.random.default_rng(0)
shape = (N, N, N)
# two tissues in equal shares everywhere, with noise
tissue = np.where(ndimage.gaussian_filter(rng.normal(size=shape), 1) > 0, 100.0, 50.0)
tissue *= np.exp(0.02 * rng.normal(size=shape))
place = np.linspace(-1, 1, N)
image = ants.from_numpy((tissue * np.exp(SLOPE * place[:, None, None])).astype(np.float32))
mask = ants.from_numpy(np.ones(shape, np.float32))
as_expected = True
print(f"antspyx {version('antspyx')}: {N} voxels along an axis, bias exp({SLOPE} x) for x from -1 to 1")
for shrink in (1, 2, 4):
    field = ants.n4_bias_field_correction(
        image, mask=mask, shrink_factor=shrink, convergence={"iters": [50] * 4, "tol": 1e-9}, return_bias_field=True
    )
    found = np.polyfit(place, np.log(field.numpy()).mean((1, 2)), 1)[0] / SLOPE
    stretched = (N // shrink - 1) * shrink / (N - 1)
    print(f"shrink factor {shrink}: {found:.3f} of the slope is found, {stretched:.3f} if the field is stretched")
    as_expected &= abs(found - stretched) < 0.015
sys.exit(not as_expected)
EOF
export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q antspyx==0.6.3
cd "$folder"
env/bin/python slopes.py
