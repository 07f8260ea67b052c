"""A person as the agent: what they do, what the expert would do there, and the run of it.

Everything is a function of the task and of the actions so far, so that a step can be taken back and
the expert asked at any time: the task is started again and the actions are played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_tune import __version__
from atlas_tune.agents.react import format_turn, parse_turn
from atlas_tune.agents.rollout import Episode
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv, Turn

PERSON = {"name": "person", "version": __version__}
"""The agent of a run that a person made, as its trajectory names it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the expert does next."""

    turn: Turn
    left_at: int | None
    """The first step, counted from 1, at which the person did otherwise and changed something. From
    there on the expert has not seen what happened, and ``turn`` is what it owes on its own way."""


class PersonRun:
    """One episode, acted by a person step by step.

    Args:
        make_env: makes one environment; a second one is made when the expert is first asked.
        task_id: the task.
        max_steps: the step limit; the environment's own by default.

    Raises:
        UsageError: there is no such task.
    """

    def __init__(
        self, make_env: Callable[[], TextEnv], task_id: str, max_steps: int | None = None
    ) -> None:
        self._make_env = make_env
        self._beside: TextEnv | None = None
        env = make_env()
        self.max_steps = max_steps or env.max_steps
        self.episode = Episode.start(env, task_id)
        self.actions: list[str] = []

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.actions)

    @property
    def is_over(self) -> bool:
        """Whether the environment ended the episode, or the step limit did."""
        return self.episode.ended or self.steps >= self.max_steps

    def act(self, action: str, thought: str = "") -> str:
        """Take one action and return what the environment answers.

        Raises:
            UsageError: the action cannot be written as a turn ("Action:" stands in it, or it is
                empty). Nothing was played.
            EnvironmentLost: the environment is gone; the steps before this one are kept.
        """
        said = format_turn(thought, action) if thought else f"Action:\n{action}"
        if parse_turn(said).action != action:
            raise UsageError("An action is one line of text without 'Action:' in it.")
        self.episode.act(said)
        self.actions.append(action)
        return self.episode.turns[-1][1]

    def undo(self) -> str:
        """Take the last step back; returns what was seen before it.

        Raises:
            UsageError: there is no step.
            EnvironmentLost: the environment is gone; the run is as it was.
        """
        if not self.actions:
            raise UsageError("There is no step to take back.")
        said = [message for message, _, _ in self.episode.turns[:-1]]
        # Played in a fresh environment, so that a failure on the way loses nothing.
        again = Episode.start(self._make_env(), self.episode.task_id)
        for message in said:
            again.act(message)
        self.episode.env.close()
        self.episode = again
        self.actions = self.actions[:-1]
        return again.turns[-1][1] if again.turns else again.observation

    def advice(self) -> Advice:
        """What the environment's expert, without habits, does next.

        An action that the environment refused changed nothing, so the expert need not know of it.

        Raises:
            UsageError: the environment has no expert.
            ExpertFailed: the expert does not know what to do.
        """
        env = self._beside = self._beside or self._make_env()
        return advise(env, self.episode.task_id, self.actions)

    def trajectory(self) -> Trajectory:
        """The run so far.

        Raises:
            InvalidTrajectory: no step was taken.
        """
        return self.episode.trajectory(PERSON)

    def close(self) -> None:
        """Give the environments back."""
        self.episode.env.close()
        if self._beside is not None:
            self._beside.close()


def advise(env: TextEnv, task_id: str, actions: Sequence[str]) -> Advice:
    """What the expert of an environment does after some actions from the start of a task.

    The expert is asked again only when the action that it advised was taken: experts keep count of
    what they themselves did, and are at a loss over what others did.

    Raises:
        UsageError: the environment has no expert.
        ExpertFailed: the expert gives up, or the episode is over.
    """
    observation, _ = env.reset(options={"task_id": task_id})
    expert = env.expert(0, Habits(0, 0, 0))
    turn = expert.act(observation)
    left_at = None
    for number, action in enumerate(actions, start=1):
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            raise ExpertFailed("the episode is over, so there is nothing left to do")
        if action == turn.action:
            turn = expert.act(observation)
        elif info["valid"] and left_at is None:
            left_at = number
    return Advice(turn, left_at)
