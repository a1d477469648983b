"""Make brain MRI with lesions usable by tools made for healthy brains."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bids_inpaint")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
