"""An environment in a process of its own, which is killed when it hangs.

A step of a third party's environment can loop for ever, or take its whole process down. Here it
takes down a child: that is started anew (spawn, so that nothing of this process is copied), leads
a process group of its own, and is killed with all that it started when it exceeds its time.

The child ends with this process, however that ends: a thread of it waits for that.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

from atlas_tune.environments.base import EnvironmentLost, Expert, ExpertFailed, TextEnv, Turn
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory import Trajectory

START_SECONDS = 300.0
"""What making the environment may take: imports, data, a Java machine."""
STEP_SECONDS = 120.0
"""What a reset or a step may take, unless another limit is given."""
_PARTING_SECONDS = 2.0
"""What an environment may take to close itself before its process is killed."""


class EnvironmentCrashed(Exception):
    """The environment raised what nobody foresaw; the message has its type and words."""


_ERRORS: dict[str, type[Exception]] = {
    "usage": UsageError,
    "lost": EnvironmentLost,
    "expert": ExpertFailed,
    "atlas": AtlasError,
    "missing": ModuleNotFoundError,
    "crash": EnvironmentCrashed,
}
"""How an exception of the child is raised here; the first that fits has its word."""


class ProcessEnv(TextEnv):
    """An environment in a child process; it behaves as the environment itself does.

    A child that is lost (killed at its limit, or dead of its own) is started again by the next
    ``reset``.
    """

    def __init__(
        self,
        make_env: Callable[[], TextEnv],
        *,
        step_seconds: float = STEP_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Start the child and make the environment in it.

        Args:
            make_env: makes the environment; it is pickled, so it is a function of a module or a
                ``functools.partial`` of one.
            step_seconds: what a reset or a step may take.
            start_seconds: what making the environment may take.

        Raises:
            UsageError: a limit is not above 0.
            AtlasError: the environment cannot be made.
            EnvironmentLost: the child died, or making it took too long.
        """
        super().__init__()
        if not (step_seconds > 0 and start_seconds > 0):
            raise UsageError("The limit of an isolated environment is a number of seconds above 0.")
        self._make_env = make_env
        self._step_seconds = step_seconds
        self._start_seconds = start_seconds
        self._child: _Child | None = None
        about = self._started().about
        # Class variables elsewhere; here each environment has those of the one in its child.
        self.name = about["name"]  # type: ignore[misc]
        self.instruction = about["instruction"]  # type: ignore[misc]
        self.max_steps = about["max_steps"]  # type: ignore[misc]
        self.metric = about["metric"]  # type: ignore[misc]
        self.splits = about["splits"]  # type: ignore[misc]

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """See :meth:`TextEnv.tasks`; limited as the start is, because it may read data."""
        tasks: Sequence[str] = self._started().ask(self._start_seconds, "tasks", split, **options)
        return tasks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task, in a new child where the old one is lost.

        Raises:
            EnvironmentLost: the child exceeded its time and was killed, or it died.
            AtlasError: what the environment itself raises.
            EnvironmentCrashed: the environment failed in another way.
        """
        child = self._started()
        observation, info = child.ask(self._step_seconds, "reset", seed=seed, options=options)
        return str(observation), dict(info)

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the task of a recorded run; raises as :meth:`reset`."""
        observation, info = self._started().ask(self._step_seconds, "reset_to", trajectory)
        return str(observation), dict(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an action; raises as :meth:`reset`, also where the child was lost before."""
        if self._child is None:
            raise EnvironmentLost(
                "The process of this environment is gone, and its episode with it: reset it."
            )
        taken: tuple[str, float, bool, bool, dict[str, Any]]
        taken = self._child.ask(self._step_seconds, "step", action)
        return taken

    def restate(self, told: str, observation: str) -> str | None:
        """See :meth:`TextEnv.restate`; raises as :meth:`reset`."""
        restated: str | None
        restated = self._started().ask(self._step_seconds, "restate", told, observation)
        return restated

    def expert(self, seed: int = 0, habits: Habits | None = None) -> Expert:
        """The expert of the environment, which acts in the child; limited as a step is."""
        child = self._started()
        child.ask(self._step_seconds, "expert", seed, habits)
        return _RemoteExpert(child, self._step_seconds)

    def close(self) -> None:
        """Close the environment and end its process; nothing of it is left."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _started(self) -> _Child:
        if self._child is None or not self._child.alive:
            self.close()
            self._child = _Child(self._make_env, self._start_seconds)
        return self._child


class _RemoteExpert:
    """An expert in a child."""

    def __init__(self, child: _Child, seconds: float) -> None:
        self._child, self._seconds = child, seconds

    def act(self, observation: str) -> Turn:
        """The next turn; raises as :meth:`_Child.ask`."""
        turn: Turn = self._child.ask(self._seconds, "act", observation)
        return turn


class _Child:
    """A process with an environment in it."""

    def __init__(self, make_env: Callable[[], TextEnv], seconds: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        # Not a daemon in Python's sense: those may have no children, and some environments do.
        self._process = spawn.Process(target=_serve, args=(make_env, theirs), name="environment")
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        # Ends the child also where nobody closes it: when it is collected, and at the exit, before
        # multiprocessing waits there for children to end of their own.
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        atexit.register(self._end)
        try:
            self.about: dict[str, Any] = self._answer(seconds, "making it")
        except BaseException:
            self._kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive

    def ask(self, seconds: float, name: str, *words: Any, **named: Any) -> Any:
        """Call a method of the environment.

        Raises:
            EnvironmentLost: it takes longer, or the process is gone; it is killed and reaped.
            Exception: what the method raises, see ``_ERRORS``.
        """
        if not self.alive:
            self._lose("The process of this environment is gone.")
        try:
            self._pipe.send((name, words, named))
        except (OSError, ValueError):
            self._lose("The process of this environment died.")
        return self._answer(seconds, name)

    def end(self) -> None:
        """Let the environment close itself, kill what is left, and reap it."""
        if self.alive:
            with suppress(OSError, ValueError, EOFError):
                self._pipe.send(None)
                wait([self._process.sentinel], _PARTING_SECONDS)
        self._kill()

    def _answer(self, seconds: float, what: str) -> Any:
        try:
            if not self._pipe.poll(seconds):
                self._lose(
                    f"This environment took longer than {seconds:g} s for {what}, so its process "
                    "was killed. If it only needs more time for a step, raise --step-timeout."
                )
            word, value = self._pipe.recv()
        except (EOFError, OSError):
            wait([self._process.sentinel], _PARTING_SECONDS)
            code = self._kill()
            raise EnvironmentLost(
                f"The process of this environment died in {what} ({_how(code)})."
            ) from None
        except BaseException:
            # Ctrl-C leaves an answer under way, which the next question would take for its own.
            self._kill()
            raise
        if word == "ok":
            return value
        if word == "missing":
            raise ModuleNotFoundError(f"No module named '{value}'", name=value)
        raise _ERRORS[word](value)

    def _kill(self) -> int | None:
        """Kill and reap it; returns its exit code, the first time."""
        atexit.unregister(self._end)
        code: int | None = self._end()
        return code

    def _lose(self, why: str) -> NoReturn:
        self._kill()
        raise EnvironmentLost(why)


def _how(code: int | None) -> str:
    return f"by signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _end(process: SpawnProcess, pipe: Connection) -> int | None:
    """Kill a child with its group, and reap it, so that no zombie stays; returns its exit code."""
    pipe.close()
    assert process.pid is not None, "it was started"
    # It leads its group from its first moments on; where it died before, there is none. It is not
    # reaped yet, so that its number is still its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    code = process.exitcode
    process.close()
    return code


def _serve(make_env: Callable[[], TextEnv], pipe: Connection) -> None:
    """What the child does: make the environment, and answer until it is told to end."""
    os.setsid()  # Ctrl-C is the parent's, and a kill of the group takes the environment's own.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        env = make_env()
        about = {
            "name": env.name,
            "instruction": env.instruction,
            "max_steps": env.max_steps,
            "metric": env.metric,
            "splits": tuple(env.splits),
        }
    except Exception as error:
        _send(pipe, *_told(error))
        return
    _send(pipe, "ok", about)
    expert: Expert | None = None
    while (asked := _received(pipe)) is not None:
        name, words, named = asked
        try:
            value: Any = None
            if name == "expert":
                expert = env.expert(*words)
            elif name == "act":
                assert expert is not None
                value = expert.act(*words)
            else:
                value = getattr(env, name)(*words, **named)
        except Exception as error:
            _send(pipe, *_told(error))
        else:
            _send(pipe, "ok", value)
    with suppress(Exception):
        env.close()


def _received(pipe: Connection) -> Any:
    """The next question; None where there will be none."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _send(pipe: Connection, word: str, value: Any) -> None:
    with suppress(BrokenPipeError):
        try:
            pipe.send((word, value))
        except (TypeError, ValueError, AttributeError) as error:
            pipe.send(("crash", f"its answer cannot be sent to another process: {error}"))


def _told(error: Exception) -> tuple[str, str]:
    """The word and the text of an exception."""
    word = next((w for w, kind in _ERRORS.items() if isinstance(error, kind)), "crash")
    if isinstance(error, ModuleNotFoundError):
        return word, str(error.name)
    return word, f"{type(error).__name__}: {error}" if word == "crash" else str(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)
