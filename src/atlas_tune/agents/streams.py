"""The random numbers of an episode, by name.

A policy that samples draws the numbers of one reply from (seed, stream, turn) and from nothing
else. So a reply does not depend on who else is in the batch or on the order of episodes, and a
rollout can be made again.

The stream is named by the episode's key up to ``#``: episodes ``7#a`` and ``7#b`` share their
random numbers. Two rollouts that differ in one step then differ by that step and not by luck
("common random numbers"). A turn is the number of assistant messages before it, so that two
such episodes draw the same numbers at the same turn wherever each of them started.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from atlas_tune.trajectory.messages import Message


def episode_key(stream: str, episode: str) -> str:
    """The key of an episode that draws from a stream.

    Args:
        stream: the name of its random numbers; holds no ``#``.
        episode: tells it from the other episodes of the stream.

    >>> episode_key("7", "a")
    '7#a'
    """
    return f"{stream}#{episode}"


def stream_of(key: str) -> str:
    """The stream from which an episode draws.

    >>> stream_of("7#a"), stream_of("7")
    ('7', '7')
    """
    return key.partition("#")[0]


def reply_seed(seed: int, key: str, messages: Sequence[Message]) -> int:
    """The seed of an episode's next reply: 63 bits, the same on every machine.

    Args:
        seed: the policy's.
        key: the episode's.
        messages: the conversation so far; its assistant messages are counted.
    """
    turn = sum(message["role"] == "assistant" for message in messages)
    return hashed(seed, stream_of(key), turn)


def hashed(*parts: object) -> int:
    """63 bits of a SHA-256 over the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
