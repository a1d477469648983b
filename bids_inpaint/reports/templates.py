"""HTML from the Jinja templates in ``data/``; whatever is put into them is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parents[1] / "data"


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(name: str, /, **values: Any) -> str:
    """Fill in a template.

    Parameters
    ----------
    name : str
        Of a file in ``data/``.
    **values
        What the template asks for.

    Raises
    ------
    jinja2.UndefinedError
        If a value is missing.
    """
    return _environment().get_template(name).render(**values)
