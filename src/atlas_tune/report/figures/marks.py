"""What the drawings share: lines and dots in the look of their arm, names and numbers on axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from atlas_tune.report.fields import Interval, Metric
from atlas_tune.report.palette import FAINT, Look

Point = tuple[float, float]
_LONGEST_NAME = 22


def line(axes: Axes, at: Sequence[float], values: Sequence[float], look: Look) -> None:
    """A line in the look of its arm, with about six markers."""
    (drawn,) = axes.plot(
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
        drawn.set_dashes(look.dashes)


def backdrop(axes: Axes, lines: Sequence[Sequence[Point]]) -> None:
    """Faint lines without markers: the many arms that are not told apart."""
    axes.plot(*apart(lines), color=FAINT, linewidth=0.6, alpha=0.45, zorder=1)


def apart(lines: Sequence[Sequence[Point]]) -> tuple[list[float], list[float]]:
    """Several lines as one, with a gap after each: matplotlib takes its time over every line.

    >>> apart([[(0, 1), (2, 3)], [(4, 5)]])
    ([0, 2, nan, 4, nan], [1, 3, nan, 5, nan])
    """
    places = [place for points in lines for place in (*points, (math.nan, math.nan))]
    return [x for x, _ in places], [y for _, y in places]


def dot(axes: Axes, at: float, value: float, interval: Interval | None, look: Look) -> None:
    """A dot in the look of its arm, with its interval as an upright line."""
    if interval:
        axes.plot([at, at], interval, color=look.paint, linewidth=1.1, alpha=0.6)
    size = 6 if look.main else 4.5
    axes.plot([at], [value], look.marker, color=look.paint, markersize=size, zorder=3)


def score_axis(axes: Axes, metric: Metric) -> None:
    """Scores upwards from zero: a zoomed axis makes noise look large."""
    low, high = axes.get_ylim()
    if metric == "success":
        axes.set_ylim(0, min(1.02, 1.05 * max(high, 0.1)))
        axes.set_ylabel("tasks solved")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    else:
        axes.set_ylim(min(0, low), high if high > 0 else 0.1)
        axes.set_ylabel("mean reward")
    axes.yaxis.set_major_locator(MaxNLocator(5))


def large_numbers(axes: Axes) -> None:
    """Few ticks with short numbers, so that they do not collide."""
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def thousands(value: float, _position: int | None) -> str:
    """Large numbers in thousands.

    >>> thousands(250, None), thousands(12500, None), thousands(20000, None)
    ('250', '12.5k', '20k')
    """
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"


def short(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
