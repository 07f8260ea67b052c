"""Scores against what training cost: one dot an arm, each with its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import dot, score_axis, short
from atlas_tune.report.palette import FAINT, Look
from atlas_tune.report.results import Arm, Results, Training
from atlas_tune.report.svg import panel
from atlas_tune.report.training_signal import Column, Value, columns_of, value_of

_FEW = 2
"""Up to so many environments are drawn one by one; more, as their means."""
_LINE = 0.165
"""Inches that a name needs."""
_Cost = Callable[[Training], float | None]
_MEASURES: tuple[tuple[str, str, _Cost, Sequence[tuple[float, str]]], ...] = (
    (
        "flops",
        "training FLOPs",
        lambda training: training.flops,
        [(1e18, "in 10¹⁸"), (1e15, "in 10¹⁵"), (1e12, "in 10¹²"), (1e9, "in 10⁹"), (1e6, "in 10⁶")],
    ),
    (
        "seconds",
        "training time",
        lambda training: training.seconds,
        [(3600, "in hours"), (60, "in minutes"), (1, "in seconds")],
    ),
)
"""A name, a label, the cost, and its units from the largest to the smallest."""


def cost_panels(results: Results) -> list[Markup]:
    """Per environment, or per mean of several, scores against FLOPs and against seconds."""
    looks = palette.looks(results)
    panels = []
    for number, column in enumerate(_columns(results)):
        for name, label, cost, units in _MEASURES:
            known = [
                (arm, 0.0 if arm.training is None else cost(arm.training), value)
                for arm in results.arms
                if (value := value_of(results, arm, column))
            ]
            counted = [(arm, spent, value) for arm, spent, value in known if spent is not None]
            if sum(spent > 0 for _, spent, _ in counted) > 1:
                size, unit = unit_of(max(spent for _, spent, _ in counted), units)
                scaled = [(arm, spent / size, value) for arm, spent, value in counted]
                place = f"cost-{name}-{number}"
                panels.append(_cost_panel(place, column, f"{label}, {unit}", scaled, looks))
    return panels


def _columns(results: Results) -> list[Column]:
    columns = columns_of(results)
    if len(results.environments) <= _FEW:
        return [column for column in columns if not column.mean]
    means = [column for column in columns if column.mean]
    return means or [Column("mean of all environments", results.environments, mean=True)]


def _cost_panel(
    name: str,
    column: Column,
    label: str,
    counted: Sequence[tuple[Arm, float, Value]],
    looks: Mapping[str, Look],
) -> Markup:
    metrics = {environment.metric for environment in column.environments}
    height = 0.8 + max(1.6, _LINE * len(counted))

    def draw(axes: Axes) -> None:
        for arm, spent, value in counted:
            dot(axes, spent, value.value, None, looks[arm.name])
        score_axis(axes, "success" if metrics == {"success"} else "reward")
        if len(metrics) > 1:
            axes.set_ylabel("success or reward")
        most = max(spent for _, spent, _ in counted)
        axes.set_xlim(-0.04 * most, 1.06 * most)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _names(axes, counted, looks, _LINE / (height - 0.8))

    return panel(name, column.name, draw, height=height)


def _names(
    axes: Axes,
    counted: Sequence[tuple[Arm, float, Value]],
    looks: Mapping[str, Look],
    apart: float,
) -> None:
    """The names in a column beside the axes, each led to its dot, so that none hides another."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    ordered = sorted(counted, key=lambda one: (one[2].value, one[1], one[0].name))
    wanted = [(value.value - low) / (high - low) for _, _, value in ordered]
    for (arm, spent, value), place in zip(ordered, spread_out(wanted, apart), strict=True):
        look = looks[arm.name]
        level = low + place * (high - low)
        axes.plot([spent, right], [value.value, level], color=FAINT, linewidth=0.35, alpha=0.5)
        axes.annotate(
            short(arm.name),
            (1.02, place),
            xycoords="axes fraction",
            color=look.paint,
            fontsize=7,
            fontweight="bold" if look.main else "normal",
            va="center",
        )


def spread_out(places: Sequence[float], apart: float) -> list[float]:
    """Rising places moved as little as need be to lie ``apart`` and, if there is room, in 0 to 1.

    >>> [round(p, 2) for p in spread_out([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    >>> [round(p, 2) for p in spread_out([0.98, 1.0], 0.1)]
    [0.9, 1.0]
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], apart):
            last = groups.pop()
            groups[-1] += last
    return [place for group in groups for place in _laid(group, apart)]


def _overlap(below: list[float], above: list[float], apart: float) -> bool:
    return _laid(above, apart)[0] - _laid(below, apart)[-1] < apart - 1e-9


def _laid(group: list[float], apart: float) -> list[float]:
    """A group around its mean, kept inside 0 to 1."""
    long = (len(group) - 1) * apart
    start = sum(group) / len(group) - long / 2
    start = max(0.0, min(start, 1.0 - long))
    return [start + i * apart for i in range(len(group))]


def unit_of(most: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit of which there are two or more, else the smallest.

    >>> unit_of(2000, [(3600, "in hours"), (60, "in minutes"), (1, "in seconds")])
    (60, 'in minutes')
    """
    return next((unit for unit in units if most >= 2 * unit[0]), units[-1])
