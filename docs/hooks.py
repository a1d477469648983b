"""Makes the parts of the site that come from the code: the options are those of the parser."""

from __future__ import annotations

import os


def on_page_markdown(markdown: str, page, **_) -> str:
    """Replace the place-holder of the options by the help text."""
    if page.file.src_path != "options.md":
        return markdown
    os.environ["COLUMNS"] = "100"
    from bids_inpaint.parser import parser

    return markdown.replace("{{ help }}", parser().format_help().rstrip())
