"""Leave out the pictures of reports, which take most of a small run, where ``NO_FIGURES`` is set."""

import os
import sys
import types
from pathlib import Path


def _stand_in(name: str):
    if name.isupper():
        return "#000000"

    def draw(*args, **kwargs):
        paths = [a for a in args if isinstance(a, str) and a.endswith((".svg", ".png", ".json"))]
        for path in paths:
            empty = "{}" if path.endswith(".json") else '<svg xmlns="http://www.w3.org/2000/svg"/>'
            Path(path).write_text(empty, encoding="utf-8")
        return paths[0] if paths else None

    return draw


# pytest reads every module of the tests
if os.environ.get("NO_FIGURES"):
    figures = types.ModuleType("bids_inpaint.reports.figures")
    figures.__getattr__ = _stand_in  # type: ignore[method-assign]
    # of single lesions, and the sheet for a paper
    zoom = types.ModuleType("bids_inpaint.reports.zoom")
    vars(zoom).update(
        FIELD=50.0, LARGEST=30, Head=types.SimpleNamespace(read=lambda *_: None), draw=_stand_in("draw")
    )
    sheet = types.ModuleType("bids_inpaint.reports.sheet")
    vars(sheet).update(draw=_stand_in("draw"))
    sys.modules |= {module.__name__: module for module in (figures, zoom, sheet)}
