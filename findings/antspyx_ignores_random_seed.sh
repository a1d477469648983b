#!/usr/bin/env bash
# antspyx 0.6.3: registration(random_seed=…), which made results repeatable in 0.5.4, is ignored without a word.
#
# 0.6 has no such parameter any more, and registration() takes any keyword and drops those it does not know. Code
# that was written for 0.5 still runs, and no longer gives the same affine twice: up to 5.5 mm apart at the corners of the brain
# was seen. ants.config.set_ants_deterministic(True, seed) is the way now.
#
# Ends with 1 if 0.5.4 does not repeat itself, 0.6.3 does, or if set_ants_deterministic does not help.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/twice.py" <<'EOF'
import inspect
import itertools
import sys
from importlib.metadata import version

import ants
import numpy as np
from nilearn.datasets import load_mni152_template
from scipy import ndimage

if sys.argv[1] == "config":
    ants.config.set_ants_deterministic(True, 1)
SPACING = (2.0, 2.0, 2.0)
values = np.asarray(load_mni152_template(resolution=2).dataobj, np.float32)
fixed = ants.from_numpy(values, spacing=SPACING)
rng = np.random.default_rng(0)
shift = [180 * ndimage.gaussian_filter(rng.normal(size=values.shape), 6) for _ in range(3)]
other = ndimage.rotate(ndimage.map_coordinates(values, np.indices(values.shape) + shift, order=1), 7, reshape=False)
moving = ants.from_numpy((np.clip(other, 0, None) ** 0.7).astype(np.float32), spacing=SPACING)
corners = list(itertools.product((30.0, 150.0), (30.0, 190.0), (30.0, 150.0)))


def register():
    keywords = {} if sys.argv[1] == "config" else {"random_seed": 1}
    result = ants.registration(fixed, moving, "AffineFast", **keywords)
    found = ants.read_transform(result["fwdtransforms"][0])
    return np.array([found.apply_to_point(point) for point in corners])


first = register()
apart = max(float(np.linalg.norm(register() - first, axis=1).max()) for _ in range(3))
has = "random_seed" in inspect.signature(ants.registration).parameters
print(f"antspyx {version('antspyx')}, seed by {sys.argv[1]} (a parameter: {has}): {apart:.6f} mm apart")
sys.exit((apart == 0) != (sys.argv[2] == "same"))
EOF
export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1
for release in 0.5.4 0.6.3; do
  python3 -m venv "$folder/$release"
  "$folder/$release/bin/python" -m pip install -q "antspyx==$release" nilearn==0.14.1
done
cd "$folder"
0.5.4/bin/python twice.py keyword same
0.6.3/bin/python twice.py keyword other
0.6.3/bin/python twice.py config same
