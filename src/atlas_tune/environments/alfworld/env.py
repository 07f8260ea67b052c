"""ALFWorld: put, clean, heat, cool or look at things in a household, all in words.

World, rules and text are our own code; the games are ALFWorld's. In every recorded run each
observation is the recorded one to the letter (docs/environments/alfworld.md).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.alfworld.games import Games, find_source
from atlas_tune.environments.alfworld.matching import first_text, folded, recorded_moves
from atlas_tune.environments.alfworld.recorded import RecordedExpert, recorded_actions
from atlas_tune.environments.alfworld.rules import admissible, find_deed
from atlas_tune.environments.alfworld.telling import NOTHING_HAPPENS, opening
from atlas_tune.environments.alfworld.world import World
from atlas_tune.environments.base import Expert, TextEnv
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory import Trajectory

INSTRUCTION = (
    "Do a household task. Each turn, do one of these:\n"
    "go to PLACE\nopen PLACE\nclose PLACE\ntake THING from PLACE\nput THING in/on PLACE\n"
    "clean THING with PLACE\nheat THING with PLACE\ncool THING with PLACE\n"
    "slice THING with KNIFE\nuse LAMP\nexamine THING\ninventory\nlook\n"
    "Names are those that you read, with their number: go to drawer 2. You hold one thing at a "
    "time. What cannot be done is answered with: Nothing happens."
)
TYPES = (
    "look_at_obj_in_light",
    "pick_and_place_simple",
    "pick_clean_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_two_obj_and_place",
)
_TEST = "valid_unseen"


class AlfWorld(TextEnv):
    """The environment "alfworld". A task id is the path of a game: "train/<task>/<trial>".

    The reward of the step that reaches the goal is 1, every other reward is 0.
    """

    name: ClassVar[str] = "alfworld"
    instruction: ClassVar[str] = INSTRUCTION
    max_steps: ClassVar[int] = 30
    metric: ClassVar[str] = "success"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid_train", "valid_seen", "test")

    def __init__(self) -> None:
        """Find the games; they are read when they are needed.

        Raises:
            AtlasError: there are none on this machine; the message says how to get them.
        """
        super().__init__()
        self.games = Games(find_source())
        self.task_id = ""
        self.world: World | None = None
        self._success = False

    @property
    def lists_tasks_at_once(self) -> bool:
        """Whether ``tasks`` need not pack the games first, which takes about 20 seconds."""
        return self.games.is_packed

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """The solvable games of a split; "test" is ALFWorld's valid_unseen, by either name.

        The one option is ``types``, a name or a list of names of :data:`TYPES`; without it, all.
        The types take turns, so that the first tasks hold every type equally often.
        """
        split = "test" if split == _TEST else split
        self.check_split(split)
        for option in options:
            if option != "types":
                raise UsageError(
                    f"alfworld has no task option '{option}': {nearest(option, ['types'])}"
                )
        types = _types(options["types"]) if "types" in options else TYPES
        folder = _TEST if split == "test" else split
        of_type: dict[str, list[str]] = defaultdict(list)
        for task_id in self.games.tasks:
            if task_id.startswith(f"{folder}/"):
                of_type[task_id.split("/")[1].partition("-")[0]].append(task_id)
        turns = zip_longest(*(sorted(of_type[name], key=_shuffled) for name in types))
        return [task for turn in turns for task in turn if task is not None]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``; ``seed`` has no say."""
        name = (options or {}).get("task_id")
        if not isinstance(name, str) or name not in self.games.tasks:
            raise UsageError(
                f"alfworld has no game {name!r}: a task is one of tasks(split), such as "
                f"'{next(iter(self.games.tasks))}', and a solvable one."
            )
        self.task_id = name
        self.world = World(self.games.problem(name))
        self._success = self.world.won
        return opening(self.world, self.games.tasks[name]), self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action; one that is not admissible changes nothing."""
        if self.world is None or self._success:
            raise gymnasium.error.ResetNeeded("ALFWorld has no running task: call reset first.")
        deed = find_deed(self.world, action.strip())
        if deed is None:
            return NOTHING_HAPPENS, 0.0, False, False, self._info(valid=False)
        answer = deed.do(self.world)
        self._success = self.world.won
        return answer, float(self._success), self._success, False, self._info(valid=True)

    def admissible(self) -> list[str]:
        """The actions that would do something now, sorted."""
        if self.world is None:
            raise UsageError("ALFWorld has no running task: call reset first.")
        return admissible(self.world)

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the game of a run: the one it names, else the one that it was played in.

        A run that names none of our games is held against the games whose room and task its
        first observation tells. Where these are several, the one that answers most of the
        recorded actions as recorded is taken; of equals, the first by name.

        Raises:
            UsageError: it names no game, and no game begins as it does.
        """
        if trajectory.task_id in self.games.tasks:
            return self.reset(options={"task_id": trajectory.task_id})
        found = self._games_like(trajectory)
        if not found:
            raise UsageError(
                f"Trajectory {trajectory.trajectory_id[:12]} names no game of ALFWorld and begins "
                "like none: give it the game's path as task_id, such as "
                f"'{next(iter(self.games.tasks))}'."
            )
        best = found[0]
        if len(found) > 1:
            best = max(found, key=lambda task_id: self._agreement(task_id, trajectory))
        return self.reset(options={"task_id": best})

    def expert(self, seed: int = 0, habits: Habits | None = None) -> Expert:
        """The recorded run of this game, played again; it has habits of its own.

        Neither ``seed`` nor ``habits`` has a say. ALFWorld recorded its expert on the games of
        ``train`` alone.

        Raises:
            UsageError: no game is running, or the recorded runs are not on this machine.
            ExpertFailed: there is no recorded run of this game.
        """
        if self.world is None:
            raise UsageError("ALFWorld has no running task to solve: call reset first.")
        return RecordedExpert(recorded_actions(self.task_id))

    def _games_like(self, trajectory: Trajectory) -> list[str]:
        """The games whose room and task a run's first observation tells."""
        text = first_text(trajectory)
        return [
            task_id
            for task_id, task in self.games.tasks.items()
            if task in text and folded(opening(World(self.games.problem(task_id)), task)) in text
        ]

    def _agreement(self, task_id: str, trajectory: Trajectory) -> int:
        """How many recorded actions this game answers as recorded."""
        self.reset(options={"task_id": task_id})
        same = 0
        for action, answer in recorded_moves(trajectory):
            if self._success:
                break
            same += self.step(action)[0] in answer
        return same

    def _info(self, *, valid: bool) -> dict[str, Any]:
        return {"success": self._success, "valid": valid}


def _types(names: object) -> list[str]:
    """The task types of a name or of a list of names, each once."""
    listed = [names] if isinstance(names, str) else names
    if not (isinstance(listed, Sequence) and listed and all(isinstance(n, str) for n in listed)):
        raise UsageError(
            "alfworld's task option 'types' is the name of a task type or a list of names, such as "
            f"['{TYPES[0]}'], not {names!r}."
        )
    for name in listed:
        if name not in TYPES:
            raise UsageError(f"alfworld has no task type '{name}': {nearest(name, TYPES)}")
    return list(dict.fromkeys(listed))


def _shuffled(task_id: str) -> str:
    """An order that mixes the rooms, the same everywhere."""
    return hashlib.sha256(task_id.encode()).hexdigest()
