"""What the journal gives out: values, read from its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_LARGEST_COUNT = 2**53
"""Beyond it a count of tokens is nonsense, and beyond 2**63 SQLite cannot hold it."""


def request_key(model: str, messages: Sequence[Mapping[str, Any]], params: Any) -> str:
    """SHA-256 of a request: equal questions to the same model with the same settings share it."""
    request = {"model": model, "messages": [dict(m) for m in messages], "params": params}
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class Stored:
    """The last answer to a request, as the server sent it. ``state`` is the request's.

    ``answers`` counts those kept under the key: an answer that was cut short has a second one.
    """

    key: str
    raw: str
    state: str
    finish_reason: str | None
    model: str | None
    usage: dict[str, Any]
    latency_s: float
    answers: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A call that left and whose answer nobody stored: it may have been paid for."""

    key: str
    sent_at: datetime
    owner: str
    is_asked_again: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that a server works on as one file. ``place`` is where, ``open`` the first state."""

    id: str
    place: str
    state: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What was asked and what came of it. Tokens count what servers reported, and that only."""

    by_state: dict[str, int] = field(default_factory=dict)
    """How many requests are in which state."""
    calls: int = 0
    """Requests that left, each time counted."""
    cached: int = 0
    """Answers that this process took from the journal instead of asking."""
    retried: int = 0
    """Calls after the first one of their request."""
    answered: int = 0
    failed: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    """Of all calls, failed ones too; so is ``completion_tokens``."""
    completion_tokens: int = 0
    failed_prompt_tokens: int = 0
    failed_completion_tokens: int = 0
    unmeasured: int = 0
    """Answered calls whose tokens the server did not report."""
    call_s: float = 0.0
    """Seconds of all calls added up; those side by side count each."""
    wall_s: float = 0.0
    """Seconds from the first call's start to the last one's end."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the columns of an attempt say of a server's text; anything odd in it is left out."""

    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int | None:
        """As reported; None where no sensible number is."""
        return _count(self.usage.get("prompt_tokens"))

    @property
    def completion_tokens(self) -> int | None:
        """As reported; None where no sensible number is."""
        return _count(self.usage.get("completion_tokens"))


def facts_of(raw: str) -> Facts:
    """The facts of any text at all: an answer that was paid for is stored whatever it holds."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return Facts()
    if not isinstance(document, dict):
        return Facts()
    model, usage, choices = (document.get(name) for name in ("model", "usage", "choices"))
    first = choices[0] if isinstance(choices, list) and choices else None
    finish = first.get("finish_reason") if isinstance(first, dict) else None
    return Facts(
        model if isinstance(model, str) else None,
        finish if isinstance(finish, str) else None,
        usage if isinstance(usage, dict) else {},
    )


def encodable(text: str | None) -> str | None:
    """A text that SQLite takes: halves of surrogate pairs, which JSON may carry, become ``?``."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _LARGEST_COUNT else None
