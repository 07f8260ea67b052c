"""What the evaluations show, with the statistics that make it a finding: see docs/statistics.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import numpy as np

from atlas_tune.evaluate.statistics import (
    Runs,
    bootstrap_crossed,
    paired_differences,
    verdicts,
    wilson_interval,
)
from atlas_tune.pipeline.evaluations import Evaluations
from atlas_tune.recipe import Recipe
from atlas_tune.report.results import Cell, Comparison, Metric, TaskScores


def comparisons(recipe: Recipe, done: Evaluations) -> tuple[Comparison, ...]:
    """Every tuned arm against each named arm: the same tasks, the same seeds, one family of
    environments for Holm."""
    compared = []
    for against in recipe.compared_against():
        for arm in recipe.arms:
            if arm.name == against:
                continue
            pairs = {
                place: (done.scores(arm.name, place), done.scores(against, place))
                for place in done.places
            }
            differences = {
                place: paired_differences(*pair) for place, pair in pairs.items() if _share(*pair)
            }
            for place, found in verdicts(differences, recipe.evaluate.delta).items():
                figures = asdict(found)
                figures.pop("equivalence_p_value")
                compared.append(
                    Comparison(
                        arm=arm.name,
                        against=against,
                        environment=place,
                        metric=_metric(done, place),
                        ties=found.tasks - found.wins - found.losses,
                        **figures,
                    )
                )
    return tuple(compared)


def _share(arm: Runs, against: Runs) -> bool:
    """Whether two arms have a seed in common, or one of them has none."""
    return bool(arm and against) and (None in {*arm, *against} or bool({*arm} & {*against}))


def _metric(done: Evaluations, place: str) -> Metric:
    (metric,) = (one for one in get_args(Metric) if one == done.metrics[place])
    found: Metric = metric
    return found


def cells(done: Evaluations) -> tuple[Cell, ...]:
    """Every arm's score in every environment, over its seeds.

    The interval is Wilson's where one seed solved or did not solve its tasks, and otherwise the
    bootstrap over seeds and tasks.
    """
    found = []
    for arm in done.arms:
        for place in done.places:
            runs = done.scores(arm, place)
            if not runs:
                continue
            tasks = sorted(set.intersection(*({*scores} for scores in runs.values())))
            values_ST = np.array([[scores[task] for task in tasks] for scores in runs.values()])
            if len(runs) == 1 and done.metrics[place] == "success":
                interval = wilson_interval(int(values_ST.sum()), len(tasks))
            else:
                interval = bootstrap_crossed(values_ST)
            found.append(
                Cell(
                    arm=arm,
                    environment=place,
                    seeds=len(runs),
                    tasks=len(tasks),
                    value=float(values_ST.mean()),
                    interval=interval,
                )
            )
    return tuple(found)


def task_scores(done: Evaluations) -> tuple[TaskScores, ...]:
    """Per environment and task, every arm's mean over its seeds."""
    found = []
    for place in done.places:
        scores = {arm: runs for arm in done.arms if (runs := done.scores(arm, place))}
        tasks = list(
            dict.fromkeys(task for runs in scores.values() for one in runs.values() for task in one)
        )
        found.append(
            TaskScores(
                environment=place,
                tasks=tuple(tasks),
                by_arm={
                    arm: tuple(_mean(runs, task) for task in tasks) for arm, runs in scores.items()
                },
            )
        )
    return tuple(found)


def _mean(runs: Runs, task: str) -> float | None:
    values = [scores[task] for scores in runs.values() if task in scores]
    return sum(values) / len(values) if values else None
