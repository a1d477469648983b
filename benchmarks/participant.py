"""Time of one participant by step, and its ratio to a plain chain of antspyx defaults on the same image.

    python benchmarks/participant.py sub-01_T1w.nii.gz

The chain is what one would write first: denoise the whole field of view, 'Affine' onto the template,
N4 and Atropos (in the template's mask) on the result with antspyx's defaults, without network, figures or
files. Both use the same threads. A full head is given to both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

CHAIN = """
import sys, time
import ants
from bids_inpaint.dataset.template import DEFAULT, TISSUES, prepare
files = prepare(DEFAULT, sys.argv[2])
start = time.perf_counter()
def step(name):
    global start
    print(name, round(time.perf_counter() - start, 1), flush=True)
    start = time.perf_counter()
image = ants.image_read(sys.argv[1]); step("read")
denoised = ants.denoise_image(image, noise_model="Rician"); step("denoise")
template = ants.image_read(files.t1w)
xfm = ants.registration(template, denoised, "Affine")["fwdtransforms"]; step("affine")
moved = ants.apply_transforms(template, denoised, xfm); step("resample")
corrected = ants.n4_bias_field_correction(moved); step("n4")
mask = ants.image_read(files.mask)
# Atropos stops where all priors are zero, and its default neighbourhood is for two dimensions
priors = [ants.image_read(files.priors[t]) + 1e-3 for t in TISSUES]
ants.atropos(a=corrected, x=mask, i=priors, priorweight=0.25, m="[0.2,1x1x1]"); step("atropos")
"""


def main() -> None:
    """Run both and print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("t1w", type=Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-chain", action="store_true", help="time bids_inpaint alone")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_dataset(Path(scratch), args.t1w)
        ours, steps, peak = time_app(Path(scratch), args.threads)
        for name, seconds in steps:
            print(f"  {name:<14}{seconds:>7.0f} s")
        print(f"bids_inpaint    {ours:>7.0f} s, peak memory of all processes {peak:.1f} GB")
        if not args.no_chain:
            theirs = time_chain(args.t1w, Path(scratch), args.threads)
            print(f"antspyx chain   {theirs:>7.0f} s")
            print(f"ratio           {theirs / ours:>7.2f}")


def write_dataset(scratch: Path, t1w: Path, count: int = 1) -> None:
    """A BIDS dataset, ``bids``, of participants who all have this image: sub-0001, sub-0002 and so on."""
    suffix = ".nii.gz" if t1w.name.endswith(".gz") else ".nii"
    (scratch / "bids").mkdir(parents=True)
    first = shutil.copy(t1w, scratch / f"image{suffix}")
    for i in range(1, count + 1):
        anat = scratch / "bids" / f"sub-{i:04d}" / "anat"
        anat.mkdir(parents=True)
        os.link(first, anat / f"sub-{i:04d}_T1w{suffix}")
    description = {"Name": "benchmark", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (scratch / "bids" / "dataset_description.json").write_text(json.dumps(description))


def time_app(scratch: Path, threads: int) -> tuple[float, list[tuple[str, float]], float]:
    """Seconds, steps and peak memory (GB, all processes) of the participant level."""
    command = [
        sys.executable, "-m", "bids_inpaint", str(scratch / "bids"), str(scratch / "out"), "participant",
        "-w", str(scratch / "work"), "--nprocs", str(threads), "--skip-bids-validation",
    ]  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as messages:
        process = psutil.Popen(command, stderr=messages)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, tree_memory(process))
            time.sleep(1)  # to count the pages of a process stops it
        seconds = time.perf_counter() - start
        messages.seek(0)
        text = messages.read()
    if process.returncode:
        sys.exit(text)
    steps = re.findall(r"_wf: (\w+) done in (\d+) s", text)
    return seconds, [(name, float(s)) for name, s in steps], peak


def tree_memory(process: psutil.Process) -> float:
    """Proportional memory (GB) of a process and everything it started."""
    total = 0
    for p in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += p.memory_full_info().pss
    return total / 1024**3


def time_chain(t1w: Path, scratch: Path, threads: int) -> float:
    """Seconds of the plain chain."""
    environment = os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", CHAIN, str(t1w), str(scratch / "template")], check=True, env=environment
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
