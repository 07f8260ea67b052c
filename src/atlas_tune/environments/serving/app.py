"""The HTTP side of a served environment: AgentGym's paths and fields, and three of ours.

AgentGym's are ``POST /create``, ``/reset``, ``/step``, ``/close`` and ``GET /observation``. Ours
are ``GET /about`` (what is served), ``POST /tasks`` (the tasks of a split) and, in ``/reset``, a
``task_id`` in place of an index. Errors are HTTP 200 with ``{"error": …}``, as AgentGym's are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gymnasium.error import ResetNeeded
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.serving.episodes import IDLE_SECONDS, MOST, Episodes
from atlas_tune.environments.serving.openings import ROOTS, accepted_words, as_agentgym_tells
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.listening import Fields, fields_of
from atlas_tune.progress import say

_LARGEST_BODY = 2**20
_INDICES = ("data_idx", "game", "item_id", "session_id", "seed", "idx")
"""The names that AgentGym's dialects have for the index of a task."""
_SWEEP_SECONDS = 30.0


class Served:
    """One of our environments and what may be asked of it, as plain functions of JSON fields."""

    def __init__(
        self,
        make_env: Callable[[], TextEnv],
        split: str = "test",
        options: Fields | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        most: int = MOST,
    ) -> None:
        """AgentGym's indices count the tasks of ``split`` with these ``options``.

        Raises:
            UsageError: the environment has no such split or option.
            AtlasError: the environment cannot be made.
        """
        self._env = make_env()
        self._tasks: Sequence[str] = self._env.tasks(split, **(options or {}))
        self.episodes = Episodes(make_env, idle_seconds=idle_seconds, most=most)

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._env.name

    @property
    def indexed(self) -> int:
        """How many tasks have an index."""
        return len(self._tasks)

    def about(self, fields: Fields) -> dict[str, Any]:
        """What is served: what an agent is told, its limit, how it is counted, its splits."""
        env = self._env
        return {
            "environment": env.name,
            "instruction": env.instruction,
            "max_steps": env.max_steps,
            "metric": env.metric,
            "splits": list(env.splits),
        }

    def tasks(self, fields: Fields) -> dict[str, Any]:
        """The task ids of a split."""
        options = fields.get("options", {})
        if not isinstance(options, dict):
            raise UsageError(f"'options' is an object of task options, not {options!r}.")
        return {"tasks": list(self._env.tasks(_text(fields, "split"), **options))}

    def create(self, fields: Fields) -> dict[str, Any]:
        """A new environment; AgentGym's TextCraft client reads an observation here already."""
        return {"id": self.episodes.create(), "observation": "", "reward": 0, "done": False}

    def reset(self, fields: Fields) -> dict[str, Any]:
        """Start a task by its id, or by an index as AgentGym's clients do.

        They are told the first observation in AgentGym's form; ALFWorld's reads
        ``available_actions``.
        """
        task_id = fields.get("task_id")
        if task_id is None:
            task_id = self._tasks[self._index(fields)]
            reply = self.episodes.reset(_number(fields), task_id)
            return {**as_agentgym_tells(self.name, reply), "available_actions": []}
        if not isinstance(task_id, str):
            raise UsageError(f"'task_id' is a text, not {task_id!r}.")
        return self.episodes.reset(_number(fields), task_id)

    def words(self, fields: Fields) -> list[str]:
        """The words that a game of Wordle accepts."""
        return [*accepted_words(self.episodes.opening(_number(fields)))]

    def step(self, fields: Fields) -> dict[str, Any]:
        """Take one action."""
        reply = self.episodes.step(_number(fields), _text(fields, "action"))
        return {**reply, "available_actions": []}

    def observation(self, fields: Fields) -> str:
        """What was observed last."""
        return self.episodes.observation(_number(fields))

    def close(self, fields: Fields) -> bool:
        """Drop an environment."""
        self.episodes.close(_number(fields))
        return True

    def hello(self, fields: Fields) -> str:
        """A sign of life, as AgentGym's servers give it."""
        return f"This is environment {self.name}."

    def _index(self, fields: Fields) -> int:
        given = {name: fields[name] for name in _INDICES if name in fields}
        if not given:
            raise UsageError("'data_idx' is missing: the index of the task to start.")
        name, index = next(iter(given.items()))
        if isinstance(index, bool) or not isinstance(index, int):
            raise UsageError(f"'{name}' is the index of a task, a whole number, not {index!r}.")
        if not 0 <= index < self.indexed:
            raise UsageError(
                f"{self.name} has no task {index} here: '{name}' runs from 0 to {self.indexed - 1}."
            )
        return index


def make_app(served: Served) -> Starlette:
    """The web application of a served environment."""

    def route(path: str, verb: str, answer: Callable[[Fields], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                fields = await fields_of(request, _LARGEST_BODY)
                # Environments compute: in a thread, so that other episodes are not held up.
                reply = await run_in_threadpool(answer, fields)
            except (AtlasError, ResetNeeded) as error:
                reply = {"error": str(error)}
            except Exception as error:
                # A fault of ours ends one episode, not the server; the operator sees it too.
                say(f"{verb} {path} failed: {type(error).__name__}: {error}")
                reply = {"error": f"{type(error).__name__}: {error}"}
            # ASCII escapes carry lone surrogates, which an observation may hold.
            content = json.dumps(reply, ensure_ascii=True, allow_nan=False)
            return Response(content, media_type="application/json")

        return Route(path, endpoint, methods=[verb])

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(served.episodes))
        yield
        sweeping.cancel()

    routes = [
        route("/", "GET", served.hello),
        route("/about", "GET", served.about),
        route("/tasks", "POST", served.tasks),
    ]
    for root in {"", ROOTS.get(served.name, "")}:
        routes += [
            route(f"{root}/observation", "GET", served.observation),
            route(f"{root}/create", "POST", served.create),
            route(f"{root}/reset", "POST", served.reset),
            route(f"{root}/step", "POST", served.step),
            route(f"{root}/close", "POST", served.close),
        ]
    if served.name == "wordle":
        routes.append(route(f"{ROOTS['wordle']}/filtered_vocab", "GET", served.words))
    return Starlette(routes=routes, lifespan=lifespan)


async def _sweep(episodes: Episodes) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        await run_in_threadpool(episodes.drop_idle)


def _number(fields: Fields) -> int:
    """The number of the environment; a query holds it as text."""
    for name in ("id", "env_idx"):
        if name in fields:
            number = fields[name]
            if isinstance(number, str) and number.isascii() and number.isdigit():
                number = int(number[:20])
            if isinstance(number, int) and not isinstance(number, bool):
                return number
            raise UsageError(f"'{name}' is the number that /create gave, not {number!r}.")
    raise UsageError("'id' is missing: the number that /create gave.")


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise UsageError(f"'{name}' is missing, or is no text.")
    return value
