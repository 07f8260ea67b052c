"""ReAct turns: one thought and one action in plain text, in AgentGym's form.

Thought:
I need flint, so I try to get it.

Action:
get 1 flint
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REPLY_FORMAT = """Answer in this form:

Thought:
<your thought>

Action:
<your action>"""

_ACTION = re.compile(r"Action:\s*([^\n]*)")


@dataclass(frozen=True, slots=True)
class ReActTurn:
    """A parsed turn. ``action`` is None where none could be read; ``problem`` then says why."""

    thought: str
    action: str | None
    problem: str | None = None


def format_turn(thought: str, action: str) -> str:
    """The text of a turn, as AgentGym's data write it."""
    return f"Thought:\n{thought}\n\nAction:\n{action}"


def parse_turn(text: str) -> ReActTurn:
    """Read a turn as AgentGym's controller does: exactly one ``Action:``, one line of action.

    The action may stand on the line of ``Action:`` or on the next one.
    """
    head, marker, _ = text.partition("Action:")
    thought = head.strip().removeprefix("Thought:").strip()
    if not marker:
        return ReActTurn(thought, None, "the reply holds no 'Action:'")
    if text.count("Action:") > 1:
        return ReActTurn(thought, None, "the reply holds more than one 'Action:'")
    match = _ACTION.search(text)
    action = match.group(1).strip() if match else ""
    if not action:
        return ReActTurn(thought, None, "nothing stands after 'Action:'")
    return ReActTurn(thought, action)
