"""Trajectories as chat messages and back, without losing a byte.

A chat message is what chat templates take: ``{"role", "content"}`` and, where there are any,
``reasoning_content``, ``tool_calls`` and ``tool_call_id``. The observation that answers an agent
step is a ``user`` message in text environments and a ``tool`` message where it answers a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atlas_tune.trajectory.model import (
    Observation,
    ObservationResult,
    Source,
    Step,
    ToolCall,
    Trajectory,
)

Message = dict[str, Any]
_SOURCE: dict[str, Source] = {"system": "system", "user": "user", "assistant": "agent"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A trajectory as messages; ``step_ids[i]`` is the agent step of message i, else None.

    Copied context (a prefill, a demonstration) has None: it is not a step of the agent.
    """

    messages: tuple[Message, ...]
    step_ids: tuple[int | None, ...]


def to_messages(trajectory: Trajectory) -> Rendered:
    """The chat messages of a trajectory, in order."""
    messages: list[Message] = []
    step_ids: list[int | None] = []
    for step in trajectory.steps:
        own = step.source == "agent" and not step.is_copied_context
        messages.append(_message_of(step))
        step_ids.append(step.step_id if own else None)
        for result in step.observation.results if step.observation else ():
            messages.append(_observation_message(result))
            step_ids.append(None)
    return Rendered(tuple(messages), tuple(step_ids))


def _message_of(step: Step) -> Message:
    role = "assistant" if step.source == "agent" else step.source
    message: Message = {"role": role, "content": step.message}
    if step.reasoning_content is not None:
        message["reasoning_content"] = step.reasoning_content
    if step.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.function_name, "arguments": call.arguments},
            }
            for call in step.tool_calls
        ]
    return message


def _observation_message(result: ObservationResult) -> Message:
    if result.source_call_id is None:
        return {"role": "user", "content": result.content or ""}
    return {
        "role": "tool",
        "content": result.content or "",
        "tool_call_id": result.source_call_id,
    }


def from_messages(messages: Iterable[Message], copied: Sequence[bool] = ()) -> tuple[Step, ...]:
    """The steps of a list of chat messages; the inverse of :func:`to_messages`.

    What follows an agent's own step answers it: it becomes that step's observation. What follows
    anything else (another user message, a copied "OK.") is a step of the user.

    Args:
        messages: chat messages; arguments of tool calls as objects.
        copied: per message, whether an assistant message is copied context.

    Raises:
        ValueError: a role is not system, user, assistant or tool, or a tool message follows no
            agent step.
    """
    steps: list[Step] = []
    for index, message in enumerate(messages):
        role = message["role"]
        last = steps[-1] if steps else None
        if role == "tool":
            if last is None or last.source != "agent":
                raise ValueError(f"message {index} is a tool's answer, but no agent step is before")
            result = ObservationResult(message["content"], message.get("tool_call_id"))
            before = last.observation.results if last.observation else ()
            steps[-1] = replace(last, observation=Observation((*before, result)))
        elif role == "user" and last is not None and _awaits_answer(last):
            steps[-1] = replace(last, observation=Observation.of(message["content"]))
        elif role in _SOURCE:
            steps.append(
                Step(
                    step_id=len(steps) + 1,
                    source=_SOURCE[role],
                    message=message["content"],
                    reasoning_content=message.get("reasoning_content"),
                    tool_calls=tuple(_call_of(call) for call in message.get("tool_calls", ())),
                    is_copied_context=bool(copied[index]) if copied else False,
                )
            )
        else:
            raise ValueError(
                f"message {index} has role '{role}'; known: system, user, assistant, tool"
            )
    return tuple(steps)


def _awaits_answer(step: Step) -> bool:
    own = step.source == "agent" and not step.is_copied_context
    return own and step.observation is None and not step.tool_calls


def _call_of(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(call["id"], function["name"], function["arguments"])
