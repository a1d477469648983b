"""The kinds of networks: each module of this package defines one as its ``ENGINE``.

A new kind is one new file here, and nothing else: the registry checks its networks by it, the app runs them,
and the methods text describes them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from bids_inpaint.networks.card import Engine


def _defined() -> dict[str, Engine]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {module.ENGINE.name: module.ENGINE for module in modules}


#: All kinds, by the names that cards call them.
ENGINES = _defined()
