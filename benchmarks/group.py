"""Time and memory of the group level over made-up participants: ``python benchmarks/group.py [COUNT]``.

The outputs of a few made-up participants are written once and linked under the names of the others. The
bounds in question are 60 s and 2 GB for 500 participants on two cores, and a page of 5 MB that Chromium opens
in 2 s, where there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, find
from helpers import write_dataset, write_finished

from bids_inpaint.dataset import template
from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.outputs import USUAL, figures_of, names_of
from bids_inpaint.io import images
from bids_inpaint.reports import figures
from bids_inpaint.space import WORKING_GRID, Grid, resample

KINDS = 8


def simulate(root: Path, count: int) -> None:
    """A BIDS dataset of `count` participants, all finished, with lesions of every load."""
    rng = np.random.default_rng(0)
    files = template.prepare(template.DEFAULT, root / "work")
    priors = np.stack([images.read(files.priors[t])[0] for t in ("GM", "WM", "CSF")])
    brain = images.read(files.mask)[0] > 0
    native = Grid.of((176, 240, 256), [[1, 0, 0, -88], [0, 1, 0, -126], [0, 0, 1, -110], [0, 0, 0, 1]])
    names = [f"sub-{i:04d}" for i in range(count)]
    for i, name in enumerate(names):
        if i >= KINDS:
            link(root / "out", names[i % KINDS], name)
            continue
        noise = ndimage.gaussian_filter(rng.standard_normal(WORKING_GRID.shape), 3)
        white = brain & (priors.argmax(0) == 1)
        reference = white & (noise > np.quantile(noise[white], 1 - 10 ** rng.uniform(-3.5, -1.3)))
        found = ndimage.binary_dilation(reference) & white & (rng.random(white.shape) < 0.9)
        healthy = np.where(brain, priors.argmax(0) + 1, 0).astype(np.uint8)
        inpainted = np.where(rng.random(brain.shape) < 0.01, 1, healthy) * brain
        original = np.where(reference, 1, inpainted)
        image = Image("", "", {"sub": name[4:]})
        write_finished(
            root / "out", image, found, native=native,
            volumes=dict(zip(("GM", "WM", "CSF"), 1e5 * rng.normal(6, 0.5, 3), strict=True)),
            tissues={"original": original, "inpainted": inpainted, "reference": healthy},
            reference=resample(reference, WORKING_GRID, native, order=0) > 0.5,
        )  # fmt: skip
        mask, picture = (
            names_of(image, template.DEFAULT, USUAL)["mask"],
            figures_of(image, USUAL)["thumbnail"],
        )
        figures.thumbnail(files.t1w, files.mask, str(root / "out" / mask), str(root / "out" / picture))
    write_dataset(root / "bids", *(f"{n}/anat/{n}_T1w.nii.gz" for n in names))


def link(out: Path, source: str, name: str) -> None:
    """Give a participant the outputs of another."""
    for path in (out / source).rglob("*"):
        if path.is_file():
            target = out / name / path.relative_to(out / source).with_name(path.name.replace(source, name))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def opened(page: Path, folder: Path) -> str:
    """How long a browser takes to open a page, and its main thread to work on it."""
    try:
        find()
    except pytest.skip.Exception:
        return "not opened, as there is no Chromium"
    browser = Browser(folder)
    browser.call("Performance.enable", timeDomain="threadTicks")
    seconds = browser.open(page)
    metrics = {m["name"]: m["value"] for m in browser.call("Performance.getMetrics")["metrics"]}
    browser.close()
    return f"opened in {seconds:.1f} s ({metrics['TaskDuration']:.2f} s of its main thread)"


def main(count: int) -> None:
    """Simulate, run the command and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        simulate(root, count)
        command = [
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / "out"), "group",
            "-w", str(root / "work"), "--nprocs", "2",
        ]  # fmt: skip
        start, peak = time.monotonic(), 0
        process = subprocess.Popen(command)
        while process.poll() is None:
            time.sleep(1)
            try:
                every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak = max(peak, sum(p.memory_info().rss for p in every))
            except psutil.Error:
                continue
        page = root / "out" / "group.html"
        print(
            f"{count} participants: {time.monotonic() - start:.0f} s, {peak / 1e9:.2f} GB, "
            f"page of {page.stat().st_size / 1e6:.1f} MB, {opened(page, root / 'browser')}, "
            f"exit code {process.returncode}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
