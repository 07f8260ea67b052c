"""BabyAI: a grid of rooms, a goal in words, and actions that each stand for several moves.

minigrid keeps the world. The observations, the actions and the replies are AgentGym's to the
letter, so that its recorded runs make sense here (docs/environments/babyai.md).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.babyai.levels import (
    Level,
    find_level,
    grid_world,
    levels_of,
    parse_task,
    seeds_of,
    task_id,
)
from atlas_tune.environments.babyai.menu import CHECK, NO_CHANGE, NOT_RECOGNISED, Menu, menu_of
from atlas_tune.environments.babyai.view import View, describe, look
from atlas_tune.environments.base import Expert, TextEnv
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import UsageError, nearest

INSTRUCTION = (
    "Reach the goal in a grid of rooms. Take one action a turn: turn left, turn right, move "
    "forward, go to OBJECT ID, pickup OBJECT ID, drop, toggle (a door right in front), go through "
    "DOOR ID, toggle and go through DOOR ID (a locked door needs the key of its color), "
    f"{CHECK}. For example: go to red ball 1."
)


class BabyAI(TextEnv):
    """The environment "babyai". Tasks are "babyai/<level>/<seed>".

    The reward of the step that reaches the goal is minigrid's, 1 - 0.9 · moves / allowed moves,
    and every other reward is 0. Moves are minigrid's, of which one action may take many. The
    goal must hold when an action ends: to reach it in passing is not to reach it.
    """

    name: ClassVar[str] = "babyai"
    instruction: ClassVar[str] = INSTRUCTION
    max_steps: ClassVar[int] = 20
    metric: ClassVar[str] = "reward"
    splits: ClassVar[tuple[str, ...]] = ("train", "test", "unseen")

    def __init__(self) -> None:
        super().__init__()
        # Imported when a world is made; a missing one is told before the first task.
        if importlib.util.find_spec("minigrid") is None:
            raise ModuleNotFoundError("minigrid is not installed", name="minigrid")
        self.task_id = ""
        self.world: Any = None
        """minigrid's environment of the running task."""
        self.view: View
        self.menu: Menu
        self._image: Any = None
        self._success = False
        self._on_move: Callable[[int], None] | None = None

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """Seeds 0 to 278 for train; for test those of 1000 to 1499 that bring a new world.

        ``unseen`` has test's seeds in five levels that the others do not have. The one option is
        ``levels``, a name or a list of names; without it, all levels of the split. They take
        turns, so that the first tasks hold every level equally often.
        """
        self.check_split(split)
        for option in options:
            if option != "levels":
                raise UsageError(
                    f"babyai has no task option '{option}': {nearest(option, ['levels'])}"
                )
        known = levels_of(split)
        chosen = _levels(options["levels"]) if "levels" in options else list(known.values())
        for level in chosen:
            if level.name not in known:
                raise UsageError(
                    f"babyai's split '{split}' has no level '{level.name}': "
                    + nearest(level.name, known)
                )
        named = [[task_id(level, seed) for seed in seeds_of(level, split)] for level in chosen]
        return [task for turn in zip_longest(*named) for task in turn if task is not None]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``, ours or AgentGym's ("babyai_41"); ``seed`` has no say."""
        name = (options or {}).get("task_id")
        if not isinstance(name, str):
            raise UsageError(
                "BabyAI starts at a task: reset(options={'task_id': 'babyai/GoToRedBall/1003'})."
            )
        level, number = parse_task(name)
        self.world = grid_world(level)
        self.task_id = task_id(level, number)
        self._image = self.world.reset(seed=number)[0]["image"]
        self._success = False
        self._on_move = None
        return f"Your goal: {self._goal()}\n{self._observe()}", self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action: its moves one by one, until one of them changes nothing in view."""
        if self.world is None or self._success:
            raise gymnasium.error.ResetNeeded("BabyAI has no running task: call reset first.")
        action = action.strip().lower()
        # AgentGym takes any action that speaks of a check for this one.
        if "check" in action:
            return self.menu.listing, 0.0, False, False, self._info(valid=True)
        if action not in self.menu.actions:
            reply = self.menu.refusals.get(action, NOT_RECOGNISED) if action else NO_CHANGE
            return reply, 0.0, False, False, self._info(valid=False)
        moves = self.menu.actions[action]
        if not moves:
            return NO_CHANGE, 0.0, False, False, self._info(valid=True)
        reward = self._move(moves)
        text = self._observe()
        if self._success:
            text += "\n The task is completed."
        return text, reward, self._success, False, self._info(valid=True)

    def expert(self, seed: int = 0, habits: Habits | None = None) -> Expert:
        """minigrid's BabyAIBot, speaking in our actions, with habits drawn from ``seed``.

        ``habits=Habits(0, 0, 0)`` is the direct expert. Its ``act`` raises ExpertFailed on the
        few tasks on which the bot gives up.
        """
        if self.world is None:
            raise UsageError("BabyAI has no running task to solve: call reset first.")
        # Imported here, because the bot brings minigrid and pygame.
        from atlas_tune.environments.babyai.expert import BabyAIExpert

        expert = BabyAIExpert(self, seed, habits or Habits())
        self._on_move = expert.moved
        return expert

    def _move(self, moves: list[int]) -> float:
        """Make the moves and return the last one's reward."""
        reward, done = 0.0, False
        for move in moves:
            seen = self._image
            observation, reward, done, _, _ = self.world.step(move)
            self._image = observation["image"]
            if self._on_move:
                self._on_move(move)
            if (self._image == seen).all():
                break
        # minigrid also ends where a wrong thing is picked up (PickupDistDebug), with reward 0;
        # AgentGym goes on from there, and so do we.
        self._success = bool(done) and reward != 0
        # Beyond its own limit of moves minigrid would pay less than nothing.
        return max(0.0, float(reward))

    def _goal(self) -> str:
        """The mission as AgentGym puts it: "and" where minigrid tells the order."""
        return str(self.world.mission).replace("then", "and").replace("after you", "and")

    def _observe(self) -> str:
        self.view = look(self.world, self._image)
        self.menu = menu_of(self.view)
        return describe(self.view)

    def _info(self, *, valid: bool) -> dict[str, Any]:
        return {"success": self._success, "valid": valid}


def _levels(names: object) -> list[Level]:
    """The levels of a name or of a list of names, each once."""
    listed = [names] if isinstance(names, str) else names
    if not (isinstance(listed, Sequence) and listed and all(isinstance(n, str) for n in listed)):
        raise UsageError(
            "babyai's task option 'levels' is the name of a level or a list of names, such as "
            f"['GoToRedBall', 'PickupLoc'], not {names!r}."
        )
    return [find_level(name) for name in dict.fromkeys(listed)]
