"""What a policy's replies took: calls, tokens, money."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from atlas_tune.llm import ChatAnswer
from atlas_tune.llm.record import Facts
from atlas_tune.llm.spending import Spending


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over replies. Tokens count what the server reported, and that only."""

    calls: int = 0
    """Replies that the server gave; refusals and retries are not among them."""
    cached: int = 0
    """Replies that came from the journal, for which nothing was paid now."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmeasured: int = 0
    """Replies for which the server reported no tokens."""
    cut_short: int = 0
    """Replies that ended at their limit of tokens, those from the journal included."""
    too_long: int = 0
    """Times that the server refused a conversation as longer than its context."""
    spent_usd: float | None = None
    """What it cost; None where the model has no known price."""


class UsageCount:
    """Counts the replies of one model, for all policies that share it; thread-safe."""

    def __init__(self, spending: Spending | None = None) -> None:
        """``spending`` is where the client counts money; None where no price is known."""
        self._usage = Usage()
        self._spending = spending
        self._lock = threading.Lock()

    @property
    def total(self) -> Usage:
        """The sums so far."""
        with self._lock:
            spent = None if self._spending is None else self._spending.spent_usd
            return replace(self._usage, spent_usd=spent)

    def answered(self, answer: ChatAnswer) -> None:
        """Count a reply."""
        facts = Facts(usage=answer.usage)
        prompt, completion = facts.prompt_tokens, facts.completion_tokens
        is_new = not answer.cached
        with self._lock:
            was = self._usage
            self._usage = replace(
                was,
                calls=was.calls + is_new,
                cached=was.cached + answer.cached,
                prompt_tokens=was.prompt_tokens + is_new * (prompt or 0),
                completion_tokens=was.completion_tokens + is_new * (completion or 0),
                unmeasured=was.unmeasured + (is_new and None in (prompt, completion)),
                cut_short=was.cut_short + (answer.finish_reason == "length"),
            )

    def refused_as_too_long(self) -> None:
        """Count a refusal."""
        with self._lock:
            self._usage = replace(self._usage, too_long=self._usage.too_long + 1)
