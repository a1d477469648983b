"""What all pages of an output folder share."""

from __future__ import annotations

import json
from pathlib import Path

from bids_inpaint.dataset.people import page_of
from bids_inpaint.io.files import write_text
from bids_inpaint.reports.ratings import write_description

#: What to compare a lesion volume with: measured with both passes of the default networks (docs/networks.md).
HEALTHY = "In healthy people this program maps 0.0 to 1.9 ml in young adults and up to 0.9 ml in older ones."
#: What stands beside a thumbnail: key of the volumes -> label, factor and digits
FACTS = {
    "lesion_volume": ("Lesions (ml)", 1, 2),
    "lesion_count": ("Number", 1, 0),
    "lesion_share": ("Share of white matter (%)", 100, 2),
    "gm_volume": ("Grey matter (ml)", 1, 0),
    "wm_volume": ("White matter (ml)", 1, 0),
    "csf_volume": ("CSF (ml)", 1, 0),
    "brain_fraction": ("Brain fraction (%)", 100, 1),
}


def facts_of(volumes: dict[str, float]) -> dict[str, str]:
    """Those that are known of an image, by label; with the lesions the interval of their true volume.

    Examples
    --------
    >>> facts_of({"lesion_volume": 1.234, "lesion_share": 0.0123})
    {'Lesions (ml)': '1.23', 'Share of white matter (%)': '1.23'}
    >>> facts_of({"lesion_volume": 1.234, "lesion_volume_low": 0.8, "lesion_volume_high": 2})
    {'Lesions (ml)': '1.23 (0.80 to 2.00)'}
    """
    out = {
        label: f"{volumes[key] * factor:.{digits}f}"
        for key, (label, factor, digits) in FACTS.items()
        if key in volumes
    }
    if "lesion_volume_high" in volumes:
        ends = (volumes[f"lesion_volume_{end}"] for end in ("low", "high"))
        out[FACTS["lesion_volume"][0]] += f" ({' to '.join(f'{end:.2f}' for end in ends)})"
    return out


def link_pages(out_dir: Path) -> None:
    """Write what the pages of a folder read of each other, and the description of ratings.

    ``logs/participants.js`` lists the reports of participants, and those of their visits over time, so that
    each links to the next, whenever it was written.

    Raises
    ------
    OSError
        If it can't be written.
    """
    names = sorted(page.name for page in out_dir.glob("sub-*.html"))
    over_time = page_of("").removeprefix("sub-")
    content = json.dumps(
        {
            "labels": [name.removesuffix(".html") for name in names if not name.endswith(over_time)],
            "courses": [name.removesuffix(over_time) for name in names if name.endswith(over_time)],
            "group": (out_dir / "group.html").is_file(),
        }
    )
    write_text(out_dir / "logs" / "participants.js", f"window.participants = {content};\n")
    write_description(out_dir)
