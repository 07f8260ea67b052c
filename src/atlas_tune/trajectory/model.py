"""Trajectories: the one form in which atlas-tune holds what an agent did.

The shape is ATIF 1.8 (Agent Trajectory Interchange Format, Harbor RFC 0001): a list of steps
from ``system``, ``user`` or ``agent``; an agent step holds the message (thought and action,
verbatim), optional ``reasoning_content`` and ``tool_calls``, and the ``observation`` that
answered it. What ATIF leaves open stands under ``extra``: ``environment``, ``task_id`` and
``outcome``. Everything is frozen; a changed trajectory is a new one with a new id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.canonical import (
    Encode,
    canonical_json,
    is_in_order,
    json_in_order,
    steps_json,
)

SCHEMA_VERSION = "ATIF-v1.8"
Source = Literal["system", "user", "agent"]


class InvalidTrajectory(AtlasError):
    """A record that is not a trajectory; the message names the field."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. ``arguments`` is the parsed JSON object.

    ``extra["arguments"]`` is the text that the agent wrote, where it is not what
    ``messages.arguments_text`` gives of the object: other spacing, or no JSON object at all (then
    ``arguments`` is empty).
    """

    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ObservationResult:
    """One answer of the environment; ``source_call_id`` names the tool call it answers."""

    content: str | None
    source_call_id: str | None = None
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What answered an agent step: one result, or one for each tool call."""

    results: tuple[ObservationResult, ...]

    @property
    def text(self) -> str:
        """The contents of all results, one under the other."""
        return "\n".join(r.content for r in self.results if r.content is not None)

    @classmethod
    def of(cls, text: str) -> Observation:
        """The plain observation of a text environment."""
        return cls((ObservationResult(text),))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trajectory; ``step_id`` counts from 1 over all sources.

    ``is_copied_context`` marks an agent step that no expert took for this task (a prefilled
    "OK.", a demonstration): it is context, never trained and never labelled.
    """

    step_id: int
    source: Source
    message: str
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    observation: Observation | None = None
    is_copied_context: bool = False
    timestamp: str | None = None
    model_name: str | None = None
    metrics: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None

    @property
    def reward(self) -> float | None:
        """Its recorded reward: under ``metrics``, or their ``extra`` as in our own rollouts."""
        metrics = self.metrics or {}
        extra = metrics.get("extra")
        inner = extra.get("reward") if isinstance(extra, dict) else None
        for reward in (metrics.get("reward"), inner):
            if isinstance(reward, int | float) and not isinstance(reward, bool):
                return float(reward)
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its reward (the environment's own scale) and whether it succeeded."""

    reward: float | None = None
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One run of an agent on one task.

    ``trajectory_id`` is the SHA-256 of the canonical JSON of everything else: build it with
    :meth:`create`, which computes the id, or with ``parse_trajectory``, which checks it.
    """

    trajectory_id: str
    steps: tuple[Step, ...]
    agent: dict[str, Any] = field(default_factory=lambda: {"name": "unknown", "version": "unknown"})
    session_id: str | None = None
    notes: str | None = None
    final_metrics: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    schema_version: str = SCHEMA_VERSION

    @classmethod
    def create(
        cls,
        steps: tuple[Step, ...],
        *,
        environment: str | None = None,
        task_id: str | None = None,
        outcome: Outcome | None = None,
        extra: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Trajectory:
        """A new trajectory with its content id.

        Raises:
            InvalidTrajectory: the steps are not numbered 1..n, or none is an agent's own.
        """
        merged: dict[str, Any] = dict(extra or {})
        if environment is not None:
            merged["environment"] = environment
        if task_id is not None:
            merged["task_id"] = task_id
        if outcome is not None:
            merged["outcome"] = {"reward": outcome.reward, "success": outcome.success}
        trajectory = cls(trajectory_id="", steps=steps, extra=merged or None, **fields)
        check_steps(trajectory)
        written = steps_json(steps, canonical_json)
        # Nobody has seen it yet, so its id may still be filled in; a copy would take longer.
        object.__setattr__(trajectory, "trajectory_id", _id_of(trajectory, written))
        _latest[0] = (trajectory, written)
        return trajectory

    @property
    def environment(self) -> str | None:
        """The environment in which the run was made."""
        return (self.extra or {}).get("environment")

    @property
    def task_id(self) -> str | None:
        """The task, in the naming of its environment or of the data it came from."""
        return (self.extra or {}).get("task_id")

    @property
    def outcome(self) -> Outcome:
        """Reward and success; both None where the source did not keep them."""
        found = (self.extra or {}).get("outcome") or {}
        return Outcome(found.get("reward"), found.get("success"))

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """The definitions of the tools that the agent could call, as chat templates take them."""
        return self.agent.get("tool_definitions") or None

    @property
    def agent_steps(self) -> tuple[Step, ...]:
        """The T steps that the expert took: the unit that is labelled and trained."""
        return tuple(s for s in self.steps if s.source == "agent" and not s.is_copied_context)


def content_id(trajectory: Trajectory) -> str:
    """SHA-256 of the canonical JSON of everything but the id itself."""
    return _id_of(trajectory, steps_json(trajectory.steps, canonical_json))


def _id_of(trajectory: Trajectory, steps: str) -> str:
    content = hashlib.sha256(_head(trajectory, canonical_json).encode("ascii"))
    content.update(steps.encode("ascii"))
    content.update(b"}")
    return content.hexdigest()


_latest: list[tuple[Trajectory | None, str]] = [(None, "")]
"""The trajectory made last and its steps as JSON. Importing writes each one right after it is made,
and its steps would be put together a second time, a fifth of the whole work."""


def stored_json(trajectory: Trajectory) -> str:
    """The JSON text of a trajectory's document, as the store holds it: see :mod:`.canonical`."""
    latest, steps = _latest[0]
    if latest is not trajectory or not is_in_order(trajectory.steps):
        steps = steps_json(trajectory.steps, json_in_order)
    head = _head(trajectory, json_in_order)
    return f'{head}{steps},"trajectory_id":{canonical_json(trajectory.trajectory_id)}}}'


