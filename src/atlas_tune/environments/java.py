"""Games that run in Java: one Java process for all environments of a kind in a Python process.

A Java program that keeps each game in an object of its own serves many episodes at once, so that
32 of them cost one process and not 32. The process ends with ours, however that ends: it waits for
the end of its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, Generic, TypeVar

from atlas_tune.environments.base import EnvironmentLost
from atlas_tune.errors import AtlasError


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """What runs in Java, and for how long an answer of it is waited for."""

    environment: str
    """The name of its environment, and of the extra that brings it."""
    title: str
    """Its name in sentences."""
    packages: tuple[str, ...]
    """The Python packages that it needs."""
    place: Callable[[], tuple[str, str]]
    """Its jar and the folder to run in; asked only when the packages are here."""
    patience: float
    """Seconds after which a call counts as hung."""
    options: tuple[str, ...] = ("-XX:+UseSerialGC",)
    """What Java itself is told."""


def check_installed(program: JavaProgram) -> None:
    """Check that the packages and Java are here, without starting anything.

    Raises:
        AtlasError: one is missing; the message says how to get it.
    """
    for package in program.packages:
        if importlib.util.find_spec(package) is None:
            raise AtlasError(
                f"The environment '{program.environment}' needs the package '{package}': "
                f"pip install 'atlas-tune[{program.environment}]'."
            )
    java(program)


def java(program: JavaProgram) -> str:
    """The path of the ``java`` to use: on ``PATH``, else below ``JAVA_HOME``.

    Raises:
        AtlasError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java") or (home and shutil.which("java", path=Path(home) / "bin"))
    if not found:
        raise AtlasError(
            f"The environment '{program.environment}' runs on Java, and there is no 'java' on PATH "
            "or below JAVA_HOME: install a Java runtime, version 8 or later (Debian: "
            "default-jre-headless)."
        )
    return found


class JavaProcess:
    """A Java process with a program in it; several threads may call it at once."""

    def __init__(self, program: JavaProgram) -> None:
        """Start it.

        Raises:
            AtlasError: a package or Java is missing, or Java does not start.
        """
        check_installed(program)
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        self.program, self.owner = program, os.getpid()
        self.process: Popen[bytes]
        jar, folder = program.place()
        path = java(program)
        try:
            port, self.process = launch_gateway(
                classpath=jar,
                javaopts=list(program.options),
                java_path=path,
                cwd=folder,
                die_on_exit=True,
                return_proc=True,
            )
        # py4j reads the port from Java's first line; a Java that fails says something else there.
        except (ValueError, OSError) as error:
            raise AtlasError(
                f"Java ({path}) did not start {program.title}: {error}. Run '{path} -version' to "
                "see whether it works."
            ) from error
        self._gateway = JavaGateway(
            gateway_parameters=GatewayParameters(port=port, read_timeout=program.patience),
            java_process=self.process,
        )
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether the Java process runs."""
        return self.process.poll() is None

    def new(self, java_class: str, *arguments: object) -> Any:
        """A new object of a Java class, named with its packages.

        Raises:
            EnvironmentLost: the process died, hangs, or failed at this call.
        """

        def make() -> Any:
            made = self._gateway.jvm
            for part in java_class.split("."):
                made = getattr(made, part)
            return made(*arguments)

        return self.call(make)

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call something that asks this process.

        Raises:
            EnvironmentLost: the process died, hangs, or failed at this call. Where it hangs it is
                ended: what comes late would answer the next question.
        """
        from py4j.protocol import Py4JError, Py4JJavaError

        title = self.program.title
        # A fork has a copy of our socket to its parent's process; two that talk there get mixed.
        if self.owner != os.getpid() or not self.alive:
            raise EnvironmentLost(
                f"{title}'s Java process has ended, and its episodes with it: start the task "
                "again, and a new one is started for it."
            )
        try:
            return function(*arguments)
        except Py4JJavaError as error:
            what = str(error.java_exception)
            raise EnvironmentLost(
                f"{title} failed in Java at {arguments!r}: {what}. Start the task again."
            ) from error
        except (Py4JError, OSError) as error:
            self.stop()
            raise EnvironmentLost(
                f"{title}'s Java process died or gave no answer for {self.program.patience:g} "
                "seconds, and was ended: start the task again, and a new one is started for it."
            ) from error

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


_Process = TypeVar("_Process", bound=JavaProcess)


class SharedJava(Generic[_Process]):
    """The one process of a kind that all environments of this Python process use."""

    def __init__(self, start: Callable[[], _Process]) -> None:
        """Nothing is started yet; ``start`` does it when a process is first needed."""
        self._start = start
        self._lock = threading.RLock()
        self._running: _Process | None = None

    def process(self) -> _Process:
        """The running process; a new one where there is none, it died, or a fork inherited it.

        Raises:
            AtlasError: a package or Java is missing, or Java does not start.
        """
        with self._lock:
            running = self._running
            if running is None or running.owner != os.getpid() or not running.alive:
                running = self._running = self._start()
            return running
