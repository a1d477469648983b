"""The Boutiques descriptor in docs/ is that of the parser."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

DOCS = ROOT / "docs"


def test_descriptor_is_up_to_date():
    spec = importlib.util.spec_from_file_location("boutiques_descriptor", DOCS / "boutiques.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(module.FILE.read_text()) == module.descriptor(), "run python docs/boutiques.py"


def test_descriptor_is_valid():
    pytest.importorskip("boutiques")
    bosh = Path(sys.executable).with_name("bosh")
    run = subprocess.run(
        [bosh, "validate", DOCS / "bids_inpaint.boutiques.json"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
