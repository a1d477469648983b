"""Make brain MRI with lesions usable by tools made for healthy brains."""

import os
from importlib.metadata import PackageNotFoundError, version

# Nipype and its kin ask a server for newer versions at import, unless told not to
os.environ.setdefault("NO_ET", "1")
# ONNX Runtime 1.32 keeps an identifier of the machine, and sends what it does, unless told not to
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

try:
    __version__ = version("bids_inpaint")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
