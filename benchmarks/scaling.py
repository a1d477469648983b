"""Time and memory as work grows: ``python benchmarks/scaling.py {voxels,participants,dataset} T1W``.

``voxels``: one participant whose image is resampled to 2, 1, 0.7 and 0.5 mm. ``participants``: four copies of
the image with one and with two processes, and the ratio of their throughput. ``dataset``: what one
participant of 10 to 5,000 costs before its image is read (the text of the methods alone, without validator).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import time_app, write_dataset

from bids_inpaint.io import images
from bids_inpaint.space import Grid, resample


def main() -> None:
    """Run one of the three and print its table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["voxels", "participants", "dataset"])
    p.add_argument("t1w", type=Path)
    p.add_argument("--sizes", type=float, nargs="+", default=[2.0, 1.0, 0.7, 0.5], help="mm, of voxels")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "voxels":
            voxels(args.t1w, Path(folder), args.sizes)
        else:
            {"participants": participants, "dataset": dataset}[args.what](args.t1w, Path(folder))


def voxels(t1w: Path, folder: Path, sizes: list[float]) -> None:
    """Time and memory by voxel size."""
    data, grid = images.read(t1w)
    extent = grid.voxel_sizes * grid.shape
    for size in sizes:
        scale = np.round(extent / size).astype(int) / grid.shape
        shape = np.round(grid.shape * scale).astype(int)
        # the outer faces of the volume stay where they are
        finer = np.diag([*1 / scale, 1.0])
        finer[:3, 3] = 0.5 / scale - 0.5
        target = Grid.of(shape, grid.matrix @ finer)
        image = images.save(str(folder / "image.nii.gz"), resample(data, grid, target), target)
        root = folder / str(size)
        write_dataset(root, Path(image))
        spent = time_app(root, 2)
        count = int(np.prod(target.shape))
        print(
            f"{size} mm, {count / 1e6:5.1f} million voxels: {spent.seconds:4.0f} s, "
            f"{spent.cpu:4.0f} s of processors, {spent.peak:.1f} GB",
            flush=True,
        )


def participants(t1w: Path, folder: Path) -> None:
    """Throughput of two processes beside one."""
    taken = {}
    for processes in (1, 2):
        root = folder / str(processes)
        write_dataset(root, t1w, count=4)
        spent = time_app(root, processes)
        taken[processes], peak = spent.seconds, spent.peak
        print(
            f"4 participants, {processes} processes: {taken[processes]:.0f} s, {peak:.1f} GB, "
            f"{peak / processes:.1f} GB a process",
            flush=True,
        )
    print(f"throughput ratio {taken[1] / taken[2]:.2f}")


def dataset(t1w: Path, folder: Path) -> None:
    """Time until one participant's graph is ready by the number of all."""
    for count in (10, 100, 1000, 5000):
        root = folder / str(count)
        write_dataset(root, t1w, count)
        command = [
            sys.executable, "-m", "bids_inpaint", str(root / "bids"), str(root / "out"), "participant",
            "-w", str(root / "work"), "--participant-label", "0001", "--boilerplate-only",
            "--skip-bids-validation",
        ]  # fmt: skip
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            spent.append(time.perf_counter() - start)
        print(f"one of {count} participants: {np.median(spent):.1f} s", flush=True)


if __name__ == "__main__":
    main()
