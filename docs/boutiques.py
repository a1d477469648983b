"""Writes the Boutiques descriptor of the app from its parser: ``python docs/boutiques.py``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bids_inpaint import __version__
from bids_inpaint.parser import parser

# the creator of boutiques can't save a Path, makes -v and --version values, and knows no integers and files
FILE = Path(__file__).with_name("bids_inpaint.boutiques.json")


def descriptor() -> dict[str, Any]:
    """The descriptor, schema 0.5."""
    p = parser()
    inputs = [_input(a) for a in p._actions if a.dest not in ("help", "version")]
    return {
        "name": "bids_inpaint",
        "description": p.description,
        "tool-version": __version__,
        "schema-version": "0.5",
        "url": "https://github.com/bids-inpaint/bids_inpaint",
        "container-image": {"type": "docker", "image": "bids_inpaint:latest"},
        "command-line": " ".join(["bids_inpaint", *(i["value-key"] for i in inputs)]),
        "inputs": inputs,
        "output-files": [
            {
                "id": "output_dir_files",
                "name": "Derivatives and reports",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "tags": {"domain": ["neuroinformatics", "MRI"]},
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    dest = action.dest
    text = (action.help or "").replace("%%", "%")
    out: dict[str, Any] = {
        "id": dest,
        "name": dest.replace("_", " "),
        "description": text[:1].upper() + text[1:],
        "value-key": f"[{dest.upper()}]",
        "optional": bool(action.option_strings),
    }
    if action.option_strings:
        out["command-line-flag"] = next(
            (s for s in action.option_strings if s.startswith("--")), action.option_strings[0]
        )
    if action.nargs == 0:
        return out | {"type": "Flag"}
    # places may not be there yet, so that most of them are no File
    kind = {int: "Number", float: "Number"}.get(action.type, "String")  # type: ignore[arg-type]
    out["type"] = "File" if dest in ("bids_dir", "bids_filter_file", "use_plugin", "lesion_masks") else kind
    if action.type is int:
        out["integer"] = True
    if action.nargs == "+":
        out["list"] = True
    if action.choices:
        out["value-choices"] = list(action.choices)
    if action.default not in (None, []):
        out["default-value"] = str(action.default) if isinstance(action.default, Path) else action.default
    return out


if __name__ == "__main__":
    FILE.write_text(json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n")
