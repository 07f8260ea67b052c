"""The simulator: one Java process, shared by all environments of this Python process.

Java holds each episode in an object of its own and nothing between them, so episodes that take
turns in one JVM read what they would read alone (tests hold that). The JVM ends with our process,
however that ends: it waits for the end of its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import threading
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from atlas_tune.environments.base import EnvironmentLost
from atlas_tune.errors import AtlasError

PATIENCE = 120.0
"""Seconds after which a call counts as hung. A slow gold path takes 16; a step far less than 1."""
_JAVA_OPTIONS = [
    "-XX:+UseSerialGC",
    # Java's identity hashes are drawn by lot, and ScienceWorld walks sets of objects in their
    # order: which choice of an ambiguous request is "0", which body warms another first. With one
    # hash for all, a set is walked in one order, and the same actions give the same episode.
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
]
_lock = threading.RLock()
_running: Simulator | None = None


def check_installed() -> None:
    """Check that the package and Java are here, without starting anything.

    Raises:
        AtlasError: one is missing; the message says how to get it.
    """
    for package in ("scienceworld", "py4j"):
        if importlib.util.find_spec(package) is None:
            raise AtlasError(
                f"The environment 'scienceworld' needs the package '{package}': "
                "pip install 'atlas-tune[scienceworld]'."
            )
    java()


def java() -> str:
    """The path of the ``java`` to use: on ``PATH``, else below ``JAVA_HOME``.

    Raises:
        AtlasError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java") or (home and shutil.which("java", path=Path(home) / "bin"))
    if not found:
        raise AtlasError(
            "The environment 'scienceworld' runs on Java, and there is no 'java' on PATH or below "
            "JAVA_HOME: install a Java runtime, version 8 or later (Debian: default-jre-headless)."
        )
    return found


def simulator() -> Simulator:
    """The running simulator of this process; a new one where there is none or it died.

    Raises:
        AtlasError: Java is missing or does not start.
    """
    global _running
    with _lock:
        # A fork has a copy of our socket to its parent's JVM; two that talk through it get mixed.
        if _running is None or _running.owner != os.getpid() or not _running.alive:
            _running = Simulator()
        return _running


class Simulator:
    """A Java process with ScienceWorld in it."""

    def __init__(self) -> None:
        check_installed()
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
        from scienceworld.constants import BASEPATH, JAR_PATH

        self.owner = os.getpid()
        self.process: Popen[bytes]
        try:
            port, self.process = launch_gateway(
                classpath=JAR_PATH,
                javaopts=_JAVA_OPTIONS,
                java_path=java(),
                cwd=BASEPATH,
                die_on_exit=True,
                return_proc=True,
            )
        # py4j reads the port from Java's first line; a Java that fails says something else there.
        except (ValueError, OSError) as error:
            raise AtlasError(
                f"Java ({java()}) did not start ScienceWorld: {error}. Run '{java()} -version' to "
                "see whether it works."
            ) from error
        self._gateway = JavaGateway(
            gateway_parameters=GatewayParameters(auto_field=True, port=port, read_timeout=PATIENCE),
            java_process=self.process,
        )
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether the Java process runs."""
        return self.process.poll() is None

    def game(self) -> Game:
        """A game of its own in this simulator.

        Raises:
            EnvironmentLost: the simulator died or hangs.
        """
        return Game(self)

    def new_object(self) -> Any:
        """The Java object that holds one game."""
        return self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()

    def stop(self) -> None:
        """End the Java process, if it is ours and still there."""
        if self.owner != os.getpid():
            return
        atexit.unregister(self.stop)
        self.process.kill()
        # A process stuck in the kernel is dead for us all the same.
        with contextlib.suppress(TimeoutExpired):
            self.process.wait(timeout=10)
        self._gateway.shutdown()


class Game:
    """One game in a simulator. Its methods are those of Java's ``PythonInterface``."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._object: Any = None
        self._object = self._guarded(simulator.new_object)

    def load(self, task: str, variation: int, *, gold: bool = False) -> None:
        """Start a variation of a task, with AgentGym's simplification."""
        self.ask("load", task, variation, "easy", gold)

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the game.

        Raises:
            EnvironmentLost: the simulator died, hangs, or failed at this call.
        """
        return self._guarded(getattr(self._object, method), *arguments)

    def numbers(self, method: str) -> list[int]:
        """What a method gives that lists whole numbers."""
        return [int(number) for number in self.ask(method)]

    def texts(self, method: str) -> list[str]:
        """What a method gives that lists texts."""
        return [str(text) for text in self.ask(method)]

    def _guarded(self, call: Any, *arguments: object) -> Any:
        from py4j.protocol import Py4JError, Py4JJavaError

        if self.simulator.owner != os.getpid() or not self.simulator.alive:
            raise EnvironmentLost(
                "ScienceWorld's Java process has ended, and its episodes with it: start the task "
                "again, and a new one is started for it."
            )
        try:
            return call(*arguments)
        except Py4JJavaError as error:
            what = str(error.java_exception)
            raise EnvironmentLost(
                f"ScienceWorld failed in Java at {arguments!r}: {what}. Start the task again."
            ) from error
        except (Py4JError, OSError) as error:
            # What comes late would answer the next question, so nothing may follow a lost answer.
            self.simulator.stop()
            raise EnvironmentLost(
                f"ScienceWorld's Java process died or gave no answer for {PATIENCE:g} seconds, and "
                "was ended: start the task again, and a new one is started for it."
            ) from error
