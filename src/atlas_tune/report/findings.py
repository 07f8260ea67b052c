"""What the evaluations show: scores with intervals, comparisons with verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atlas_tune.report.fields import Count, Interval, Metric, Seconds, Share, Value

Verdict = Literal["better", "worse", "equivalent", "cannot tell"]


class Result(Value):
    """One model of one arm, evaluated on the tasks of one environment."""

    arm: str
    seed: int | None = None
    environment: str
    tasks: Annotated[int, Field(ge=1)]
    successes: Count
    success_rate: Share
    interval: Interval
    """Wilson's 95% interval of the success rate."""
    mean_reward: float
    reward_interval: Interval | None = None
    mean_turns: float
    invalid_share: Share
    """The share of turns whose reply held no action that the environment could take."""
    seconds: Seconds


class Cell(Value):
    """An arm's score in an environment over all its seeds: a cell of the paper's tables."""

    arm: str
    environment: str
    seeds: Count
    """Models that were evaluated; 1 for the untuned one."""
    tasks: Count
    """Tasks that all of them played."""
    value: float
    """In the environment's metric, the mean over seeds and tasks."""
    interval: Interval | None = None
    """95%; see docs/statistics.md."""


class Needed(Value):
    """An evaluation large enough to find a difference of ``delta`` with 80% probability."""

    tasks: Count
    seeds: Count


class Comparison(Value):
    """Two arms on the same tasks and seeds of one environment, with all that decided the verdict.

    It is a ``Finding`` of :mod:`atlas_tune.evaluate.statistics`; docs/statistics.md explains it.
    """

    arm: str
    against: str
    environment: str
    metric: Metric
    """What was compared."""
    seeds: Count
    tasks: Count
    wins: Count
    """Tasks on which ``arm`` does better, over all its seeds."""
    losses: Count
    """Tasks on which ``against`` does better."""
    ties: Count
    difference: float
    """Mean of ``arm`` minus mean of ``against``, as a share of one."""
    interval: Interval | None = None
    """95%, of the t form, not adjusted; None where there is no spread to make it of."""
    bootstrap: Interval | None = None
    """95%, two-level bootstrap: shown, not decisive."""
    test: str
    """The name of the test of no difference."""
    p_value: Share
    adjusted_p_value: Share
    """After Holm over the environments."""
    delta: float
    """The smallest difference that would matter; smaller ones count as equivalent."""
    adjusted_equivalence_p_value: Share
    """Of two one-sided tests against ``delta``, after Holm over the environments."""
    detectable: float | None = None
    """The difference that an evaluation of this size finds with 80% probability."""
    needed: Needed | None = None
    """What would find a difference of ``delta``; None where not needed, or no plan would do."""
    verdict: Verdict
    """Of ``arm``, held against ``against``."""
    words: str
    """The verdict as a sentence with its numbers and cautions."""


class SeedScores(Value):
    """What one model scored."""

    arm: str
    seed: int | None = None
    """None is the untuned model."""
    values: tuple[float | None, ...]
    """In the order of the tasks: the environment's metric; None where a task was not played."""


class TaskScores(Value):
    """Every model's score on every task of one environment: all that the statistics are made of."""

    environment: str
    tasks: tuple[str, ...]
    scores: tuple[SeedScores, ...]

    @model_validator(mode="after")
    def _as_many_scores_as_tasks(self) -> Self:
        for one in self.scores:
            if len(one.values) != len(self.tasks):
                raise ValueError(
                    f"arm '{one.arm}' has {len(one.values)} scores for {len(self.tasks)} tasks"
                )
        return self

    def runs(self, arm: str) -> dict[int | None, dict[str, float]]:
        """An arm's scores by seed and task, without the tasks that were not played."""
        return {
            one.seed: {
                task: value
                for task, value in zip(self.tasks, one.values, strict=True)
                if value is not None
            }
            for one in self.scores
            if one.arm == arm
        }

    @property
    def by_arm(self) -> dict[str, tuple[float | None, ...]]:
        """Means over the seeds of each arm, in the order of the tasks."""
        arms = dict.fromkeys(one.arm for one in self.scores)
        return {
            arm: tuple(
                _mean(one.values[i] for one in self.scores if one.arm == arm)
                for i in range(len(self.tasks))
            )
            for arm in arms
        }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


class Started(Value):
    """A policy started after the steps of a selection: a row of the paper's Table 6.

    Values are the share of successes of a policy that goes on from inside recorded runs, meant
    over the selection's steps. ``matched_random`` steps are as many of the same runs, matched in
    position and tokens; the later a policy starts the nearer it is to the goal, so the differences
    to them say more than the values. Where a control has nearly no other steps than the
    selection, there is nothing to hold it against, and they are None.
    """

    selection: str
    environment: str
    policy: str = ""
    """The name of the model that goes on."""
    runs: Count
    steps: Count | None = None
    """Those of the selection in these runs."""
    from_start: float | None = None
    """The policy in the same tasks from their beginning, over runs."""
    before: float
    """Started just before each selected step."""
    after: float
    """Started just after it."""
    gain: float
    """After minus before."""
    gain_interval: Interval | None = None
    after_random: float | None = None
    """Started just after matched random steps."""
    after_difference: float | None = None
    """After the selected steps minus after matched random ones, in the same runs."""
    after_interval: Interval | None = None
    """95%, of that difference, bootstrap by trajectory."""
    matched_random: float | None = None
    """The same gain of matched random steps."""
    difference: float | None = None
    """The selection's gain minus that of matched random steps, run by run."""
    interval: Interval | None = None
    """95%, of the difference, bootstrap by trajectory."""
