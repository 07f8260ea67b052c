"""The main tables for a paper: ``tables.tex``, in the style of the booktabs package."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_tune.report import started, wording
from atlas_tune.report.results import Comparison, Results
from atlas_tune.report.statements import main_comparisons
from atlas_tune.report.summary import progress
from atlas_tune.report.training_signal import Value, signal_table

_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "\N{MINUS SIGN}": "$-$",
        "\N{EN DASH}": "--",
        **{mark: "\\" + mark for mark in "&%$#_{}"},
    }
)


def to_latex(results: Results) -> str:
    r"""Floating tables: the training signals, the main arm's comparisons, and the audits if any.

    They need ``\usepackage[T1]{fontenc}`` and ``\usepackage{booktabs}`` and are read in with
    ``\input{tables.tex}``.
    """
    made = f"{results.name}, {wording.moment(results.created_at)}, {results.command}"
    parts = [
        r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs}.",
        f"% {_one_line(made)}",
    ]
    under_way = progress(results)
    if under_way:
        parts.append(f"% {_one_line(under_way)}")
    parts += ["", _signal(results)]
    found = main_comparisons(results)
    if found:
        parts += ["", _comparisons(results, found)]
    if results.criticality:
        parts += ["", _started(results)]
    return "\n".join(parts) + "\n"


def _signal(results: Results) -> str:
    table = signal_table(results)
    head = ["Training signal", "Steps", *(column.name for column in table.columns)]
    rows = [
        [
            escaped(row.arm.name),
            escaped(wording.percent(row.arm.selected_share)) if row.arm.training else "--",
            *map(_value, row.values),
        ]
        for row in table.rows
    ]
    return _table("lr" + "r" * len(table.columns), head, rows, table.caption, "training-signal")


def _value(value: Value | None) -> str:
    """A value with its interval, small and grey enough to be skipped."""
    if value is None:
        return "--"
    ends = f" {{\\scriptsize [{escaped(value.range_written)}]}}" if value.interval else ""
    return value.written.replace("-", "$-$") + ends


def _comparisons(results: Results, found: Sequence[Comparison]) -> str:
    several = len({c.arm for c in found}) > 1
    head = [*(["Arm"] if several else []), "Against", "Environment", "Difference", "95% interval"]
    head += ["p (Holm)", "Verdict"]
    rows = [
        [
            *([escaped(c.arm)] if several else []),
            escaped(c.against),
            escaped(c.environment),
            escaped(wording.points(c.difference)),
            escaped(wording.points_range(c.interval)),
            escaped(wording.p_value(c.adjusted_p_value)),
            escaped(c.verdict),
        ]
        for c in found
    ]
    main = results.main_arm
    arm = main.name if main else ""
    caption = (
        f"{wording.quoted(arm)} against other arms, in points: task by task, p-values after Holm "
        "over the environments."
    )
    return _table("l" * (len(head) - 4) + "rrrl", head, rows, caption, "comparisons")


def _started(results: Results) -> str:
    rows = [[escaped(cell) for cell in row] for row in started.started_rows(results)]
    columns = "l" * started.TEXT_COLUMNS + "r" * (len(started.HEAD) - started.TEXT_COLUMNS)
    caption = f"{started.TITLE}. {started.CAPTION}"
    return _table(columns, started.HEAD, rows, caption, "started-after")


def _table(
    columns: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str
) -> str:
    """A float; the head is escaped here, the cells are LaTeX already."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(escaped, head)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    r"""Text that LaTeX sets as it stands, in one line.

    >>> escaped("a_b & 5% of {x}")
    'a\\_b \\& 5\\% of \\{x\\}'
    """
    return _one_line(text).translate(_ESCAPED)


def _one_line(text: str) -> str:
    return " ".join(wording.visible(text).split())
