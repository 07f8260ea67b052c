"""Where in their trajectories the selected steps lie."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from atlas_tune.report import palette, wording
from atlas_tune.report.figures.marks import short
from atlas_tune.report.palette import FAINT, GRID, INK, VARIABLES
from atlas_tune.report.results import Results
from atlas_tune.report.svg import element

_WIDTH, _HEIGHT = 259.2, 108.0
"""In points: that of all panels, and an inch and a half."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 24.5, 256.2, 18.0, 90.5
"""The axes."""
_FAINT_LINE = f"fill:none;stroke:var(--{VARIABLES[FAINT]})"


def position_panels(results: Results) -> list[Markup]:
    """Per arm, where in their trajectories the selected steps lie."""
    arms = [arm for arm in results.arms if any(arm.positions)]
    highest = max((max(arm.positions) for arm in arms), default=1.0)
    looks = palette.looks(results)
    return [position_panel(arm.name, arm.positions, highest, looks[arm.name].paint) for arm in arms]


def position_panel(name: str, shares: Sequence[float], highest: float, paint: str) -> Markup:
    """How the selected steps lie in their runs; the line is where as many steps by lot would.

    There is one for every arm, and it is ten bars: written out here it takes a fifth of the bytes
    that matplotlib writes, where it took a quarter of the time of a page of twenty arms.

    Args:
        name: its title, shortened if need be.
        shares: of the steps, by equal part of the run.
        highest: the largest share of all panels, so that they have one scale.
        paint: of the bars.
    """
    top = highest * 1.08

    def level(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share / top

    part = (_RIGHT - _LEFT) / len(shares)
    bars = "".join(
        f"M{_LEFT + (i + 0.07) * part:.2f} {_BOTTOM}"
        f"V{level(share):.2f}h{0.86 * part:.2f}V{_BOTTOM}z"
        for i, share in enumerate(shares)
    )
    ticks = [t for t in MaxNLocator(4).tick_values(0, top) if 0 <= t <= top]
    grid = "".join(f"M{_LEFT} {level(tick):.2f}H{_RIGHT}" for tick in ticks)
    even = f"M{_LEFT} {level(1 / len(shares)):.2f}H{_RIGHT}"
    middle = (_LEFT + _RIGHT) / 2
    below = [
        (_LEFT, "start", "first step"),
        (middle, "middle", "middle"),
        (_RIGHT, "end", "last step"),
    ]
    words = [(x, _BOTTOM + 12, anchor, text) for x, anchor, text in below]
    words += [(_LEFT - 3.5, level(tick) + 3, "end", f"{100 * tick:.0f}%") for tick in ticks]
    marks = "".join(f"M{x:.2f} {_BOTTOM}v3" for x, _, _ in below)
    title = escape(wording.visible(short(name)))
    drawing = [
        _path(grid, f"fill:none;stroke:var(--{VARIABLES[GRID]});stroke-width:.7"),
        _path(bars, f"fill:var(--{VARIABLES[paint]})"),
        _path(even, f"{_FAINT_LINE};stroke-width:.9;stroke-dasharray:3.6 2.7"),
        _path(f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}{marks}", f"{_FAINT_LINE};stroke-width:.7"),
        *(
            f'<text x="{x:.2f}" y="{y:.2f}" style="font-size:8px;text-anchor:{anchor};'
            f'fill:var(--{VARIABLES[FAINT]})">{text}</text>'
            for x, y, anchor, text in words
        ),
        f'<text x="{_LEFT}" y="10" style="font-size:9px;font-weight:700;'
        f'fill:var(--{VARIABLES[INK]})">{title}</text>',
    ]
    # Markup is safe here: of all this only the name comes from outside, and it is escaped.
    return Markup(element(short(name), _WIDTH, _HEIGHT, "".join(drawing)))


def _path(geometry: str, style: str) -> str:
    return f'<path d="{geometry}" style="{style}"/>'
