"""ScienceWorld as an environment: melt, grow, measure, mix and classify things, all in words.

The simulator is the package's own. Its ``step`` in Python lists all valid actions each time,
which is most of its time; ours asks Java for the text, the score and the end alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.habits import Habits, seeded
from atlas_tune.environments.java import check_installed
from atlas_tune.environments.scienceworld import tables
from atlas_tune.environments.scienceworld.expert import NOT_UNDERSTOOD, GoldExpert
from atlas_tune.environments.scienceworld.index import agentgym_tasks, foreign_number, numbered
from atlas_tune.environments.scienceworld.simulator import PROGRAM, Game, simulator
from atlas_tune.environments.scienceworld.spelling import former, is_former, todays
from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory import Trajectory

INSTRUCTION = (
    "Do a task in a small world of science. Each turn, do one of these:\n"
    "look around\nlook at THING\nlook in THING\nread THING\ngo to PLACE\nopen THING\n"
    "close THING\npick up THING\nput down THING\nmove THING to THING\npour THING into THING\n"
    "dunk THING into THING\nmix THING\nuse THING on THING\nactivate THING\ndeactivate THING\n"
    "connect THING to THING\ndisconnect THING\nfocus on THING\neat THING\nflush THING\n"
    "wait\nwait1\ninventory\ntask\n"
    "wait lets ten moments pass, wait1 one. Focus only on what the task names: focusing on a wrong "
    "thing fails it. An action that may mean several things is answered with a list: reply with "
    "a number of it."
)
_AGENTGYM = "agentgym"
_OPENING = 4
"""A system message, the instruction, a prefill, and the first observation at the latest."""


class ScienceWorld(TextEnv):
    """The environment "scienceworld". A task id is "scienceworld/<task>/<variation>".

    The reward of a step is the rise of the score, from 0 to 1; so the return is the last score,
    and at most 1. As in AgentGym, a task that is failed for good has the score -1 and ends.
    Where the start itself is worth something, the first step has that in its reward whatever it
    does: without it the return would not be AgentGym's score.
    """

    name: ClassVar[str] = "scienceworld"
    instruction: ClassVar[str] = INSTRUCTION
    max_steps: ClassVar[int] = 30
    metric: ClassVar[str] = "reward"
    splits: ClassVar[tuple[str, ...]] = ("train", "dev", "test")

    def __init__(self) -> None:
        """Nothing is started yet: Java is, at the first task.

        Raises:
            AtlasError: the package or Java is missing.
        """
        super().__init__()
        check_installed(PROGRAM)
        self.task_id = ""
        self._game: Game | None = None
        self._running = False
        self._spells_as_before = False
        self._score = 0

    @property
    def lists_tasks_at_once(self) -> bool:
        """Whether ``tasks`` need not start Java first, to ask the simulator once."""
        return tables.is_listed()

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """The variations of a split, by ScienceWorld's own lists; the tasks take turns.

        The one option is ``tasks``, a name or a list of names of tasks ("boil"); "agentgym" names
        the 22 that AgentGym takes. Without it, all 30.
        """
        self.check_split(split)
        for option in options:
            if option != "tasks":
                raise UsageError(
                    f"scienceworld has no task option '{option}': {nearest(option, ['tasks'])}"
                )
        known = tables.task_names()
        chosen = _chosen(options["tasks"], known) if "tasks" in options else list(known.values())
        lists = tables.variations(split)
        of_task = [
            sorted((f"{self.name}/{task}/{number}" for number in lists[task]), key=_shuffled)
            for task in chosen
        ]
        return [task for turn in zip_longest(*of_task) for task in turn if task is not None]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``; ``seed`` has no say.

        Raises:
            UsageError: there is no such task.
            EnvironmentLost: the simulator died or hangs; the next reset starts a new one.
        """
        task_id = (options or {}).get("task_id")
        task, variation = self._parsed(task_id)
        self._running = self._spells_as_before = False
        if self._game is None or self._game.java is not simulator():
            self._game = Game(simulator())
        self._game.load(task, variation)
        self.task_id, self._score, self._running = str(task_id), 0, True
        # AgentGym's first observation: the task, then the answer to a first look.
        told = self._game.ask("getTaskDescription")
        return f"{told}\n{self._game.ask('step', 'look around')}", self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            EnvironmentLost: the simulator died or hangs; the next reset starts a new one.
        """
        if self._game is None or not self._running:
            raise gymnasium.error.ResetNeeded(
                "scienceworld has no episode under way: call reset before step."
            )
        understood = todays(action) if self._spells_as_before else action
        observation = str(self._game.ask("step", understood))
        score = round(100 * self._game.ask("getScore"))
        reward, self._score = (score - self._score) / 100, score
        ended = bool(self._game.ask("getCompleted")) or score < 0
        self._running = not ended
        info = self._info(valid=not observation.startswith(NOT_UNDERSTOOD))
        told = former(observation) if self._spells_as_before else observation
        return told, reward, ended, False, info

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the task of a run: by its id if it is ours, else by AgentGym's number.

        A numbered run must begin with the words of its task: numbers of another count would
        else replay in a wrong task. Where the run was told names in the spelling of before
        ("green house"), this episode understands and tells them so too.

        Raises:
            UsageError: it names no task, or begins with the words of another one.
        """
        number = foreign_number(trajectory.task_id or "")
        if number is None:
            observation, info = super().reset_to(trajectory)
        else:
            observation, info = self._reset_to_number(trajectory, number)
        self._spells_as_before = is_former(_told_in(trajectory))
        return (former(observation) if self._spells_as_before else observation), info

    def _reset_to_number(self, trajectory: Trajectory, number: int) -> tuple[str, dict[str, Any]]:
        short = f"Trajectory {trajectory.trajectory_id[:12]} ({trajectory.task_id})"
        names = agentgym_tasks(tables.task_names())
        try:
            task, variation = numbered(number, names, tables.counts())
        except IndexError as error:
            raise UsageError(
                f"{short} cannot be replayed in scienceworld: AgentGym counts only "
                f"{sum(tables.counts()[name] for name in names)} tasks, from 0."
            ) from error
        started = self.reset(options={"task_id": f"{self.name}/{task}/{variation}"})
        assert self._game is not None
        told = str(self._game.ask("getTaskDescription"))
        if _folded(told) not in _folded(" ".join(s.message for s in trajectory.steps[:_OPENING])):
            self._running = False
            raise UsageError(
                f"{short} cannot be replayed in scienceworld: by AgentGym's count it is "
                f"{self.task_id}, but it does not begin with that task's words. Give it its own "
                "task_id when importing."
            )
        return started

    def expert(self, seed: int = 0, habits: Habits | None = None) -> GoldExpert:
        """ScienceWorld's gold path of this task, played with ``habits``.

        Raises:
            EnvironmentLost: the simulator died or hangs.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded(
                "scienceworld has no episode under way: call reset before expert."
            )
        task, variation = self._parsed(self.task_id)
        return GoldExpert(
            tables.gold_path(task, variation),
            habits=Habits() if habits is None else habits,
            draw=seeded("scienceworld expert", self.task_id, seed),
            steps=self.max_steps,
        )

    def close(self) -> None:
        """Let go of the episode; the simulator goes on for other environments."""
        self._game, self._running = None, False

    def _parsed(self, task_id: object) -> tuple[str, int]:
        parts = task_id.split("/") if isinstance(task_id, str) else []
        if len(parts) == 3 and parts[0] == self.name and parts[1] in tables.task_names().values():
            number = parts[2]
            if number.isascii() and number.isdigit() and str(int(number)) == number:
                if int(number) < tables.counts()[parts[1]]:
                    return parts[1], int(number)
                raise UsageError(
                    f"scienceworld has no task {task_id!r}: {parts[1]} has the variations 0 to "
                    f"{tables.counts()[parts[1]] - 1}."
                )
        raise UsageError(
            f"scienceworld has no task {task_id!r}: a task is one of tasks(split), such as "
            "'scienceworld/boil/0'."
        )

    def _info(self, *, valid: bool) -> dict[str, Any]:
        return {"success": self._score == 100, "valid": valid}


def _chosen(value: object, known: dict[str, str]) -> list[str]:
    """The names of the tasks that the option ``tasks`` asks for, each once."""
    asked = [value] if isinstance(value, str) else value
    if not isinstance(asked, list | tuple) or not all(isinstance(name, str) for name in asked):
        raise UsageError(
            f"scienceworld's task option 'tasks' is the name of a task or a list of names, not "
            f"{value!r}."
        )
    chosen: list[str] = []
    for name in asked:
        if name != _AGENTGYM and name not in known.values():
            hint = nearest(name, [_AGENTGYM, *known.values()])
            raise UsageError(f"scienceworld has no task '{name}': {hint}")
        chosen += agentgym_tasks(known) if name == _AGENTGYM else [name]
    return list(dict.fromkeys(chosen))


def _shuffled(task_id: str) -> str:
    """An order that has nothing to do with what the tasks are."""
    return hashlib.sha256(task_id.encode()).hexdigest()


def _told_in(trajectory: Trajectory) -> Iterator[str]:
    """What the environment said in a run; an agent may spell as it likes."""
    for step in trajectory.steps:
        if step.source == "user":
            yield step.message
        if step.observation is not None:
            yield step.observation.text


def _folded(text: str) -> str:
    """On one line, as before 1.1.0, in which AgentTraj-L was recorded: without "celsius"."""
    return " ".join(todays(text).replace(" celsius", "").split())
