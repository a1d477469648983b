"""Fill the hole of a volume slice by slice: ``python -m bids_inpaint.fill VOIDED MASK OUTPUT``.

For volumes that come with a hole, such as those of the BraTS inpainting challenge (``*-t1n-voided.nii.gz``
and ``*-mask.nii.gz``): a brain without skull, on about 1 mm voxels, in any space. Known voxels stay as they
are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from bids_inpaint import options
from bids_inpaint.dataset import masks
from bids_inpaint.environment import settle
from bids_inpaint.errors import InputError, printable
from bids_inpaint.io import images
from bids_inpaint.networks import inpainting, registry, session
from bids_inpaint.space import Grid


def main(argv: list[str] | None = None) -> int:
    """Fill one volume and return the exit code: 0, or 2 after a sentence about what was wrong."""
    p = argparse.ArgumentParser(
        prog="python -m bids_inpaint.fill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("voided", type=Path, help="volume with a hole")
    p.add_argument("mask", type=Path, help="the hole, on the same voxels")
    p.add_argument("output", type=Path, help="volume to write")
    p.add_argument("--model", default="ddpm", help="network that fills slices, by name or ONNX file")
    p.add_argument(
        "--beyond-brain",
        action="store_true",
        help="the hole may reach beyond the brain: what lies outside of its mirror image becomes 0",
    )
    p.add_argument("--sampler", choices=options.SAMPLERS, help="default: the network's own")
    p.add_argument("--sampling-steps", type=int, metavar="N", help="1 to 1000; default: the network's own")
    p.add_argument("--random-seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", choices=options.DEVICES, default=options.DEVICES[0])
    args = p.parse_args(argv)
    try:
        settle()
        if not args.output.name.endswith((".nii", ".nii.gz")):
            raise InputError(f"{args.output} is not the name of a NIfTI file: end it in .nii or .nii.gz.")
        runtime = session.Runtime(
            args.device, args.threads, args.random_seed, args.sampler, args.sampling_steps
        )
        model = registry.find(args.model)
        data, grid = images.load_t1w(args.voided)
        header = images.load_given(args.mask)
        if header.shape[:3] != grid.shape or not Grid.of(grid.shape, header.affine).same_as(grid):
            raise InputError(f"{args.mask} has other voxels than {args.voided}: resample it onto them.")
        warnings: list[str] = []
        hole = masks.read_lesions(args.mask, grid, args.voided, warnings=warnings)
        for warning in warnings:
            print(printable(f"bids_inpaint.fill: warning: {warning}"), file=sys.stderr)
        filled = inpainting.fill_slices(model, data, hole, grid, runtime, args.beyond_brain)
        try:
            images.save(args.output, filled, grid, np.float32)
        except OSError as error:
            raise InputError(
                f"{args.output} can't be written ({error.strerror}): check its folder, or name another one."
            ) from None
    except (ValueError, OSError) as error:
        # what settle says of the machine is the whole sentence, and of no file
        alone = isinstance(error, OSError) and error.filename is None
        reason = getattr(error, "strerror", error) if alone else error
        print(printable(f"bids_inpaint.fill: error: {reason}"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
