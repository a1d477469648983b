"""Makes the pages that come from elsewhere: the first from the README, the options from the parser."""

from __future__ import annotations

import os
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def on_page_markdown(markdown: str, page, **_) -> str:
    """Replace the place-holder by the help text, and the links of the README by those of the site."""
    if page.file.src_path == "index.md":
        return README.read_text().replace("](docs/", "](")
    if page.file.src_path != "options.md":
        return markdown
    os.environ["COLUMNS"] = "100"
    from bids_inpaint.parser import parser

    return markdown.replace("{{ help }}", parser().format_help().rstrip())
