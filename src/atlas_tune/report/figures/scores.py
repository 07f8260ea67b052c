"""Scores: per environment, each model as a dot with its interval."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import apart, short
from atlas_tune.report.palette import INK, Look
from atlas_tune.report.results import Environment, Results
from atlas_tune.report.scores import scores_in
from atlas_tune.report.svg import panel


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
            rows = [row + offset for offset in _spread(len(score.runs))]
            at = [run.mean_reward if by_reward else run.success_rate for run in score.runs]
            intervals = [r.reward_interval if by_reward else r.interval for r in score.runs]
            known = [(ends, level) for ends, level in zip(intervals, rows, strict=True) if ends]
            lines = [((low, level), (high, level)) for (low, high), level in known]
            axes.plot(*apart(lines), color=look.paint, linewidth=1.6, solid_capstyle="round")
            axes.plot(at, rows, look.marker, color=look.paint, markersize=5)
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
