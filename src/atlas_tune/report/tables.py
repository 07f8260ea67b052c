"""The main tables where there is no browser: Markdown for a README, rich for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from atlas_tune.report import acted, started, wording
from atlas_tune.report.acted import acted_rows
from atlas_tune.report.results import FAILURE_KINDS, Arm, Comparison, Environment, Results
from atlas_tune.report.scores import score_of
from atlas_tune.report.started import started_rows
from atlas_tune.report.statements import main_comparisons, statements
from atlas_tune.report.summary import progress, summary
from atlas_tune.report.training_signal import signal_table, text_rows

Rows = Sequence[Sequence[str]]
_MOST_OTHERS = 20
"""More comparisons than that push what matters out of a terminal."""


def to_markdown(results: Results, *, brief: bool = False) -> str:
    """Statements, training signals, scores and comparisons, with date, machine and command.

    ``brief`` leaves out the tables behind the statements: it is what the README shows.
    """
    parts = [f"**{_plain(under_way)}**\n"] if (under_way := progress(results)) else []
    told = statements(results)
    if told.made:
        parts.append("\n".join(f"- {_plain(one.sentence)}" for one in told.made) + "\n")
        parts += [f"{_plain(' '.join(told.cautions))}\n"] if told.cautions else []
    parts += [f"{_plain(signal_table(results).caption)}\n", _markdown_table(text_rows(results), 1)]
    if not brief:
        parts += [f"{_ranges(results)}\n", _markdown_table(_score_rows(results), text_columns=1)]
    if results.comparisons and not brief:
        parts.append(_markdown_table(_comparison_rows(results), text_columns=3))
    if results.failures and not brief:
        parts.append(_markdown_table(_failure_rows(results), text_columns=2))
    if results.actions and not brief:
        parts += [
            f"{acted.TITLE}. {_plain(acted.CAPTION)}\n",
            _markdown_table([acted.HEAD, *acted_rows(results)], len(acted.HEAD)),
        ]
    if results.criticality and not brief:
        parts += [
            f"{started.TITLE}. {_plain(started.CAPTION)}\n",
            _markdown_table([started.HEAD, *started_rows(results)], started.TEXT_COLUMNS),
        ]
    machine = _plain(", ".join(f"{key} {value}" for key, value in results.machine.items()))
    on = f" on {machine}" if machine else ""
    seeds = wording.listing(map(str, results.seeds)) if results.seeds else ""
    drawn = f", seed{'s' if len(results.seeds) > 1 else ''} {seeds}" if seeds else ""
    parts.append(
        f"Measured {_plain(wording.moment(results.created_at))}{on}{drawn}, with "
        f"{_code(results.command)}.\n"
    )
    return "\n".join(parts)


def markdown_page(results: Results) -> str:
    """The same as a file of its own: ``results.md``."""
    notes = "".join(f"- Note: {_plain(note)}\n" for note in results.notes)
    return f"# {_plain(results.name)}\n\n{to_markdown(results)}" + (f"\n{notes}" if notes else "")


def to_console(results: Results) -> Group:
    """Statements, training signals, comparisons and summary, for ``rich.console.Console.print``."""
    parts: list[Table | Text] = []
    under_way = progress(results)
    if under_way:
        parts += [Text(under_way, style="bold"), Text()]
    parts.append(_console_table(results.name, text_rows(results), 1))
    parts += [Text(signal_table(results).caption, style="dim"), Text()]
    told = statements(results)
    for one in told.made:
        mark = wording.mark(one.comparison.verdict)
        parts.append(Text(f"{mark} {wording.visible(one.sentence)}"))
    parts += [Text(caution, style="dim") for caution in told.cautions]
    if told.made:
        parts.append(Text())
    others = [c for c in results.comparisons if c not in main_comparisons(results)]
    if len(others) > _MOST_OTHERS:
        said = (
            f"{wording.count(len(others))} comparisons of other arms: see the page of the report."
        )
        parts += [Text(said), Text()]
    elif others:
        parts.append(_console_table("Other comparisons", _comparison_rows(results, others), 3))
    parts.append(Text(wording.visible(summary(results))))
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


def _comparison_rows(
    results: Results, shown: Sequence[Comparison] | None = None
) -> list[list[str]]:
    head = ["environment", "arm", "against", "difference", "95% interval"]
    head += ["wins / losses / ties", "p (Holm)", "verdict"]
    return [
        head,
        *(
            [
                comparison.environment,
                comparison.arm,
                comparison.against,
                wording.points(comparison.difference),
                wording.points_range(comparison.interval),
                f"{comparison.wins} / {comparison.losses} / {comparison.ties}",
                wording.p_value(comparison.adjusted_p_value),
                wording.verdict(comparison),
            ]
            for comparison in (results.comparisons if shown is None else shown)
        ),
    ]


def _failure_rows(results: Results) -> list[list[str]]:
    return [
        ["environment", "arm", "episodes", "solved", *FAILURE_KINDS],
        *(
            [
                failures.environment,
                failures.arm,
                wording.count(failures.episodes),
                wording.count(failures.solved),
                *(wording.count(failures.by_kind.get(kind, 0)) for kind in FAILURE_KINDS),
            ]
            for failures in results.failures
        ),
    ]


def _ranges(results: Results) -> str:
    """What stands in brackets after a success rate."""
    if len(results.seeds) > 1:
        return (
            f"Means over {len(results.seeds)} seeds, in brackets the lowest and highest seed "
            "(the 95% interval where there is one model)."
        )
    return "In brackets: 95% intervals."


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
