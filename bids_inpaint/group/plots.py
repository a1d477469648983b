"""The plots of the group's page, each as the source of an image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_inpaint.group.comparisons import by_participant
from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import LABELS, LESIONS, MEASURES, TISSUES
from bids_inpaint.io import images
from bids_inpaint.space import WORKING_GRID

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Original and inpainted image.
_COLOURS = ("#8a8a8a", "#0b6fb8")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _embed(figure: Figure) -> str:
    """A figure as the source of an image: vectors, or pixels where it asks for them."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bids_inpaint"}):
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _strip(
    axis: Axes, groups: Sequence[Sequence[float]], labels: Sequence[str], colours: Sequence[str]
) -> None:
    """A box and all its points for each group."""
    rng = np.random.default_rng(0)
    for i, (values, colour) in enumerate(zip(groups, colours, strict=True)):
        known = np.asarray([v for v in values if np.isfinite(v)])
        if not known.size:
            continue
        axis.boxplot(
            known, positions=[i], widths=0.6, showfliers=False, medianprops={"color": "black"},
            manage_ticks=False,
        )  # fmt: skip
        jitter = rng.uniform(-0.18, 0.18, known.size)
        axis.plot(
            i + jitter, known, "o", color=colour, alpha=0.6 if known.size < 200 else 0.25,
            markersize=4 if known.size < 200 else 2, linestyle="none", rasterized=known.size > 200,
        )  # fmt: skip
    axis.set_xticks(range(len(labels)), labels)
    axis.spines[["top", "right"]].set_visible(False)


def tissue_plot(measured: Sequence[Measured]) -> str:
    rows = [m for m in measured if m.tissue_dice and not m.lesion_free]
    if not rows:
        return ""
    figure = _figure(9, 3.6)
    axis = figure.subplots()
    groups, labels, colours = [], [], []
    for measure in MEASURES:
        for name, colour in zip(("original", "inpainted"), _COLOURS, strict=True):
            groups.append(by_participant(rows, "tissue_dice", f"{measure}_{name}"))
            labels.append(f"{TISSUES[measure]}\n{name}")
            colours.append(colour)
    _strip(axis, groups, labels, colours)
    if len(groups[0]) <= 100:
        for i in range(0, len(groups), 2):
            pairs = list(zip(groups[i], groups[i + 1], strict=True))
            axis.plot([i, i + 1], np.transpose(pairs), color="#bbbbbb", linewidth=0.6, zorder=0)
    axis.set_ylabel("Dice against the reference")
    return _embed(figure)


def lesion_plot(measured: Sequence[Measured]) -> str:
    scored = [m for m in measured if m.lesions]
    if not scored:
        return ""
    rows = [m for m in scored if not m.lesion_free]
    figure = _figure(11, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    scores = [c for c in LESIONS if c in ("dice", "sensitivity", "precision", "lesion_f1")]
    groups = [by_participant(rows, "lesions", c) for c in scores]
    _strip(left, groups, [LABELS[c] for c in scores], [_COLOURS[1]] * len(scores))
    left.set_ylim(-0.02, 1.02)
    volume, reference = (
        np.array(by_participant(scored, "lesions", c)) for c in ("volume", "reference_volume")
    )
    mean, difference = (volume + reference) / 2, volume - reference
    right.plot(mean, difference, "o", color=_COLOURS[1], alpha=0.6, markersize=4, rasterized=len(mean) > 200)
    bias = float(difference.mean())
    reach = 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    for level, style in ((bias, "-"), (bias - reach, "--"), (bias + reach, "--")):
        right.axhline(level, color="black", linewidth=0.8, linestyle=style)
    right.set_xlabel("Mean of lesion map and reference (ml)")
    right.set_ylabel("Lesion map minus reference (ml)")
    right.set_title("Bland–Altman: bias and limits of agreement", fontsize=10)
    right.spines[["top", "right"]].set_visible(False)
    return _embed(figure)


def volume_plot(measured: Sequence[Measured]) -> str:
    figure = _figure(11, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    _strip(left, [by_participant(measured, "volumes", "lesion_volume")], ["Lesions"], ["#c23b22"])
    # zero has its place on a scale that is logarithmic from 1 ml on
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(bottom=0)
    left.set_ylabel("Volume (ml)")
    tissues = ("gm_volume", "wm_volume", "csf_volume")
    groups = [by_participant(measured, "volumes", t) for t in tissues]
    _strip(right, groups, [LABELS[t] for t in tissues], ["#c9a227", "#0b6fb8", "#3a9d5d"])
    return _embed(figure)


def map_plot(lesion_map: Path, background: str) -> str:
    """Axial slices of the template's brain with the lesion probability in colour."""
    from matplotlib.colors import Normalize

    brain, share = images.read(background)[0], images.read(lesion_map)[0]
    top = float(share.max())
    levels = np.linspace(-30, 60, 10)
    figure = _figure(11, 3.0)
    axes = figure.subplots(2, 5)
    norm = Normalize(0, top or 1)
    extent = np.nonzero(brain > 0)
    x, y = (slice(int(e.min()), int(e.max()) + 1) for e in extent[:2])
    shades = None
    for axis, z in zip(axes.flat, levels, strict=True):
        k = round(z - WORKING_GRID.matrix[2, 3])
        # the grid runs from right to left: so does the picture, as radiologists look at it
        axis.imshow(brain[x, y, k].T, cmap="gray", origin="lower")
        view = np.ma.masked_less_equal(share[x, y, k].T, 0)
        shades = axis.imshow(view, cmap="hot", norm=norm, origin="lower")
        axis.set_title(f"z = {z:.0f} mm", fontsize=7)
        axis.set_axis_off()
    if shades is not None:
        figure.colorbar(shades, ax=axes, label="share of participants")
    return _embed(figure)
