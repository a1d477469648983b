"""The page of the group level: one HTML file that opens without network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_inpaint import __version__
from bids_inpaint.group.level import Group, by_participant, made_alike
from bids_inpaint.group.measure import Measured
from bids_inpaint.group.tables import LESIONS, MEASURES, VOLUMES, counted, identifying, identity, shown
from bids_inpaint.io import images
from bids_inpaint.io.files import replacing
from bids_inpaint.reports.versions import versions
from bids_inpaint.settings import Settings
from bids_inpaint.space import WORKING_GRID

_TEMPLATE = Path(__file__).parents[1] / "data" / "group.html.j2"
#: A value so many robust standard deviations from the median is an outlier (Iglewicz and Hoaglin 1993).
OUTLYING = 3.5
#: Fewer values have no outliers.
_ENOUGH = 8
_COLOURS = ("#8a8a8a", "#0b6fb8")
#: Those that the group level looks at.
_OPTIONS = ("participant_label", "session_label", "bids_filter_file", "lesion_masks", "template")
_TISSUES = {"gm": "Grey matter", "wm": "White matter", "average": "Average"}
_LABELS = {
    "dice": "Dice", "sensitivity": "Sensitivity", "precision": "Precision", "lesion_f1": "Lesion F1",
    "lesion_volume": "Lesions", "gm_volume": "Grey matter", "wm_volume": "White matter",
    "csf_volume": "CSF", "lesion_count": "Number of lesions", "hausdorff95": "Hausdorff 95% (mm)",
    "volume": "Volume (ml)", "reference_volume": "Reference volume (ml)",
    "volume_error": "Absolute volume difference (ml)",
}  # fmt: skip


def outliers(values: Sequence[float]) -> list[float]:
    """How many robust standard deviations each value lies from the median; 0 if there are too few.

    Examples
    --------
    >>> [round(z, 2) for z in outliers([1, 2, 3, 4, 5, 6, 7, 8, 60])][-1] > OUTLYING
    True
    """
    x = np.asarray(values, float)
    known = x[np.isfinite(x)]
    if known.size < _ENOUGH:
        return [0.0] * x.size
    middle = np.median(known)
    away = np.abs(known - middle)
    # where more than half are equal, the mean deviation stands in for the median one
    scale = 1.4826 * np.median(away) or 1.2533 * away.mean()
    if scale == 0:
        return [0.0] * x.size
    return np.nan_to_num((x - middle) / scale).tolist()


def write_page(group: Group, settings: Settings, background: str) -> Path:
    """Write ``group.html``.

    Parameters
    ----------
    group : Group
    settings : Settings
    background : str
        Brain of the template, behind the lesion probability map.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    measured = group.measured
    entities = identifying(measured)
    text = template.render(
        version=__version__,
        participants=len({m.image.subject for m in measured}),
        images=len(measured),
        missing=group.missing,
        left_out=group.left_out,
        warnings=group.warnings,
        problems=group.problems,
        notes=[(m.image.prefix, note) for m in measured for note in m.notes],
        made_with=_made_with(measured),
        lesion_free=sum(m.lesion_free for m in measured),
        tissue=_tissue_rows(group.statistics["tissue_dice"]),
        tissue_plot=_tissue_plot(measured),
        lesion=_lesion_rows(group.statistics["lesion_dice"]),
        agreement=group.statistics["lesion_dice"],
        lesion_plot=_lesion_plot(measured),
        volume_plot=_volume_plot(measured),
        map_plot=_map_plot(group.lesion_map, background),
        outlying=_outlying(measured),
        outlying_limit=OUTLYING,
        columns=[*entities.values(), *(_LABELS[c] + (" (ml)" if u else "") for c, (_, u) in VOLUMES.items())],
        rows=[
            (
                f"sub-{m.image.subject}.html",
                [*identity(m, entities), *(shown(m.volumes.get(c)) for c in VOLUMES)],
            )
            for m in measured
        ],
        options={k: v for k, v in settings.summary().items() if k in _OPTIONS},
        versions=versions(),
        methods=_methods(settings.output_dir),
    )
    final = settings.output_dir / "group.html"
    with replacing(final) as part:
        part.write_text(text, encoding="utf-8")
    return final


def _methods(out_dir: Path) -> list[str]:
    path = out_dir / "logs" / "CITATION.md"
    return [p for p in path.read_text(encoding="utf-8").split("\n\n") if p.strip()] if path.exists() else []


