"""Trajectories: the one form in which atlas-tune holds what an agent did.

The shape is ATIF 1.8 (Agent Trajectory Interchange Format, Harbor RFC 0001): a list of steps
from ``system``, ``user`` or ``agent``; an agent step holds the message (thought and action,
verbatim), optional ``reasoning_content`` and ``tool_calls``, and the ``observation`` that
answered it. What ATIF leaves open stands under ``extra``: ``environment``, ``task_id`` and
``outcome``. Everything is frozen; a changed trajectory is a new one with a new id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from atlas_tune.errors import AtlasError

SCHEMA_VERSION = "ATIF-v1.8"
Source = Literal["system", "user", "agent"]
_SOURCES = ("system", "user", "agent")


class InvalidTrajectory(AtlasError):
    """A record that is not a trajectory; the message names the field."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. ``arguments`` is the parsed JSON object."""

    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ObservationResult:
    """One answer of the environment; ``source_call_id`` names the tool call it answers."""

    content: str | None
    source_call_id: str | None = None


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its reward (the environment's own scale) and whether it succeeded."""

    reward: float | None = None
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One run of an agent on one task.

    ``trajectory_id`` is the SHA-256 of the canonical JSON of everything else: build it with
    :meth:`create`, which computes the id, or :func:`parse_trajectory`, which checks it.
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
        draft = cls(trajectory_id="", steps=steps, extra=merged or None, **fields)
        _check_steps(draft)
        return replace(draft, trajectory_id=content_id(draft))

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
    def agent_steps(self) -> tuple[Step, ...]:
        """The T steps that the expert took: the unit that is labelled and trained."""
        return tuple(s for s in self.steps if s.source == "agent" and not s.is_copied_context)


def content_id(trajectory: Trajectory) -> str:
    """SHA-256 of the canonical JSON of everything but the id itself."""
    record = dump_trajectory(trajectory)
    record.pop("trajectory_id", None)
    return hashlib.sha256(canonical_json(record).encode("ascii")).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and ASCII escapes: equal values give equal bytes.

    ASCII escapes also keep lone surrogates, which UTF-8 cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


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
                _without_none({"source_call_id": r.source_call_id, "content": r.content})
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
                {
                    "tool_call_id": c.tool_call_id,
                    "function_name": c.function_name,
                    "arguments": c.arguments,
                }
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


def parse_trajectory(record: Any) -> Trajectory:
    """The trajectory of an ATIF document that :func:`dump_trajectory` wrote.

    Raises:
        InvalidTrajectory: a field is missing, unknown or of the wrong type, or the content does
            not match its ``trajectory_id``.
    """
    if not isinstance(record, dict):
        raise InvalidTrajectory(f"a trajectory is a JSON object, found {_kind(record)}")
    _only_known(
        record,
        "trajectory",
        "schema_version trajectory_id session_id agent steps notes final_metrics extra",
    )
    steps = _typed(record, "steps", list, "trajectory", required=True)
    trajectory = Trajectory(
        trajectory_id=_typed(record, "trajectory_id", str, "trajectory", required=True),
        steps=tuple(_parse_step(step, index) for index, step in enumerate(steps, start=1)),
        agent=_typed(record, "agent", dict, "trajectory", required=True),
        session_id=_typed(record, "session_id", str, "trajectory"),
        notes=_typed(record, "notes", str, "trajectory"),
        final_metrics=_typed(record, "final_metrics", dict, "trajectory"),
        extra=_typed(record, "extra", dict, "trajectory"),
        schema_version=_typed(record, "schema_version", str, "trajectory", required=True),
    )
    _check_steps(trajectory)
    if content_id(trajectory) != trajectory.trajectory_id:
        raise InvalidTrajectory(
            f"the content does not match trajectory_id {trajectory.trajectory_id[:12]}…: it was "
            "edited after it was written, so its labels no longer apply; import it again"
        )
    return trajectory


def _parse_step(record: Any, index: int) -> Step:
    where = f"step {index}"
    if not isinstance(record, dict):
        raise InvalidTrajectory(f"{where} is {_kind(record)}, not a JSON object")
    _only_known(
        record,
        where,
        "step_id timestamp source model_name message reasoning_content tool_calls observation "
        "metrics is_copied_context extra",
    )
    source = _typed(record, "source", str, where, required=True)
    if source not in _SOURCES:
        raise InvalidTrajectory(f"{where} has source '{source}'; known: {', '.join(_SOURCES)}")
    return Step(
        step_id=_typed(record, "step_id", int, where, required=True),
        source=source,
        message=_typed(record, "message", str, where, required=True),
        reasoning_content=_typed(record, "reasoning_content", str, where),
        tool_calls=tuple(
            _parse_call(call, where) for call in _typed(record, "tool_calls", list, where) or ()
        ),
        observation=_parse_observation(_typed(record, "observation", dict, where), where),
        is_copied_context=bool(_typed(record, "is_copied_context", bool, where)),
        timestamp=_typed(record, "timestamp", str, where),
        model_name=_typed(record, "model_name", str, where),
        metrics=_typed(record, "metrics", dict, where),
        extra=_typed(record, "extra", dict, where),
    )


def _parse_call(record: Any, where: str) -> ToolCall:
    if not isinstance(record, dict):
        raise InvalidTrajectory(f"{where} has a tool call that is {_kind(record)}")
    _only_known(record, f"{where}, tool call", "tool_call_id function_name arguments")
    return ToolCall(
        _typed(record, "tool_call_id", str, f"{where}, tool call", required=True),
        _typed(record, "function_name", str, f"{where}, tool call", required=True),
        _typed(record, "arguments", dict, f"{where}, tool call", required=True),
    )


def _parse_observation(record: dict[str, Any] | None, where: str) -> Observation | None:
    if record is None:
        return None
    results = _typed(record, "results", list, f"{where}, observation", required=True)
    parsed = []
    for result in results:
        if not isinstance(result, dict):
            raise InvalidTrajectory(f"{where} has an observation result that is {_kind(result)}")
        _only_known(result, f"{where}, observation result", "source_call_id content")
        parsed.append(
            ObservationResult(
                _typed(result, "content", str, f"{where}, observation result"),
                _typed(result, "source_call_id", str, f"{where}, observation result"),
            )
        )
    return Observation(tuple(parsed))


def _check_steps(trajectory: Trajectory) -> None:
    ids = [step.step_id for step in trajectory.steps]
    if ids != list(range(1, len(ids) + 1)):
        raise InvalidTrajectory(f"steps must be numbered 1..{len(ids)} in order, found {ids[:10]}")
    if not trajectory.agent_steps:
        raise InvalidTrajectory(
            "no agent step to learn from: every step is from the user or the system, "
            "or is marked as copied context"
        )


def _typed(
    record: dict[str, Any], key: str, kind: type, where: str, *, required: bool = False
) -> Any:
    value = record.get(key)
    if value is None:
        if required:
            raise InvalidTrajectory(f"{where} has no '{key}'")
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidTrajectory(f"{where} has '{key}' as {_kind(value)}, not {kind.__name__}")
    return value


def _only_known(record: dict[str, Any], where: str, known: str) -> None:
    unknown = sorted(set(record) - set(known.split()))
    if unknown:
        raise InvalidTrajectory(f"{where} has unknown field '{unknown[0]}'; known: {known}")


def _kind(value: Any) -> str:
    return type(value).__name__
