"""How quickly agents earn: the mean reward collected by each turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import backdrop, line
from atlas_tune.report.palette import Look
from atlas_tune.report.results import Environment, Results, RewardCurve
from atlas_tune.report.svg import panel


def reward_panels(results: Results) -> list[Markup]:
    """Per environment, the mean reward collected by each turn."""
    looks = palette.looks(results)
    stands_out = {name: looks[name] for name in palette.featured(results)}
    panels = []
    for number, environment in enumerate(results.environments):
        curves = [c for c in results.reward_per_step if c.environment == environment.name]
        if any(curve.points for curve in curves):
            panels.append(_reward_panel(environment, curves, stands_out, number))
    return panels


def _reward_panel(
    environment: Environment,
    curves: Sequence[RewardCurve],
    stands_out: Mapping[str, Look],
    number: int,
) -> Markup:
    def draw(axes: Axes) -> None:
        # Before its first turn an agent has earned nothing.
        earned = [[0.0, *curve.points] for curve in curves]
        others = []
        for curve, rewards in zip(curves, earned, strict=True):
            look = stands_out.get(curve.arm)
            if look:
                line(axes, range(len(rewards)), rewards, look)
            else:
                others.append(list(enumerate(rewards)))
        backdrop(axes, others)
        axes.set_xlabel("agent turns")
        axes.set_ylabel("mean reward so far")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(left=0)

    return panel(f"reward-{number}", environment.name, draw)
