"""An environment that runs on one of AgentGym's servers, or on one of ours."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import gymnasium

from atlas_tune.environments.agentgym.address import Address
from atlas_tune.environments.agentgym.indices import parse_indices
from atlas_tune.environments.agentgym.remote import Remote, Seat, remote_at
from atlas_tune.environments.base import EnvironmentLost, Expert, TextEnv
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError, nearest


class AgentGymEnv(TextEnv):
    """The environment "agentgym:<dialect>@http://host:port".

    A server reports the reward so far (a run's reward is its last one, arXiv 2406.04151), so the
    reward of a step is what it adds to that; their sum is AgentGym's reward of the run.
    ``info["success"]`` is AgentGym's rule (:meth:`Dialect.is_success`), ``info["valid"]`` is told
    by how observations begin that refuse an action; our own server tells both. A step that finds
    the server dead raises :class:`EnvironmentLost`.

    AgentGym's servers decide what an index means, so that a task id names the same task only on
    servers of the same version.
    """

    def __init__(self, address: Address) -> None:
        """Nothing is sent yet, except that our own server is asked what it serves.

        Raises:
            AtlasError: our own server does not answer, or is none.
        """
        super().__init__()
        self._remote: Remote = remote_at(address)
        dialect = self._dialect = address.dialect
        about = self._about() if dialect.ours else {}
        # Class variables elsewhere; here each server has its own.
        self.name = address.name  # type: ignore[misc]
        self.instruction = about.get("instruction", dialect.instruction)  # type: ignore[misc]
        self.max_steps = about.get("max_steps", dialect.max_steps)  # type: ignore[misc]
        self.metric = about.get("metric", dialect.metric)  # type: ignore[misc]
        self.splits = tuple(about.get("splits", ("train", "test")))  # type: ignore[misc]
        self._seat: Seat | None = None
        self._return_seat: Callable[[], object] = _nothing
        self._reward = 0.0

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """Task ids of a split, "babyai_41" as AgentGym names them.

        AgentGym's servers list no tasks. The option ``indices`` names them: "0-199", "3,7-9", a
        number or a list of numbers. Without it the split must be one whose indices AgentGym's
        code tells (alfworld, sqlgym, maze). Our own server lists its tasks and takes the options
        of the environment that it serves.

        Raises:
            UsageError: no such split or option, or the indices are not known.
            AtlasError: our own server does not answer.
        """
        self.check_split(split)
        if self._dialect.ours:
            reply = self._remote.ask("POST", "/tasks", {"split": split, "options": options})
            return [str(task) for task in self._field(reply, "tasks", list)]
        for option in options:
            if option != "indices":
                raise UsageError(
                    f"{self.name} has no task option '{option}': {nearest(option, ['indices'])}"
                )
        known = self._dialect.ranges.get(split)
        if "indices" not in options and known is None:
            raise UsageError(
                f"AgentGym's server '{self._dialect.name}' does not tell which tasks its split "
                f"'{split}' has: name them with the option indices, for example 0-199."
            )
        indices = parse_indices(options["indices"]) if "indices" in options else known or ()
        return [self._dialect.task_id(index) for index in indices]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``; ``seed`` has no say.

        Raises:
            UsageError: no ``task_id``, or one of another dialect.
            AtlasError: the server does not answer, or says that there is no such task.
            EnvironmentLost: it answered before, and is gone.
        """
        task_id = (options or {}).get("task_id")
        if not isinstance(task_id, str):
            raise UsageError(f"{self.name} starts a named task: give reset a task_id.")
        dialect = self._dialect
        task = task_id if dialect.ours else dialect.index_of(task_id)
        seat = self._seat = self._seat or self._take()
        reply = self._post("/reset", {**dialect.reset, dialect.task: task})
        self._reward = 0.0
        if dialect.asks_observation:
            observation = self._get("/observation")
        else:
            observation = self._field(reply, dialect.observation, str)
        if not isinstance(observation, str):
            self._misunderstood("observation", observation)
        if dialect.broken_reset is not None and observation == dialect.broken_reset:
            self._remote.drop(seat)
            self._seat = None
            raise EnvironmentLost(f"{self.name} could not start the task {task_id}: {observation}.")
        return self._opening(observation, reply), {"success": False, "valid": True}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send one action, worded as the dialect wants it.

        Raises:
            EnvironmentLost: the server died or dropped the episode; the task can start again.
            AtlasError: the server says what is wrong, or speaks another dialect.
        """
        if self._seat is None:
            raise gymnasium.error.ResetNeeded(f"{self.name} has no running task: call reset first.")
        dialect = self._dialect
        reply = self._post("/step", {"action": dialect.said(action)}, repeatable=False)
        observation: str = self._field(reply, dialect.observation, str)
        ended = any(self._field(reply, name, bool) for name in dialect.done)
        total = self._total(reply) if ended or not dialect.pays_at_end else self._reward
        reward, self._reward = total - self._reward, total
        info = {
            "success": bool(reply.get("success", dialect.is_success(total, ended))),
            "valid": bool(reply.get("valid", not dialect.is_refusal(observation))),
        }
        if ended:
            self._leave()
        return observation, reward, ended, False, info

    def expert(self, seed: int = 0, habits: Habits | None = None) -> Expert:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.name} has no expert: a server knows no solution. Import recorded runs instead."
        )

    def close(self) -> None:
        """Give the remote environment back; other episodes of this process use it again."""
        self._leave()

    def _take(self) -> Seat:
        seat = self._remote.take()
        # Nobody closes the environments of a rollout: they are given back when they are gone.
        self._return_seat = weakref.finalize(self, self._remote.give_back, seat)
        return seat

    def _leave(self) -> None:
        self._seat = None
        self._return_seat()
        self._return_seat = _nothing

    def _post(self, path: str, fields: Mapping[str, Any], *, repeatable: bool = True) -> Any:
        return self._ask("POST", path, fields, repeatable)

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, {}, True)

    def _ask(self, verb: Any, path: str, fields: Mapping[str, Any], repeatable: bool) -> Any:
        """Ask about this episode's remote environment."""
        seat = self._seat
        assert seat is not None
        named = {self._dialect.episode: seat.number, **fields}
        try:
            return self._remote.ask(verb, path, named, seat=seat, repeatable=repeatable)
        except EnvironmentLost:
            self._leave()
            raise

    def _about(self) -> dict[str, Any]:
        about = self._remote.ask("GET", "/about", {})
        for key, kind in (("instruction", str), ("max_steps", int), ("metric", str)):
            self._field(about, key, kind)
        self._field(about, "splits", list)
        return dict(about)

    def _opening(self, observation: str, reply: Any) -> str:
        """The first observation, with what AgentGym's client puts before and after it."""
        dialect = self._dialect
        if dialect.preface is not None:
            observation = f"{self._field(reply, dialect.preface, str)}\n{observation}"
        if dialect.choices is not None:
            choices = self._field(reply, dialect.choices, list)
            observation += f"\nAVAILABLE ACTIONS: {','.join(map(str, choices))}"
        if dialect.vocabulary is not None:
            words = self._get(dialect.vocabulary)
            if not isinstance(words, list):
                self._misunderstood(dialect.vocabulary, words)
            observation += "\nWords that may be guessed:\n" + "\n".join(map(str, words))
        return observation

    def _total(self, reply: Any) -> float:
        value = self._field(reply, self._dialect.reward, (int, float))
        if not math.isfinite(value):
            self._misunderstood(self._dialect.reward, value)
        return float(value)

    def _field(self, reply: Any, key: str, kind: type | tuple[type, ...]) -> Any:
        value = reply.get(key) if isinstance(reply, dict) else None
        if not isinstance(value, kind):
            self._misunderstood(key, reply)
        return value

    def _misunderstood(self, key: str, reply: Any) -> NoReturn:
        raise AtlasError(
            f"{self._remote.address.url} answered without a usable '{key}': {str(reply)[:300]} - "
            f"does this server speak the dialect '{self._dialect.name}'?"
        )


def _nothing() -> None:
    """No seat is lent, so none is given back."""
