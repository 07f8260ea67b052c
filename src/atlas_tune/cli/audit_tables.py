"""The figures of agree and audit as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from atlas_tune.progress import print_tables
from atlas_tune.trajectory.visible import one_line

if TYPE_CHECKING:
    from atlas_tune.select.auditing.agreement import Agreement, Pair
    from atlas_tune.select.auditing.audit import Audit, KindScores, Scores
    from atlas_tune.select.auditing.criticality import Criticality
    from atlas_tune.select.auditing.resampling import Figure


def tell_agreement(parts: Mapping[str, Agreement], raters: Sequence[str]) -> None:
    """Print the agreement of all raters and of each pair, the whole and by environment."""
    letters = [_letter(number) for number in range(len(raters))]
    for letter, name in zip(letters, raters, strict=True):
        print(f"{letter} = {one_line(name)}")
    for part, found in parts.items():
        print(f"\n{one_line(part)}: {found.steps:,} steps of {found.trajectories:,} trajectories")
        table = _Figures()
        for (one, other), pair in zip(combinations(letters, 2), found.pairs, strict=True):
            counted = f"{pair.steps:,} steps, {pair.trajectories:,} trajectories"
            table.title(f"{one} and {other}", counted)
            for letter, figure in zip((one, other), pair.prevalence, strict=True):
                table.add(f"  prevalence by {letter}", figure)
            table.add("  observed agreement", pair.observed)
            table.add("  Cohen's kappa, critical or not", pair.kappa)
            table.add(f"  Cohen's kappa, kinds ({pair.kinds_steps:,} steps)", pair.kinds_kappa)
        table.title("all raters", "")
        table.add("  Krippendorff's alpha, critical or not", found.alpha)
        table.add("  Krippendorff's alpha, kinds", found.kinds_alpha)
        table.tell()


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"rater {number + 1}"


def tell_confusion(pair: Pair) -> None:
    """Print how often the first of two raters says this where the second says that."""
    first, second = (one_line(name) for name in pair.raters)
    print(f"\nSteps by what {first} (down) and {second} (across) call them")
    columns = list(dict.fromkeys(name for row in pair.confusion.values() for name in row))
    table = _table("", *map(_words, columns))
    for name, row in pair.confusion.items():
        table.add_row(Text(_words(name)), *(Text(f"{row[column]:,}") for column in columns))
    print_tables(table)


def tell_audit(found: Audit, several: Mapping[str, Scores], polarity: str) -> None:
    """Print an audit, the whole and by environment, then by kind."""
    for name, scores in {"all": found.whole, **several}.items():
        print(
            f"\n{one_line(name)}: {scores.trajectories:,} trajectories, {scores.steps:,} steps, "
            f"{scores.selected:,} selected, {scores.marked:,} marked, {scores.hits:,} both"
        )
        _scores_table(scores, polarity).tell()
    _tell_kinds("Selected steps by kind: share that is marked", found.selected_kinds)
    _tell_kinds("Marked steps by kind: share that is selected", found.marked_kinds)


def _scores_table(scores: Scores, polarity: str) -> _Figures:
    table = _Figures()
    if polarity == "error":
        table.add("recall of errors", scores.recall)
        table.add("  by chance: the share of steps selected", scores.share)
        table.add("  attainable with as many steps a run", scores.attainable)
        table.add("recall of errors over chance", scores.lift)
    else:
        table.add("precision", scores.precision)
        table.add("  by chance: the prevalence", scores.prevalence)
        table.add("recall", scores.recall)
        table.add("  by chance: the share of steps selected", scores.share)
        table.add("  attainable with as many steps a run", scores.attainable)
        table.add("F1", scores.f1)
        table.add("lift: precision over chance", scores.lift)
    table.add("lift over as many random steps in each run", scores.matched_lift)
    return table


def _tell_kinds(title: str, kinds: Mapping[str, KindScores]) -> None:
    if not kinds:
        return
    print(f"\n{title}")
    table = _table("", "steps", "both", "share", "95% interval")
    for kind, scores in kinds.items():
        value, interval = _cells(scores.share)
        counts = (f"{scores.steps:,}", f"{scores.hits:,}")
        table.add_row(Text(_words(kind)), *map(Text, counts), value, interval)
    print_tables(table)


def tell_criticality(found: Criticality) -> None:
    """Print the chief figures of measured selections; the page has all of them with intervals."""
    print(
        f"{found.trajectories:,} runs, {found.steps:,} steps, {found.necessary:,} necessary; "
        f"whole runs return {_bare(found.whole.reward)}"
    )
    columns = ["", "steps", "precision", "recall", "F1", "AP", "return alone", "random alone"]
    acted = found.policy is not None
    table = _table(*columns, *(("after", "random after", "gain", "random gain") if acted else ()))
    for one in found.selections:
        scores, alone = one.necessity.scores, one.sufficiency
        cells: list[Figure | None] = [
            scores.precision,
            scores.recall,
            scores.f1,
            one.necessity.average_precision,
            alone.reward,
            alone.control_reward,
        ]
        if one.started is not None:
            success = one.started.success
            cells += [success.after, success.control_after, success.gain, success.control_gain]
        row = [Text(one_line(one.name)), Text(f"{one.steps:,}")]
        table.add_row(*row, *(Text(_bare(cell)) for cell in cells))
    print_tables(table)
    if found.baseline is not None:
        print(f"The policy from the beginning: success {_bare(found.baseline.success)}.")


def _bare(figure: Figure | None) -> str:
    return "undefined" if figure is None or figure.value is None else f"{figure.value:.3f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


class _Figures:
    """A table of figures, and under it why some of them are missing."""

    def __init__(self) -> None:
        self._table = _table("", "value", "95% interval")
        self._notes: list[str] = []

    def title(self, name: str, told: str) -> None:
        """A line above the figures that follow."""
        self._table.add_row(Text(name, "bold"), Text(""), Text(told))

    def add(self, name: str, figure: Figure) -> None:
        """A line with a figure."""
        self._table.add_row(Text(name), *_cells(figure))
        if figure.why:
            self._notes.append(f"{name.strip()}: {figure.why}.")

    def tell(self) -> None:
        """Print it."""
        print_tables(self._table)
        for note in dict.fromkeys(self._notes):
            print(one_line(note))


def _cells(figure: Figure) -> tuple[Text, Text]:
    if figure.value is None:
        return Text("undefined"), Text("")
    if figure.low is None or figure.high is None:
        return Text(f"{figure.value:.3f}"), Text("none")
    lost = f" ({figure.lost_draws:,} draws undefined)" if figure.lost_draws else ""
    return Text(f"{figure.value:.3f}"), Text(f"{figure.low:.3f} to {figure.high:.3f}{lost}")


def _words(category: str) -> str:
    return {"none": "not critical"}.get(category, category.replace("_", " "))
