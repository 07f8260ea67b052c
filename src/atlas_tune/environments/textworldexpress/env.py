"""TextWorldExpress as an environment: eight kinds of games about places and things.

The simulator is the package's own. Ours asks its Java program directly, because the package's
Python class starts a Java process for every episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.habits import Habits, seeded
from atlas_tune.environments.java import check_installed
from atlas_tune.environments.textworldexpress.expert import GoldExpert
from atlas_tune.environments.textworldexpress.games import (
    ENVIRONMENT,
    GAMES,
    SPLITS,
    Task,
    chosen_games,
    tasks_of,
)
from atlas_tune.environments.textworldexpress.gold import gold_path
from atlas_tune.environments.textworldexpress.simulator import PROGRAM, Game, State, simulator
from atlas_tune.errors import UsageError, nearest

INSTRUCTION = (
    "Play a text game. Each turn, do one of these, as far as the game has them:\n"
    "look around\ninventory\ntask\nmove DIRECTION\nopen door to DIRECTION\n"
    "close door to DIRECTION\nopen THING\nclose THING\nexamine THING\ntake THING\n"
    "put THING in PLACE\nread THING\nchop THING\nslice THING\ndice THING\ncook THING in THING\n"
    "prepare meal\neat THING\n"
    "DIRECTION is north, east, south or west. Name a thing as the game does, with its amount: take "
    "40 blueberries. Leave out the, a and some, and what was done to it: a raw red potato is red "
    "potato. To put a thing on a place, say in, too. Where a game asks for other actions, use its "
    "words. A wrong deed can lose a game at once."
)


class TextWorldExpress(TextEnv):
    """The environment "textworldexpress". A task id is "textworldexpress/<game>/<seed>".

    The reward of a step is the rise of the game's normalised score, so the return is the last
    score: 1 where the game is won, a part of it for a part of the work, and -1 in games that are
    failed outright. ``valid`` is False for an action that the game does not list as possible; it
    changes nothing.
    """

    name: ClassVar[str] = ENVIRONMENT
    instruction: ClassVar[str] = INSTRUCTION
    max_steps: ClassVar[int] = 50
    metric: ClassVar[str] = "reward"
    splits: ClassVar[tuple[str, ...]] = tuple(SPLITS)

    def __init__(self) -> None:
        """Nothing is started yet: Java is, at the first task.

        Raises:
            AtlasError: the package or Java is missing.
        """
        super().__init__()
        check_installed(PROGRAM)
        self._task: Task | None = None
        self._game: Game | None = None
        self._state: State | None = None

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """The tasks of a split, a thousand a game; the games take turns.

        The one option is ``games``, a name or a list of names of games ("coin").
        """
        self.check_split(split)
        for option in options:
            if option != "games":
                raise UsageError(
                    f"{self.name} has no task option '{option}': {nearest(option, ['games'])}"
                )
        games = chosen_games(options["games"]) if "games" in options else list(GAMES)
        return tasks_of(split, games)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``; ``seed`` has no say.

        Raises:
            UsageError: there is no such task.
            EnvironmentLost: the simulator died or hangs; the next reset starts a new one.
        """
        task = Task.parse((options or {}).get("task_id"))
        self._task = self._state = None
        if self._game is None or self._game.java is not simulator():
            self._game = Game(simulator())
        state = self._game.start(task)
        told = f"{self._game.described()}\n{state.observation}"
        self._task, self._state = task, state
        return told, {"success": False, "valid": True}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            EnvironmentLost: the simulator died or hangs; the next reset starts a new one.
        """
        if self._game is None or self._state is None:
            raise gymnasium.error.ResetNeeded(
                f"{self.name} has no episode under way: call reset before step."
            )
        # A model may write half a surrogate pair, which cannot be sent.
        sent = action.strip().encode(errors="replace").decode()
        before, state = self._state, self._game.act(sent)
        self._state = None if state.ended else state
        info = {"success": state.succeeded, "valid": sent in before.valid_actions}
        return state.observation, state.score - before.score, state.ended, False, info

    def expert(self, seed: int = 0, habits: Habits | None = None) -> GoldExpert:
        """The package's own solution of this task, played with ``habits``.

        ``seed`` draws the habits and, where the solution is a search, the way that it goes. Same
        task, seed and habits: same turns.

        Raises:
            ExpertFailed: the package's agent does not solve the task within the step limit.
            EnvironmentLost: the simulator died or hangs.
        """
        if self._game is None or self._task is None or self._state is None:
            raise gymnasium.error.ResetNeeded(
                f"{self.name} has no episode under way: call reset before expert."
            )
        return GoldExpert(
            gold_path(self._game.java, self._task, seed, self.max_steps),
            obeys=self._task.game == "simonsays",
            habits=Habits() if habits is None else habits,
            draw=seeded("textworldexpress expert", self._task.id, seed),
            steps=self.max_steps,
        )

    def close(self) -> None:
        """Let go of the episode; the simulator goes on for other environments."""
        self._game = self._task = self._state = None
