"""Reading the ATIF document that :func:`atlas_tune.trajectory.model.dump_trajectory` writes.

Strict on purpose: a field that is unknown here would be lost, so it is refused by name.
"""

from __future__ import annotations

from typing import Any, get_args

from atlas_tune.trajectory.model import (
    InvalidTrajectory,
    Observation,
    ObservationResult,
    Source,
    Step,
    ToolCall,
    Trajectory,
    check_steps,
    content_id,
)

_SOURCES = get_args(Source)


def parse_trajectory(record: Any) -> Trajectory:
    """The trajectory of an ATIF document that ``dump_trajectory`` wrote.

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
    check_steps(trajectory)
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
