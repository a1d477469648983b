"""Leave out the pictures of reports, which take most of a small run, where ``NO_FIGURES`` is set."""

import os
import sys
import types
from pathlib import Path


def _stand_in(name: str):
    if name.isupper():
        return "#000000"

    def draw(*args, **kwargs):
        paths = [a for a in args if isinstance(a, str) and a.endswith((".svg", ".png"))]
        for path in paths:
            Path(path).write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf-8")
        return paths[0] if paths else None

    return draw


# pytest reads every module of the tests
if os.environ.get("NO_FIGURES"):
    module = types.ModuleType("bids_inpaint.reports.figures")
    module.__getattr__ = _stand_in  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
