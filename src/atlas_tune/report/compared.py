"""What the scores of tasks show, with the statistics that make it a finding.

Everything here is a function of the scores that the results hold, so a committed ``results.json``
can be judged again by whoever doubts it: see :func:`restated` and docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import groupby

import numpy as np

from atlas_tune.evaluate.statistics import (
    Runs,
    paired_differences,
    score_interval,
    verdicts,
    wilson_interval,
)
from atlas_tune.report.results import Cell, Comparison, Metric, Results, TaskScores


def compare(
    scores: Iterable[TaskScores],
    metrics: Mapping[str, Metric],
    pairs: Iterable[tuple[str, str]],
    delta: float,
) -> tuple[Comparison, ...]:
    """Pairs of arms on the same tasks with the same seeds; one family of environments for Holm.

    Differences are shares of the range of scores: 1, or 2 where scores fall below 0 (a game that
    is lost gives -1 in TextWorldExpress).

    Args:
        scores: by environment; an arm without scores there is left out.
        metrics: by environment, what the scores are.
        pairs: the arm and the one that it is held against.
        delta: the smallest difference that matters.
    """
    by_place = {one.environment: one for one in scores}
    compared = []
    for arm, against in pairs:
        differences = {}
        for place, found in by_place.items():
            ours, theirs = found.runs(arm), found.runs(against)
            if _share(ours, theirs):
                differences[place] = paired_differences(ours, theirs) / _range(found)
        for place, finding in verdicts(differences, delta).items():
            figures = asdict(finding)
            figures.pop("equivalence_p_value")
            if _range(by_place[place]) > 1:
                figures["words"] += " Points are of the range from -1 to 1."
            if not any(_scores(by_place[place], arm)) and not any(
                _scores(by_place[place], against)
            ):
                figures["words"] += " Both score 0 everywhere: the tasks are too hard to tell."
            compared.append(
                Comparison(
                    arm=arm,
                    against=against,
                    environment=place,
                    metric=metrics[place],
                    ties=finding.tasks - finding.wins - finding.losses,
                    **figures,
                )
            )
    return tuple(compared)


def _scores(scores: TaskScores, arm: str) -> Iterator[float]:
    return (value for one in scores.runs(arm).values() for value in one.values())


def _range(scores: TaskScores) -> float:
    values = (value for one in scores.scores for value in one.values if value is not None)
    return 2.0 if min(values) < 0 else 1.0


def _share(arm: Runs, against: Runs) -> bool:
    """Whether two arms have a seed in common, or one of them has none."""
    return bool(arm and against) and (None in {*arm, *against} or bool({*arm} & {*against}))


def score_cells(scores: Iterable[TaskScores], metrics: Mapping[str, Metric]) -> tuple[Cell, ...]:
    """Every arm's score in every environment, over its seeds.

    The interval is Wilson's where one seed solved or did not solve its tasks, and otherwise
    :func:`atlas_tune.evaluate.statistics.score_interval`.
    """
    found = []
    for one in scores:
        for arm in one.by_arm:
            runs = one.runs(arm)
            tasks = sorted(set.intersection(*({*values} for values in runs.values())))
            values_ST = np.array([[values[task] for task in tasks] for values in runs.values()])
            if len(runs) == 1 and metrics[one.environment] == "success":
                interval = wilson_interval(int(values_ST.sum()), len(tasks))
            else:
                interval = score_interval(values_ST, least=1 - _range(one))
            found.append(
                Cell(
                    arm=arm,
                    environment=one.environment,
                    seeds=len(runs),
                    tasks=len(tasks),
                    value=float(values_ST.mean()),
                    interval=interval,
                )
            )
    return tuple(found)


def restated(results: Results) -> Results:
    """The same results with cells and comparisons computed again from the scores of tasks.

    What was compared, and with which delta, is what the results compare already.
    """
    metrics = {where.name: where.metric for where in results.environments}
    compared: list[Comparison] = []
    for delta, group in groupby(results.comparisons, key=lambda one: one.delta):
        pairs = dict.fromkeys((one.arm, one.against) for one in group)
        compared += compare(results.task_scores, metrics, pairs, delta)
    cells = score_cells(results.task_scores, metrics)
    return results.model_copy(update={"cells": cells, "comparisons": tuple(compared)})
