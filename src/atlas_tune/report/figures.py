"""The drawings of the report, each a function of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from atlas_tune.report import palette
from atlas_tune.report.palette import FAINT, INK, Look
from atlas_tune.report.results import (
    Environment,
    LossCurve,
    LossPoint,
    Results,
    RewardCurve,
)
from atlas_tune.report.scores import scores_in
from atlas_tune.report.svg import panel

_LONGEST_NAME = 22


def success_panels(results: Results) -> list[Markup]:
    """Per environment, each model's score as a dot with its 95% interval."""
    looks = palette.looks(results)
    return [
        _score_panel(results, environment, looks, number)
        for number, environment in enumerate(results.environments)
        if scores_in(results, environment)
    ]


def _score_panel(
    results: Results, environment: Environment, looks: dict[str, Look], number: int
) -> Markup:
    scores = scores_in(results, environment)
    by_reward = environment.metric == "reward"

    def draw(axes: Axes) -> None:
        for row, score in enumerate(scores):
            look = looks[score.arm.name]
            for offset, run in zip(_spread(len(score.runs)), score.runs, strict=True):
                at = run.mean_reward if by_reward else run.success_rate
                interval = run.reward_interval if by_reward else run.interval
                if interval:
                    axes.plot(
                        interval,
                        [row + offset] * 2,
                        color=look.paint,
                        linewidth=1.6,
                        solid_capstyle="round",
                    )
                axes.plot([at], [row + offset], look.marker, color=look.paint, markersize=5)
        axes.set_yticks(range(len(scores)), [short(score.arm.name) for score in scores])
        for label, score in zip(axes.get_yticklabels(), scores, strict=True):
            label.set_color(INK)
            label.set_fontweight("bold" if looks[score.arm.name].main else "normal")
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        # From zero, and the whole scale where it is known: a zoomed axis makes noise look large.
        if by_reward:
            low, high = axes.get_xlim()
            axes.set_xlim(min(-0.02 * high, low), high)
            axes.set_xlabel("mean reward")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        else:
            axes.set_xlim(-0.02, 1.02)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_xlabel("tasks solved")

    height = 0.85 + 0.3 * max(len(scores), 2)
    return panel(f"score-{number}", environment.name, draw, height)


def _spread(runs: int) -> list[float]:
    """Offsets that set the seeds of one arm apart.

    >>> _spread(1), _spread(3)
    ([0.0], [-0.2, 0.0, 0.2])
    """
    return [0.0] if runs == 1 else [0.4 * i / (runs - 1) - 0.2 for i in range(runs)]


def loss_panels(results: Results) -> list[Markup]:
    """The training loss against optimiser steps, seconds and, where known, supervised tokens."""
    curves = [curve for curve in results.losses if curve.points]
    if not curves:
        return []
    measures: list[tuple[str, str, Callable[[LossPoint], float | None]]] = [
        ("loss-steps", "optimiser steps", lambda point: point.step),
        ("loss-seconds", "training seconds", lambda point: point.seconds),
    ]
    if all(point.supervised_tokens is not None for curve in curves for point in curve.points):
        measures.append(("loss-tokens", "supervised tokens", lambda point: point.supervised_tokens))
    looks = palette.looks(results)
    return [_loss_panel(curves, looks, *measure) for measure in measures]


def _loss_panel(
    curves: Sequence[LossCurve],
    looks: dict[str, Look],
    name: str,
    label: str,
    place: Callable[[LossPoint], float | None],
) -> Markup:
    def draw(axes: Axes) -> None:
        for curve in curves:
            look = looks[curve.arm]
            at = [place(point) or 0.0 for point in curve.points]
            losses = [point.loss for point in curve.points]
            axes.plot(at, losses, color=look.paint, linewidth=0.6, alpha=0.35)
            _line(axes, at, running_mean(losses), look)
        axes.set_xlabel(label)
        axes.set_ylabel("loss per supervised token")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return panel(name, f"Loss against {label}", draw)


def running_mean(values: Sequence[float]) -> list[float]:
    """Centred means over about a tenth of the points; the ends use what there is.

    >>> running_mean([1.0, 2.0, 6.0])
    [1.0, 2.0, 6.0]
    """
    half = len(values) // 20
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def reward_panels(results: Results) -> list[Markup]:
    """Per environment, the mean reward collected by each turn."""
    looks = palette.looks(results)
    panels = []
    for number, environment in enumerate(results.environments):
        curves = [c for c in results.reward_per_step if c.environment == environment.name]
        if any(curve.points for curve in curves):
            panels.append(_reward_panel(environment, curves, looks, number))
    return panels


def _reward_panel(
    environment: Environment, curves: Sequence[RewardCurve], looks: dict[str, Look], number: int
) -> Markup:
    def draw(axes: Axes) -> None:
        for curve in curves:
            # Before its first turn an agent has earned nothing.
            _line(axes, range(len(curve.points) + 1), [0.0, *curve.points], looks[curve.arm])
        axes.set_xlabel("agent turns")
        axes.set_ylabel("mean reward so far")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(left=0)

    return panel(f"reward-{number}", environment.name, draw)


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


def _line(axes: Axes, at: Sequence[float], values: Sequence[float], look: Look) -> None:
    """A line in the look of its arm, with about six markers."""
    (line,) = axes.plot(
        at,
        values,
        color=look.paint,
        linewidth=2.0 if look.main else 1.3,
        marker=look.marker,
        markersize=3.6,
        markevery=max(1, len(values) // 6),
        zorder=3 if look.main else 2,
    )
    if look.dashes:
        line.set_dashes(look.dashes)


def _thousands(value: float, _position: int | None) -> str:
    """Large numbers in thousands, so that ticks do not collide.

    >>> _thousands(250, None), _thousands(12500, None), _thousands(20000, None)
    ('250', '12.5k', '20k')
    """
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"


def short(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
