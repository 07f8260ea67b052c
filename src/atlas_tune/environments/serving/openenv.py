"""Our environments for OpenEnv, the interface that several trainers take environments by.

OpenEnv (PyPI ``openenv``, BSD-3-Clause, written against 0.10) has ``reset(seed, episode_id)``,
``step(action)`` and ``state``, one session per WebSocket, and a task API of splits and indices.
It is an extra of its own: it brings gradio, fastmcp and a language-model client along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.serving.episodes import MOST
from atlas_tune.errors import UsageError


class TextAction(Action):  # type: ignore[misc]
    """What the agent does, in words."""

    action: str


class TextObservation(Observation):  # type: ignore[misc]
    """What the agent reads; ``reward`` is that of the step, ``done`` ends the episode."""

    text: str
    success: bool = False
    valid: bool = True


class TextState(State):  # type: ignore[misc]
    """How the episode stands; ``score`` is the sum of its rewards."""

    environment: str
    instruction: str
    max_steps: int
    task_id: str | None = None
    score: float = 0.0


class OpenEnvText(Environment):  # type: ignore[misc]
    """One of our environments as an OpenEnv environment."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env: TextEnv) -> None:
        super().__init__()
        self._env = env
        self._state = self._begun(None, None)

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        *,
        task_id: str | None = None,
        split: str = "train",
        index: int | None = None,
        **_: Any,
    ) -> TextObservation:
        """Start a task: by our id, else by its index in a split, else by the seed as that index.

        A seed counts on from the start where the split has fewer tasks.

        Raises:
            UsageError: no such task or split.
        """
        if task_id is None:
            tasks = self._env.tasks(split)
            place = (seed or 0) % len(tasks) if index is None else index
            if not 0 <= place < len(tasks):
                raise UsageError(
                    f"{self._env.name} has no task {place} in split '{split}': its indices run "
                    f"from 0 to {len(tasks) - 1}."
                )
            task_id = tasks[place]
        text, info = self._env.reset(options={"task_id": task_id})
        self._state = self._begun(episode_id, task_id)
        return TextObservation(text=text, success=info["success"], valid=info["valid"])

    def step(self, action: TextAction, timeout_s: float | None = None, **_: Any) -> TextObservation:
        """Take one action; ``timeout_s`` has no say, for our environments answer at once."""
        text, reward, terminated, truncated, info = self._env.step(action.action)
        self._state = self._state.model_copy(
            update={
                "step_count": self._state.step_count + 1,
                "score": self._state.score + float(reward),
            }
        )
        return TextObservation(
            text=text,
            reward=float(reward),
            done=terminated or truncated,
            success=info["success"],
            valid=info["valid"],
        )

    @property
    def state(self) -> TextState:
        """How the episode stands."""
        return self._state

    def close(self) -> None:
        """End the environment."""
        self._env.close()

    def list_splits(self) -> list[str]:
        """The splits, for OpenEnv's task API."""
        return list(self._env.splits)

    def num_tasks(self, split: str) -> int:
        """How many tasks a split has."""
        return len(self._env.tasks(split))

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """All tasks of a split."""
        return [{"id": task, "index": i} for i, task in enumerate(self._env.tasks(split))]

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """One task of a split; IndexError where there is none, as OpenEnv wants it."""
        if index < 0:
            raise IndexError(index)
        return {"id": self._env.tasks(split)[index], "index": index}

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Tasks of a split, bounded as a slice is."""
        return self.list_tasks(split)[start:stop]

    def _begun(self, episode_id: str | None, task_id: str | None) -> TextState:
        env = self._env
        return TextState(
            episode_id=episode_id or str(uuid4()),
            environment=env.name,
            instruction=env.instruction,
            max_steps=env.max_steps,
            task_id=task_id,
        )


def make_openenv_app(make_env: Callable[[], TextEnv], *, most: int = MOST) -> Callable[..., Any]:
    """OpenEnv's web application of an environment, with at most ``most`` sessions at once."""
    app: Callable[..., Any] = create_fastapi_app(
        lambda: OpenEnvText(make_env()),
        TextAction,
        TextObservation,
        max_concurrent_envs=most,
        env_name=make_env().name,
        state_cls=TextState,
    )
    return app
