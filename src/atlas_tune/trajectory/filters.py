"""Which trajectories to keep, each judged by itself, and in plain words why not.

Two of the conditions are PABU's (arXiv 2602.09138), which leaves out runs of AgentTraj-L that
never yield a success signal and runs that start in a finished state. Here they are told from what
a trajectory records; where that says nothing, a run is kept and counted, because nobody knows.
A :data:`Judge` that knows more (a replay in the environment) can be asked instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from atlas_tune.trajectory.model import Trajectory


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a run; None where nothing is."""

    succeeds: bool | None = None
    starts_finished: bool | None = None


Judge = Callable[[Trajectory], Verdict]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conditions that a trajectory must meet; a condition that is None is none.

    ``success`` and the bounds of the reward refuse runs of which they are not known. Bounds
    include their ends. Steps are the agent's own.
    """

    success: bool | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    environments: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    min_steps: int | None = None
    max_steps: int | None = None

    def refusal(self, trajectory: Trajectory) -> str | None:
        """Why a trajectory is left out; None if it meets all conditions."""
        if self.environments is not None and trajectory.environment not in self.environments:
            return "another environment"
        if self.tasks is not None and trajectory.task_id not in self.tasks:
            return "another task"
        return (
            self._by_success(trajectory)
            or self._by_reward(trajectory)
            or self._by_steps(trajectory)
        )

    def _by_success(self, trajectory: Trajectory) -> str | None:
        success = trajectory.outcome.success
        if self.success is None or success is self.success:
            return None
        return {True: "a success", False: "no success", None: "success not known"}[success]

    def _by_reward(self, trajectory: Trajectory) -> str | None:
        if self.min_reward is None and self.max_reward is None:
            return None
        reward = trajectory.outcome.reward
        if reward is None:
            return "reward not known"
        if self.min_reward is not None and reward < self.min_reward:
            return f"reward below {self.min_reward:g}"
        if self.max_reward is not None and reward > self.max_reward:
            return f"reward above {self.max_reward:g}"
        return None

    def _by_steps(self, trajectory: Trajectory) -> str | None:
        steps = len(trajectory.agent_steps)
        if self.min_steps is not None and steps < self.min_steps:
            return f"fewer than {self.min_steps} steps"
        if self.max_steps is not None and steps > self.max_steps:
            return f"more than {self.max_steps} steps"
        return None


@dataclass(slots=True)
class Sieve:
    """The conditions, PABU's two among them, and a count of what nobody could tell."""

    wanted: Wanted
    drop_unsuccessful: bool = False
    drop_done_at_start: bool = False
    judge: Judge = field(default_factory=lambda: recorded)
    unknown: Counter[str] = field(default_factory=Counter)
    """How many runs were kept though it is not known whether they succeed, or start finished."""

    def refusal(self, trajectory: Trajectory) -> str | None:
        """Why a trajectory is left out; None if it is kept."""
        reason = self.wanted.refusal(trajectory)
        if reason is not None or not (self.drop_unsuccessful or self.drop_done_at_start):
            return reason
        verdict = self.judge(trajectory)
        if self.drop_unsuccessful and verdict.succeeds is False:
            return "never succeeds"
        if self.drop_done_at_start and verdict.starts_finished:
            return "starts finished"
        if self.drop_unsuccessful and verdict.succeeds is None:
            self.unknown["whether it succeeds"] += 1
        if self.drop_done_at_start and verdict.starts_finished is None:
            self.unknown["whether it starts finished"] += 1
        return None


def recorded(trajectory: Trajectory) -> Verdict:
    """What a trajectory itself tells of how it ended and how it began."""
    return Verdict(_succeeds(trajectory), _starts_finished(trajectory))


def _succeeds(trajectory: Trajectory) -> bool | None:
    """By its recorded success; else by reward, of which a run that never succeeds earns none."""
    outcome = trajectory.outcome
    if outcome.success is not None:
        return outcome.success
    if outcome.reward is not None:
        # That something was earned does not say that it was enough: scales differ.
        return None if outcome.reward > 0 else False
    rewards = [reward for step in trajectory.steps if (reward := step.reward) is not None]
    return False if rewards and max(rewards) <= 0 else None


def _starts_finished(trajectory: Trajectory) -> bool | None:
    """Whether the whole reward was there before the agent did anything, or with its first step.

    The second counts only where the run goes on after it, as it would not if that step had
    finished the task. Without rewards of steps nothing is known.
    """
    own = trajectory.agent_steps
    first = own[0]
    before = [
        reward
        for step in trajectory.steps[: first.step_id - 1]
        if step.source != "agent" and (reward := step.reward) is not None
    ]
    earned = [reward for step in own if (reward := step.reward) is not None]
    if not before and (first.reward is None or len(earned) < 2):
        return None
    # Steps record either what each of them earned or the score so far: the whole is then the
    # largest sum or the largest score.
    total = trajectory.outcome.reward
    whole = max([*before, *earned]) if total is None else total
    if whole <= 0:
        return False
    if before and max(before) >= whole:
        return True
    return len(own) > 1 and (first.reward or 0.0) >= whole
