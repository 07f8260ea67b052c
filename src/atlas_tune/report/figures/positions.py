"""Where in their trajectories the selected steps lie."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import short
from atlas_tune.report.palette import FAINT
from atlas_tune.report.results import Results
from atlas_tune.report.svg import panel


def position_panels(results: Results) -> list[Markup]:
    """Per arm, where in their trajectories the selected steps lie."""
    arms = [arm for arm in results.arms if any(arm.positions)]
    highest = max((max(arm.positions) for arm in arms), default=1.0)
    looks = palette.looks(results)
    return [
        position_panel(number, arm.name, arm.positions, highest, looks[arm.name].paint)
        for number, arm in enumerate(arms)
    ]


def position_panel(
    number: int, name: str, shares: Sequence[float], highest: float, paint: str
) -> Markup:
    """How the selected steps lie in their runs; the line is where as many steps by lot would.

    Args:
        number: of the panel on its page.
        name: its title, shortened if need be.
        shares: of the steps, by equal part of the run.
        highest: the largest share of all panels, so that they have one scale.
        paint: of the bars.
    """

    def draw(axes: Axes) -> None:
        parts = len(shares)
        middles = [(i + 0.5) / parts for i in range(parts)]
        axes.bar(middles, shares, width=0.86 / parts, color=paint)
        axes.axhline(1 / parts, color=FAINT, linewidth=0.9, dashes=(4, 3))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, highest * 1.08)
        axes.set_xticks([0, 0.5, 1], ["first step", "middle", "last step"])
        # Centred, the outer two would stick out over the axes.
        first, _, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False, axis="x")

    return panel(f"positions-{number}", short(name), draw, height=1.5)
