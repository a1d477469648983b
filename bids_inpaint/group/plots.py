"""The plots of the group's page, each a file below ``figures/`` of the output folder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_inpaint.group.comparisons import by_participant
from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import LABELS, LESIONS, MEASURES, TISSUES, Covariates, number_of
from bids_inpaint.io import images
from bids_inpaint.io.files import replacing
from bids_inpaint.space import WORKING_GRID

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Original and inpainted image.
_COLOURS = ("#8a8a8a", "#0b6fb8")
LESION = "#c25a00"
#: Folder of the plots below the output folder.
FOLDER = "figures"
#: Of all plots (inches).
WIDTH = 11.0
#: A column with so many different values or fewer has a box for each.
FEW = 8


def new_figure(height: float) -> Figure:
    """An empty figure, as wide as all others of the page and so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out_dir: Path, name: str) -> str:
    """Write a figure, as vectors or as pixels where it asks for them; return its path below the folder."""
    import matplotlib

    path = out_dir / FOLDER / f"group_{name}.svg"
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part, matplotlib.rc_context({"svg.hashsalt": "bids_inpaint"}):
        figure.savefig(part, format="svg", dpi=150, metadata={"Date": None})
    return f"{FOLDER}/{path.name}"


def names(out_dir: Path) -> list[str]:
    """Paths of all plots below the folder."""
    return [f"{FOLDER}/{path.name}" for path in sorted((out_dir / FOLDER).glob("group_*.svg"))]


def remove_old(out_dir: Path) -> None:
    """Remove the plots of an earlier run, which might not be made again."""
    for path in (out_dir / FOLDER).glob("group_*.svg"):
        path.unlink()


def _strip(
    axis: Axes, groups: Sequence[Sequence[float]], labels: Sequence[str], colours: Sequence[str]
) -> None:
    """All points of each group, and a box if there are more than three."""
    rng = np.random.default_rng(0)
    for i, (values, colour) in enumerate(zip(groups, colours, strict=True)):
        known = np.asarray([v for v in values if np.isfinite(v)])
        if not known.size:
            continue
        jitter = rng.uniform(-0.18, 0.18, known.size) if known.size > 1 else np.zeros(1)
        if known.size > 3:
            axis.boxplot(
                known, positions=[i], widths=0.6, showfliers=False, medianprops={"color": "black"},
                manage_ticks=False,
            )  # fmt: skip
        axis.plot(
            i + jitter, known, "o", color=colour, alpha=0.6 if known.size < 200 else 0.25,
            markersize=4 if known.size < 200 else 2, linestyle="none", rasterized=known.size > 200,
        )  # fmt: skip
    axis.set_xticks(range(len(labels)), labels)
    axis.spines[["top", "right"]].set_visible(False)


def tissue_plot(measured: Sequence[Measured], out_dir: Path) -> str:
    rows = [m for m in measured if m.tissue_dice and not m.lesion_free]
    if not rows:
        return ""
    figure = new_figure(3.6)
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
    return save_figure(figure, out_dir, "tissue_dice")


def lesion_plot(measured: Sequence[Measured], out_dir: Path) -> str:
    scored = [m for m in measured if m.lesions]
    if not scored:
        return ""
    rows = [m for m in scored if not m.lesion_free]
    figure = new_figure(3.8)
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
    return save_figure(figure, out_dir, "lesion_dice")


def volume_plot(measured: Sequence[Measured], out_dir: Path) -> str:
    figure = new_figure(3.4)
    load, share, tissue, fraction = figure.subplots(1, 4, width_ratios=[1, 1, 2.4, 1])
    _strip(load, [by_participant(measured, "volumes", "lesion_volume")], ["Lesions"], [LESION])
    logarithmic(load)
    load.set_ylabel("Volume (ml)")
    shares = [100 * v for v in by_participant(measured, "volumes", "lesion_share")]
    _strip(share, [shares], ["Lesions"], [LESION])
    logarithmic(share)
    share.set_ylabel("Share of white matter (%)")
    tissues = ("gm_volume", "wm_volume", "csf_volume")
    groups = [by_participant(measured, "volumes", t) for t in tissues]
    _strip(tissue, groups, [LABELS[t] for t in tissues], ["#c9a227", "#0b6fb8", "#3a9d5d"])
    tissue.set_ylabel("Volume (ml)")
    fractions = [100 * v for v in by_participant(measured, "volumes", "brain_fraction")]
    _strip(fraction, [fractions], ["Brain"], [_COLOURS[1]])
    fraction.set_ylabel("Share of the brain mask (%)")
    return save_figure(figure, out_dir, "volumes")


def logarithmic(axis: Axes) -> None:
    """Zero has its place on a scale that is logarithmic from 1 on."""
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)


def covariate_plots(
    measured: Sequence[Measured], covariates: Covariates, out_dir: Path
) -> list[tuple[str, str]]:
    """Lesion load and brain fraction by the columns of the dataset's tables: name of a column, and its plot.

    Columns with numbers give scatter plots, those with a few words a box for each. Images of a participant
    that have the same value are averaged.
    """
    out = []
    for number, column in enumerate(covariates.columns):
        if column.lower() == "acq_time":
            # what changes with time has its own plot
            continue
        known = covariates.known(column, (one.image for one in measured))
        numbers = {prefix: x for prefix, value in known.items() if (x := number_of(value)) is not None}
        levels = sorted(set(known.values()))
        if len(numbers) == len(known) and len(levels) > FEW:
            figure = new_figure(3.2)
            _scatter(figure, measured, numbers, column)
        elif 1 < len(levels) <= FEW:
            figure = new_figure(3.2)
            _by_level(figure, measured, known, levels, column)
        else:
            continue
        out.append((column, save_figure(figure, out_dir, f"by-{number + 1}")))
    return out


