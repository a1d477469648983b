"""Time of two visits together beside that of the first alone: ``python benchmarks/two_visits.py BIDS LABEL``.

BIDS is a dataset whose participant LABEL has T1w images of two sessions, such as ``benchmarks/repeats.py``
writes. Both runs have one process. The seconds of the processor are those of all processes, and hardly
depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from measuring import time_app


def main() -> None:
    """Print the row of each run, and their ratio."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bids", type=Path)
    p.add_argument("label")
    args = p.parse_args()
    spent = []
    for name, together in (("one visit", ()), ("two visits", ("--longitudinal",))):
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            person = scratch / "bids" / f"sub-{args.label}"
            shutil.copytree(args.bids / person.name, person)
            shutil.copy(args.bids / "dataset_description.json", scratch / "bids")
            if not together:
                for path in sorted(person.glob("ses-*"))[1:]:
                    shutil.rmtree(path)
            took = time_app(scratch, 1, options=together)
        spent.append(took)
        print(
            f"{name:<12}{took.cpu:8.1f} s of the processor{took.seconds:8.1f} s{took.peak:6.1f} GB",
            flush=True,
        )
    one, two = spent
    print(f"ratio       {two.cpu / one.cpu:8.2f}                {two.seconds / one.seconds:12.2f}")


if __name__ == "__main__":
    main()
