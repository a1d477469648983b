"""The page of the group level: a list of all images, statistics and plots, which opens without network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from bids_inpaint import __version__
from bids_inpaint.dataset.outputs import Products, figures_of
from bids_inpaint.dataset.people import page_of
from bids_inpaint.group import plots, spaghetti
from bids_inpaint.group.associations import TESTED, Association, Associations
from bids_inpaint.group.comparisons import LesionStatistics, Spread, TissueComparison
from bids_inpaint.group.longitudinal import STEPS as FOLLOWED_STEPS
from bids_inpaint.group.longitudinal import Followed, rates, summary
from bids_inpaint.group.measure import Measured, compare_provenance
from bids_inpaint.group.tables import LABELS, TISSUES, Covariates, counted
from bids_inpaint.io.files import replacing
from bids_inpaint.reports.citations import methods_of
from bids_inpaint.reports.folder import FACTS, HEALTHY, facts_of
from bids_inpaint.reports.ratings import COLUMNS, STEPS
from bids_inpaint.reports.templates import render
from bids_inpaint.reports.versions import versions
from bids_inpaint.settings import Settings

#: A value so many robust standard deviations from the median is an outlier (Iglewicz and Hoaglin 1993).
OUTLYING = 3.5
#: Fewer values have no outliers.
_ENOUGH = 8
#: Options that the group level looks at.
_OPTIONS = ("participant_label", "session_label", "bids_filter_file", "lesion_masks", "ratings", "template")


@dataclass(frozen=True)
class Group:
    """Everything the page shows.

    Attributes
    ----------
    measured : list of Measured
    kept : list of Measured
        Those that no rating excludes: statistics, plots and lesion map are of these.
    covariates : Covariates
        What the tables of the dataset say of the images.
    missing : list of str
        Images without finished results.
    left_out : dict of str
        Why the results of an image, by its prefix, are not those of its last run.
    warnings : list of str
        Sentences on the group as a whole.
    problems : list of str
        What could not be read.
    tissues : dict of TissueComparison
        By tissue; empty if no image was segmented for comparison.
    lesions : LesionStatistics, optional
        None without reference masks.
    followed : list of Followed
        The people whose visits were processed together.
    associations : Associations
        Tests by the columns of the dataset's tables.
    lesion_map : Path
        Lesion probability on the working grid.
    """

    measured: list[Measured]
    kept: list[Measured]
    covariates: Covariates
    missing: list[str]
    left_out: dict[str, str]
    warnings: list[str]
    problems: list[str]
    tissues: dict[str, TissueComparison]
    lesions: LesionStatistics | None
    followed: list[Followed]
    associations: Associations
    lesion_map: Path


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
    kept, out_dir = group.kept, settings.output_dir
    plots.remove_old(out_dir)
    text = render(
        "group.html.j2",
        version=__version__,
        participants=len({m.image.subject for m in kept}),
        images=len(kept),
        excluded=[
            (m.image.prefix, ", ".join(STEPS[step].lower() for step in m.verdict.excluded), _comments(m))
            for m in group.measured
            if m.verdict.excluded
        ],
        missing=group.missing,
        left_out=group.left_out,
        warnings=group.warnings,
        problems=group.problems,
        notes=[(m.image.prefix, note) for m in group.measured for note in m.notes],
        provenance=_provenance(kept),
        lesion_free=sum(m.lesion_free for m in kept),
        healthy=HEALTHY,
        tissue=_tissue_rows(group.tissues),
        tissue_plot=plots.tissue_plot(kept, out_dir),
        lesion=_lesion_rows(group.lesions),
        agreement=_agreement(group.lesions),
        lesion_plot=plots.lesion_plot(kept, out_dir),
        volume_plot=plots.volume_plot(kept, out_dir),
        covariate_plots=plots.covariate_plots(kept, group.covariates, out_dir),
        tests=[_test_row(test) for test in group.associations.tests],
        untested=group.associations.untested,
        followed=[
            summary(person) | {"name": f"sub-{person.course.subject}", "link": _over_time(person)}
            for person in group.followed
        ],
        rate=_mean_sd(rates(group.followed), 2),
        rated=rates(group.followed).participants,
        steps=FOLLOWED_STEPS,
        course_plots=spaghetti.course_plots(group.followed, group.covariates, out_dir),
        plot_width=round(plots.WIDTH * 96),
        map_plot=plots.map_plot(group.lesion_map, background, out_dir),
        map_file=group.lesion_map.name,
        outlying=_outlying(kept),
        outlying_limit=OUTLYING,
        facts=[label for label, _, _ in FACTS.values()],
        rows=_rows(group, out_dir),
        plots=plots.names(out_dir),
        tables=[path.name for path in sorted(out_dir.glob("group_desc-*.tsv"))],
        options={k: v for k, v in settings.summary().items() if k in _OPTIONS},
        versions=versions(),
        methods=methods_of(out_dir, {m.image.prefix: m.run_uuid for m in kept}),
        page=_rated(group),
    )
    final = out_dir / "group.html"
    with replacing(final) as part:
        part.write_text(text, encoding="utf-8")
    return final


def _rated(group: Group) -> dict[str, Any]:
    """What the script of the page must know to save and load ratings."""
    return {
        "name": "group",
        "images": [
            {"image": m.image.prefix, "participant": f"sub-{m.image.subject}", "results": m.fingerprint}
            for m in group.measured
        ],
        "steps": list(STEPS),
        "names": STEPS,
        "columns": list(COLUMNS),
    }


def _over_time(person: Followed) -> str:
    """A link to the report of a person."""
    return quote(page_of(person.course.subject))


def _rows(group: Group, out_dir: Path) -> list[dict[str, Any]]:
    """The list of images, of which those of people over time lead to them."""
    over_time = {
        visit.measured.image.prefix: _over_time(person)
        for person in group.followed
        for visit in person.visits
    }
    return [_row(one, out_dir) | {"over_time": over_time.get(one.image.prefix, "")} for one in group.measured]


def _row(one: Measured, out_dir: Path) -> dict[str, Any]:
    """A row of the list of images."""
    picture = figures_of(one.image, Products(()))["thumbnail"]
    name = one.image.prefix
    return {
        "image": name,
        "link": quote(f"sub-{one.image.subject}.html") + f"#{quote(name)}",
        "thumbnail": quote(picture) if (out_dir / picture).is_file() else "",
        "warnings": one.warnings,
        "facts": facts_of(one.volumes),
        "marks": dict(one.verdict.marks),
        "worst": one.verdict.worst,
    }


def _comments(one: Measured) -> str:
    """Who excludes an image, and why, as far as they say it."""
    excluding = (r for r in one.verdict.ratings if "exclude" in r.marks.values())
    said = (": ".join(filter(None, (rating.rater, rating.comment))) for rating in excluding)
    return "; ".join(filter(None, said))


def _mean_sd(spread: Spread, digits: int = 4) -> str:
    if spread.mean is None:
        return "n/a"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}"
    return f"{spread.mean:.{digits}f}{deviation}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _test_row(test: Association) -> list[str]:
    """A row of the table of tests by columns."""
    groups = (
        f"{level} {n} ({median:.{0 if median >= 100 else 2}f} ml)"
        for level, (n, median) in test.groups.items()
    )
    kinds = {"Mann-Whitney U": ("Mann–Whitney", "r"), "Kruskal-Wallis H": ("Kruskal–Wallis", "ε²")}
    name, effect = kinds.get(test.test, (test.test, "ρ"))
    interval = "" if np.isnan(test.low) else f"{_signed(test.low)} to {_signed(test.high)}"
    return [
        test.column, TESTED[test.measure], ", ".join(groups) or str(test.n), name,
        f"{effect} = {_signed(test.effect)}", interval, _p(test.p), _p(test.adjusted),
    ]  # fmt: skip


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _tissue_rows(tissues: Mapping[str, TissueComparison]) -> list[list[str]]:
    rows = []
    for tissue, comparison in tissues.items():
        test = comparison.test
        interval = "n/a" if np.isnan(test.low) else f"{test.low:+.4f} to {test.high:+.4f}"
        rows.append(
            [
                TISSUES[tissue], str(test.n), _mean_sd(comparison.original), _mean_sd(comparison.inpainted),
                f"{test.difference:+.4f}", interval, _p(test.p), f"{test.effect:.2f}",
            ]
        )  # fmt: skip
    return rows


def _lesion_rows(lesions: LesionStatistics | None) -> list[list[str]]:
    if lesions is None:
        return []
    rows = [[LABELS[c], str(s.participants), _mean_sd(s, 3)] for c, s in lesions.scores.items()]
    if lesions.false_volume.participants:
        label = "Volume mapped where the reference is empty (ml)"
        rows.append([label, str(lesions.false_volume.participants), _mean_sd(lesions.false_volume, 3)])
    return rows


def _agreement(lesions: LesionStatistics | None) -> str:
    """How the volumes of maps and references agree, for a sentence."""
    if lesions is None:
        return ""
    volumes = lesions.volumes
    parts = [f"bias {volumes.bias:+.2f} ml"]
    if np.isfinite(volumes.correlation):
        parts.insert(0, f"correlation {volumes.correlation:.3f}")
    if np.isfinite(volumes.low):
        parts.append(f"limits of agreement {volumes.low:+.2f} to {volumes.high:+.2f} ml")
    return ", ".join(parts)


def _provenance(measured: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """What the results come from, and of how many images, where they differ."""

    def values(images_of: dict[str, list[str]]) -> list[str]:
        if len(images_of) == 1:
            return [*images_of]
        return [f"{value} ({counted(len(names), 'image')})" for value, names in images_of.items()]

    return [(label, values(images_of)) for label, images_of in compare_provenance(measured).items()]


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
    entries = []
    for name, column in values.items():
        for one, z in zip(measured, outliers(list(column)), strict=True):
            if abs(z) > OUTLYING:
                link = quote(f"sub-{one.image.subject}.html") + f"#{quote(one.image.prefix)}"
                entry = {"image": one.image.prefix, "link": link, "what": name, "score": f"{z:+.1f}"}
                entries.append((abs(z), entry))
    return [entry for _, entry in sorted(entries, key=lambda pair: -pair[0])]
