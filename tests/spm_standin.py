"""Behaves like ``run_spm12.sh MCR script FILE.m``, MATLAB or Octave, and fails as SPM_STANDIN tells.

It segments by intensity: below 0.4 CSF, below 0.8 grey matter, above white matter. It fails in the words of
the real one.
"""

import os
import re
import signal
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

STARTED = "27-Nov-2026 11:06:51 - Running 'Segment'"


def main() -> None:
    mode = os.environ.get("SPM_STANDIN", "works")
    if mode == "dead":
        sys.exit("libmwlaunchermain.so: cannot open shared object file")
    name = re.search(r"(\w+)(\.m)?$", sys.argv[-1]).group(1)
    code = Path(f"{name}.m").read_text()
    with open(os.environ.get("SPM_STANDIN_LOG", os.devnull), "a") as log:
        log.write(code)
    print(f"bids_inpaint: version {'SPM8 5236' if mode == 'old' else 'SPM12 7771'}")
    print(STARTED, flush=True)
    assert "spm.spatial.preproc" in code, "the job of SPM8"
    sampling = float(re.search(r"samp = ([\d.]+);", code).group(1))
    if mode == "sleeps":
        (Path(os.environ["SPM_STANDIN_LOG"]).with_name("pid")).write_text(str(os.getpid()))
        time.sleep(60)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "silent":
        sys.exit()
    if mode == "fails":
        print("27-Nov-2026 11:07:10 - Failed  'Segment'")
        print('File "brain.nii" does not exist.')
        print('In file "/spm12/spm_vol.m" (v5958), function "spm_vol>spm_vol_hdr" at line 80.')
        print("\nThe following modules did not run:\nFailed: Segment\n")
        print("bids_inpaint: failed Job execution failed. The full log of this run can be found in MATLAB.")
        sys.exit("fatal: caught signal Segmentation fault -- stopping myself...")
    if mode == "unknown":
        print("bids_inpaint: failed Undefined function 'spm_jobman' for input arguments of type 'char'.")
        sys.exit(1)
    path = Path("brain.nii")
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    lost = mode == "nan" or (mode == "nan once" and sampling == 3)
    for number, low, high in ((1, 0.4, 0.8), (2, 0.8, 9), (3, 0, 0.4)):
        if mode == "swapped":
            number = {1: 2, 2: 1, 3: 3}[number]
        part = ((data > low) & (data <= high) & ~lost).astype(np.uint8) * np.uint8(255)
        out = nib.Nifti1Image(part, image.affine)
        out.header.set_slope_inter(1 / 255, 0)
        out.to_filename(path.with_name(f"c{number}{path.name}"))
    print(f"bids_inpaint: done {'NaN' if lost else '15764.7236'}", flush=True)
    if mode == "crashes at exit":
        os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    main()
