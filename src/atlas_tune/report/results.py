"""What a run found, as one value: the contract between the pipeline and the report.

The pipeline builds a :class:`Results`; ``results.json`` is its canonical form; the page, the
Markdown and the terminal table are functions of it and of nothing else. Whatever is not in here
is not in the report. Lists are accepted wherever a tuple stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from atlas_tune.errors import nearest
from atlas_tune.report.episodes import (
    FAILURE_KINDS,
    Actions,
    Example,
    ExampleStep,
    FailureKind,
    Failures,
    Transcript,
    TranscriptTurn,
)
from atlas_tune.report.fields import Count, Interval, Metric, Seconds, Share, Value, Words
from atlas_tune.report.findings import (
    Cell,
    Comparison,
    Needed,
    Result,
    SeedScores,
    Started,
    TaskScores,
    Verdict,
)

UNTUNED = "untuned"
"""The name of the arm that is the base model as it came."""
CRITICAL = "critical"
"""The name of the arm that the paper proposes."""
DECILES = 10


class Environment(Value):
    """One environment on which the arms were evaluated."""

    name: str
    split: str
    tasks: Count
    max_steps: Count
    """The step limit of an episode, in agent turns."""
    metric: Metric
    """What counts here: the share of solved tasks, or the mean reward where it is graded."""
    role: Literal["held-in", "held-out"] | None = None
    """Whether runs of such tasks were trained on; None where nobody said."""


class Data(Value):
    """The training trajectories of one environment."""

    environment: str
    trajectories: Count
    steps: Count
    """Agent steps that may be trained."""
    collected_seconds: Seconds | None = None
    """None where the trajectories were imported."""
    mean_steps: float
    success_share: Share | None = None
    """Among the trajectories whose outcome is known; None where none is."""


class Training(Value):
    """What tuning an arm took. With several seeds, seconds, losses and operations are means."""

    optimiser_steps: Count
    epochs: float
    """Passes over the training rows."""
    flops: float | None = Field(default=None, ge=0)
    """Floating-point operations of all optimiser steps; None where nobody can count them."""
    rows: Count
    tokens: Count
    """Tokens that entered the model, over all epochs."""
    tokens_before_tail_cut: Count
    supervised_tokens: Count
    seconds: Seconds
    first_loss: float
    last_loss: float

    @property
    def tail_cut_saving(self) -> float:
        """The share of tokens that never entered, because nothing after them is trained."""
        whole = self.tokens_before_tail_cut
        return 1 - self.tokens / whole if whole else 0.0


class Arm(Value):
    """One way to choose the trained steps, and the model that came of it."""

    name: str
    selector: str
    """The selector's name; empty for the untuned model."""
    of: str | None = None
    """The arm that it is matched to, or the complement of; perhaps not yet among the arms."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The selector's options, as the recipe gives them."""
    budget: float | None = None
    """The largest share of a trajectory's steps that may be trained; None is no limit."""
    reference: bool = False
    """Kept to be compared with (untuned, all steps, random), not proposed."""
    selected_steps: Count = 0
    total_steps: Count = 0
    trajectories: Count = 0
    """Trajectories with at least one selected step."""
    training: Training | None = None
    """None: this arm is the untuned model."""
    kinds: dict[str, Count] = Field(default_factory=dict)
    """Selected steps by kind; ``none`` holds those that nobody classified."""
    positions: tuple[Share, ...] = ()
    """Share of the selected steps by tenth of the trajectory; empty where none is selected."""

    @model_validator(mode="after")
    def _ten_positions(self) -> Self:
        if len(self.positions) not in (0, DECILES):
            raise ValueError(f"positions are {DECILES} shares or none, found {len(self.positions)}")
        return self

    @property
    def classified(self) -> bool:
        """Whether the selector said of which kind its steps are."""
        return any(count for kind, count in self.kinds.items() if kind != "none")

    @property
    def selected_share(self) -> float:
        """The share of all agent steps that this arm trains."""
        return self.selected_steps / self.total_steps if self.total_steps else 0.0


class LossPoint(Value):
    """The loss of one optimiser step; tokens and seconds count from the start of the training."""

    step: Count
    loss: float
    supervised_tokens: Count | None = None
    seconds: Seconds


class LossCurve(Value):
    """The training loss of one arm and seed."""

    arm: str
    seed: int | None = None
    points: tuple[LossPoint, ...]


