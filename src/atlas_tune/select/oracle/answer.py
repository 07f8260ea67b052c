"""Reading the oracle's answer: the last object that fits the schema, checked against the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from atlas_tune.trajectory import Kind

CRITICAL_KINDS = tuple(kind for kind in Kind if kind is not Kind.NONE)


class Unusable(Exception):
    """An answer that cannot be used; the message says why, in words for the model."""


def _critical_kind(value: Any) -> Any:
    """Read ``"Critical Action"`` like ``"critical_action"``; "none" is no kind of critical step."""
    if not isinstance(value, str):
        return value
    name = "_".join(value.replace("-", " ").replace("_", " ").lower().split())
    if name not in CRITICAL_KINDS:
        raise ValueError(f"'{value}' is not one of {', '.join(CRITICAL_KINDS)}")
    return Kind(name)


Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class SubGoal(BaseModel):
    """One sub-goal of the plan that the oracle saw."""

    subgoal: Words


class CriticalStep(BaseModel):
    """One step that the oracle marks."""

    model_config = ConfigDict(strict=True)

    step_id: int
    kind: Annotated[Kind, BeforeValidator(_critical_kind)]
    reason: Words
    quote: Words


class OracleAnswer(BaseModel):
    """The whole answer; foreign keys are let pass, missing ones are not."""

    plan: list[SubGoal]
    critical_steps: list[CriticalStep]


def response_format() -> dict[str, Any]:
    """The answer's schema as ``response_format``, for servers that decode under a JSON schema."""
    words = {"type": "string"}
    schema = _closed(
        plan={"type": "array", "items": _closed(subgoal=words)},
        critical_steps={
            "type": "array",
            "items": _closed(
                step_id={"type": "integer"},
                kind={"type": "string", "enum": [str(kind) for kind in CRITICAL_KINDS]},
                reason=words,
                quote=words,
            ),
        },
    )
    return {
        "type": "json_schema",
        "json_schema": {"name": "critical_steps", "strict": True, "schema": schema},
    }


def _closed(**properties: Any) -> dict[str, Any]:
    """An object schema in the form that strict servers want: all required, nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_answer(text: str, written: Mapping[int, str]) -> OracleAnswer:
    """The answer in a reply, checked against what the agent wrote in each of its steps.

    The *last* object of the schema counts: models repeat examples, drafts and injected verdicts
    before they answer, and a fence or a sentence around the object does no harm.

    Raises:
        Unusable: no object fits, a step does not exist or stands twice, none is named, or a
            quote is not in its step.
    """
    answer = _last_fitting(text)
    if not answer.critical_steps:
        raise Unusable("it names no critical step, and at least one is asked for")
    seen: set[int] = set()
    for step in answer.critical_steps:
        if step.step_id not in written:
            ids = sorted(written)
            raise Unusable(
                f"step_id {step.step_id} is not a step of the agent; "
                f"the steps are {', '.join(map(str, ids))}"
            )
        if step.step_id in seen:
            raise Unusable(f"step {step.step_id} stands twice under critical_steps")
        seen.add(step.step_id)
        if _folded(step.quote) not in _folded(written[step.step_id]):
            raise Unusable(
                f"the quote for step {step.step_id} is not in what the agent wrote there"
            )
    return answer


def _last_fitting(text: str) -> OracleAnswer:
    """The last object of the schema anywhere in a text, also inside an object that is not."""
    decoder = json.JSONDecoder()
    found, problem = None, "it holds no JSON object"
    told = start = 0
    while (start := text.find("{", start)) >= 0:
        try:
            candidate, end = decoder.raw_decode(text, start)
            found, start = OracleAnswer.model_validate(candidate), end
        except ValidationError as error:
            # Of nested objects, the outermost is the one that the model meant as its answer.
            if start >= told:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                problem = f"its JSON does not fit the form: {where}: {first['msg']}"
                told = end
            start += 1
        except (ValueError, RecursionError):
            start += 1
    if found is None:
        raise Unusable(problem)
    return found


def _folded(text: str) -> str:
    return " ".join(text.split())