def _means(
    measured: Sequence[Measured], values: Mapping[str, Hashable], measure: str
) -> list[tuple[Any, float]]:
    """A value of a column and the mean of a measure, for each participant and value."""
    groups: dict[tuple[str, Hashable], list[float]] = {}
    for one in measured:
        found = one.volumes.get(measure, np.nan)
        if one.image.prefix in values and np.isfinite(found):
            groups.setdefault((one.image.subject, values[one.image.prefix]), []).append(found)
    return [(value, float(np.mean(found))) for (_, value), found in groups.items()]


#: What is plotted by the columns: measure, label, factor.
_PLOTTED = (("lesion_volume", "Lesions (ml)", 1.0), ("brain_fraction", "Brain fraction (%)", 100.0))


def _scatter(figure: Figure, measured: Sequence[Measured], numbers: dict[str, float], column: str) -> None:
    from scipy import stats

    for axis, (measure, label, factor) in zip(figure.subplots(1, 2), _PLOTTED, strict=True):
        pairs = _means(measured, numbers, measure)
        x, y = ([pair[i] for pair in pairs] for i in (0, 1))
        axis.plot(x, factor * np.array(y), "o", color=_COLOURS[1], alpha=0.6, markersize=4)
        if len(pairs) > 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
            rho = stats.spearmanr(x, y).statistic
            axis.set_title(f"Spearman's ρ = {rho:.2f}, n = {len(pairs)}", fontsize=10)
        axis.set_xlabel(plain(column))
        axis.set_ylabel(label)
        if measure == "lesion_volume":
            logarithmic(axis)
        axis.spines[["top", "right"]].set_visible(False)


def _by_level(
    figure: Figure, measured: Sequence[Measured], known: dict[str, str], levels: list[str], column: str
) -> None:
    for axis, (measure, label, factor) in zip(figure.subplots(1, 2), _PLOTTED, strict=True):
        pairs = _means(measured, known, measure)
        groups = [[factor * y for value, y in pairs if value == level] for level in levels]
        names = [f"{plain(level)}\nn = {len(group)}" for level, group in zip(levels, groups, strict=True)]
        _strip(axis, groups, names, [_COLOURS[1]] * len(levels))
        axis.set_xlabel(plain(column))
        axis.set_ylabel(label)
        if measure == "lesion_volume":
            logarithmic(axis)


def plain(text: str) -> str:
    """Text of a user, short and without the signs that Matplotlib takes for formulas."""
    return (text if len(text) <= 40 else text[:39] + "…").replace("$", r"\$")


def map_plot(lesion_map: Path, background: str, out_dir: Path) -> str:
    """Axial slices of the template's brain with the lesion probability in colour, where there is most."""
    import matplotlib
    from matplotlib.colors import ListedColormap, Normalize

    brain, share = images.read(background)[0], images.read(lesion_map)[0]
    figure = new_figure(3.9)
    figure.set_facecolor("black")
    axes = figure.subplots(2, 5)
    # the darkest colours would not be seen on the brain
    colours = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.3, 1, 256)))
    norm = Normalize(0, float(share.max()) or 1)
    extent = np.nonzero(brain > 0)
    x, y = (slice(int(e.min()), int(e.max()) + 1) for e in extent[:2])
    shades = None
    for axis, k in zip(axes.flat, _slices(share), strict=True):
        # the grid runs from right to left: turned, the left of the brain is at the left, as in the reports
        below, values = (volume[x, y, k][::-1].T for volume in (brain, share))
        axis.imshow(below, cmap="gray", origin="lower", vmax=1.6 * float(brain.max()))
        shades = axis.imshow(
            np.ma.masked_less_equal(values, 0), cmap=colours, norm=norm, origin="lower", interpolation="none"
        )
        axis.set_title(f"z = {k + WORKING_GRID.matrix[2, 3]:.0f} mm", fontsize=10, color="white")
        for side, place in (("L", 0.02), ("R", 0.92)):
            axis.text(place, 0.02, side, transform=axis.transAxes, color="#bbbbbb", fontsize=10)
        axis.set_axis_off()
    assert shades is not None
    bar = figure.colorbar(shades, ax=axes)
    bar.set_label("share of participants", color="white")
    bar.ax.tick_params(colors="white")
    return save_figure(figure, out_dir, "lesion_map")


def _slices(share: np.ndarray, count: int = 10) -> list[int]:
    """Axial slices, evenly through nearly all that the map holds."""
    low, high = -30 - WORKING_GRID.matrix[2, 3], 60 - WORKING_GRID.matrix[2, 3]
    held = share.sum((0, 1), dtype=float).cumsum()
    if held[-1] > 0:
        first, last = np.searchsorted(held / held[-1], (0.02, 0.98))
        # slices of a single lesion would all be the same
        reach = max((last - first) / 2, 2.5 * count)
        low, high = ((first + last) / 2 + side * reach for side in (-1, 1))
    return np.linspace(max(low, 0), min(high, share.shape[2] - 1), count).round().astype(int).tolist()
