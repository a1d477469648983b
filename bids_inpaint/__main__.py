"""Entry point of ``python -m bids_inpaint`` and of the ``bids_inpaint`` command."""

from __future__ import annotations

import sys

from bids_inpaint.cli import main

if __name__ == "__main__":
    sys.exit(main())
