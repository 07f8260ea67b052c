"""How an agent acts in its replies: by a line ``Action:`` (ReAct), or by calling a tool.

Everything that differs between the two stands here, so that an episode is one and the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from atlas_tune.agents.policy import Policy
from atlas_tune.agents.react import REPLY_FORMAT, parse_turn
from atlas_tune.agents.tools import (
    TAKE_ACTION,
    TOOL_FORMAT,
    ToolPolicy,
    answers,
    parse_call,
    problem_text,
)
from atlas_tune.trajectory.messages import Message


@dataclass(frozen=True, slots=True)
class Read:
    """What was read from a reply: an action, or, where there is none, why."""

    action: str | None
    problem: str | None


class Style(Protocol):
    """A form of acting."""

    @property
    def reply_format(self) -> str:
        """What the agent is told of the form, after the environment's instruction."""
        ...

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """The tools that the agent has."""
        ...

    def ask(
        self, policy: Policy, conversations: Mapping[str, Sequence[Message]]
    ) -> dict[str, Message]:
        """A policy's next message in each conversation, by episode key."""
        ...

    def read(self, message: Message) -> Read:
        """The action of a reply."""
        ...

    def told(self, problem: str) -> str:
        """What the agent is told of a reply without a readable action."""
        ...

    def answers(self, message: Message, observation: str) -> list[Message]:
        """The messages that tell the agent what it observes after its reply."""
        ...


class ReActStyle:
    """The reply is a text with one ``Action:``, see :mod:`.react`."""

    reply_format = REPLY_FORMAT
    tools: tuple[dict[str, Any], ...] = ()

    def ask(
        self, policy: Policy, conversations: Mapping[str, Sequence[Message]]
    ) -> dict[str, Message]:
        """See :class:`Style`."""
        return {key: said(text) for key, text in policy.replies(conversations).items()}

    def read(self, message: Message) -> Read:
        """See :class:`Style`."""
        turn = parse_turn(str(message["content"]))
        return Read(turn.action, turn.problem)

    def told(self, problem: str) -> str:
        """See :class:`Style`."""
        return f"Error: {problem}.\n\n{REPLY_FORMAT}"

    def answers(self, message: Message, observation: str) -> list[Message]:
        """See :class:`Style`."""
        return [{"role": "user", "content": observation}]


class ToolStyle:
    """The reply calls the tool ``take_action``, see :mod:`.tools`; the policy needs ``turns``."""

    reply_format = TOOL_FORMAT
    tools: tuple[dict[str, Any], ...] = (TAKE_ACTION,)

    def ask(
        self, policy: Policy, conversations: Mapping[str, Sequence[Message]]
    ) -> dict[str, Message]:
        """See :class:`Style`."""
        return cast(ToolPolicy, policy).turns(conversations, self.tools)

    def read(self, message: Message) -> Read:
        """See :class:`Style`."""
        turn = parse_call(message)
        return Read(turn.action, turn.problem)

    def told(self, problem: str) -> str:
        """See :class:`Style`."""
        return problem_text(problem)

    def answers(self, message: Message, observation: str) -> list[Message]:
        """See :class:`Style`."""
        return answers(message, observation)


REACT: Style = ReActStyle()
TOOLS: Style = ToolStyle()


def said(text: str) -> Message:
    """The message of an agent that says a text and calls nothing."""
    return {"role": "assistant", "content": text}
