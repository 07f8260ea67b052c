"""How long the answer to a request may be, and how much longer it may be the second time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMITS = ("max_completion_tokens", "max_tokens")
"""The fields of a request that limit its answer; a server that knows both obeys the first."""

_ENLARGED = 2
_WORTH_ASKING = 1.25
"""A second answer is paid for like the first; for a few tokens more it would end like it too."""


def answer_limit(body: Mapping[str, Any]) -> int | None:
    """The most tokens that a request lets its answer have; None where it sets no limit."""
    for name in LIMITS:
        limit = body.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            answers = body.get("n")
            return limit * (answers if isinstance(answers, int) and answers > 1 else 1)
    return None


def enlarged(params: Mapping[str, Any], most: int | None = None) -> dict[str, int]:
    """The limits of a request whose answer was cut short, for the one time it is asked again.

    Each is doubled, and is at most ``most``. Where it sets no limit, or where ``most`` leaves
    less than a quarter more, there is nothing to be gained, and nothing is returned.

    >>> enlarged({"max_tokens": 100}), enlarged({"max_tokens": 100}, 150)
    ({'max_tokens': 200}, {'max_tokens': 150})
    >>> enlarged({"max_tokens": 100}, 120), enlarged({"temperature": 0})
    ({}, {})
    """
    limits = {name: params[name] for name in LIMITS if params.get(name)}
    larger = {
        name: _ENLARGED * limit if most is None else min(_ENLARGED * limit, most)
        for name, limit in limits.items()
    }
    is_worth_it = all(larger[name] >= _WORTH_ASKING * limit for name, limit in limits.items())
    return larger if is_worth_it else {}
