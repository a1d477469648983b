"""Time and memory of the blind network by how it is run: ``python benchmarks/network.py [--threads 2]``.

The baseline is the same network with its upsampling, its weights in single precision, on the whole working
grid, in ONNX Runtime's own provider for CPUs. Every run has a process of its own, and begins with loading the
network. Needs torch, which writes the baseline; OpenVINO is timed where onnxruntime-openvino is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_inpaint.dataset import template
from bids_inpaint.imaging.fidelity import psnr
from bids_inpaint.imaging.intensity import Scale
from bids_inpaint.io import images
from bids_inpaint.networks import card, inpainting, registry, session, volumes

PROVIDER = "CPUExecutionProvider"
FASTER = "OpenVINOExecutionProvider"
VARIANTS = {
    "upsampling, single precision, whole grid": ("baseline", 1000, PROVIDER),
    "folded, half stored, whole grid": ("shipped", 1000, PROVIDER),
    "folded, half stored, around the brain": ("shipped", volumes.MARGIN["blind"], PROVIDER),
    "the same in OpenVINO": ("shipped", volumes.MARGIN["blind"], FASTER),
}


def main() -> None:
    """Run all in turn and print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        network, margin, provider, folder = args.one
        return run(network, int(margin), provider, Path(folder), args.threads)
    import onnxruntime

    present = onnxruntime.get_available_providers()
    variants = {name: how for name, how in VARIANTS.items() if how[-1] in present}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template.prepare(template.DEFAULT, folder)
        networks = {
            "baseline": write_baseline(registry.find(registry.DEFAULT), folder),
            "shipped": registry.DEFAULT,
        }
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        peaks, outputs = {}, {}
        for _ in range(args.repeats):
            for variant, (network, margin, provider) in variants.items():
                command = [sys.executable, __file__, "--threads", str(args.threads), "--one"]
                command += [networks[network], str(margin), provider, name]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                spent, peaks[variant] = json.loads(told)
                seconds[variant].append(spent)
                outputs[variant] = np.load(folder / "out.npy")
        baseline, expected = next(iter(variants)), next(iter(outputs.values()))
        for variant, spent in seconds.items():
            ratio = statistics.median(seconds[baseline]) / statistics.median(spent)
            inside = expected > 0
            similarity = psnr(outputs[variant][inside], expected[inside], float(expected.max()))
            print(
                f"{variant:<42}{statistics.median(spent):6.2f} s {ratio:5.1f}x "
                f"{peaks[variant]:5.2f} GB {similarity:6.1f} dB"
            )


def write_baseline(shipped: card.Model, folder: Path) -> str:
    """A shipped network with its upsampling, in single precision; its path."""
    from bids_inpaint.training.architectures.unet import UNet
    from bids_inpaint.training.config import Config
    from bids_inpaint.training.to_onnx import volumes_to_onnx
    from bids_inpaint.training.weights import load_exported

    network = UNet(**Config.load(shipped.name).network)
    load_exported(network, shipped.path)
    path = folder / f"{shipped.name}.onnx"
    tells = shipped.card.lesion_probability is not None
    volumes_to_onnx(network.eval(), path, folded=False, tells=tells)
    content = json.loads(shipped.path.with_suffix(".json").read_text())
    card = {**content, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))
    return str(path)


def run(network: str, margin: int, provider: str, folder: Path, threads: int) -> None:
    """Fill the template's brain once; print seconds and peak memory (GB)."""
    import onnxruntime

    files = template.prepare(template.DEFAULT, folder)
    brain, mask = images.read(files.t1w)[0], images.read(files.mask)[0] > 0
    priors = [images.read(files.priors[t])[0] for t in ("WM", "GM")]
    scale = Scale.measure(brain, mask, *priors)
    model = registry.find(network)
    onnxruntime.get_available_providers = lambda: [provider]
    volumes.MARGIN["blind"] = margin
    before = time.perf_counter()
    out = inpainting.inpaint(model, brain, mask, scale, None, session.Runtime("cpu", threads), priors).image
    spent = time.perf_counter() - before
    np.save(folder / "out.npy", out)
    print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))


if __name__ == "__main__":
    main()
