"""Matplotlib's drawings as SVG that stands inside a page.

Matplotlib and not a chart library of the browser: the page then needs no script, prints, and
is the same in twenty years; and axes, ticks and layout are kept by people who do nothing else.
Text stays text (the reader's font, selectable, read aloud), colours become CSS variables, and
the same drawing gives the same bytes: ids are hashed with a fixed salt and no date is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from atlas_tune.report.palette import FAINT, GRID, INK, VARIABLES
from atlas_tune.report.slim import slimmed

_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "atlas-tune",
    # Names come from outside: a dollar sign in one is a dollar sign, not a formula.
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.color": INK,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 8.0,
    # Said, so that matplotlib need not look for ticks above the axes to keep it clear of.
    "axes.titley": 1.0,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_POINTS = 72
"""To the inch."""
_PAD = 3
"""Points around a drawing."""
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def panel(
    name: str, title: str, draw: Callable[[Axes], None], height: float = 2.3, width: float = 3.6
) -> Markup:
    """One small drawing, sized to be read at the width of a phone without zooming.

    Args:
        name: unique in the page; its ids carry it.
        title: stands above the axes and is the name for readers who do not see the drawing.
        draw: draws on the axes.
        height: in inches.
        width: in inches.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=_POINTS)
        # By way of its own canvas: savefig would draw everything once more, to no end.
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        _fit(figure, axes)
        stream = io.StringIO()
        canvas.print_svg(stream, metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
    # Markup is safe here: matplotlib escapes the text that it writes into XML.
    return Markup(_inline(stream.getvalue(), name, title))


def element(title: str, width: float, height: float, drawing: str) -> str:
    """An SVG element of a page.

    Args:
        title: its name for readers who do not see it.
        width: in points.
        height: in points.
        drawing: what it holds, as SVG.
    """
    label, view = escape(title), f"0 0 {width:g} {height:g}"
    return f'<svg class="plot" role="img" aria-label="{label}" viewBox="{view}">{drawing}</svg>'


def _fit(figure: Figure, axes: Axes) -> None:
    """Leave just the room that labels need.

    Matplotlib's layout engines measure all text twice, which took a third of the time of a page.
    Once is enough here: there is one axes, and the room it begins with is nearly right.
    """
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.2, top=0.87)
    width, height = figure.bbox.width, figure.bbox.height
    own, needed = axes.bbox, axes.get_tightbbox(for_layout_only=True)
    assert needed is not None, "axes that are visible have a size"
    figure.subplots_adjust(
        left=(own.x0 - needed.x0 + _PAD) / width,
        right=1 - (needed.x1 - own.x1 + _PAD) / width,
        bottom=(own.y0 - needed.y0 + _PAD) / height,
        top=1 - (needed.y1 - own.y1 + _PAD) / height,
    )


def _inline(document: str, name: str, title: str) -> str:
    """A stand-alone SVG document as an element: unique ids, no prolog, colours by variable."""
    body = document[document.index("<svg") : document.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    # Its one rule, about how lines are joined, stands in the style sheet.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="0 0 (\S+) (\S+)"', body)
    assert view is not None, "matplotlib always writes a viewBox"
    _, _, rest = body.partition(">")
    for paint, variable in VARIABLES.items():
        rest = rest.replace(f"fill: {paint}", f"fill: var(--{variable})")
        rest = rest.replace(f"stroke: {paint}", f"stroke: var(--{variable})")
    return element(title, float(view[1]), float(view[2]), slimmed(rest, name))
