"""What a policy is: something that answers conversations with text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from atlas_tune.trajectory.messages import Message


class Policy(Protocol):
    """Answers many running episodes at once.

    A policy may keep state per episode (a key-value cache) between calls, under the episode's
    key. An episode that is missing from a call has ended.
    """

    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The next assistant message of each conversation, by episode key."""
        ...
