"""Time of one participant by step, beside an earlier revision and a plain chain of antspyx defaults.

    python benchmarks/participant.py sub-01_T1w.nii.gz [--against REV] [--repeats 3]

All run in turn on the same image with the same threads, as often as asked, and medians are shown. With
``--against``, the code of a git revision is run in the same environment (7bc576b is version 0.1.0). The
chain is what one would write first: denoise the whole field of view, 'Affine' onto the template, N4 and
Atropos (in the template's mask) on the result with antspyx's defaults, without network, figures or files. A
full head is given to all.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from measuring import Spent, measure, revision, time_app, todays, write_dataset

CHAIN = """
import sys, time
import ants
from bids_inpaint.dataset.template import DEFAULT, TISSUES, prepare
files = prepare(DEFAULT, sys.argv[2])
start = time.perf_counter()
def step(name):
    global start
    print("STEP", name, round(time.perf_counter() - start, 2), flush=True)
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

#: Names that steps had in earlier revisions, by today's.
RENAMED: dict[str, str] = {}


def main() -> None:
    """Run all in turn and print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("t1w", type=Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--against", metavar="REV", help="also run the code of this git revision")
    p.add_argument("--repeats", type=int, default=1, help="of each, in turn")
    p.add_argument("--no-chain", action="store_true", help="leave the antspyx chain out")
    args = p.parse_args()
    # so that the worktree is removed
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        scratch = Path(name)
        write_dataset(scratch, args.t1w)
        ways: dict[str, Callable[[], Spent]] = {
            "today": partial(time_app, scratch, args.threads, todays(scratch))
        }
        if args.against:
            other = held.enter_context(revision(args.against, scratch))
            ways[args.against] = partial(time_app, scratch, args.threads, other)
        if not args.no_chain:
            ways["antspyx chain"] = partial(time_chain, args.t1w, scratch, args.threads)
        spent: dict[str, list[Spent]] = {way: [] for way in ways}
        for turn in range(args.repeats):
            for way, run in ways.items():
                spent[way].append(run())
                last = spent[way][-1]
                print(f"{turn + 1}. {way}: {last.seconds:.1f} s, {last.cpu:.1f} s of processors", flush=True)
    print_steps({way: of_way for way, of_way in spent.items() if way != "antspyx chain"})
    print_totals(spent)


def time_chain(t1w: Path, scratch: Path, threads: int) -> Spent:
    """What the plain chain takes."""
    command = [sys.executable, "-c", CHAIN, str(t1w.resolve()), str(scratch / "template")]
    environment = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads), "PYTHONPATH": str(scratch / "today")}
    spent = measure(command, environment, str(scratch))
    steps = {name: float(took) for name, took in re.findall(r"^STEP (\w+) (.+)$", spent.text, re.MULTILINE)}
    print("   " + ", ".join(f"{name} {took:.0f} s" for name, took in steps.items()))
    return spent


def print_steps(spent: dict[str, list[Spent]]) -> None:
    """The seconds of each step, the longest first, and how many times as long the earlier revision takes."""
    today, *others = ({RENAMED.get(k, k): v for k, v in steps_of(runs).items()} for runs in spent.values())
    print(
        f"\n{'seconds of a step':<28}"
        + "".join(f"{way:>14}" for way in spent)
        + f"{'ratio':>8}" * bool(others)
    )
    every = dict.fromkeys(name for steps in (today, *others) for name in steps)
    for name in sorted(every, key=lambda name: -max(steps.get(name, 0) for steps in (today, *others))):
        seconds = [steps.get(name) for steps in (today, *others)]
        if max(s or 0 for s in seconds) < 0.05:
            continue
        row = f"{name:<28}" + "".join("—".rjust(14) if s is None else f"{s:14.1f}" for s in seconds)
        if others and None not in seconds:
            row += f"{seconds[1] / max(seconds[0], 0.01):8.1f}"
        print(row)


def steps_of(runs: list[Spent]) -> dict[str, float]:
    """Medians over runs."""
    return {name: median(run.steps.get(name, 0.0) for run in runs) for name in runs[-1].steps}


def print_totals(spent: dict[str, list[Spent]]) -> None:
    """Medians of the whole runs, and how many times as much as today the others take."""
    print()
    first: dict[str, float] = {}
    for way, runs in spent.items():
        measures = {
            "seconds": median(run.seconds for run in runs),
            "of processors": median(run.cpu for run in runs),
            "GB": max(run.peak for run in runs),
        }
        first = first or measures
        ratios = ", ".join(f"{value / first[key]:.2f}" for key, value in measures.items())
        print(
            f"{way:<16}{measures['seconds']:7.1f} s,{measures['of processors']:7.1f} s of processors, "
            f"{measures['GB']:.2f} GB of all processes" + (f"; ratios {ratios}" if way != "today" else "")
        )


if __name__ == "__main__":
    main()
