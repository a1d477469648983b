"""The methods text as people read it: citations by author and year, with a list of references."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup, escape

from bids_inpaint.dataset.description import BIBLIOGRAPHY, methods_file

#: Accents as LaTeX writes them in the bibliography.
_LATEX = {r"{\o}": "ø", r"{\'e}": "é", "--": "–", "{": "", "}": ""}


@dataclass(frozen=True)
class Reference:
    """A work of the bibliography.

    Attributes
    ----------
    label : str
        As ``Manjón et al. 2020``.
    text : str
        Authors, year, title and place, as in a list of references.
    url : str
        Of its DOI; empty without one.
    """

    label: str
    text: str
    url: str


def bibliography() -> dict[str, Reference]:
    """The works that methods texts cite, by their keys."""
    entries = re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", BIBLIOGRAPHY.read_text(encoding="utf-8"), re.M | re.S)
    works = {
        key: _reference(dict(re.findall(r"^\s*(\w+) = \{(.*)\},?$", body, re.M))) for key, body in entries
    }
    labels = [work.label for work in works.values()]
    for label in {label for label in labels if labels.count(label) > 1}:
        twins = sorted((work.text, key) for key, work in works.items() if work.label == label)
        for letter, (_, key) in zip("abcdef", twins, strict=False):
            year = label[-4:]
            text = works[key].text.replace(f"({year})", f"({year}{letter})", 1)
            works[key] = replace(works[key], label=label + letter, text=text)
    return works


def _reference(fields: dict[str, str]) -> Reference:
    for mark, character in _LATEX.items():
        fields = {name: value.replace(mark, character) for name, value in fields.items()}
    authors = [name.split(", ") for name in fields["author"].split(" and ")]
    families = [name[0] for name in authors]
    who = families[0] + (" et al." if len(authors) > 2 else f" and {families[1]}" if authors[1:] else "")
    initials = ["".join(f"{given[0]}. " for given in name[-1].split()).strip() for name in authors]
    listed = ", ".join(f"{family} {i}" for family, i in zip(families, initials, strict=True))
    place = fields.get("journal") or fields.get("booktitle") or f"arXiv {fields.get('eprint', '')}"
    where = " ".join(filter(None, [place, fields.get("volume"), fields.get("pages")]))
    doi = fields.get("doi")
    return Reference(
        f"{who} {fields['year']}",
        f"{listed} ({fields['year']}). {fields['title']}. {where}.",
        f"https://doi.org/{doi}" if doi else "",
    )


def readable(text: str) -> tuple[list[Markup], list[Reference]]:
    """Paragraphs of a methods text as HTML, and the works they cite, by name.

    Parameters
    ----------
    text : str
        Markdown with citations as Pandoc reads them, such as ``[@nipype; @n4]``.

    Examples
    --------
    >>> paragraphs, references = readable("Based on *Nipype* [@nipype].")
    >>> print(paragraphs[0])
    Based on <em>Nipype</em> (Gorgolewski et al. 2011).
    >>> [reference.url for reference in references]
    ['https://doi.org/10.3389/fninf.2011.00013']
    """
    known = bibliography()
    cited: dict[str, Reference] = {}

    def cite(match: re.Match) -> str:
        keys = re.findall(r"@(\w+)", match[0])
        cited.update({key: known[key] for key in keys if key in known})
        named = re.sub(r"@(\w+)", lambda one: known[one[1]].label if one[1] in known else one[1], match[0])
        return f"({named[1:-1]})" if named.startswith("[") else named

    paragraphs = []
    for paragraph in filter(str.strip, text.split("\n\n")):
        named = re.sub(r"\[[^][]*@\w[^][]*\]|(?<!\w)@\w+", cite, paragraph.strip())
        emphasised = re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", str(escape(named)))
        paragraphs.append(Markup(emphasised))
    return paragraphs, sorted(cited.values(), key=lambda reference: reference.text)


@dataclass(frozen=True)
class Methods:
    """What was done to some images.

    Attributes
    ----------
    images : list of str
        Their prefixes.
    paragraphs : list of Markup
    references : list of Reference
        The works that the paragraphs cite.
    """

    images: list[str]
    paragraphs: list[Markup]
    references: list[Reference]


def methods_of(out_dir: Path, runs: dict[str, str]) -> list[Methods]:
    """The methods texts of the runs that made images, each once, the most common first.

    Parameters
    ----------
    out_dir : Path
    runs : dict of str
        UUID of the run that made an image, by its prefix; empty if that is unknown.
    """
    images_of: dict[str, list[str]] = {}
    for prefix, run_uuid in runs.items():
        path = methods_file(out_dir, run_uuid, prefix)
        text = path.read_text(encoding="utf-8", errors="replace") if path else ""
        images_of.setdefault(text, []).append(prefix)
    common = sorted(images_of.items(), key=lambda item: -len(item[1]))
    return [Methods(names, *readable(text)) for text, names in common if text]
