"""What a policy sees of a conversation that is longer than its model's context.

The oldest observations are left out first, each in the open: a short note stands in its place.
The opening (the instruction, the prefill, the first observation with the goal) stays, and so do
the agent's own words and the last observation. This is a choice of ours; the paper's runs fit.

Leaving out changes the past, and a changed past has to be read anew by a model that keeps its keys
and values. So observations go in chunks: none while the conversation fits, and then as many as it
takes to come down to three quarters of the room. What was left out once stays left out.

What is seen is a function of the conversation alone: one that is shown turn by turn and one that
is shown at once, as after a resume, are shortened alike. That holds for counters by which a
conversation never becomes shorter as it goes on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from atlas_tune.trajectory.messages import Message

LEFT_OUT = "[observation left out: the history is longer than the model's context]"
"""What stands in the place of an observation that is left out."""

KEPT_SHARE = Fraction(3, 4)
"""How much of the room is filled at most after observations were left out."""

Overlong: TypeAlias = Literal["drop", "refuse"]
"""What is done with a conversation that is too long: leave observations out, or refuse it."""

CountTokens: TypeAlias = Callable[[Sequence[Message]], int]
"""The tokens of a conversation as the model would read it."""


def opening_length(messages: Sequence[Message]) -> int:
    """How many messages stand before the agent's first own turn.

    An assistant message that is the second one of all is taken for a prefill ("OK."), as rollouts
    begin. Where it is the agent's first turn, the observation after it is kept as well: one
    observation too many does less harm than a goal too few.
    """
    said = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    if said and said[0] < 2:
        said = said[1:]
    return said[0] if said else len(messages)


def old_observations(messages: Sequence[Message]) -> list[int]:
    """The places of the messages that may be left out, oldest first.

    Those are what users and tools said between the opening and the agent's last turn. One that is
    no longer than the note in its place would gain nothing, and stays.
    """
    own = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    return [
        at
        for at in range(opening_length(messages), own[-1] if own else 0)
        if messages[at]["role"] in ("user", "tool")
        and len(messages[at]["content"] or "") > len(LEFT_OUT)
    ]


def without_oldest(messages: Sequence[Message], number: int) -> list[Message]:
    """The conversation with a note in the place of its ``number`` oldest observations.

    >>> roles = ["user", "assistant"] * 4
    >>> said = [{"role": role, "content": c * 99} for role, c in zip(roles, "abcdefgh")]
    >>> [message["content"][0] for message in without_oldest(said, 1)]
    ['a', 'b', 'c', 'd', '[', 'f', 'g', 'h']
    """
    gone = set(old_observations(messages)[:number])
    return [
        {**message, "content": LEFT_OUT} if at in gone else message
        for at, message in enumerate(messages)
    ]


def number_to_leave_out(
    messages: Sequence[Message], count: CountTokens, room: int, before: int = 0
) -> int:
    """How many of the oldest observations are left out for the next reply.

    ``before`` while the conversation then fits into ``room``; else the least number above it with
    which three quarters of the room are enough, and all where none is.

    Args:
        messages: the conversation, with nothing left out.
        count: counts tokens.
        room: the most tokens that the conversation may have.
        before: how many were left out for the reply before.
    """
    if count(without_oldest(messages, before)) <= room:
        return before
    every = len(old_observations(messages))
    numbers = range(before, every)
    enough = bisect_left(
        numbers,
        True,
        key=lambda number: count(without_oldest(messages, number)) <= room * KEPT_SHARE,
    )
    return before + enough


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far an episode had come when it was last shown."""

    messages: tuple[Message, ...]
    left_out: int
    room: int | None


class History:
    """The conversations of running episodes as a model may read them.

    What it remembers of an episode only saves work, with one exception: :meth:`refused` makes an
    episode's room smaller for the rest of it.
    """

    def __init__(self, count: CountTokens, room: int | None) -> None:
        """``room`` is the most tokens that a conversation may have; None shortens none unasked."""
        self._count = count
        self._room = room
        self._seen: dict[str, _Seen] = {}

    def keep(self, keys: Collection[str]) -> None:
        """Forget all other episodes."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}

    def shown(self, key: str, messages: Sequence[Message]) -> list[Message]:
        """What is seen of an episode's conversation; still too long where nothing more can go."""
        seen = self._known(key, messages)
        room, number = seen.room, seen.left_out
        if room is not None and (number or seen.room != self._room or self._count(messages) > room):
            for end in _turns(messages, len(seen.messages)):
                number = number_to_leave_out(messages[:end], self._count, room, number)
        self._seen[key] = _Seen(tuple(messages), number, room)
        return without_oldest(messages, number)

    def refused(self, key: str, messages: Sequence[Message]) -> list[Message] | None:
        """What is seen after the model refused what was shown last; None where nothing can go.

        A counter may be an estimate and a context unknown. So the episode's room is from now on
        what was refused, less one, and by the same rule more is left out.
        """
        seen = self._known(key, messages)
        was = without_oldest(messages, seen.left_out)
        room = self._count(was) - 1
        number = number_to_leave_out(messages, self._count, room, seen.left_out)
        if number == seen.left_out:
            return None
        self._seen[key] = _Seen(tuple(messages), number, room)
        return without_oldest(messages, number)

    def _known(self, key: str, messages: Sequence[Message]) -> _Seen:
        """What is remembered of an episode, if this conversation goes on from it."""
        seen = self._seen.get(key)
        if seen is not None and tuple(messages[: len(seen.messages)]) == seen.messages:
            return seen
        return _Seen((), 0, self._room)


def _turns(messages: Sequence[Message], after: int) -> list[int]:
    """The lengths, above ``after``, that the conversation had whenever the agent was asked."""
    first = opening_length(messages)
    said = [
        at
        for at, message in enumerate(messages)
        if message["role"] == "assistant" and at >= max(first, after + 1)
    ]
    return [*said, len(messages)]
