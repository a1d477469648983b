"""How far results are from those of the slow way, by step: ``python benchmarks/reference.py T1W [T1W ...]``.

Each row does one step the slow way, the last one all of them: denoising with the search radius of antspyx,
the affine of ANTs with its full schedule, N4 on every second voxel, the network with its upsampling in single
precision on the whole grid, and Atropos with the distances that it doesn't need. Of each, against the way
of the app: the largest displacement between the affines within the brain, the standard deviation of the ratio
of the bias fields, the Dice coefficient of the lesion maps and the similarity of the inpainted T1w images
where either was changed. Needs torch, which writes the slow networks.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import write_dataset
from network import write_baseline

from bids_inpaint.imaging import bias
from bids_inpaint.imaging import itk as steps
from bids_inpaint.imaging.fidelity import psnr
from bids_inpaint.imaging.metrics import dice
from bids_inpaint.interfaces import bias as bias_node
from bids_inpaint.io import images
from bids_inpaint.io.transforms import read_xfm
from bids_inpaint.networks import registry, volumes
from bids_inpaint.space import WORKING_GRID

STEPS = ("denoise", "register", "correct_bias", "network", "segment")
VARIANTS = {"as the app does": (), **{step: (step,) for step in STEPS}, "all of them": STEPS}


def main() -> None:
    """Run all variants of each image and print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("t1w", type=Path, nargs="+")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--one", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one is not None:
        slow_down(args.one.split())
        return run(args.t1w[0], args.threads, "network" in args.one)
    for t1w in args.t1w:
        print(t1w.name)
        compare(t1w, args.threads)


def compare(t1w: Path, threads: int) -> None:
    """Print the table of one image."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), t1w)
        for name in (registry.DEFAULT, registry.REFERENCE):
            write_baseline(registry.find(name), Path(folder))
        expected: dict[str, np.ndarray] = {}
        for name, slow in VARIANTS.items():
            start = time.perf_counter()
            command = [sys.executable, __file__, folder, "--threads", str(threads), "--one", " ".join(slow)]
            subprocess.run(command, check=True, capture_output=True)
            seconds = time.perf_counter() - start
            found = results(Path(folder))
            expected = expected or found
            print(f"  {name:<16}{seconds:5.0f} s  {similarity(found, expected)}", flush=True)


def slow_down(slow: list[str]) -> None:
    """Make steps of this process the slow ones."""
    alone, each_alone = steps.alone, steps.each_alone

    def slowly(function, *args):
        if function is steps.affine and "register" in slow:
            args = (*args[:3], "full", *args[4:])
        elif function is steps._atropos and "segment" in slow:
            return alone(atropos_with_distances, *args)
        return alone(function, *args)

    def each_slowly(function, calls: list[tuple]) -> list:
        if function is steps._denoise and "denoise" in slow:
            function = denoise_with_radius_2
        return each_alone(function, calls)

    steps.alone, steps.each_alone = slowly, each_slowly
    if "correct_bias" in slow:
        bias_node._ESTIMATES["n4"] = lambda data, mask, shrink: bias.n4(data, mask, 2)
    if "network" in slow:
        volumes.MARGIN.update(blind=1000, filling=1000)


def denoise_with_radius_2(data: np.ndarray, mask: np.ndarray, own: slice) -> np.ndarray:
    """What :func:`steps._denoise` does, with antspyx's own search radius."""
    import ants

    denoise = ants.denoise_image
    ants.denoise_image = lambda *args, **kwargs: denoise(*args, **{**kwargs, "r": 2})
    return steps._denoise(data, mask, own)


def atropos_with_distances(*args) -> list[np.ndarray]:
    """What :func:`steps._atropos` does, with the distances from the tissues."""
    import ants

    atropos = ants.atropos
    ants.atropos = lambda **kwargs: atropos(**{**kwargs, "e": 0})
    return steps._atropos(*args)


def run(folder: Path, threads: int, slow_network: bool) -> None:
    """The participant level in this process, where the steps can be changed."""
    from bids_inpaint import cli

    for name in ("out", "work"):
        shutil.rmtree(folder / name, ignore_errors=True)
    plugin = folder / "linear.yml"
    plugin.write_text("plugin: Linear\n")
    options = ["--use-plugin", plugin, "--nprocs", threads, "--skip-bids-validation", "-w", folder / "work"]
    options += ["--segmentation", "atropos"]
    if slow_network:
        options += ["--model", folder / f"{registry.DEFAULT}.onnx"]
        options += ["--second-pass", folder / f"{registry.REFERENCE}.onnx"]
    argv = [folder / "bids", folder / "out", "participant", *options]
    sys.exit(cli.main([str(word) for word in argv]))


def results(folder: Path) -> dict[str, np.ndarray]:
    """What a run made of the image."""
    (stem,) = (folder / "out").glob("sub-0001/anat/sub-0001_desc-inpainted_T1w.nii.gz")
    anat = stem.parent
    (bias,) = (folder / "work").glob("**/correct_bias/bias.nii.gz")
    (xfm,) = anat.glob("*_from-T1w_to-*_xfm.txt")
    (raw,) = (folder / "bids").glob("sub-0001/anat/*")
    return {
        "raw": images.read(raw)[0],
        "inpainted": images.read(stem)[0],
        "lesions": images.read(anat / "sub-0001_label-L_desc-inpaint_mask.nii.gz")[0] > 0,
        "bias": images.read(bias)[0],
        "working_mask": images.read(next(anat.glob("*_space-*_desc-brain_mask.nii.gz")))[0] > 0,
        "xfm": read_xfm(str(xfm)),
    }


def similarity(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    """A row of the table."""
    both = found["working_mask"] & expected["working_mask"]
    points = WORKING_GRID.matrix @ np.vstack([np.argwhere(both).T, np.ones(both.sum())])
    moved = np.linalg.norm(((found["xfm"] - expected["xfm"]) @ points)[:3], axis=0).max()
    ratio = found["bias"][both] / expected["bias"][both]
    changed = (found["inpainted"] != found["raw"]) | (expected["inpainted"] != expected["raw"])
    peak = float(expected["inpainted"].max())
    similar = psnr(found["inpainted"][changed], expected["inpainted"][changed], peak)
    return (
        f"affine {moved:5.2f} mm  bias {100 * ratio.std() / ratio.mean():5.2f} %  "
        f"lesions {expected['lesions'].sum()}, Dice {dice(found['lesions'], expected['lesions']):.3f}  "
        f"inpainted {similar:5.1f} dB"
    )


if __name__ == "__main__":
    main()
