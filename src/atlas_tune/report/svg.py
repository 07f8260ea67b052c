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
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from atlas_tune.report.palette import FAINT, GRID, INK, VARIABLES

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
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    # Markup is safe here: matplotlib escapes the text that it writes into XML.
    return Markup(_inline(stream.getvalue(), name, title))


def _inline(document: str, name: str, title: str) -> str:
    """A stand-alone SVG document as an element: unique ids, no prolog, colours by variable."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    _, _, rest = body.partition(">")
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None, "matplotlib always writes a viewBox"
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = rest.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for paint, variable in VARIABLES.items():
        rest = re.sub(rf"((?:fill|stroke): ){paint}", rf"\1var(--{variable})", rest)
    label = escape(title)
    return f'<svg class="plot" role="img" aria-label="{label}" viewBox="{view[1]}">{rest.strip()}'
