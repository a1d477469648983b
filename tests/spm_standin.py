"""Behaves like ``run_spm12.sh MCR script FILE.m``, MATLAB or Octave, and fails as SPM_STANDIN tells.

It segments by intensity: below 0.4 CSF, below 0.8 grey matter, above white matter.
"""

import os
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def main() -> None:
    mode = os.environ.get("SPM_STANDIN", "works")
    arguments = " ".join(sys.argv[1:])
    found = re.search(r"(\S+\.m)\b", arguments)
    named = re.search(r"addpath\('([^']+)'\);\s*(\w+);?\s*exit", arguments)
    if found:
        code = Path(found.group(1)).read_text()
    elif named:
        code = (Path(named.group(1)) / f"{named.group(2)}.m").read_text()
    else:
        code = arguments
    home = os.environ.get("SPM_STANDIN_HOME", "/spm12")
    if "NIPYPE path" in code:
        if mode == "dead":
            sys.exit("libmwlaunchermain.so: cannot open shared object file")
        name, release = ("SPM8", "5236") if mode == "old" else ("SPM12", "7771")
        print(f"NIPYPE path:{home}|name:{name}|release:{release}", end="")
        sys.exit()
    with open(os.environ.get("SPM_STANDIN_LOG", os.devnull), "w") as log:
        log.write(code)
    assert "spatial.preproc" in code, "the job of SPM8"
    if mode == "silent":
        sys.exit()
    if mode == "complains":
        print("Item 'Volumes', field 'val': Number of matching files (0) less than required (1).")
        print("Job execution failed. The full log of this run can be found in MATLAB command window")
        sys.exit()
    path = Path(re.search(r"vols = \{\.\.\.\s*'([^,]+),1'", code).group(1))
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    for number, low, high in ((1, 0.4, 0.8), (2, 0.8, 9), (3, 0, 0.4)):
        part = ((data > low) & (data <= high)).astype(np.uint8) * np.uint8(255)
        out = nib.Nifti1Image(part, image.affine)
        out.header.set_slope_inter(1 / 255, 0)
        out.to_filename(path.with_name(f"c{number}{path.name}"))
    path.with_name(f"{path.stem}_seg8.mat").touch()
    if mode == "crashes":
        sys.exit("Segmentation violation detected")


if __name__ == "__main__":
    main()
