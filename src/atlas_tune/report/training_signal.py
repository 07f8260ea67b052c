"""The paper's main table in our environments: a training signal a row, an environment a column.

Values stand as in the paper, times 100. The paper's own numbers are of other tasks and models and
are not shown beside ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from atlas_tune.report import wording
from atlas_tune.report.fields import Interval
from atlas_tune.report.results import Arm, Environment, Results
from atlas_tune.report.scores import score_of


@dataclass(frozen=True, slots=True)
class Value:
    """One cell: what an arm scored in an environment, or in the mean of several."""

    value: float
    """A share or a reward, not times 100."""
    interval: Interval | None

    @property
    def written(self) -> str:
        """The value times 100."""
        return f"{100 * self.value:.1f}"

    @property
    def range_written(self) -> str:
        """The interval times 100; empty where there is none."""
        if self.interval is None:
            return ""
        low, high = (100 * end for end in self.interval)
        return f"{low:.1f} to {high:.1f}" if low < 0 else f"{low:.1f}–{high:.1f}"


@dataclass(frozen=True, slots=True)
class Row:
    """An arm and its values, one for each column; None where something was not evaluated."""

    arm: Arm
    values: tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """An environment, or the mean of those of one role."""

    name: str
    environments: tuple[Environment, ...]
    mean: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """The whole table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str


def signal_table(results: Results) -> Signal:
    """Every arm in every environment, then the means of held-in and held-out environments.

    A mean is left out where one of its environments is: a mean over fewer of them would not
    compare with the other rows.
    """
    columns = tuple(columns_of(results))
    return Signal(
        columns=columns,
        rows=tuple(
            Row(arm, tuple(value_of(results, arm, column) for column in columns))
            for arm in results.arms
        ),
        caption=_caption(results, any(column.mean for column in columns)),
    )


def _caption(results: Results, means: bool) -> str:
    """What the values, their intervals and the means of environments are."""
    said = "Success rates and mean rewards times 100, with 95% intervals."
    if len(results.seeds) > 1:
        over = f"Means over {len(results.seeds)} seeds"
        said = (
            f"Success rates and mean rewards times 100. {over}, with 95% intervals over seeds and "
            "tasks."
            if results.cells
            else f"Success rates and mean rewards times 100. {over}; 95% intervals where an arm is "
            "one model."
        )
    if means:
        said += (
            " A mean is over environments; its interval averages theirs, which is the widest that "
            "it can be."
        )
    return said


def columns_of(results: Results) -> list[Column]:
    """One column an environment; then the means of roles, if one of them has several."""
    roles: tuple[Literal["held-in", "held-out"], ...] = ("held-in", "held-out")
    columns = [Column(environment.name, (environment,)) for environment in results.environments]
    means = [
        Column(f"{role} mean", found, mean=True)
        for role in roles
        if (found := tuple(e for e in results.environments if e.role == role))
    ]
    return columns + means if any(len(mean.environments) > 1 for mean in means) else columns


def value_of(results: Results, arm: Arm, column: Column) -> Value | None:
    """An arm's value in a column."""
    values = [_in_one(results, arm, environment) for environment in column.environments]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return Value(fmean(value.value for value in known), _mean([v.interval for v in known]))


def _mean(intervals: Sequence[Interval | None]) -> Interval | None:
    """The mean of the ends: wide enough however the environments' errors go together."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    return fmean(low for low, _ in known), fmean(high for _, high in known)


def _in_one(results: Results, arm: Arm, environment: Environment) -> Value | None:
    for cell in results.cells:
        if (cell.arm, cell.environment) == (arm.name, environment.name):
            return Value(cell.value, cell.interval)
    score = score_of(results, arm, environment)
    if score is None:
        return None
    # Without a cell, several seeds have no interval that holds for other seeds.
    by_reward = environment.metric == "reward"
    ends = score.reward_range if by_reward else score.success_range
    return Value(score.value, None if score.several else ends)


def text_rows(results: Results) -> list[list[str]]:
    """The table as text, with its head: arm, share of steps trained, and every column."""
    table = signal_table(results)
    head = ["training signal", "steps trained", *(column.name for column in table.columns)]
    return [head, *([*_about(row.arm), *map(_text, row.values)] for row in table.rows)]


def _about(arm: Arm) -> tuple[str, str]:
    return arm.name, wording.percent(arm.selected_share) if arm.training else wording.ABSENT


def _text(value: Value | None) -> str:
    if value is None:
        return wording.ABSENT
    return f"{value.written} ({value.range_written})" if value.interval else value.written
