"""How the app's N4 compares with that of ANTs: ``python benchmarks/bias.py WORK_DIR [WORK_DIR ...]``.

The brains are those on the working grid that participant runs left in their work folders (``-w WORK_DIR``).
Of each, in per cent: the standard deviation of the ratio of both fields inside the brain; by how much white
matter varies (median absolute deviation, as a standard deviation) deep in that of the template, without
correction and with either; and how far the app's N4 misses a known field with which the image is multiplied
(standard deviation of the ratio to the one that it finds in addition). Then the seconds of one core.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_inpaint.imaging import bias, itk
from bids_inpaint.io import images


def main() -> None:
    """Print a row for each brain."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", type=Path, nargs="+")
    print(f"{'':<24}ratio   white matter: none    app   ANTs   known   seconds: app   ANTs")
    for work in p.parse_args().work:
        white = images.read(next(work.glob("tpl-*/WM.nii.gz")))[0] > 0.9
        white = ndimage.binary_erosion(white, iterations=2)
        for folder in sorted(work.glob("**/preprocess_wf/resample")):
            image = images.read(folder / "working.nii.gz")[0]
            mask = images.read(folder / "mask.nii.gz")[0] > 0
            compare(folder.parent.parent.name.removesuffix("_wf"), image, mask, white & mask)


def compare(name: str, image: np.ndarray, mask: np.ndarray, white: np.ndarray) -> None:
    """Print the row of a brain."""
    start = time.process_time()
    corrected, ours = bias.correct(image, mask, bias.n4)
    seconds = time.process_time() - start
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    corrected_by_ants, ants = bias.correct(image, mask, itk.n4)
    seconds_of_ants = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    known = field_of_a_coil(image.shape)
    again = bias.correct(image * known, mask, bias.n4)[1]
    varies = [100 * spread(v[white]) for v in (image, corrected, corrected_by_ants)]
    print(
        f"{name:<24}{100 * sd((ours / ants)[mask]):5.3f}{varies[0]:22.2f}{varies[1]:7.2f}{varies[2]:7.2f}"
        f"{100 * sd((again / ours / known)[mask]):8.2f}{seconds:15.1f}{seconds_of_ants:7.1f}",
        flush=True,
    )


def field_of_a_coil(shape: tuple[int, ...]) -> np.ndarray:
    """A field from about 0.8 to 1.3 across a brain, brightest at a corner."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    return np.exp(0.1 * x - 0.1 * y * z + 0.4 * np.exp(-((x - 1) ** 2) - (y + 1) ** 2 - z**2))


def sd(ratio: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(ratio.std() / ratio.mean())


def spread(values: np.ndarray) -> float:
    """Coefficient of variation that lesions and ventricles have no part in."""
    middle = np.median(values)
    return float(1.4826 * np.median(np.abs(values - middle)) / middle)


if __name__ == "__main__":
    main()
