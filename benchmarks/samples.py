"""Samples for training a second: of one core of the CPU, and in batches on a GPU.

    python benchmarks/samples.py CACHE LESIONS [--against REV]
    python benchmarks/samples.py CACHE LESIONS --device cuda --batch 64 --workers 8

With ``--against``, a git revision and today's code make samples in turn, in processes of their own, and the
ratio is printed. Both make those of the configuration as it was in that revision, which does not know later
settings. Seconds are those of the processor, of one core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT, revision

ONE_CORE = """
import sys, time
from dataclasses import replace
from pathlib import Path
import torch
from bids_inpaint.training.config import Config
from bids_inpaint.training.data import Lesions, subjects
from bids_inpaint.training.inpainting import Patches
torch.set_num_threads(1)
config, count = Config.load(sys.argv[1]), int(sys.argv[4])
cache, lesions = Path(sys.argv[2]), Path(sys.argv[3])
there = [s.name for s in subjects(cache, config.data.train)]
config = replace(config, data=replace(config.data, train=there))
patches = Patches(config, cache, Lesions.load(lesions, config.data.leave_out_patients))
for i in range(4):
    patches.sample(i)
start = time.process_time()
for i in range(count):
    patches.sample(100 + i)
print((time.process_time() - start) / count)
"""


def one_core(code: Path, arguments: list[str]) -> float:
    """Processor seconds of a sample, of the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ONE_CORE, *arguments]
    # the package of the working directory would come first
    done = subprocess.run(command, cwd=code, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def on_device(args: argparse.Namespace) -> float:
    """Samples a second that a device makes in batches, the drawing included."""
    from dataclasses import replace

    import torch

    from bids_inpaint.training.config import Config
    from bids_inpaint.training.data import Lesions, subjects
    from bids_inpaint.training.lesioned import Patches

    config = Config.load(args.config)
    there = [s.name for s in subjects(args.cache, config.data.train)]
    config = replace(config, data=replace(config.data, train=there))
    shapes = Lesions.load(args.lesions, config.data.leave_out_patients)
    batches = Patches(config, args.cache, shapes, device=args.device).batches(args.batch, args.workers)
    for _ in range(16):
        next(batches)

    def wait() -> None:
        if args.device == "cuda":
            torch.cuda.synchronize()

    wait()
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < args.seconds:
        made += len(next(batches)[0])
    wait()
    return made / (time.perf_counter() - start)


def main() -> None:
    """Measure, and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cache", type=Path)
    p.add_argument("lesions", type=Path)
    p.add_argument("--config", default="blind-unet")
    p.add_argument("--against", metavar="REV", help="git revision to compare with")
    p.add_argument("--count", type=int, default=60, help="samples of a core")
    p.add_argument("--rounds", type=int, default=3, help="turns of each, of which the median is printed")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--seconds", type=float, default=10)
    args = p.parse_args()
    if args.device == "cuda":
        print(f"{on_device(args):.0f} samples a second")
        return
    config, seconds = args.config, dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        trees = {"today": ROOT}
        if args.against:
            trees[args.against] = stack.enter_context(revision(args.against, Path(scratch)))
        if Path(config).exists():
            config = str(Path(config).resolve())
        elif args.against:
            config = f"{trees[args.against]}/bids_inpaint/training/configs/{config}.toml"
        arguments = [config, str(args.cache.resolve()), str(args.lesions.resolve()), str(args.count)]
        for _ in range(args.rounds):
            for name, code in trees.items():
                seconds.setdefault(name, []).append(one_core(code, arguments))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:<12}{1000 * value:>8.1f} ms a sample{1 / value:>8.0f} a second")
    if args.against:
        print(f"{medians[args.against] / medians['today']:.2f} times as many")


if __name__ == "__main__":
    main()
