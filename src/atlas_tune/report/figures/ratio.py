"""Scores against the share of steps that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import dot, score_axis
from atlas_tune.report.palette import GRID, Look
from atlas_tune.report.results import UNTUNED, Arm, Environment, Results
from atlas_tune.report.svg import panel
from atlas_tune.report.training_signal import Column, Value, value_of


def ratio_arms(results: Results) -> list[Arm]:
    """The main arm at every ratio, between the untuned model and all steps; by share.

    Those have the main arm's selector and options. Empty where there is no second ratio.
    """
    main = results.main_arm
    if main is None:
        return []
    ratios = [
        arm for arm in results.arms if (arm.selector, arm.options) == (main.selector, main.options)
    ]
    ends = [a for a in results.arms if a.name == UNTUNED or (a.selector == "all" and a.training)]
    if len({arm.selected_steps for arm in ratios}) < 2:
        return []
    found = [*ratios, *(arm for arm in ends if arm not in ratios)]
    return sorted(found, key=lambda arm: arm.selected_share)


def ratio_panels(results: Results) -> list[Markup]:
    """Per environment, scores against the selected share, with their intervals."""
    arms = ratio_arms(results)
    looks = palette.looks(results)
    panels = []
    for number, environment in enumerate(results.environments):
        column = Column(environment.name, (environment,))
        known = [(arm, value) for arm in arms if (value := value_of(results, arm, column))]
        if len(known) > 1:
            panels.append(_ratio_panel(number, environment, known, looks))
    return panels


def _ratio_panel(
    number: int,
    environment: Environment,
    known: Sequence[tuple[Arm, Value]],
    looks: Mapping[str, Look],
) -> Markup:
    def draw(axes: Axes) -> None:
        # Two arms of one share (equal steps, equal epochs) are two dots; the line takes their mean.
        shares = sorted({arm.selected_share for arm, _ in known})
        at = {s: [v.value for arm, v in known if arm.selected_share == s] for s in shares}
        means = [sum(values) / len(values) for values in at.values()]
        axes.plot(shares, means, color=GRID, linewidth=1.6, zorder=1)
        for arm, value in known:
            dot(axes, arm.selected_share, value.value, value.interval, looks[arm.name])
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("steps trained")
        score_axis(axes, environment.metric)

    return panel(f"ratio-{number}", environment.name, draw)
