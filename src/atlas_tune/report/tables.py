"""The main tables where there is no browser: Markdown for a README, rich for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from atlas_tune.report import wording
from atlas_tune.report.results import Arm, Environment, Results
from atlas_tune.report.scores import score_of
from atlas_tune.report.summary import summary

Rows = Sequence[Sequence[str]]


def to_markdown(results: Results) -> str:
    """Scores and paired comparisons as Markdown tables, with date, machine and command."""
    parts = [_markdown_table(_score_rows(results), text_columns=1)]
    if results.comparisons:
        parts.append(_markdown_table(_comparison_rows(results), text_columns=3))
    machine = _plain(", ".join(f"{key} {value}" for key, value in results.machine.items()))
    on = f" on {machine}" if machine else ""
    parts.append(
        f"{_ranges(results)} Measured {_plain(wording.moment(results.created_at))}{on}, with "
        f"{_code(results.command)}.\n"
    )
    return "\n".join(parts)


def to_console(results: Results) -> Group:
    """Scores, paired comparisons and the summary, for ``rich.console.Console.print``."""
    parts: list[Table | Text] = [_console_table(results.name, _score_rows(results), 1)]
    if results.comparisons:
        table = _console_table("Paired comparisons", _comparison_rows(results), 3)
        parts.append(table)
    parts += [Text(_ranges(results), style="dim"), Text(), Text(wording.visible(summary(results)))]
    parts += [Text(f"Note: {wording.visible(note)}") for note in results.notes]
    return Group(*parts)


def _score_rows(results: Results) -> list[list[str]]:
    """The table of arms and environments, with its head."""
    head = ["arm", "steps trained", "supervised tokens"]
    for environment in results.environments:
        head += [f"{environment.name}: success", f"{environment.name}: mean reward"]
    return [head, *(_arm_row(results, arm) for arm in results.arms)]


def _arm_row(results: Results, arm: Arm) -> list[str]:
    row = [arm.name, wording.ABSENT, wording.ABSENT]
    if arm.training:
        row[1:] = [
            wording.percent(arm.selected_share),
            wording.count(arm.training.supervised_tokens),
        ]
    for environment in results.environments:
        row += _cell(results, arm, environment)
    return row


def _cell(results: Results, arm: Arm, environment: Environment) -> Iterable[str]:
    score = score_of(results, arm, environment)
    if score is None:
        return wording.ABSENT, wording.ABSENT
    return (
        f"{wording.percent(score.success_rate)} ({score.success_range_written})",
        wording.decimal(score.mean_reward),
    )


def _comparison_rows(results: Results) -> list[list[str]]:
    head = ["environment", "arm", "against", "wins / losses / ties", "p", "verdict"]
    return [
        head,
        *(
            [
                comparison.environment,
                comparison.arm,
                comparison.against,
                f"{comparison.wins} / {comparison.losses} / {comparison.ties}",
                wording.p_value(comparison.p_value),
                wording.verdict(comparison),
            ]
            for comparison in results.comparisons
        ),
    ]


def _ranges(results: Results) -> str:
    """What stands in brackets after a success rate."""
    if len(results.seeds) > 1:
        return (
            f"Means over {len(results.seeds)} seeds, in brackets the lowest and highest seed "
            "(the 95% Wilson interval where there is one model)."
        )
    return "In brackets: 95% Wilson intervals."


def _markdown_table(rows: Rows, text_columns: int) -> str:
    head, *body = rows
    rule = [" --- " if i < text_columns else " ---: " for i in range(len(head))]
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in (head, *body)]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]]) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, in one line."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(wording.visible(text).split()))


def _code(text: str) -> str:
    """Text as inline code, fenced by more backticks than it holds.

    >>> _code("a `b`")
    '`` a `b` ``'
    """
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    space = " " if runs else ""
    return f"{fence}{space}{' '.join(wording.visible(text).split())}{space}{fence}"


def _console_table(title: str, rows: Rows, text_columns: int) -> Table:
    """Cells are Text, so that square brackets in a name are not taken for markup."""
    head, *body = rows
    table = Table(title=Text(wording.visible(title)), title_justify="left")
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="left" if number < text_columns else "right")
    for row in body:
        table.add_row(*(Text(wording.visible(cell)) for cell in row))
    return table
