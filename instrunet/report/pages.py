"""The environment of all pages: one frame (base.html), one set of macros and filters, and no name unknown."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from instrunet.report import words


def render(name: str, **values: Any) -> str:
    """A page by its template; words stand in the template, `values` are what they are about."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {one.__name__: one for one in (words.clock, words.count, words.magnitude, words.percent)}
    environment.filters["short"] = words.short
    return environment.get_template(name).render(**values)
