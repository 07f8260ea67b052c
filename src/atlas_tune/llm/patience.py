"""How long to wait before asking a server again."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def asked_wait(retry_after: str | None) -> float | None:
    """The seconds that a ``Retry-After`` header asks for: a number or an HTTP date (RFC 9110).

    >>> asked_wait("2.5")
    2.5
    >>> asked_wait("soon") is None
    True
    """
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def backoff(attempt: int, first: float, longest: float) -> float:
    """The wait after failed attempt ``attempt`` (from 0): doubling, jittered downwards by half.

    The jitter keeps many workers that failed together from coming back together.
    """
    return min(longest, first * 2.0**attempt) * random.uniform(0.5, 1.0)
