"""How pages are filled in: everything that is put into one is escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from atlas_tune.report import palette

# Styles stand in the page and in the drawings' own attributes; nothing is fetched and no script
# runs. `form-action` and `base-uri` do not fall back to `default-src`, so they are named.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def templates(filters: Sequence[Callable[..., Any]], **names: Any) -> jinja2.Environment:
    """The templates of this room, with filters under their functions' names, and ``names``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("atlas_tune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({written.__name__: written for written in filters})
    environment.globals.update(names, policy=CONTENT_SECURITY_POLICY, style=style_sheet())
    return environment


def style_sheet() -> Markup:
    """The style sheet with both colour schemes; it is ours, so it is not escaped."""
    sheet = files("atlas_tune.report").joinpath("templates/page.css").read_text("utf-8")
    light = palette.scheme(palette.LIGHT | palette.ENDS_LIGHT)
    dark = palette.scheme(palette.DARK | palette.ENDS_DARK)
    schemes = (
        f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ {light} }} }}\n"
    )
    return Markup(sheet + schemes)
