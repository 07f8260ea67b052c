"""TextCraft as an environment: get raw items, craft others, reach the goal item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.habits import Habits, seeded
from atlas_tune.environments.textcraft import catalogue
from atlas_tune.environments.textcraft.expert import CraftExpert
from atlas_tune.environments.textcraft.task import Task
from atlas_tune.environments.textcraft.world import World
from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory import Trajectory

_OPTIONS = ("depth", "commands", "actions", "variants")


class TextCraft(TextEnv):
    """Crafting by text commands, with the wording of AgentTraj-L.

    The first observation holds the whole task: the crafting commands and the goal. Obtaining the
    goal item gives reward 1 and ends the episode.
    """

    name: ClassVar[str] = "textcraft"
    instruction: ClassVar[str] = (
        "You craft items. Each turn, do one of these:\n"
        "inventory\n"
        "get N ITEM\n"
        "craft N ITEM using N A, N B\n"
        "Use only the crafting commands given, with exactly their numbers. What has a command "
        "must be crafted; the rest you can get. Where a command says planks or wool, name one "
        "kind, such as oak planks."
    )
    max_steps: ClassVar[int] = 20
    metric: ClassVar[str] = "success"

    def __init__(self) -> None:
        super().__init__()
        self._task_id = ""
        self._task: Task | None = None
        self._world: World | None = None

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """Task ids of a split: each goal once, in shuffled order, then each goal varied.

        Options, all whole numbers: ``depth`` (1 to 4) keeps goals of that depth; ``commands``
        (8; 40 at most) is the number of commands shown, more where a goal needs more; ``actions``
        (14) keeps goals that so many actions solve; ``variants`` (4) is the number of tasks for
        each goal.
        """
        self.check_split(split)
        for option, value in options.items():
            if option not in _OPTIONS:
                raise UsageError(
                    f"textcraft has no task option '{option}': {nearest(option, _OPTIONS)}"
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(
                    f"textcraft's task option '{option}' is a whole number from 1, not {value!r}."
                )
            if option == "commands" and value > catalogue.MAX_COMMANDS:
                raise UsageError(
                    "textcraft's task option 'commands' is a whole number from 1 to "
                    f"{catalogue.MAX_COMMANDS}, not {value}: no task shows more."
                )
        return catalogue.list_tasks(split, **options)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``. The id alone decides; ``seed`` changes nothing."""
        gymnasium.Env.reset(self, seed=seed)
        task_id = (options or {}).get("task_id")
        if not isinstance(task_id, str):
            raise UsageError(
                "textcraft starts a named task: give reset options={'task_id': ...}, for example "
                "'textcraft/stone-brick-stairs/d2/c6/0'."
            )
        return self._start(task_id, catalogue.build(task_id))

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the task of a trajectory: by its id if it is ours, else by its words.

        A run from elsewhere tells its whole task in its first observation ("Crafting commands:"
        to "Goal: craft X."), so no foreign index is needed.
        """
        if trajectory.task_id is not None and catalogue.is_task_id(trajectory.task_id):
            return self.reset(options={"task_id": trajectory.task_id})
        try:
            task = Task.find("\n\n".join(_told(trajectory)))
        except ValueError as error:
            raise UsageError(
                f"Trajectory {trajectory.trajectory_id[:12]} cannot be replayed in textcraft: "
                f"{error}."
            ) from error
        if task is None:
            raise UsageError(
                f"Trajectory {trajectory.trajectory_id[:12]} cannot be replayed in textcraft: its "
                f"task_id ({trajectory.task_id}) is not one of ours, and no message of it holds "
                "'Crafting commands:' and 'Goal: craft ...'."
            )
        return self._start(trajectory.task_id or task.observation, task)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._world is None:
            raise gymnasium.error.ResetNeeded(
                "textcraft has no episode under way: call reset before step."
            )
        observation, valid, success = self._world.answer(action)
        if success:
            self._world = None
        info = {"success": success, "valid": valid}
        return observation, float(success), success, False, info

    def expert(self, seed: int = 0, habits: Habits | None = None) -> CraftExpert:
        """The expert of this task with ``habits`` (the usual ones by default).

        Same task, seed and habits: same turns.

        Raises:
            UsageError: the commands shown do not lead to the goal.
        """
        if self._task is None or self._world is None:
            raise gymnasium.error.ResetNeeded("textcraft has no task: call reset before expert.")
        return CraftExpert(
            self._world.rules,
            self._task.goal,
            habits=Habits() if habits is None else habits,
            draw=seeded("textcraft expert", self._task_id, seed),
            steps=self.max_steps,
        )

    def _start(self, task_id: str, task: Task) -> tuple[str, dict[str, Any]]:
        self._task_id, self._task, self._world = task_id, task, World(task)
        return task.observation, {"success": False, "valid": True}


def _told(trajectory: Trajectory) -> list[str]:
    """Everything the agent was told, in order; not what it said, which may repeat a task."""
    texts = []
    for step in trajectory.steps:
        if step.source != "agent":
            texts.append(step.message)
        if step.observation is not None:
            texts.append(step.observation.text)
    return texts
