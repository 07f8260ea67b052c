"""The drawings of measured criticality: overlaps as a matrix, positions as histograms."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from atlas_tune.report.figures import position_panel, short
from atlas_tune.report.palette import GRID, INK, VARIABLES
from atlas_tune.report.svg import panel
from atlas_tune.report.wording import ABSENT
from atlas_tune.select.auditing.criticality import Criticality, Measured

_STRONGEST = 0.6
"""The opacity of a cell at kappa 1 or -1, over which ink still stands out in either scheme."""


def _paint(variable: str) -> str:
    return next(paint for paint, name in VARIABLES.items() if name == variable)


_TOGETHER, _APART = _paint("arm-2"), _paint("arm-1")


def overlap_panel(found: Criticality) -> Markup | None:
    """Cohen's kappa of each two selections as a matrix; None where there is but one selection.

    Blue is agreement and vermillion disagreement, the stronger the farther from chance; the
    figure stands in each cell, so that nothing rests on colour.
    """
    if not found.overlaps:
        return None
    names = [one.name for one in found.selections]
    kappas = {(pair.one, pair.other): pair.kappa.value for pair in found.overlaps}
    kappas |= {(other, one): value for (one, other), value in kappas.items()}

    def draw(axes: Axes) -> None:
        for row, one in enumerate(names):
            for column, other in enumerate(names):
                if one == other:
                    _cell(axes, row, column, GRID, 0.5, "")
                    continue
                kappa = kappas[one, other]
                paint = GRID if kappa is None else _TOGETHER if kappa >= 0 else _APART
                depth = 0.5 if kappa is None else _STRONGEST * min(1.0, abs(kappa))
                _cell(axes, row, column, paint, depth, _written(kappa))
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        shown = [short(name) for name in names]
        turned = max(map(len, shown)) > 34 / len(names)
        axes.set_xticks(range(len(names)), shown)
        if turned:
            for label in axes.get_xticklabels():
                label.set_rotation(40)
                label.set_horizontalalignment("right")
                label.set_rotation_mode("anchor")
        axes.set_yticks(range(len(names)), shown)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_color(INK)

    height = min(4.6, 1.5 + 0.42 * len(names))
    return panel("overlap", "Cohen's kappa of each two selections", draw, height)


def _written(kappa: float | None) -> str:
    """
    >>> _written(-0.25), _written(-0.001), _written(None)
    ('−0.25', '0.00', '–')
    """
    if kappa is None:
        return ABSENT
    text = f"{kappa:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "\N{MINUS SIGN}")


def _cell(axes: Axes, row: int, column: int, paint: str, depth: float, text: str) -> None:
    place = (column - 0.47, row - 0.47)
    axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=paint, alpha=depth, linewidth=0))
    axes.text(column, row, text, color=INK, ha="center", va="center")


def position_panels(found: Criticality) -> list[Markup]:
    """Per selection, where in their runs its steps lie."""
    taking = [one for one in found.selections if one.steps]
    highest = max((max(_shares(one)) for one in taking), default=1.0)
    return [position_panel(one.name, _shares(one), highest, _TOGETHER) for one in taking]


def _shares(one: Measured) -> Sequence[float]:
    return [count / one.steps for count in one.positions]