def _number(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _mean_sd(values: dict[str, float | None], digits: int = 4) -> str:
    if values["StandardDeviation"] is None:
        return _number(values["Mean"], digits)
    return f"{_number(values['Mean'], digits)} ± {_number(values['StandardDeviation'], digits)}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _tissue_rows(statistics: dict[str, Any]) -> list[list[str]]:
    rows = []
    for measure, s in statistics.items():
        low, high = s["ConfidenceInterval95"]
        interval = "n/a" if low is None else f"{low:+.4f} to {high:+.4f}"
        rows.append(
            [
                _TISSUES[measure], str(s["Participants"]), _mean_sd(s["Original"]), _mean_sd(s["Inpainted"]),
                f"{s['MeanDifference']:+.4f}", interval, _p(s["WilcoxonP"]),
                f"{s['RankBiserialCorrelation']:.2f}",
            ]
        )  # fmt: skip
    return rows


def _lesion_rows(statistics: dict[str, Any]) -> list[list[str]]:
    rows = [
        [_LABELS[c], str(s["Participants"]), _mean_sd(s, 3)] for c, s in statistics.get("Scores", {}).items()
    ]
    false = statistics.get("FalseVolumeWithoutLesions")
    if false and false["Participants"]:
        label = "Volume mapped where the reference is empty (ml)"
        rows.append([label, str(false["Participants"]), _mean_sd(false, 3)])
    return rows


def _made_with(measured: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """What the results were made with, and of how many images, where they differ."""

    def values(images_of: dict[str, list[str]]) -> list[str]:
        if len(images_of) == 1:
            return [*images_of]
        return [f"{value} ({counted(len(names), 'image')})" for value, names in images_of.items()]

    return [(label, values(images_of)) for label, images_of in made_alike(measured).items()]


def _outlying(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Images with a value far from those of the others, the farthest first."""
    tissues = {"gm_volume": "Grey-matter", "wm_volume": "White-matter", "csf_volume": "CSF"}
    parts = {t: np.array([m.volumes.get(t, np.nan) for m in measured]) for t in tissues}
    brain = np.sum(list(parts.values()), 0)
    values = {
        # lesion loads spread over orders of magnitude
        "Lesion volume": np.log10(np.array([m.volumes["lesion_volume"] for m in measured]) + 0.1),
        "Brain volume": brain,
        **{f"{tissues[t]} share of the brain": part / brain for t, part in parts.items()},
        "Tissue Dice of the inpainted image": [
            m.tissue_dice.get("average_inpainted", np.nan) for m in measured
        ],
        "Lesion Dice": [m.lesions.get("dice", np.nan) for m in measured],
    }
    found = []
    for name, column in values.items():
        for one, z in zip(measured, outliers(list(column)), strict=True):
            if abs(z) > OUTLYING:
                link = f"sub-{one.image.subject}.html"
                entry = {"image": one.image.prefix, "link": link, "what": name, "score": f"{z:+.1f}"}
                found.append((abs(z), entry))
    return [entry for _, entry in sorted(found, key=lambda pair: -pair[0])]


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _embed(figure) -> str:
    """A figure as the source of an image: vectors, or pixels where it asks for them."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bids_inpaint"}):
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _strip(axis, groups: Sequence[Sequence[float]], labels: Sequence[str], colours: Sequence[str]) -> None:
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


def _tissue_plot(measured: Sequence[Measured]) -> str:
    rows = [m for m in measured if m.tissue_dice and not m.lesion_free]
    if not rows:
        return ""
    figure = _figure(9, 3.6)
    axis = figure.subplots()
    groups, labels, colours = [], [], []
    for measure in MEASURES:
        for name, colour in zip(("original", "inpainted"), _COLOURS, strict=True):
            groups.append(by_participant(rows, "tissue_dice", f"{measure}_{name}"))
            labels.append(f"{_TISSUES[measure]}\n{name}")
            colours.append(colour)
    _strip(axis, groups, labels, colours)
    if len(groups[0]) <= 100:
        for i in range(0, len(groups), 2):
            pairs = list(zip(groups[i], groups[i + 1], strict=True))
            axis.plot([i, i + 1], np.transpose(pairs), color="#bbbbbb", linewidth=0.6, zorder=0)
    axis.set_ylabel("Dice against the reference")
    return _embed(figure)


def _lesion_plot(measured: Sequence[Measured]) -> str:
    scored = [m for m in measured if m.lesions]
    if not scored:
        return ""
    rows = [m for m in scored if not m.lesion_free]
    figure = _figure(11, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    scores = [c for c in LESIONS if c in ("dice", "sensitivity", "precision", "lesion_f1")]
    groups = [by_participant(rows, "lesions", c) for c in scores]
    _strip(left, groups, [_LABELS[c] for c in scores], [_COLOURS[1]] * len(scores))
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


def _volume_plot(measured: Sequence[Measured]) -> str:
    figure = _figure(11, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    _strip(left, [by_participant(measured, "volumes", "lesion_volume")], ["Lesions"], ["#c23b22"])
    # zero has its place on a scale that is logarithmic from 1 ml on
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(bottom=0)
    left.set_ylabel("Volume (ml)")
    tissues = ("gm_volume", "wm_volume", "csf_volume")
    groups = [by_participant(measured, "volumes", t) for t in tissues]
    _strip(right, groups, [_LABELS[t] for t in tissues], ["#c9a227", "#0b6fb8", "#3a9d5d"])
    return _embed(figure)


def _map_plot(lesion_map: Path, background: str) -> str:
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