class RewardCurve(Value):
    """How quickly an arm earns: the mean over all tasks of the reward collected by turn k."""

    environment: str
    arm: str
    points: tuple[float, ...]
    """The first is after turn 1; a finished task keeps what it has."""


class Complete(Value):
    """How far a run has come."""

    done: Count
    """Evaluations (a model in an environment) that are in this report."""
    of: Count
    """Evaluations that the recipe asks for."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.done >= self.of


class Quarantined(Value):
    """A record that could not be used."""

    place: Words
    reason: Words


class Results(Value):
    """Everything that a run found and a reader needs in order to judge it."""

    schema_version: Literal[2] = 2
    name: str
    created_at: str
    """When the run ended, ISO 8601; the report itself reads no clock."""
    recipe: str
    """The recipe, as YAML text."""
    machine: dict[str, str]
    versions: dict[str, str]
    hashes: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the data, the selections and the base model."""
    command: str
    complete: Complete | None = None
    """None: the run says nothing of evaluations that are still to come."""
    environments: tuple[Environment, ...]
    data: tuple[Data, ...] = ()
    arms: tuple[Arm, ...]
    results: tuple[Result, ...]
    cells: tuple[Cell, ...] = ()
    """Scores over all seeds with their intervals; where one is missing, ``results`` say it."""
    comparisons: tuple[Comparison, ...] = ()
    task_scores: tuple[TaskScores, ...] = ()
    losses: tuple[LossCurve, ...] = ()
    reward_per_step: tuple[RewardCurve, ...] = ()
    failures: tuple[Failures, ...] = ()
    actions: tuple[Actions, ...] = ()
    transcripts: tuple[Transcript, ...] = ()
    """A few evaluation episodes by arm and kind of failure."""
    criticality: tuple[Started, ...] = ()
    """What was measured of the selected steps themselves."""
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """What this run does and does not show; stands at the top of the page."""
    quarantined: tuple[Quarantined, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        arms = [arm.name for arm in self.arms]
        environments = [environment.name for environment in self.environments]
        for names, noun in ((arms, "arm"), (environments, "environment")):
            if len(set(names)) < len(names):
                raise ValueError(f"two {noun}s have the same name: {', '.join(names)}")
        for place, noun, name in _references(self):
            known = arms if noun == "arm" else environments
            if name not in known:
                hint = nearest(name, known)
                raise ValueError(f"{place} names no {noun} of this run: '{name}'; {hint}")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds, in order."""
        return tuple(sorted({r.seed for r in self.results if r.seed is not None}))

    @property
    def main_arm(self) -> Arm | None:
        """The proposed arm: ``critical``, or else the first tuned one that is no reference."""
        tuned = [arm for arm in self.arms if arm.name != UNTUNED and not arm.reference]
        named = [arm for arm in self.arms if arm.name == CRITICAL]
        return next(iter(named + tuned), None)


def _references(results: Results) -> Iterator[tuple[str, str, str]]:
    """Every mention of an arm or environment: where it stands, which of the two, the name."""
    for i, comparison in enumerate(results.comparisons):
        yield f"comparisons[{i}]", "arm", comparison.against
    for i, losses in enumerate(results.losses):
        yield f"losses[{i}]", "arm", losses.arm
    for i, scores in enumerate(results.task_scores):
        yield f"task_scores[{i}]", "environment", scores.environment
        for one in scores.scores:
            yield f"task_scores[{i}]", "arm", one.arm
    lists = ("results", "cells", "comparisons", "reward_per_step", "failures", "actions")
    for noun in (*lists, "transcripts"):
        for i, found in enumerate(getattr(results, noun)):
            yield f"{noun}[{i}]", "arm", found.arm
            yield f"{noun}[{i}]", "environment", found.environment


__all__ = [
    "CRITICAL",
    "DECILES",
    "FAILURE_KINDS",
    "UNTUNED",
    "Actions",
    "Arm",
    "Cell",
    "Comparison",
    "Complete",
    "Data",
    "Environment",
    "Example",
    "ExampleStep",
    "FailureKind",
    "Failures",
    "Interval",
    "LossCurve",
    "LossPoint",
    "Metric",
    "Needed",
    "Quarantined",
    "Result",
    "Results",
    "RewardCurve",
    "SeedScores",
    "Share",
    "Started",
    "TaskScores",
    "Training",
    "Transcript",
    "TranscriptTurn",
    "Verdict",
]
