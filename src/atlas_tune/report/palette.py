"""How an arm looks wherever it is drawn: a colour, a marker and a dash pattern of its own.

The colours descend from Okabe and Ito's colour-blind safe set (2008), darkened for white paper
and lightened for dark screens until each stands out at 3:1 (WCAG 2.2, 1.4.11). No two arms rest
on colour alone: the markers and dashes differ too.

Figures are drawn in *paints*: placeholder colours that no one sees. In the page each paint
becomes a CSS variable, so that one drawing serves the light and the dark scheme.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atlas_tune.report.results import UNTUNED, Results

INK = "#010101"
FAINT = "#020202"
GRID = "#030303"

LIGHT = {
    "arm-0": "#6b7280",  # grey: the untuned model
    "arm-1": "#c2500a",  # vermillion: the main arm
    "arm-2": "#0067a8",
    "arm-3": "#00805f",
    "arm-4": "#a04a8c",
    "arm-5": "#8f6a00",
    "arm-6": "#2b7a99",
    "arm-7": "#6d4c3d",
}
DARK = {
    "arm-0": "#9aa3af",
    "arm-1": "#ff8f4d",
    "arm-2": "#5cb8f2",
    "arm-3": "#3ccba0",
    "arm-4": "#e39ccf",
    "arm-5": "#e8bd4a",
    "arm-6": "#8fd3ea",
    "arm-7": "#c9a893",
}

_PAINTS = {f"#0400{i:02x}": f"arm-{i}" for i in range(len(LIGHT))}

# How episodes end: solved, then the kinds of failure in their order. Neighbours in a stacked bar
# differ in lightness as well as in hue.
ENDS_LIGHT = {
    "end-0": "#3f9c80",
    "end-1": "#1b1f24",
    "end-2": "#d9772f",
    "end-3": "#7b3f73",
    "end-4": "#d2a92b",
    "end-5": "#0067a8",
    "end-6": "#a9b0b8",
}
ENDS_DARK = {
    "end-0": "#3ccba0",
    "end-1": "#f2f3f5",
    "end-2": "#e07b3a",
    "end-3": "#e39ccf",
    "end-4": "#a37f1f",
    "end-5": "#5cb8f2",
    "end-6": "#6b7480",
}
ENDS = {f"#0500{i:02x}": f"end-{i}" for i in range(len(ENDS_LIGHT))}
"""Paints of the ends of episodes."""

VARIABLES: Mapping[str, str] = {INK: "ink", FAINT: "faint", GRID: "grid"} | _PAINTS | ENDS
"""Paint to the name of the CSS variable that takes its place."""

MOST_FEATURED = 8
"""As many arms can be told apart in one drawing."""

_MARKERS = (
    ("o", "M14 1.8a3.2 3.2 0 1 0 .01 0z"),
    ("D", "M14 1l4 4-4 4-4-4z"),
    ("s", "M11 2h6v6h-6z"),
    ("^", "M14 1.2l3.8 6.8h-7.6z"),
    ("v", "M14 8.8l3.8-6.8h-7.6z"),
)
_DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 1.5, 1.5, 1.5))


@dataclass(frozen=True, slots=True)
class Look:
    """How one arm is drawn."""

    symbol: str
    """The id of its line and marker among the symbols of a page."""
    paint: str
    variable: str
    """The CSS variable of its colour."""
    marker: str
    """Matplotlib's name of the marker."""
    marker_path: str
    """The same marker in the legend, as an SVG path in a box of 28 by 10."""
    dashes: tuple[float, ...]
    """Lengths of strokes and gaps; empty is a solid line."""
    main: bool

    @property
    def dash_array(self) -> str:
        """The dashes as SVG writes them."""
        return " ".join(f"{length:g}" for length in self.dashes) or "none"


def looks(results: Results) -> dict[str, Look]:
    """The look of every arm: grey for untuned, vermillion for the main arm, the rest in order."""
    main = results.main_arm
    paints = list(_PAINTS)
    others = 2
    chosen: dict[str, Look] = {}
    for arm in results.arms:
        if arm.name == UNTUNED:
            slot = 0
        elif main and arm.name == main.name:
            slot = 1
        else:
            slot, others = others, others + 1
        # Past the last colour the colours come again; 5 markers and 4 dashes do not come in step.
        colour = slot if slot < len(paints) else 2 + (slot - 2) % (len(paints) - 2)
        marker, path = _MARKERS[slot % len(_MARKERS)]
        # The main arm and the untuned model are both solid: colour, weight and marker part them.
        dashes = _DASHES[0] if slot == 1 else _DASHES[slot % len(_DASHES)]
        variable = VARIABLES[paints[colour]]
        symbol = f"look-{len(chosen)}"
        chosen[arm.name] = Look(symbol, paints[colour], variable, marker, path, dashes, slot == 1)
    return chosen


def featured(results: Results) -> list[str]:
    """The arms that stand out where all of them would hide each other, in their order.

    All arms if there are at most ``MOST_FEATURED``. Otherwise the main arm, those it is held
    against and the references that train all steps or none, and then the first of the rest.
    """
    names = [arm.name for arm in results.arms]
    main = results.main_arm
    wanted = [main.name] if main else []
    wanted += [c.against for c in results.comparisons if main and c.arm == main.name]
    wanted += [arm.name for arm in results.arms if arm.name == UNTUNED or arm.selector == "all"]
    chosen = list(dict.fromkeys([*wanted, *names]))[:MOST_FEATURED]
    return [name for name in names if name in chosen]


def scheme(colours: Mapping[str, str]) -> str:
    """The CSS declarations of one colour scheme."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