def _head(trajectory: Trajectory, encode: Encode) -> str:
    """The JSON text of a document up to its steps, which stand before the id."""
    fields = {
        "agent": trajectory.agent,
        "extra": trajectory.extra,
        "final_metrics": trajectory.final_metrics,
        "notes": trajectory.notes,
        "schema_version": trajectory.schema_version,
        "session_id": trajectory.session_id,
    }
    written = [f'"{key}":{encode(value)}' for key, value in fields.items() if value is not None]
    return "{" + ",".join(written) + ',"steps":'


def dump_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """The ATIF document of a trajectory, as plain JSON values; absent fields are left out."""
    return _without_none(
        {
            "schema_version": trajectory.schema_version,
            "trajectory_id": trajectory.trajectory_id,
            "session_id": trajectory.session_id,
            "agent": trajectory.agent,
            "steps": [_dump_step(s) for s in trajectory.steps],
            "notes": trajectory.notes,
            "final_metrics": trajectory.final_metrics,
            "extra": trajectory.extra,
        }
    )


def _dump_step(step: Step) -> dict[str, Any]:
    observation = None
    if step.observation is not None:
        observation = {
            "results": [
                _without_none(
                    {"source_call_id": r.source_call_id, "content": r.content, "extra": r.extra}
                )
                for r in step.observation.results
            ]
        }
    return _without_none(
        {
            "step_id": step.step_id,
            "timestamp": step.timestamp,
            "source": step.source,
            "model_name": step.model_name,
            "message": step.message,
            "reasoning_content": step.reasoning_content,
            "tool_calls": [
                _without_none(
                    {
                        "tool_call_id": c.tool_call_id,
                        "function_name": c.function_name,
                        "arguments": c.arguments,
                        "extra": c.extra,
                    }
                )
                for c in step.tool_calls
            ]
            or None,
            "observation": observation,
            "metrics": step.metrics,
            "is_copied_context": step.is_copied_context or None,
            "extra": step.extra,
        }
    )


def _without_none(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def check_steps(trajectory: Trajectory) -> None:
    """Raise InvalidTrajectory unless steps count from 1 and one of them is the agent's own."""
    is_own = False
    for number, step in enumerate(trajectory.steps, start=1):
        if step.step_id != number:
            ids = [step.step_id for step in trajectory.steps]
            raise InvalidTrajectory(
                f"steps must be numbered 1..{len(ids)} in order, found {ids[:10]}"
            )
        is_own = is_own or (step.source == "agent" and not step.is_copied_context)
    if not is_own:
        raise InvalidTrajectory(
            "no agent step to learn from: every step is from the user or the system, "
            "or is marked as copied context"
        )
