"""Drawings as they stand in a page: small, whole, and with every word that comes from outside."""

import re

import pytest
from test_report_page import ATTACK, read

from atlas_tune.report.figures.positions import position_panel
from atlas_tune.report.palette import FAINT, INK
from atlas_tune.report.slim import slimmed
from atlas_tune.report.svg import panel

NAME = 'd="M 0.123456 1.5" id="x" rotate(-0 1 1)'
"""A name that reads like the attributes that are shortened."""


def texts(drawing):
    return [" ".join(text.split()) for text in read(str(drawing)).text if text.strip()]


def test_a_drawing_keeps_what_refers_and_what_is_referred_to():
    drawing = """
     <g id="figure_1">
      <path d="M 0 10 L 5.001 10 z
    " style="fill: none"/>
      <defs><path id="m12ab" d="M 0 0 L 0 3 " style="stroke: #020202"/></defs>
      <g id="line_1"/>
      <use xlink:href="#m12ab" x="24.28149" y="90.999" style="stroke: red"/>
      <path d="M 1.23456 2 L 3 -4.5 " clip-path="url(#p99)" style="fill: none; stroke: red"/>
      <clipPath id="p99"><rect x="0.5" y="0" width="9" height="9"/></clipPath>
      <text style="font-family: 'DejaVu Sans'; fill: red" transform="rotate(-0 1 2)">a &lt; b</text>
     </g>
    """
    assert slimmed(drawing, "loss") == (
        '<g><defs><path id="loss-0" d="M0 0 0 3" style="stroke: #020202"/></defs>'
        '<use href="#loss-0" x="24.28" y="91" style="stroke: red"/>'
        '<path d="M1.23 2 3 -4.5" clip-path="url(#loss-1)" style="fill: none; stroke: red"/>'
        '<clipPath id="loss-1"><rect x=".5" y="0" width="9" height="9"/></clipPath>'
        '<text style="fill: red">a &lt; b</text></g>'
    )


@pytest.mark.parametrize("name", [ATTACK, NAME, "$x_1$ 0.123456"])
def test_a_name_stands_in_a_drawing_as_it_is(name):
    def draw(axes):
        axes.plot([0, 1], [0, 1], color=INK)
        axes.set_xlabel(name)

    assert " ".join(name.split()) in texts(panel("one", "title", draw))
    shown = texts(position_panel(name, [0.1] * 10, 0.1, INK))
    assert shown[-1] == (name if len(name) <= 22 else name[:21] + "…")


def test_labels_lie_inside_the_drawing_and_the_axes_take_the_room_that_is_left():
    def draw(axes):
        axes.plot([0, 1], [0, 1], color=FAINT)
        axes.set_yticks([0, 1], ["a long name of an arm", "b"])
        axes.set_xlabel("steps")

    drawn = str(panel("one", "title", draw, height=2.0, width=4.0))
    assert 'viewBox="0 0 288 144"' in drawn
    ends = [float(x) for x in re.findall(r'text-anchor: end[^>]*? x="([\d.]+)"', drawn)]
    assert len(set(ends)) == 1  # both names end at the axis
    # 21 letters of 8 points take about 90 of the 288 points, and nothing else takes room there.
    assert 75 < ends[0] < 115
    rights = [float(x) for x in re.findall(r"M[\d.]+ [\d.]+ ([\d.]+) [\d.]+\"", drawn)]
    assert 275 < max(rights) <= 288


def test_bars_are_as_high_as_their_shares():
    shares = [0.4, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.2]
    drawn = str(position_panel("critical", shares, 0.4, INK))
    bars = next(path for path in re.findall(r'd="([^"]*)"', drawn) if path.count("z") == 10)
    bottom = 90.5
    heights = [bottom - float(top) for top in re.findall(r"V([\d.]+)h", bars)]
    assert [height / heights[0] for height in heights] == pytest.approx(
        [share / 0.4 for share in shares], abs=0.001
    )
    assert texts(drawn) == [
        *("first step", "middle", "last step"),
        *("0%", "15%", "30%"),
        "critical",
    ]
