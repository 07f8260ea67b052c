"""Turns by function calling: the agent acts by calling a tool instead of writing ``Action:``.

The other form beside :mod:`.react`. One tool, ``take_action``, stands for the whole environment,
whose instruction says which actions there are. A turn is one call; its answer is a ``tool``
message. What is wrong with a turn (no call, two calls, arguments that cannot be read) plays nothing
and is told to the agent as the observation, as ReAct does.

    {"role": "assistant", "content": "I need flint.", "tool_calls": [{"id": "call_1", "type":
     "function", "function": {"name": "take_action", "arguments": '{"action":"get 1 flint"}'}}]}
    {"role": "tool", "tool_call_id": "call_1", "content": "Got 1 flint"}

Such messages are what ``trajectory.messages`` reads and writes, so a rollout becomes a trajectory
with tool calls by ``from_messages``, and the tools stand under the agent's ``tool_definitions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atlas_tune.trajectory.canonical import plain_json
from atlas_tune.trajectory.messages import Message, read_arguments

TOOL_FORMAT = (
    "Say in a sentence what you think, and act by calling the tool take_action, "
    "with exactly one action at a time."
)
"""Takes the place of ReAct's ``REPLY_FORMAT`` after the environment's instruction."""

TAKE_ACTION: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "take_action",
        "description": "Take one action in the environment; the answer is what you then observe.",
        "parameters": {
            "type": "object",
            "properties": {
                "action": {
                    "type": "string",
                    "description": "The action, in the words that the instruction gives.",
                }
            },
            "required": ["action"],
            "additionalProperties": False,
        },
    },
}
"""The tool, as chat servers and chat templates take it."""

_LONGEST_QUOTE = 200


class ToolPolicy(Protocol):
    """A policy whose replies may call tools."""

    def turns(
        self,
        conversations: Mapping[str, Sequence[Message]],
        tools: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Message]:
        """The next assistant message of each conversation, by episode key."""
        ...


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """A parsed turn. ``action`` is None where none could be read; ``problem`` then says why."""

    thought: str
    action: str | None
    problem: str | None = None


def format_call(thought: str, action: str, call_id: str) -> Message:
    """The message of a turn, as a model that calls ``take_action`` sends it."""
    function = {"name": _name(TAKE_ACTION), "arguments": _arguments_text({"action": action})}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": thought, "tool_calls": [call]}


def message_of(text: str, calls: Sequence[Mapping[str, Any]], turn: int) -> Message:
    """The assistant message of what a server answered, in the one form that all rooms read.

    Servers differ: an id may be missing, arguments may be an object. A missing id becomes
    ``call_<turn>``, with the call's number behind it from the second call on. Arguments become
    text.

    Args:
        text: what the model said beside its calls.
        calls: ``tool_calls`` as they came.
        turn: the agent's turns so far, this one included; it makes new ids unique in a run.
    """
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            _call_of(call, f"call_{turn}" + (f"_{number}" if number > 1 else ""))
            for number, call in enumerate(calls, start=1)
        ]
    return message


def parse_call(message: Message) -> ToolTurn:
    """Read a turn: exactly one call of ``take_action``, with a text under ``action``."""
    thought = str(message["content"] or "").strip()
    name = _name(TAKE_ACTION)
    calls = message.get("tool_calls") or []
    if not calls:
        return ToolTurn(thought, None, "the reply calls no tool")
    if len(calls) > 1:
        return ToolTurn(thought, None, f"the reply calls {len(calls)} tools at once")
    function = calls[0]["function"]
    if function["name"] != name:
        return ToolTurn(thought, None, f"there is no tool '{_quoted(function['name'])}'")
    arguments, _ = read_arguments(function["arguments"])
    action = arguments.get("action")
    if not isinstance(action, str) or not action.strip():
        said = _quoted(_arguments_text(function["arguments"]))
        return ToolTurn(
            thought, None, f'{name} needs {{"action": "…"}} as its arguments, and these were {said}'
        )
    return ToolTurn(thought, action.strip())


def problem_text(problem: str) -> str:
    """What the agent is told of a turn that could not be read."""
    return f"Error: {problem}.\n\n{TOOL_FORMAT}"


def answers(message: Message, observation: str) -> list[Message]:
    """The messages that tell the agent an observation, or a problem, after its turn.

    Every call has to be answered, or servers refuse the next request; of several, none of which
    was played, each gets the same. A turn without a call is answered by the user.
    """
    calls = message.get("tool_calls") or []
    if not calls:
        return [{"role": "user", "content": observation}]
    return [{"role": "tool", "tool_call_id": c["id"], "content": observation} for c in calls]


def sendable(messages: Sequence[Message]) -> list[Message]:
    """The messages as servers accept them back.

    Their templates parse the arguments of earlier calls and fail on what is no JSON object. The
    agent's mistake was quoted to it in the answer, so an empty object stands in its place.
    """
    return [
        {**message, "tool_calls": [_sendable_call(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _sendable_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments, unread = read_arguments(function["arguments"])
    text = unread if unread is not None and arguments else _arguments_text(arguments)
    return {**call, "function": {**function, "arguments": text}}


def _call_of(call: Mapping[str, Any], new_id: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping):
        function = {}
    arguments = function.get("arguments", "")
    text = _arguments_text(arguments)
    call_id = call.get("id")
    return {
        "id": call_id if isinstance(call_id, str) and call_id else new_id,
        "type": "function",
        "function": {"name": str(function.get("name") or ""), "arguments": text},
    }


def _arguments_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else plain_json(arguments)


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])
