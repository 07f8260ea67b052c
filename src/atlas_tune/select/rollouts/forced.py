"""What a policy makes of the places of a recorded run: the estimate behind two selectors.

V(h_t) is the mean outcome of episodes that start after t recorded steps and are played on by the
policy (:mod:`atlas_tune.agents.resume`). To *force* the expert's step t and let the policy go on
is to start from h_{t+1}, so the T + 1 places of a run hold every value that is needed, and each
rollout is made once for all that use it. Where the recorded steps have ended the episode the
value is known and nothing is played.

**Standard error.** A few rollouts are often all alike, and the usual estimate then says that the
error is 0. Here one rollout more is supposed, half of it at the lowest and half at the highest
outcome there is (the kind of correction that Agresti and Coull 1998 make for a proportion):

    m = (Σ x + (low + high) / 2) / (n + 1)
    SE² = ((Σ x² + (low² + high²) / 2) / (n + 1) − m²) / (n + 1)

Five paired differences of 0, between -1 and 1, give 0.17 and not 0. The value itself is the plain
mean and not shrunk. At temperature 0 the environment and the policy are deterministic: one rollout
is exact, and its error is 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from atlas_tune.agents.making import ConversationTooLong, PolicyMaker
from atlas_tune.agents.resume import (
    Attempt,
    CannotResume,
    Place,
    Rollouts,
    Stand,
    conversation,
    play_recorded,
    recorded_actions,
)
from atlas_tune.errors import UsageError
from atlas_tune.select.base import CannotLabel, Cost
from atlas_tune.select.rollouts.acting import Acting, ActingOptions
from atlas_tune.trajectory import Kind, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

_DECIMALS = 6


class ForcedOptions(ActingOptions):
    """The settings of the selectors that roll out from inside a run."""

    policy: str | None = None
    """The policy that plays on: a hub id, a directory or a GGUF file; the run's own model unless
    named."""
    temperature: float = Field(0.7, ge=0)
    """Of the policy; 0 is greedy, and one rollout a place is then exact."""
    value: Literal["success", "return"] = "success"
    """What a rollout is worth: 1 or 0, or the return of the whole run, recorded steps included."""
    max_steps: int | None = Field(None, ge=1)
    """The steps of a whole run, recorded ones included; each environment's own limit unless
    given. From any place the policy has at least one turn."""


class Outcomes:
    """What rollouts from the places of one run came to; each is made once and kept."""

    def __init__(
        self,
        stands: Sequence[Stand],
        value: Literal["success", "return"],
        play: Callable[[Sequence[tuple[int, int]]], Sequence[float]],
    ) -> None:
        """
        Args:
            stands: the T + 1 stands of the recorded run.
            value: what the outcomes are.
            play: plays rollouts, each named by (place, number at that place), to their outcomes.
        """
        self._play = play
        self._known = [
            (float(stand.success) if value == "success" else stand.reward) if stand.ended else None
            for stand in stands
        ]
        self._made: dict[int, list[float]] = {}

    def make(self, wanted: Mapping[int, int]) -> None:
        """See that every place has at least so many rollouts; one batch for all."""
        missing = [
            (place, number)
            for place, count in sorted(wanted.items())
            if self._known[place] is None
            for number in range(len(self._made.get(place, ())), count)
        ]
        if not missing:
            return
        for (place, _), outcome in zip(missing, self._play(missing), strict=True):
            self._made.setdefault(place, []).append(outcome)

    def at(self, place: int) -> list[float]:
        """The outcomes of a place in order; a single one where it is known."""
        known = self._known[place]
        return list(self._made.get(place, ())) if known is None else [known]

    def is_known(self, place: int) -> bool:
        """Whether the recorded steps have ended the episode, so that nothing need be played."""
        return self._known[place] is not None

    def range(self) -> tuple[float, float]:
        """The lowest and the highest outcome there is: 0 and 1, or what was seen beyond them."""
        seen = [x for place in range(len(self._known)) for x in self.at(place)]
        return min(0.0, *seen), max(1.0, *seen)


def smoothed_error(values: Sequence[float], low: float, high: float) -> float:
    """The standard error of a mean, with one supposed value, half ``low`` and half ``high``.

    >>> round(smoothed_error([0, 0, 0, 0, 0], -1, 1), 3)
    0.167
    """
    n = len(values) + 1
    mean = (sum(values) + (low + high) / 2) / n
    square = (sum(x * x for x in values) + (low * low + high * high) / 2) / n
    return math.sqrt(max(0.0, square - mean * mean) / n)


class Forced(Acting):
    """A selector that measures the places of a run by letting a policy play on from them."""

    def __init__(
        self,
        options: ForcedOptions,
        policies: PolicyMaker,
        make_environment: Callable[[str], TextEnv],
    ) -> None:
        """
        Args:
            options: how rollouts are made.
            policies: makes the policy that plays on.
            make_environment: builds an environment by name; each is built as often as episodes
                run at once, and kept.
        """
        super().__init__(options, policies)
        self._options = options
        self._rollouts = Rollouts(make_environment, options.batch_size, options.max_steps)

    @abstractmethod
    def stream(self, trajectory: Trajectory, place: int, number: int) -> str:
        """The stream of random numbers of a rollout."""

    @abstractmethod
    def measure(self, outcomes: Outcomes, steps: Sequence[int]) -> dict[int, tuple[float, str]]:
        """Score and reason of steps, by their place: t stands for the step after t others."""

    @property
    @abstractmethod
    def most_rollouts(self) -> int:
        """The most rollouts of one place."""

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A label for every agent step: a candidate where its score is above 0.

        Raises:
            CannotLabel: the run cannot be played in its environment or no longer ends there as
                recorded, acts through tool calls, or is longer than the model can read.
            AtlasError: the model or the environment cannot be had.
        """
        try:
            actions = recorded_actions(trajectory)
            conversation(Place(trajectory, 0))
            stands = play_recorded(self._rollouts.environment(trajectory), trajectory)
            _check_outcome(trajectory, stands[-1])
            steps = [t for t, a in enumerate(actions) if a is not None and not stands[t].ended]
            outcomes = Outcomes(stands, self._options.value, partial(self._play, trajectory))
            measured = self.measure(outcomes, steps)
        except (CannotResume, ConversationTooLong, UsageError) as error:
            raise CannotLabel(str(error)) from error
        labels = []
        for t, step in enumerate(trajectory.agent_steps):
            ended = "the run had ended before this step"
            left_out = ended if stands[t].ended else "no action could be read in this step"
            score, reason = measured.get(t, (0.0, left_out))
            score = round(score, _DECIMALS)
            labels.append(
                StepLabel(
                    trajectory.trajectory_id,
                    step.step_id,
                    None if score > 0 else Kind.NONE,
                    self.source,
                    score=score,
                    reason=reason,
                )
            )
        return labels

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """Upper bounds: every place rolled out as often as may be, every reply as long."""
        total = Cost()
        for trajectory in trajectories:
            total += self._cost_of(trajectory)
        return total

    def _cost_of(self, trajectory: Trajectory) -> Cost:
        try:
            actions = recorded_actions(trajectory)
            conversation(Place(trajectory, 0))
            steps = [t for t, action in enumerate(actions) if action is not None]
            places = {place for t in steps for place in (t, t + 1)}
            turns = {place: self._rollouts.turns_left(Place(trajectory, place)) for place in places}
        except (CannotResume, UsageError):
            return Cost()
        most = self.most_rollouts
        return Cost(
            written_tokens=most * sum(turns.values()) * self._options.max_new_tokens,
            rollouts=most * len(places),
            env_steps=len(actions) + most * sum(place + left for place, left in turns.items()),
        )

    def _play(self, trajectory: Trajectory, wanted: Sequence[tuple[int, int]]) -> list[float]:
        attempts = [
            Attempt(Place(trajectory, place), self.stream(trajectory, place, number))
            for place, number in wanted
        ]
        policy = self._policies(self._options.seed, self._options.temperature)
        endings = self._rollouts.play(attempts, policy)
        if self._options.value == "success":
            return [float(ending.success) for ending in endings]
        return [ending.reward for ending in endings]


def _check_outcome(trajectory: Trajectory, end: Stand) -> None:
    """Refuse a run that the environment no longer ends as recorded: its places are other ones."""
    recorded = trajectory.outcome
    if recorded.success is not None:
        agrees = recorded.success == end.success
    elif recorded.reward is not None:
        # Rewards of foreign recordings are on other scales; that something was earned is common.
        agrees = (recorded.reward > 0) == (end.reward > 0)
    else:
        return
    if not agrees:
        raise CannotLabel(
            f"the recorded actions end in {trajectory.environment} with success {end.success} and "
            f"return {end.reward:.2f}, and the recording says success {recorded.success} and "
            f"reward {recorded.reward}: the environment or the task is not the one of the "
            "recording"
        )
