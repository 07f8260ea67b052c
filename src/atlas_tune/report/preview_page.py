"""The page that shows which tokens of trajectories are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import jinja2

from atlas_tune import __version__
from atlas_tune.report import wording
from atlas_tune.report.templating import templates
from atlas_tune.tune.previews import Preview, totals


def render_preview(
    previews: Sequence[Preview], kinds: Mapping[tuple[str, int], str], model: str, left_out: int
) -> str:
    """The page, in one file that fetches nothing.

    Args:
        previews: one for each row.
        kinds: by trajectory and step id, the kind that a label gives a selected step.
        model: whose chat template wrote the text.
        left_out: how many more trajectories there are.
    """
    tokens, computed, supervised = totals(previews)
    page = _templates().get_template("preview.html")
    return page.render(
        version=__version__,
        previews=previews,
        kinds=kinds,
        model=model,
        left_out=left_out,
        tokens=tokens,
        computed=computed,
        supervised=supervised,
    )


@cache
def _templates() -> jinja2.Environment:
    return templates((wording.count, wording.percent, wording.kind_name, wording.visible))
