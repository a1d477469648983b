"""What results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from bids_inpaint import __version__

_PACKAGES = ("antspyx", "nibabel", "nipype", "numpy", "onnxruntime", "pybids", "scipy")


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that determine its results."""
    installed = {"bids_inpaint": __version__}
    for name in _PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed
