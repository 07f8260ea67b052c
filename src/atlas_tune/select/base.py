"""What every selector offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Kind, LabelSource, StepLabel, Trajectory


class CannotLabel(AtlasError):
    """One trajectory that a selector cannot label; the others go on without it."""


class SelectorOptions(BaseModel):
    """The settings of a selector, as a recipe or ``--set`` gives them; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """What labelling would take, counted without doing it; upper bounds where it can only be one.

    It counts work and not seconds: those depend on the machine.
    """

    read_tokens: int = 0
    """Tokens that a model reads in forward passes, cached prefixes counted once."""
    written_tokens: int = 0
    """Tokens that a model writes, at most."""
    tuned_tokens: int = 0
    """Tokens that a model is tuned on, every epoch counted."""
    rollouts: int = 0
    """Episodes that a policy plays to their end, at most."""
    env_steps: int = 0
    """Actions played in environments, at most."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.read_tokens + other.read_tokens,
            self.written_tokens + other.written_tokens,
            self.tuned_tokens + other.tuned_tokens,
            self.rollouts + other.rollouts,
            self.env_steps + other.env_steps,
        )


class Selector(Protocol):
    """Says of the steps of a trajectory how critical they are.

    A scorer gives every agent step a score, higher for a more critical step. A judge names the
    critical steps in order and says why. Both label *every* agent step, those that are no
    candidates with ``Kind.NONE``, so that a labelled trajectory can be told from an unlabelled
    one. Labels are a function of the trajectory and of ``source``: never of the order in which
    trajectories come.
    """

    @property
    def name(self) -> str:
        """The name under which recipes and labels know the selector."""
        ...

    @property
    def version(self) -> str:
        """Everything besides model and prompt that decides the labels, such as a seed."""
        ...

    @property
    def source(self) -> LabelSource:
        """What stands under every label. Trajectories that hold it are not labelled again."""
        ...

    @property
    def share(self) -> float | None:
        """The selector's own budget where the common one does not apply to it."""
        ...

    @property
    def concurrency(self) -> int:
        """How many trajectories may be labelled at once; above 1, ``label`` is thread-safe."""
        ...

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The labels of all agent steps; those of a judge in its order of importance.

        Raises:
            CannotLabel: this trajectory cannot be labelled; the message says why.
            AtlasError: nothing can be labelled (no server, no key); the run stops.
        """
        ...

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """What labelling these would take; a trajectory that cannot be labelled takes nothing."""
        ...


class Alone:
    """The common case: a selector that obeys the budget, works alone and costs next to nothing."""

    name = ""
    version = "1"
    share: float | None = None
    concurrency = 1

    @property
    def source(self) -> LabelSource:
        """The name and version."""
        return LabelSource(self.name, self.version)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """Nothing worth counting."""
        return Cost()


def labels_of_scores(
    trajectory: Trajectory,
    source: LabelSource,
    scores: Mapping[int, float],
    reasons: Mapping[int, str] | None = None,
) -> list[StepLabel]:
    """A scorer's labels: every step with a score is a candidate, every other one is none.

    Args:
        trajectory: whose agent steps are labelled, in order.
        source: what stands under every label.
        scores: step id → score; a step without one is ``Kind.NONE`` with score None.
        reasons: step id → what stands behind its score.
    """
    return [
        StepLabel(
            trajectory.trajectory_id,
            step.step_id,
            None if step.step_id in scores else Kind.NONE,
            source,
            score=scores.get(step.step_id),
            reason=(reasons or {}).get(step.step_id),
        )
        for step in trajectory.agent_steps
    ]
