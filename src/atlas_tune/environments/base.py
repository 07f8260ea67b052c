"""What every environment offers: Gymnasium's interface over text, named tasks, and an expert.

A task is named by a string, and that string alone decides the whole episode: two resets to
one task id, on any machine, in any process, give the same observations for the same actions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium

from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of an expert: what it thinks, in plain words, and what it does."""

    thought: str
    action: str


class Expert(Protocol):
    """A scripted agent that solves the task its environment was reset to.

    It is made right after ``reset`` by :meth:`TextEnv.expert` and asked once per turn.
    """

    def act(self, observation: str) -> Turn:
        """The next turn, given the observation that answered the last one."""
        ...


class ExpertFailed(AtlasError):
    """The expert gives up this task; collection leaves the task out and goes on."""


class EnvironmentLost(AtlasError):
    """The environment of a running episode is gone: its server died, or dropped the episode.

    The task itself can be started again, in a fresh environment.
    """


class TextEnv(gymnasium.Env[str, str]):
    """A text environment: observations and actions are strings.

    ``step`` returns ``(observation, reward, terminated, truncated, info)``. ``reward`` is the
    reward of this step; the return of an episode is its sum. ``info`` always holds
    ``success`` (bool: the goal is reached) and ``valid`` (bool: the action was understood and
    admissible; an inadmissible action changes nothing and is answered in words). Nothing here
    truncates: the step limit belongs to the rollout.
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    """What the agent is told before the first observation: the actions and the rules.

    The reply format is not in it: a policy's own room adds it.
    """
    max_steps: ClassVar[int]
    """AgentGym's step limit for this environment, in agent turns."""
    metric: ClassVar[str]
    """``success`` where the reward is 0 or 1, ``reward`` where it is graded."""
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Text(max_length=1_000_000)
        self.action_space = gymnasium.spaces.Text(max_length=10_000)

    @property
    def lists_tasks_at_once(self) -> bool:
        """Whether :meth:`tasks` takes no work that is done once and kept, such as packing games."""
        return True

    @abstractmethod
    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """All task ids of a split, in a fixed order; no id stands in two splits.

        ``options`` narrow the choice (a difficulty, a level); each environment documents its own.

        Raises:
            UsageError: no such split or option.
        """

    @abstractmethod
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the task ``options["task_id"]`` and return its first observation.

        Raises:
            UsageError: no ``task_id``, or one that names no task.
        """

    @abstractmethod
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]: ...

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the task in which a trajectory was recorded, so that it can be replayed.

        The default takes the trajectory's ``task_id``. An environment that can rebuild the tasks
        of imported runs (from their first observation, or from a foreign index) overrides it.

        Raises:
            UsageError: the trajectory does not name a task of this environment.
        """
        if trajectory.task_id is None:
            raise UsageError(
                f"Trajectory {trajectory.trajectory_id[:12]} names no task, so {self.name} cannot "
                "replay it: give it a task_id when importing."
            )
        return self.reset(options={"task_id": trajectory.task_id})

    def restate(self, told: str, observation: str) -> str | None:
        """What recorded runs told before their first observation, made true of this task.

        A model is told again what the runs told that it was tuned on. Where those state what here
        the task decides (Wordle's accepted words), the environment puts the task's own in place.

        Args:
            told: what the recorded runs told.
            observation: the first observation of the episode.

        Returns:
            ``told`` with all of the task that the observation tells, which is then not told again;
            None, the default, where it states nothing that the task decides.
        """
        return None

    @abstractmethod
    def expert(self, seed: int = 0, habits: Habits | None = None) -> Expert:
        """An expert for the running task; its habits are drawn from ``seed``.

        Must be called right after ``reset``. Without ``habits`` it has the usual ones.
        """

    def check_split(self, split: str) -> None:
        """Raise a UsageError that names the nearest split when ``split`` is not one of ours."""
        if split not in self.splits:
            raise UsageError(f"{self.name} has no split '{split}': {nearest(split, self.splits)}")
