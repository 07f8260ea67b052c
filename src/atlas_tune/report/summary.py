"""The run in one paragraph, computed from its numbers and claiming no more than they carry.

What the tests say of the main arm stands in :mod:`atlas_tune.report.statements`.
"""

from __future__ import annotations

from collections.abc import Iterable

from atlas_tune.report import wording
from atlas_tune.report.results import Arm, Comparison, Environment, Results, Verdict
from atlas_tune.report.scores import Score, scores_in

_OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "equivalent": "equivalent",
    "cannot tell": "cannot tell",
}
_PHRASES: dict[Verdict, tuple[str, str]] = {
    "better": ("finds it better than ", "and"),
    "worse": ("finds it worse than ", "and"),
    "equivalent": ("finds it equivalent to ", "and"),
    "cannot tell": ("cannot tell it from ", "or"),
}


def progress(results: Results) -> str:
    """That a run is still under way, and how far; empty where it is done."""
    complete = results.complete
    if complete is None or complete.whole:
        return ""
    return (
        f"This run is under way: {wording.count(complete.done)} of "
        f"{wording.count(complete.of)} evaluations are done. What is missing may change every "
        "number and verdict below."
    )


def summary(results: Results) -> str:
    """Which arm is best where, whether a test established it, and what the main arm cost."""
    return " ".join(paragraphs(results))


def paragraphs(results: Results) -> list[str]:
    """The summary in parts: one for each environment, and one for the cost of the main arm."""
    parts = [
        " ".join(_in_environment(results, environment)) for environment in results.environments
    ]
    return [part for part in [*parts, " ".join(_cost(results))] if part]


def _in_environment(results: Results, environment: Environment) -> Iterable[str]:
    scores = scores_in(results, environment)
    if not scores:
        yield f"Nothing was evaluated on {environment.name}."
        return
    # Rates of equal counts differ in the last bits when they are means over seeds.
    top = max(score.value for score in scores)
    best = [score for score in scores if abs(score.value - top) < 1e-9]
    where = f"On {environment.name} ({wording.count(best[0].runs[0].tasks)} tasks)"
    if len(scores) == 1:
        yield f"{where} only {_name(best[0].arm)} was evaluated: {_with_range(best[0])}."
    elif len(best) > 1:
        names = wording.listing(_name(score.arm) for score in best)
        yield f"{where} {names} share the highest score, {best[0].written}."
    else:
        yield f"{where} {_name(best[0].arm)} scores highest, {_with_range(best[0])}."
        yield from _tests(results, best[0])
    main = results.main_arm
    for score in scores:
        if score.arm == main and (score not in best or 1 < len(best) < len(scores)):
            if score not in best:
                yield f"Arm {_name(score.arm)} reaches {_with_range(score)}."
            yield from _tests(results, score)


def _name(arm: Arm) -> str:
    return wording.quoted(arm.name)


def _with_range(score: Score) -> str:
    return f"{score.written} ({score.range_written})"


def _tests(results: Results, score: Score) -> Iterable[str]:
    """What the paired tests of an arm say, whichever side of the comparison it stood on.

    Of the main arm, the statements say it, so nothing is repeated.
    """
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in _PHRASES}
    for comparison in results.comparisons:
        if comparison.environment == score.environment.name:
            other = _other(comparison, score.arm)
            # An arm and its rival may have been compared both ways.
            if other and not any(name == other[1] for names in found.values() for name in names):
                found[other[0]].append(other[1])
    said = [
        phrase + wording.listing(map(wording.quoted, found[verdict]), last)
        for verdict, (phrase, last) in _PHRASES.items()
        if found[verdict]
    ]
    if not said:
        yield f"No paired test was made for {_name(score.arm)}, so its rank is not established."
    elif score.arm != results.main_arm:
        yield f"The paired test {wording.listing(said)}."


def _other(comparison: Comparison, arm: Arm) -> tuple[Verdict, str] | None:
    """The verdict on ``arm`` and the arm it was held against, if it is in the comparison."""
    if comparison.arm == arm.name:
        return comparison.verdict, comparison.against
    if comparison.against == arm.name:
        return _OPPOSITE[comparison.verdict], comparison.arm
    return None


def _cost(results: Results) -> Iterable[str]:
    """How much of the data the main arm is trained on, next to an arm that takes every step."""
    main = results.main_arm
    if main is None or main.training is None or not main.total_steps:
        return
    steps = (
        f"{wording.count(main.selected_steps)} of {wording.count(main.total_steps)} steps "
        f"({wording.percent(main.selected_share)})"
    )
    tokens = f"{wording.count(main.training.supervised_tokens)} supervised tokens"
    for arm in results.arms:
        every = arm.training and 0 < arm.total_steps == arm.selected_steps
        if arm.training and every and arm != main and arm.training.supervised_tokens:
            share = main.training.supervised_tokens / arm.training.supervised_tokens
            tokens += f", {wording.percent(share)} of those of {_name(arm)}"
            break
    yield f"Arm {_name(main)} was trained on {steps}: {tokens}."
