"""One head in many disguises gives one result, or a word on why not.

A short set of a stripped head at every second voxel, with low quality; ``BIDS_INPAINT_NIGHTLY=1`` runs all of
both heads at all of theirs, with default quality, which takes hours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import disguise_outcomes
import disguises
import pytest
from disguises import DISGUISES, HEADS, PLAIN, STRIPPED, choose
from helpers import TESTS

NIGHTLY = bool(os.environ.get("BIDS_INPAINT_NIGHTLY"))
CHOSEN = choose() if NIGHTLY else choose((STRIPPED,), short=True)
AGAIN = next(d for d in DISGUISES if d.name == "Again")
each = pytest.mark.parametrize(("head", "disguise"), CHOSEN, ids=[d.label(h) for h, d in CHOSEN])
each_head = pytest.mark.parametrize("head", HEADS if NIGHTLY else (STRIPPED,), ids=lambda head: head.key)


@dataclass(frozen=True)
class Run:
    """A finished run: its dataset, its outputs, and what it said."""

    bids: Path
    out: Path
    code: int
    log: str

    def of(self, head, disguise) -> disguise_outcomes.Outcome:
        return disguise_outcomes.of(self.bids, self.out, self.log, head, disguise)


@pytest.fixture(scope="module")
def dataset(real_data, tmp_path_factory) -> Path:
    bids = tmp_path_factory.mktemp("disguises") / "bids"
    return disguises.write_disguises(real_data, bids, CHOSEN, step=1 if NIGHTLY else 2)


@pytest.fixture(scope="module")
def finished(dataset) -> Run:
    out = dataset.parent / "out"
    quick = [] if NIGHTLY else ["--sloppy", "--second-pass", "none"]
    command = [
        sys.executable, "-m", "bids_inpaint", str(dataset), str(out), "participant", "--skip-bids-validation",
        "-w", str(dataset.parent / "work"), "--segmentation", "none", *quick,
    ]  # fmt: skip
    # nothing here is about pictures, and they take most of the time
    paths = [str(TESTS / "nofigures"), *filter(None, [os.environ.get("PYTHONPATH")])]
    pictureless = {"NO_FIGURES": "1", "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"} | pictureless, timeout=24 * 3600 if NIGHTLY else 1800,
    )  # fmt: skip
    return Run(dataset, out, result.returncode, result.stderr)


@each
def test_files_hold_the_same_head(dataset, head, disguise):
    """Of the disguises themselves: read back with NiBabel, they have its values where it is in the world."""
    if not disguise.holds:
        pytest.skip("NiBabel can't read it, or it is spoilt on purpose")
    # edges blur where a head must be resampled
    assert disguise_outcomes.holds(dataset, head, disguise) > (0.9 if disguise.name == "Sheared" else 0.98)


def test_run_ends_well(finished):
    refused = [d.name for h, d in CHOSEN if not finished.of(h, d).finished]
    assert finished.code == (1 if refused else 0), finished.log[-2000:]
    assert "Traceback" not in finished.log


@each_head
def test_plain_image_has_lesions_to_compare(finished, head):
    assert finished.of(head, PLAIN).volumes[0] > 1


@each_head
def test_same_file_gives_the_same_bytes(finished, head):
    ours, theirs = (finished.out / d.file(head) for d in (PLAIN, AGAIN))
    for name in ("desc-inpainted_T1w.nii.gz", "label-L_desc-inpaint_mask.nii.gz", "label-L_probseg.nii.gz"):
        one, two = (str(p).replace("T1w.nii.gz", name) for p in (ours, theirs))
        assert Path(one).read_bytes() == Path(two).read_bytes(), name


@each
def test_disguised_head_gives_the_plain_result_or_a_word_on_why_not(finished, head, disguise):
    outcome = finished.of(head, disguise)
    loose = 1.0 if NIGHTLY else disguise_outcomes.SLOPPY
    assert outcome.accepted(disguise, loose), (
        f"{disguise.allowed} expected ({disguise.reason}); "
        f"{'; '.join(outcome.faults(disguise, loose))}; {outcome}"
    )
