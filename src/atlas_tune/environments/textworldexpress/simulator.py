"""The simulator: the package's Java program, one process for all episodes.

Java holds each game in an object of its own and nothing between them, but for sorting: there games
of one problem move the very same things. A sorting game that finds that another one was played
since is played anew up to where it was. So episodes that take turns in one process, and in several
threads, read what they would read alone (tests hold that).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from atlas_tune.environments.java import JavaProcess, JavaProgram, SharedJava
from atlas_tune.environments.textworldexpress.games import ENVIRONMENT, GAMES, Task
from atlas_tune.errors import AtlasError


def _place() -> tuple[str, str]:
    from textworld_express.constants import BASEPATH, JAR_PATH

    return str(JAR_PATH), str(BASEPATH)


PROGRAM = JavaProgram(
    environment=ENVIRONMENT,
    title="TextWorldExpress",
    packages=("textworld_express", "py4j"),
    place=_place,
    # A step takes a millisecond, a game with its solution some tens.
    patience=60.0,
    # Java's own bound is a quarter of the machine's memory, which it would fill before it tidies.
    options=("-XX:+UseSerialGC", "-Xmx512m"),
)


class Simulator(JavaProcess):
    """The Java process, and what makes its games."""

    def __init__(self, program: JavaProgram = PROGRAM) -> None:
        """Start it.

        Raises:
            AtlasError: the package or Java is missing, or Java does not start.
        """
        super().__init__(program)
        self._makers: dict[str, Any] = {}
        self.sorting = threading.RLock()
        self.sorter: Game | None = None
        """The sorting game that was played last; ``sorting`` guards it."""

    def interface(self) -> Any:
        """A Java object that can hold a game."""
        return self.new("textworldexpress.runtime.PythonInterface")

    def maker(self, game: str) -> Any:
        """The Java object that makes games of a kind from seeds.

        To set one up Java reads a table of things, which takes longer than a whole episode. It has
        nothing in it that changes, so all episodes share it.

        Raises:
            AtlasError: this version of the package does not take the parameters.
            EnvironmentLost: the simulator died or hangs.
        """
        if game not in self._makers:
            loader = self.interface()
            refused = self.call(loader.load, game, GAMES[game].parameters)
            if refused:
                raise AtlasError(
                    f"The installed textworld-express does not take the game '{game}' as we set "
                    f"it: {refused}. Install the version of constraints.txt."
                )
            self._makers[game] = self.call(loader.gameGenerator)
        return self._makers[game]


_shared = SharedJava(Simulator)


def simulator() -> Simulator:
    """The running simulator of this Python process; a new one where there is none or it died.

    Raises:
        AtlasError: the package or Java is missing, or Java does not start.
    """
    return _shared.process()


@dataclass(frozen=True, slots=True)
class State:
    """What the game says after an action, or at its start."""

    observation: str
    score: float
    """Normalised: 1 is all points of the game; -1 where it was failed outright."""
    succeeded: bool
    failed: bool
    valid_actions: frozenset[str]
    """All actions that the game takes next; it answers no other."""

    @property
    def ended(self) -> bool:
        """Whether nothing more can be won or lost."""
        return self.succeeded or self.failed


class Game:
    """One game in a simulator.

    Every method raises :class:`EnvironmentLost` where the simulator died or hangs.
    """

    def __init__(self, java: Simulator) -> None:
        """A game that is not started yet."""
        self.java = java
        self._interface = java.interface()
        self._task: Task | None = None
        self._played: list[str] = []

    def start(self, task: Task) -> State:
        """Start a task."""
        with self.java.sorting:
            self._task, self._played = task, []
            return self._begun(task)

    def _begun(self, task: Task) -> State:
        if task.game == "sorting":
            self.java.sorter = self
        # Scala's name of the assignment interface.gameGenerator = ...
        assign = getattr(self._interface, "gameGenerator_$eq")
        self.java.call(assign, self.java.maker(task.game))
        return self._read(
            self.java.call(self._interface.generateNewGameJSON, task.seed, task.split, False)
        )

    def described(self) -> str:
        """The description of the task."""
        return str(self.java.call(self._interface.getTaskDescription))

    def act(self, action: str) -> State:
        """Take an action."""
        if self._task is None or self._task.game != "sorting":
            return self._acted(action)
        with self.java.sorting:
            self._take_back(self._task)
            self._played.append(action)
            return self._acted(action)

    def _take_back(self, task: Task) -> None:
        """Bring the things where this game left them, if another sorting game was played since."""
        if self.java.sorter is not self:
            self._begun(task)
            for action in self._played:
                self._acted(action)

    def _acted(self, action: str) -> State:
        return self._read(self.java.call(self._interface.stepJSON, action))

    def solved(self, task: Task, lot: int) -> tuple[str, ...] | None:
        """The package's own solution of a task; None where it found none.

        Its agents walk at random where they search. The package gives them an unseeded generator;
        here ``lot``, of 31 bits, seeds it, so that a solution can be had again. It plays in this
        game, which must be started before it is played again.
        """
        java = self.java
        name = f"textworldexpress.goldagent.{GAMES[task.game].gold_agent}"
        with java.sorting:
            self.start(task)
            agent = java.new(name, java.call(self._interface.game))
            pair = java.call(agent.mkGoldPath, java.new("scala.util.Random", lot))
            if not java.call(pair._1):
                return None
            return tuple(str(action) for action in java.call(pair._2))

    def _read(self, answer: str) -> State:
        read = json.loads(answer)
        return State(
            observation=read["observation"].strip(),
            score=read["score"],
            succeeded=read["tasksuccess"],
            failed=read["taskfailure"],
            valid_actions=frozenset(read["validActions"]),
        )
