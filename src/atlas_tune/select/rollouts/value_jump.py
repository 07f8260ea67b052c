"""Value jump: how much better off the policy is after the expert's step than before it.

    jump_t = V(h_{t+1}) − V(h_t)

V(h_t) is estimated by a fixed number of rollouts from every place of the run, each with random
numbers of its own. That is the Monte-Carlo value of IPR (arXiv 2406.11176), and the selector of
ATLaS's comparison "value jumps instead of the oracle" with 5 rollouts a step (arXiv 2503.02197,
table 4: BabyAI 78.58 against 78.93, Weather 60 against 60).

Its expectation is that of ``leverage``; the measurement is the plain one. No pairing and no
stopping: the two values of a jump are independent, so its error is
``√(SE(V(h_{t+1}))² + SE(V(h_t))²)``, up to 0.29 with 5 rollouts. One value serves two jumps, once
with either sign, so a value that came out too high makes one jump too large and the next too small.

A step whose jump is 0 or less is no candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from atlas_tune.agents.making import PolicyMaker
from atlas_tune.select.rollouts.forced import Forced, ForcedOptions, Outcomes, smoothed_error
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


class ValueJumpOptions(ForcedOptions):
    """The settings of ``value-jump``."""

    rollouts: int = Field(5, ge=1)
    """Rollouts from every place; the paper's comparison has 5."""


class ValueJumpSelector(Forced):
    """Scores every step by the rise of a Monte-Carlo value."""

    name = "value-jump"

    def __init__(
        self,
        options: ValueJumpOptions,
        policies: PolicyMaker,
        make_environment: Callable[[str], TextEnv],
    ) -> None:
        """See :class:`.forced.Forced`."""
        super().__init__(options, policies, make_environment)
        self._greedy = options.temperature == 0
        self._rollouts_each = 1 if self._greedy else options.rollouts

    @property
    def most_rollouts(self) -> int:
        """``rollouts``, or 1 where decoding is greedy."""
        return self._rollouts_each

    def stream(self, trajectory: Trajectory, place: int, number: int) -> str:
        """Every rollout has random numbers of its own."""
        return f"{trajectory.trajectory_id}:{place}:{number}"

    def measure(self, outcomes: Outcomes, steps: Sequence[int]) -> dict[int, tuple[float, str]]:
        """Jump and reason of steps."""
        outcomes.make({place: self._rollouts_each for t in steps for place in (t, t + 1)})
        return {t: self._judge(outcomes, t) for t in steps}

    def _judge(self, outcomes: Outcomes, t: int) -> tuple[float, str]:
        before, after = (_mean(outcomes.at(place)) for place in (t, t + 1))
        if self._greedy:
            words = f"value jump {after - before:+.2f}, exact under greedy decoding"
        else:
            error = math.hypot(self._error(outcomes, t), self._error(outcomes, t + 1))
            count = self._rollouts_each
            words = f"value jump {after - before:+.2f} ± {error:.2f} over {count} rollouts a place"
        value = self._options.value
        return after - before, f"{words}: {value} {before:.2f} before this step, {after:.2f} after"

    def _error(self, outcomes: Outcomes, place: int) -> float:
        if outcomes.is_known(place):
            return 0.0
        return smoothed_error(outcomes.at(place), *outcomes.range())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
