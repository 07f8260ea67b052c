"""How episodes ended: per environment, a stacked bar for each arm."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import short
from atlas_tune.report.results import FAILURE_KINDS, Environment, Failures, Results
from atlas_tune.report.svg import panel

ENDS = ("solved", *FAILURE_KINDS)
"""In the order of their paints and of the bars."""


def end_panels(results: Results) -> list[Markup]:
    """Per environment, the share of each arm's episodes by how they ended."""
    panels = []
    order = {arm.name: place for place, arm in enumerate(results.arms)}
    for number, environment in enumerate(results.environments):
        rows = [f for f in results.failures if f.environment == environment.name and f.episodes]
        rows.sort(key=lambda row: order[row.arm])
        if rows:
            panels.append(_end_panel(number, environment, rows))
    return panels


def counts(failures: Failures) -> list[int]:
    """Episodes in the order of ``ENDS``."""
    return [failures.solved, *(failures.by_kind.get(kind, 0) for kind in FAILURE_KINDS)]


def _end_panel(number: int, environment: Environment, rows: Sequence[Failures]) -> Markup:
    def draw(axes: Axes) -> None:
        starts = [0.0] * len(rows)
        for paint, shares in zip(palette.ENDS, zip(*map(_shares, rows), strict=True), strict=True):
            if any(shares):
                axes.barh(range(len(rows)), shares, left=starts, height=0.72, color=paint)
            starts = [start + share for start, share in zip(starts, shares, strict=True)]
        axes.set_yticks(range(len(rows)), [short(row.arm) for row in rows])
        axes.tick_params(axis="y", labelcolor=palette.INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("episodes")
        axes.grid(visible=False)

    height = 0.85 + 0.22 * max(len(rows), 3)
    return panel(f"ends-{number}", environment.name, draw, height)


def _shares(row: Failures) -> list[float]:
    return [count / row.episodes for count in counts(row)]
