"""Playing recorded actions again: what replaying selectors measure with.

Everything is played from the start of the run's own task, because environments cannot be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_tune.agents.resume import CannotResume, recorded_actions
from atlas_tune.errors import UsageError
from atlas_tune.select.base import CannotLabel
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


@dataclass(frozen=True, slots=True)
class Move:
    """A recorded action and the step that took it."""

    step_id: int
    action: str


@dataclass(frozen=True, slots=True)
class Playback:
    """What came of playing moves. The mappings are by step, of those that were played."""

    reward: float
    """The return: the sum of the rewards."""
    success: bool
    observations: dict[int, str]
    admissible: dict[int, bool]
    """False where the action was refused; a refused action changes nothing."""
    rewards: dict[int, float]


class Environments:
    """The environments that trajectories were recorded in; each is built once and kept."""

    def __init__(self, make_environment: Callable[[str], TextEnv]) -> None:
        """``make_environment`` builds an environment by name."""
        self._make = make_environment
        self._built: dict[str, TextEnv] = {}

    def of(self, trajectory: Trajectory) -> TextEnv:
        """The environment of a trajectory.

        Raises:
            CannotLabel: the trajectory names none, or there is none of that name.
            AtlasError: a package that it needs is not installed.
        """
        name = trajectory.environment
        if name is None:
            raise CannotLabel(
                "the trajectory names no environment, so it cannot be replayed: "
                "give it one when importing"
            )
        if name not in self._built:
            try:
                self._built[name] = self._make(name)
            except UsageError as error:
                raise CannotLabel(str(error)) from error
        return self._built[name]


def play(env: TextEnv, trajectory: Trajectory, moves: Sequence[Move]) -> Playback:
    """Play moves in the task of a trajectory, from its start until they or the episode end.

    Raises:
        UsageError: the trajectory names no task of this environment.
    """
    env.reset_to(trajectory)
    success = False
    observations: dict[int, str] = {}
    admissible: dict[int, bool] = {}
    rewards: dict[int, float] = {}
    for move in moves:
        observation, gained, terminated, truncated, info = env.step(move.action)
        success = bool(info["success"])
        observations[move.step_id] = observation
        admissible[move.step_id] = bool(info["valid"])
        rewards[move.step_id] = float(gained)
        if terminated or truncated:
            break
    return Playback(sum(rewards.values()), success, observations, admissible, rewards)


def play_whole(env: TextEnv, trajectory: Trajectory, moves: Sequence[Move]) -> Playback:
    """All moves of a run.

    Raises:
        CannotLabel: the trajectory names no task that can be played again.
    """
    try:
        return play(env, trajectory, moves)
    except UsageError as error:
        raise CannotLabel(str(error)) from error


def moves_of(trajectory: Trajectory) -> list[Move]:
    """The actions of a run. A turn without a readable one changed nothing and is left out.

    Raises:
        CannotLabel: a step acts through tool calls.
    """
    try:
        actions = recorded_actions(trajectory)
    except CannotResume as error:
        raise CannotLabel(str(error)) from error
    return [
        Move(step.step_id, action)
        for step, action in zip(trajectory.agent_steps, actions, strict=True)
        if action is not None
    ]
