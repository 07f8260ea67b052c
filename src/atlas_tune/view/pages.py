"""The page itself: served, or as one file to share in which nothing can be changed."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from atlas_tune.view.documents import Runs

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the served page: it loads its own two files, asks its own server, and nothing else."""


def served_page() -> str:
    """The page that asks the server for what it shows."""
    return _template().render(held=None)


def shared_page(runs: Runs) -> str:
    """The page with all that it shows inside, in one file that loads nothing."""
    held: dict[str, Any] = {
        "about": {**runs.about(), "is_shared": True, "shows_tokens": False},
        "runs": runs.entries(),
        "documents": {key: runs.document(key) for key in runs.by_id},
    }
    script, style = asset("page.js"), asset("page.css")
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}"
    # What could end the script element, or begin a comment in it, is written as an escape.
    text = json.dumps(held, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return _template().render(
        held=Markup(text.replace("<", "\\u003c")),
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup(style),
    )


@cache
def asset(name: str) -> str:
    """A file of the page."""
    return files("atlas_tune.view").joinpath("page", name).read_text("utf-8")


def _digest(text: str) -> str:
    """What a policy calls a script or style by its content (CSP level 2, hash sources)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("atlas_tune.view", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html")
