"""Games that run in Java: one Java process for all environments of a kind in a Python process.

A Java program that keeps each game in an object of its own serves many episodes at once, so that
32 of them cost one process and not 32. The process ends with ours, however that ends: it waits for
the end of its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
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
    one_at_a_time: bool = False
    """Whether calls of several threads must wait for each other, lest its games get mixed."""


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


class _ToldAsLost(logging.Filter):
    """Keeps py4j's tracebacks of a broken connection to itself, inside a call of ours.

    There the caller is told by :class:`EnvironmentLost`. What py4j says of anybody else's
    connection passes, as does all that others log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calling = threading.local()
        # py4j logs some by the root logger and some by its own.
        for name in (None, "py4j.java_gateway"):
            logging.getLogger(name).addFilter(self)

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """While one call of ours runs in this thread."""
        self._calling.now = True
        try:
            yield
        finally:
            self._calling.now = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        from_py4j = record.module == "java_gateway" and record.exc_info is not None
        return not (from_py4j and getattr(self._calling, "now", False))


_told_as_lost = _ToldAsLost()


class JavaProcess:
    """A Java process with a program in it; several threads may call it at once."""

    def __init__(self, program: JavaProgram) -> None:
        """Start it.

        Raises:
            AtlasError: a package or Java is missing, or Java does not start.
        """
        check_installed(program)
        from py4j.java_gateway import (
            GatewayClient,
            GatewayParameters,
            JavaGateway,
            launch_gateway,
        )

        self.program, self.owner = program, os.getpid()
        self.process: Popen[bytes]
        self._turn: contextlib.AbstractContextManager[object] = (
            threading.RLock() if program.one_at_a_time else contextlib.nullcontext()
        )
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
        parameters = GatewayParameters(port=port, read_timeout=program.patience)
        self._client = GatewayClient(gateway_parameters=parameters)
        self._gateway = JavaGateway(gateway_parameters=parameters, java_process=self.process)
        self._gateway.set_gateway_client(self._client)
        atexit.register(self.stop)
        _started.add(self)

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
        if self.owner != os.getpid() or not self.alive:
            self.stop()
            raise EnvironmentLost(
                f"{title}'s Java process has ended, and its episodes with it: start the task "
                "again, and a new one is started for it."
            )
        try:
            with self._turn, _told_as_lost.during():
                try:
                    return function(*arguments)
                except Py4JJavaError as error:
                    # This asks Java for the words, and may be what it dies of.
                    failure, cause = str(error.java_exception), error
        except (Py4JError, OSError) as error:
            self.stop()
            raise EnvironmentLost(
                f"{title}'s Java process died or gave no answer for {self.program.patience:g} "
                "seconds, and was ended: start the task again, and a new one is started for it."
            ) from error
        raise EnvironmentLost(
            f"{title} failed in Java at {arguments!r}: {failure}. Start the task again."
        ) from cause

    def stop(self) -> None:
        """End the Java process, if it is ours and still there."""
        if self.owner != os.getpid():
            return
        atexit.unregister(self.stop)
        # From here on py4j frees no object there, and opens no connection.
        self._client.is_connected = False
        self.process.kill()
        # A process stuck in the kernel is dead for us all the same.
        with contextlib.suppress(TimeoutExpired):
            self.process.wait(timeout=10)
        self._client.close()

    def _let_go(self) -> None:
        """In a fork: leave the process to our parent, whose connections we have copies of.

        Two that talk through one get mixed; what is collected here would be freed there; py4j
        would shut the parent's connections with ours; and Java waits for the end of its input
        at all who hold it.
        """
        self._client.is_connected = False
        for connection in self._client.deque:
            os.close(connection.socket.detach())
        self._client.deque.clear()
        if self.process.stdin is not None:
            self.process.stdin.close()


_started: weakref.WeakSet[JavaProcess] = weakref.WeakSet()


def _let_go_in_a_fork() -> None:
    for process in _started:
        process._let_go()


# Where there is no fork there is no such function.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_a_fork)

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
            if running is not None and running.owner == os.getpid() and running.alive:
                return running
            if running is not None:
                running.stop()
            self._running = self._start()
            return self._running
