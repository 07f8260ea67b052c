"""Leverage: what it changes to force the expert's action and let the policy play on.

    leverage_t = V(do a_t, then π | h_t) − V(π | h_t)

with V the probability of success (or the mean return), π the policy, h_t the conversation before
step t and a_t the expert's step, thought included. It is the reverse of CSO (arXiv 2602.03412),
which forces other actions into the policy's failures. A high leverage is a step that decides, and
that the policy would not find by itself. Other than removal replay it sees steps that only gather
information, because π uses what they show.

``value-jump`` has the same expectation, since forcing a_t leads to h_{t+1}. It differs in how the
two values are measured. Here

- they are **paired**: rollout i of both draws the same random numbers turn by turn. Where the
  policy takes the expert's step by itself the two go on alike and their difference is 0 without
  noise;
- **each step stops by itself**: after ``rollouts_min`` pairs, and then after every so many more,
  a step is done when its standard error is at most ``standard_error``, and at ``rollouts_max`` at
  the latest. A place belongs to two steps, and pairs that the neighbour needed are used too.

The error is that of :mod:`.forced`, so that two equal pairs do not pass for certainty. What
stopping does all the same: steps whose first pairs happen to be alike stop early. The mean of a
stopped sequence is a little biased towards values without spread (0, ±1), and the error told is a
little too small. ``rollouts_min`` equal to ``rollouts_max`` has neither.

A step whose leverage is 0 or less is no candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from atlas_tune.agents.making import PolicyMaker
from atlas_tune.select.rollouts.forced import Forced, ForcedOptions, Outcomes, smoothed_error
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


class LeverageOptions(ForcedOptions):
    """The settings of ``leverage``."""

    rollouts_min: int = Field(2, ge=1)
    """Pairs of rollouts before a step may stop, and the pairs that are then added at a time."""
    rollouts_max: int = Field(8, ge=1, validate_default=True)
    """The most pairs of a step."""
    standard_error: float = Field(0.2, ge=0)
    """A step stops when its standard error is at most this, in the unit of ``value``."""

    @field_validator("rollouts_max")
    @classmethod
    def _not_below_the_least(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("rollouts_min", most)
        if most < least:
            raise ValueError(f"it is below rollouts_min, which is {least}")
        return most


class LeverageSelector(Forced):
    """Scores every step by paired rollouts with and without the expert's action."""

    name = "leverage"

    def __init__(
        self,
        options: LeverageOptions,
        policies: PolicyMaker,
        make_environment: Callable[[str], TextEnv],
    ) -> None:
        """See :class:`.forced.Forced`."""
        super().__init__(options, policies, make_environment)
        self._greedy = options.temperature == 0
        self._first = 1 if self._greedy else options.rollouts_min
        self._most = 1 if self._greedy else options.rollouts_max
        self._enough = options.standard_error

    @property
    def most_rollouts(self) -> int:
        """``rollouts_max``, or 1 where decoding is greedy."""
        return self._most

    def stream(self, trajectory: Trajectory, place: int, number: int) -> str:
        """Rollouts of one number share their random numbers at all places of a run."""
        return f"{trajectory.trajectory_id}:{number}"

    def measure(self, outcomes: Outcomes, steps: Sequence[int]) -> dict[int, tuple[float, str]]:
        """Leverage and reason of steps, after as many pairs as each needs."""
        wanted = dict.fromkeys(steps, self._first)
        unsettled = list(steps)
        while unsettled:
            outcomes.make(_at_places(wanted))
            low_high = outcomes.range()
            unsettled = [
                t
                for t in unsettled
                if wanted[t] < self._most and self._error(outcomes, t, low_high) > self._enough
            ]
            for t in unsettled:
                wanted[t] = min(self._most, wanted[t] + self._first)
        low_high = outcomes.range()
        return {t: self._judge(outcomes, t, low_high) for t in steps}

    def _error(self, outcomes: Outcomes, t: int, low_high: tuple[float, float]) -> float:
        if self._greedy:
            return 0.0
        spread = low_high[1] - low_high[0]
        differences = [forced - free for forced, free in pairs(outcomes, t)]
        return smoothed_error(differences, -spread, spread)

    def _judge(
        self, outcomes: Outcomes, t: int, low_high: tuple[float, float]
    ) -> tuple[float, str]:
        found = pairs(outcomes, t)
        forced = sum(forced for forced, _ in found) / len(found)
        free = sum(free for _, free in found) / len(found)
        if self._greedy:
            words = f"leverage {forced - free:+.2f}, exact under greedy decoding"
        else:
            error = self._error(outcomes, t, low_high)
            words = f"leverage {forced - free:+.2f} ± {error:.2f} over {len(found)} paired rollouts"
        value = self._options.value
        return forced - free, f"{words}: {value} {forced:.2f} with this step, {free:.2f} without it"


def pairs(outcomes: Outcomes, t: int) -> list[tuple[float, float]]:
    """The outcomes after and before step t, rollout by rollout; a known one pairs with each."""
    before, after = outcomes.at(t), outcomes.at(t + 1)
    if outcomes.is_known(t + 1):
        after = after * len(before)
    count = min(len(before), len(after))
    return list(zip(after[:count], before[:count], strict=True))


def _at_places(wanted: dict[int, int]) -> dict[int, int]:
    """How many rollouts every place needs so that each step t has its pairs at t and t + 1."""
    needed: dict[int, int] = {}
    for t, count in wanted.items():
        for place in (t, t + 1):
            needed[place] = max(needed.get(place, 0), count)
    return needed
