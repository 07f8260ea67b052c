"""The page of measured criticality: one HTML file like the report of a run, in its style."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import jinja2

from atlas_tune import __version__
from atlas_tune.report import wording
from atlas_tune.report.criticality import Made, has_control
from atlas_tune.report.criticality_figures import overlap_panel, position_panels
from atlas_tune.report.templating import templates
from atlas_tune.select.auditing.criticality import Criticality, Measured
from atlas_tune.select.auditing.resampling import Figure

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a difference from matched random steps says."""

    mark: str
    word: str
    figure: Figure | None

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self.figure is not None and self.figure.value is not None


def render_criticality(made: Made, found: Criticality) -> str:
    """The page; the same record gives the same bytes.

    Args:
        made: where the record comes from.
        found: its figures.
    """
    return (
        _templates()
        .get_template("criticality.html")
        .render(
            version=__version__,
            made=made,
            found=found,
            glance=[
                (one, has_control(one), *(answer_of(figure) for figure in _gains(one)))
                for one in found.selections
            ],
            acted=found.policy is not None,
            overlap=overlap_panel(found),
            positions=position_panels(found),
            steady=found.rises_at_ends == found.rises,
            by_selection=[one for one in found.selections if one.ordered_by == "selection"],
        )
    )


def _gains(one: Measured) -> tuple[Figure | None, Figure | None, Figure | None]:
    """The differences from matched random steps: precision, return alone, a policy's gain."""
    started = None if one.started is None else one.started.success.gain_difference
    return one.necessity.precision_gain, one.sufficiency.reward_gain, started


def answer_of(figure: Figure | None) -> Answer:
    """Whether a difference is more than nothing, by its interval.

    >>> answer_of(Figure(0.2, 0.1, 0.3)).word, answer_of(Figure(0.2, -0.1, 0.5)).word
    ('more', 'cannot tell')
    """
    if figure is None or figure.value is None:
        return Answer("", "", figure)
    if figure.low is not None and figure.low > 0:
        return Answer("▲", "more", figure)
    if figure.high is not None and figure.high < 0:
        return Answer("▼", "less", figure)
    if figure.low == figure.high == 0:
        return Answer("=", "the same", figure)
    return Answer("≈", "cannot tell", figure)


def value(figure: Figure | None) -> str:
    """A figure without its interval.

    >>> value(Figure(-0.25)), value(None)
    ('−0.250', '–')
    """
    if figure is None or figure.value is None:
        return wording.ABSENT
    return _number(figure.value)


def interval(figure: Figure | None) -> str:
    """The interval of a figure, or nothing where it has none.

    >>> interval(Figure(0.5, 0.25, 0.75)), interval(Figure(0.5))
    ('0.250 to 0.750', '')
    """
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{_number(figure.low)} to {_number(figure.high)}"


def signed(figure: Figure | None) -> str:
    """A difference, with its sign.

    >>> signed(Figure(0.25)), signed(Figure(0.0))
    ('+0.250', '0.000')
    """
    written = value(figure)
    positive = figure is not None and figure.value is not None and figure.value > 0
    return f"+{written}" if positive and written != "0.000" else written


def _number(number: float) -> str:
    written = f"{number:.3f}"
    if written == "-0.000":
        return "0.000"
    return written.replace("-", _MINUS)


def whys(found: Criticality) -> list[str]:
    """Why figures of the tables are missing, each said once, with its selection."""
    said = []
    for one in found.selections:
        figures = [
            *(one.necessity.scores.precision, one.necessity.scores.recall),
            *(one.rises.scores.recall, one.necessity.average_precision),
            *(one.rises.average_precision, one.sufficiency.reward),
            *(() if one.started is None else (one.started.success.after,)),
        ]
        said += [f"{one.name}: {figure.why}" for figure in figures if figure.why]
    said += [
        f"{pair.one} and {pair.other}: {figure.why}"
        for pair in found.overlaps
        for figure in (pair.kappa, pair.jaccard)
        if figure.why
    ]
    return list(dict.fromkeys(said))


@cache
def _templates() -> jinja2.Environment:
    return templates(
        (
            wording.count,
            wording.percent,
            wording.moment,
            wording.visible,
            value,
            interval,
            signed,
        ),
        whys=whys,
    )
