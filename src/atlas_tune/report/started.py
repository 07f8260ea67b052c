"""A policy started after selected steps (the paper's Table 6), where there is no browser."""

from __future__ import annotations

from atlas_tune.report import wording
from atlas_tune.report.results import Results

TITLE = "Started after the selected steps"
CAPTION = (
    "Success of the named policy in percent when it goes on from inside training runs, after the "
    "selected steps and after random steps matched in position and tokens. Gain: after minus "
    "before a step. Differences in points, in brackets 95% intervals by run."
)
HEAD = (
    *("selection", "environment", "policy", "runs", "steps", "after", "after random"),
    *("difference", "gain", "gain, random", "difference of gains"),
)
TEXT_COLUMNS = 3


def started_rows(results: Results) -> list[list[str]]:
    """The rows, without the head."""
    return [
        [
            one.selection,
            one.environment,
            one.policy or wording.ABSENT,
            wording.count(one.runs),
            wording.ABSENT if one.steps is None else wording.count(one.steps),
            wording.percent(one.after),
            wording.ABSENT if one.after_random is None else wording.percent(one.after_random),
            _difference(one.after_difference, one.after_interval),
            wording.points(one.gain),
            _difference(one.matched_random, None),
            _difference(one.difference, one.interval),
        ]
        for one in results.criticality
    ]


def _difference(value: float | None, interval: tuple[float, float] | None) -> str:
    """
    >>> _difference(0.125, (0.05, 0.2)), _difference(None, None)
    ('+12.5 (+5.0 to +20.0)', '–')
    """
    if value is None:
        return wording.ABSENT
    ends = f" ({wording.points_range(interval)})" if interval else ""
    return f"{wording.points(value)}{ends}"
