"""The episodes that a server runs: numbered, each with a lock of its own, dropped when idle."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atlas_tune.environments.base import TextEnv
from atlas_tune.errors import AtlasError, UsageError

IDLE_SECONDS = 3600.0
"""An episode that nobody has asked about for so long is dropped."""
MOST = 1000
"""Episodes at once."""


@dataclass
class Running:
    """One environment and how its episode stands."""

    env: TextEnv
    used_at: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    task_id: str | None = None
    opening: str = ""
    """The first observation of the task."""
    observation: str = ""
    score: float = 0.0
    """The rewards so far, summed."""
    done: bool = False


class Episodes:
    """The running environments of one server; may be used from many threads."""

    def __init__(
        self,
        make_env: Callable[[], TextEnv],
        *,
        idle_seconds: float = IDLE_SECONDS,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make_env`` makes one environment; ``clock`` tells the seconds."""
        self._make_env = make_env
        self._idle_seconds = idle_seconds
        self._most = most
        self._clock = clock
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()
        # Not from 0: a client that has not noticed a restart must not meet another's episode.
        self._numbers = itertools.count(secrets.randbelow(10**9))

    def __len__(self) -> int:
        return len(self._running)

    def create(self) -> int:
        """Make an environment and return its number.

        Raises:
            AtlasError: too many run already.
        """
        self.drop_idle()
        env = self._make_env()
        with self._lock:
            if len(self._running) < self._most:
                number = next(self._numbers)
                self._running[number] = Running(env, self._clock())
                return number
        env.close()
        raise AtlasError(
            f"{self._most} environments run here, and no more may: close some, or wait until idle "
            f"ones are dropped after {self._idle_seconds:g} seconds."
        )

    def reset(self, number: int, task_id: str) -> dict[str, Any]:
        """Start a task in an environment; the reply that AgentGym's servers give.

        Raises:
            UsageError: no such environment or task.
        """
        running = self._find(number)
        with running.lock:
            observation, info = running.env.reset(options={"task_id": task_id})
            running.task_id = task_id
            running.opening = running.observation = observation
            running.score, running.done = 0.0, False
            return self._reply(number, running, 0.0, info)

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Take one action.

        Raises:
            UsageError: no such environment, or its episode has not begun or has ended.
        """
        running = self._find(number)
        with running.lock:
            if running.task_id is None:
                raise UsageError(f"The environment {number} has no task: reset it first.")
            if running.done:
                # In AgentGym's words, as its clients may look for them.
                raise UsageError(f"The task with environment {number} has finished.")
            observation, reward, terminated, truncated, info = running.env.step(action)
            running.observation = observation
            running.score += float(reward)
            running.done = terminated or truncated
            return self._reply(number, running, float(reward), info)

    def observation(self, number: int) -> str:
        """What was observed last; empty before the first task."""
        running = self._find(number)
        with running.lock:
            return running.observation

    def opening(self, number: int) -> str:
        """What was observed first in the task under way; empty before the first task."""
        running = self._find(number)
        with running.lock:
            return running.opening

    def close(self, number: int) -> None:
        """Drop an environment.

        Raises:
            UsageError: no such environment.
        """
        running = self._find(number)
        with self._lock:
            self._running.pop(number, None)
        with running.lock:
            running.env.close()

    def drop_idle(self) -> int:
        """Drop what nobody has used for long, but nothing that is answering; returns how many."""
        latest = self._clock() - self._idle_seconds
        with self._lock:
            idle = {
                number: running
                for number, running in self._running.items()
                if running.used_at < latest and not running.lock.locked()
            }
            for number in idle:
                del self._running[number]
        for running in idle.values():
            running.env.close()
        return len(idle)

    def _find(self, number: int) -> Running:
        with self._lock:
            running = self._running.get(number)
            if running is None:
                # The first sentence is AgentGym's.
                raise UsageError(
                    f"The id {number} is not valid. It was closed, or dropped after "
                    f"{self._idle_seconds:g} seconds without a request; create another."
                )
            running.used_at = self._clock()
            return running

    def _reply(
        self, number: int, running: Running, reward: float, info: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": number,
            "observation": running.observation,
            "reward": reward,
            "score": running.score,
            "done": running.done,
            "success": bool(info["success"]),
            "valid": bool(info["valid"]),
            "task_id": running.task_id,
        }
