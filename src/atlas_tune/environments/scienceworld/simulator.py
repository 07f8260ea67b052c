"""The simulator: one Java process, shared by all environments of this Python process.

Java holds each episode in an object of its own, and between them only a list of simplifications,
which every load fills anew with the same. So episodes that take turns in one JVM read what they
would read alone; a load beside another call would find the list half filled, so calls of several
threads wait for each other (tests hold both).
"""

from __future__ import annotations

from typing import Any

from atlas_tune.environments.java import JavaProcess, JavaProgram, SharedJava


def _place() -> tuple[str, str]:
    from scienceworld.constants import BASEPATH, JAR_PATH

    return str(JAR_PATH), str(BASEPATH)


PROGRAM = JavaProgram(
    environment="scienceworld",
    title="ScienceWorld",
    packages=("scienceworld", "py4j"),
    place=_place,
    # A slow gold path takes 16 seconds; a step far less than 1.
    patience=120.0,
    options=(
        "-XX:+UseSerialGC",
        # Java's identity hashes are drawn by lot, and ScienceWorld walks sets of objects in their
        # order: which choice of an ambiguous request is "0", which body warms another first. With
        # one hash for all, a set is walked in one order, and the same actions give the same
        # episode.
        "-XX:+IgnoreUnrecognizedVMOptions",
        "-XX:+UnlockExperimentalVMOptions",
        "-XX:hashCode=2",
    ),
    one_at_a_time=True,
)
_shared = SharedJava(lambda: JavaProcess(PROGRAM))


def simulator() -> JavaProcess:
    """The running simulator of this Python process; a new one where there is none or it died.

    Raises:
        AtlasError: the package or Java is missing, or Java does not start.
    """
    return _shared.process()


class Game:
    """One game in a simulator. What it is asked are methods of Java's ``PythonInterface``."""

    def __init__(self, java: JavaProcess) -> None:
        """A game that is not loaded yet.

        Raises:
            EnvironmentLost: the simulator died or hangs.
        """
        self.java = java
        self._object = java.new("scienceworld.runtime.pythonapi.PythonInterface")

    def load(self, task: str, variation: int, *, gold: bool = False) -> None:
        """Start a variation of a task, with AgentGym's simplification."""
        self.ask("load", task, variation, "easy", gold)

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the game.

        Raises:
            EnvironmentLost: the simulator died, hangs, or failed at this call.
        """
        return self.java.call(getattr(self._object, method), *arguments)

    def numbers(self, method: str) -> list[int]:
        """What a method gives that lists whole numbers."""
        return [int(number) for number in self.ask(method)]

    def texts(self, method: str) -> list[str]:
        """What a method gives that lists texts."""
        return [str(text) for text in self.ask(method)]
